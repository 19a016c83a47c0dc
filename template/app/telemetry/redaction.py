"""The one redactor: takes credentials and addresses out of everything that leaves as text."""

import re
from collections.abc import Callable, Iterable

MARK = "[redacted]"
# Credentials by their form: this service's keys, the providers', tokens in headers, e-mail.
PATTERNS = (
    r"[\w-]+_live_[0-9a-z]{10,}_\w{20,}",
    r"\b(?:sk|hf|r8)[-_][A-Za-z0-9_-]{16,}",
    r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*",
    r"(?i:\b(?:bearer|basic)\s+)[A-Za-z0-9+/=._~-]{8,}",
    r"(?<=://)[^\s:/@]+:[^\s@]+(?=@)",
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
)


def make_redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that replaces `secrets`, and all that looks like a credential, by a mark."""
    known = [re.escape(secret) for secret in secrets]
    pattern = re.compile("|".join([*known, *PATTERNS]))
    return lambda text: pattern.sub(MARK, text)
