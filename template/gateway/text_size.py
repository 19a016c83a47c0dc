"""The most tokens that any tokenizer makes of a text: its bytes, however it is normalised.

Some tokenizers normalise first, which can lengthen a text as well as shorten it. To normalise takes
quadratic time on a long run of combining marks that are out of order, so no text is normalised
here: tables say by how much each character can grow, and the work is linear in the text.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Literal

# Where Unicode has characters that decompose and marks that combine, except for the syllables of
# Hangul, which are as long in NFC and NFKC and stay whole before any mark.
RANGES = ((0xA0, 0x3400), (0xA000, 0xAC00), (0xF900, 0x20000), (0x2F800, 0x2FA20))
LAST_OF_PLANE, BLOCK_BITS = 0xFFFF, 12
Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
COMPOSED: tuple[Form, ...] = ("NFC", "NFKC")
DECOMPOSED: tuple[Form, ...] = ("NFD", "NFKD")


def text_bytes(text: str, most: int | None = None) -> int:
    """The most UTF-8 bytes of `text` as it is, after NFC and after NFKC.

    Beyond `most`, it is the bytes of `text` as it is: that is enough for a refusal.
    """
    if text.isascii():
        return len(text)
    size = len(text.encode())
    if most is not None and size > most:
        return size
    grown = sum(map(GROWTH.__getitem__, GROWING.findall(text)))
    return size + grown + sum(map(PARTED_GROWTH.__getitem__, PARTED.findall(text)))


def _characters() -> Iterator[str]:
    return (chr(code) for first, end in RANGES for code in range(first, end))


def _longest(character: str, forms: tuple[Form, ...]) -> int:
    """The most bytes of a character as it is and in `forms`."""
    texts = (unicodedata.normalize(form, character) for form in forms)
    return max(len(text.encode()) for text in (character, *texts))


def _begins_with_a_mark(character: str) -> bool:
    return unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) > 0


def _one_of(characters: Iterable[str]) -> str:
    return f"[{re.escape(''.join(characters))}]"


def _marks() -> str:
    """A pattern of the characters that can take the place of a letter's mark, and of some more.

    Beyond the first plane it has whole blocks: `re` compares single characters there one by one.
    """
    marks = {each for each in _characters() if unicodedata.combining(each)}
    marks |= set(filter(_begins_with_a_mark, _DECOMPOSING))
    blocks = sorted({ord(each) >> BLOCK_BITS for each in marks if ord(each) > LAST_OF_PLANE})
    ends = [(block << BLOCK_BITS, (block + 1 << BLOCK_BITS) - 1) for block in blocks]
    ranges = [f"{chr(first)}-{chr(last)}" for first, last in ends]
    plain = re.escape("".join(each for each in marks if ord(each) <= LAST_OF_PLANE))
    return f"[{plain}{''.join(ranges)}]"


_DECOMPOSING = [each for each in _characters() if unicodedata.decomposition(each)]
# By how many bytes a character grows that stands alone.
GROWTH = {
    each: grown for each in _DECOMPOSING if (grown := _longest(each, COMPOSED) - len(each.encode()))
}
# And by how many more a letter with marks, from which another mark may part them.
PARTED_GROWTH = {
    each: grown
    for each in _DECOMPOSING
    if (grown := _longest(each, DECOMPOSED) - _longest(each, COMPOSED)) > 0
}
GROWING = re.compile(_one_of(GROWTH))
_MARKS = _marks()
# The mark comes first in the pattern, as texts have fewer of them than letters.
PARTED = re.compile(f"{_MARKS}(?<=({_one_of(PARTED_GROWTH)}){_MARKS})")
