"""The one redactor: takes credentials and addresses out of everything that leaves as text.

Its work is linear in the text, which callers and models write: a pattern begins where a run of its
characters begins and gives nothing back, so that no run is read from each of its characters.
"""

import re
from collections.abc import Callable, Iterable
from functools import partial

MARK = "[redacted]"
# Credentials by their form: this service's keys, the providers', tokens in headers, e-mail. Each
# with what a text must hold, in lower case, to match: to search for that is many times faster.
PATTERNS = {
    r"(?i:\b(?:bearer|basic)\s++)[A-Za-z0-9+/=._~-]{8,}": ["bearer", "basic"],
    r"(?<![\w-])[\w-]+_live_[0-9a-z]{10,}_\w{20,}": ["_live_"],
    r"\b(?:sk|hf|r8)[-_][A-Za-z0-9_-]{16,}": ["sk-", "sk_", "hf-", "hf_", "r8-", "r8_"],
    # The first part ends before what could be the beginning of another token.
    r"\beyJ(?=[\w-]{10})(?:\w++|-(?!eyJ))++\.[\w-]{10,}+\.[\w-]*": ["eyj"],
    r"(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)+": ["@"],
}
# What stands before an `@`, and of that a name and a password in an address.
BEFORE_AT = re.compile(r"(?<![^\s@])[^\s@]++(?=@)")
IN_ADDRESS = re.compile(r"(?<=://)[^\s:/@]++:.+")

Rule = tuple[Callable[[str], str], list[str]]
"""What takes something out of a text, and the words of which the text must hold one."""


def make_redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that replaces `secrets`, and all that looks like a credential, by a mark."""
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
    """`text` without the names and passwords in its addresses; their hosts stay."""
    return BEFORE_AT.sub(lambda found: IN_ADDRESS.sub(MARK, found[0]), text)
