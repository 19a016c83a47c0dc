"""The upper bound of a text's tokens for any tokenizer: its bytes under any normalisation.

Some tokenizers normalise first, which can lengthen or shorten a text. Normalisation takes quadratic
time on a long run of unordered combining marks, so it is not done here: tables hold the growth of
each character, and the work is linear in the text.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Literal

# The ranges of Unicode with characters that decompose and combining marks. Without the syllables of
# Hangul, whose length is the same in NFC and NFKC and which no mark parts.
RANGES = ((0xA0, 0x3400), (0xA000, 0xAC00), (0xF900, 0x20000), (0x2F800, 0x2FA20))
LAST_OF_PLANE, BLOCK_BITS = 0xFFFF, 12
Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
COMPOSED: tuple[Form, ...] = ("NFC", "NFKC")
DECOMPOSED: tuple[Form, ...] = ("NFD", "NFKD")


def text_bytes(text: str, most: int | None = None) -> int:
    """The most UTF-8 bytes of `text`: unchanged, after NFC or after NFKC.

    If the unchanged text exceeds `most`, its bytes are enough for a refusal, and are returned.
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
    """The most bytes of a character, unchanged or in one of `forms`."""
    texts = (unicodedata.normalize(form, character) for form in forms)
    return max(len(text.encode()) for text in (character, *texts))


def _begins_with_a_mark(character: str) -> bool:
    return unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) > 0


def _one_of(characters: Iterable[str]) -> str:
    return f"[{re.escape(''.join(characters))}]"


def _marks() -> str:
    """A pattern for the characters that can displace a letter's mark, and a few more.

    Outside of the first plane, it has whole blocks: `re` compares single characters one by one.
    """
    marks = {each for each in _characters() if unicodedata.combining(each)}
    marks |= set(filter(_begins_with_a_mark, _DECOMPOSING))
    blocks = sorted({ord(each) >> BLOCK_BITS for each in marks if ord(each) > LAST_OF_PLANE})
    ends = [(block << BLOCK_BITS, (block + 1 << BLOCK_BITS) - 1) for block in blocks]
    ranges = [f"{chr(first)}-{chr(last)}" for first, last in ends]
    plain = re.escape("".join(each for each in marks if ord(each) <= LAST_OF_PLANE))
    return f"[{plain}{''.join(ranges)}]"


_DECOMPOSING = [each for each in _characters() if unicodedata.decomposition(each)]
# The growth of a single character in bytes.
GROWTH = {
    each: grown for each in _DECOMPOSING if (grown := _longest(each, COMPOSED) - len(each.encode()))
}
# The further growth of a letter with marks that another mark may part from it.
PARTED_GROWTH = {
    each: grown
    for each in _DECOMPOSING
    if (grown := _longest(each, DECOMPOSED) - _longest(each, COMPOSED)) > 0
}
GROWING = re.compile(_one_of(GROWTH))
_MARKS = _marks()
# The pattern starts with the mark, since texts have fewer marks than letters.
PARTED = re.compile(f"{_MARKS}(?<=({_one_of(PARTED_GROWTH)}){_MARKS})")
