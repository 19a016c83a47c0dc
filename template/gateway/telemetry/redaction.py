"""The redactor: removes credentials and addresses from logs and error messages.

Its work is linear in the text, which callers and models write: a pattern starts only at the start
of a run of its characters and does not backtrack, so that no run is read more than once.
"""

import re
from collections.abc import Callable, Iterable
from functools import partial

MARK = "[redacted]"
# Patterns of credentials: this service's keys, the providers', tokens in headers, e-mail addresses.
# Each with the words, in lower case, of which a matching text contains one: that search is many
# times faster.
PATTERNS = {
    r"(?i:\b(?:bearer|basic)\s++)[A-Za-z0-9+/=._~-]{8,}": ["bearer", "basic"],
    r"(?<![\w-])[\w-]+_live_[0-9a-z]{10,}_\w{20,}": ["_live_"],
    r"\b(?:sk|hf|r8)[-_][A-Za-z0-9_-]{16,}": ["sk-", "sk_", "hf-", "hf_", "r8-", "r8_"],
    # The first part ends before a possible start of another token.
    r"\beyJ(?=[\w-]{10})(?:\w++|-(?!eyJ))++\.[\w-]{10,}+\.[\w-]*": ["eyj"],
    r"(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)+": ["@"],
}
# The text before an `@`, and the user and password in it.
BEFORE_AT = re.compile(r"(?<![^\s@])[^\s@]++(?=@)")
IN_ADDRESS = re.compile(r"(?<=://)[^\s:/@]++:.+")

Rule = tuple[Callable[[str], str], list[str]]
"""A replacement, and the words of which a text must contain one for it to apply."""


def make_redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that replaces `secrets`, and texts that look like credentials, by a mark."""
    rules: list[Rule] = [
        *((partial(re.compile(re.escape(each)).sub, MARK), [each.lower()]) for each in secrets),
        (_without_passwords, ["://"]),
        *((partial(re.compile(each).sub, MARK), words) for each, words in PATTERNS.items()),
    ]
    hint = re.compile("|".join(re.escape(word) for _, words in rules for word in words))

    def redact(text: str) -> str:
        lowered = text.lower()
        if not hint.search(lowered):
            return text
        for replace, words in rules:
            if any(word in lowered for word in words):
                text = replace(text)
        return text

    return redact


def _without_passwords(text: str) -> str:
    """`text` without the users and passwords in its URLs. Their hosts stay."""
    return BEFORE_AT.sub(lambda found: IN_ADDRESS.sub(MARK, found[0]), text)
