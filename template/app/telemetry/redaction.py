"""The one redactor: takes credentials and addresses out of everything that leaves as text."""

import re
from collections.abc import Callable, Iterable

MARK = "[redacted]"
# Credentials by their form: this service's keys, the providers', tokens in headers, e-mail. Each
# with what a text must hold, in lower case, to match: to search for that is many times faster.
PATTERNS = {
    r"[\w-]+_live_[0-9a-z]{10,}_\w{20,}": ["_live_"],
    r"\b(?:sk|hf|r8)[-_][A-Za-z0-9_-]{16,}": ["sk-", "sk_", "hf-", "hf_", "r8-", "r8_"],
    r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*": ["eyj"],
    r"(?i:\b(?:bearer|basic)\s+)[A-Za-z0-9+/=._~-]{8,}": ["bearer", "basic"],
    r"(?<=://)[^\s:/@]+:[^\s@]+(?=@)": ["@"],
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+": ["@"],
}


def make_redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that replaces `secrets`, and all that looks like a credential, by a mark."""
    known = list(secrets)
    pattern = re.compile("|".join([*map(re.escape, known), *PATTERNS]))
    words = {hint for held in PATTERNS.values() for hint in held} | {key.lower() for key in known}
    hint = re.compile("|".join(map(re.escape, words)))

    def redact(text: str) -> str:
        return pattern.sub(MARK, text) if hint.search(text.lower()) else text

    return redact
