"""Counts the steps that a pattern takes on a text, which `re` does not report.

It backtracks as `re` does, without its optimisations.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

CATEGORIES: dict[Any, Callable[[str], bool]] = {
    ops.CATEGORY_DIGIT: str.isdecimal,
    ops.CATEGORY_SPACE: str.isspace,
    ops.CATEGORY_WORD: lambda char: char.isalnum() or char == "_",
    ops.CATEGORY_NOT_DIGIT: lambda char: not char.isdecimal(),
    ops.CATEGORY_NOT_SPACE: lambda char: not char.isspace(),
    ops.CATEGORY_NOT_WORD: lambda char: not (char.isalnum() or char == "_"),
}
SINGLE = {ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN}


def steps(pattern: "re.Pattern[Any]", text: str) -> int:
    """The steps to find all matches of `pattern` in `text`, ignoring case."""
    tree = list(parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE))
    walk, at = _Walk(text.lower()), 0
    while at <= len(text):
        end = next(walk.sequence(tree, at), None)
        at = end if end is not None and end > at else at + 1
    return walk.count


class _Walk:
    """Matches in one text. Generators yield the ends of matches in the order of `re`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.count = 0

    def sequence(self, nodes: Sequence[Any], at: int) -> Iterator[int]:
        if not nodes:
            yield at
            return
        for end in self._node(nodes[0], at):
            yield from self.sequence(nodes[1:], end)

    def _node(self, node: Any, at: int) -> Iterator[int]:
        op, given = node
        self.count += 1
        if op in SINGLE:
            if at < len(self._text) and _matches(op, given, self._text[at]):
                yield at + 1
        elif op is ops.SUBPATTERN:
            yield from self.sequence(list(given[3]), at)
        elif op is ops.ATOMIC_GROUP:
            yield from self._first(list(given), at)
        elif op is ops.BRANCH:
            for choice in given[1]:
                yield from self.sequence(list(choice), at)
        elif op in {ops.MAX_REPEAT, ops.POSSESSIVE_REPEAT}:
            yield from self._repeat(given, at, keeps=op is ops.POSSESSIVE_REPEAT)
        elif op in {ops.ASSERT, ops.ASSERT_NOT}:
            if self._looks(given, at) is (op is ops.ASSERT):
                yield at
        elif op is ops.AT:
            if self._is_at(given, at):
                yield at
        else:
            raise NotImplementedError(op)

    def _first(self, nodes: Sequence[Any], at: int) -> Iterator[int]:
        end = next(self.sequence(nodes, at), None)
        if end is not None:
            yield end

    def _repeat(self, given: Any, at: int, *, keeps: bool) -> Iterator[int]:
        """The longest first. Does not backtrack into a single repetition."""
        least, most, part = given
        ends, nodes = [at], list(part)
        while len(ends) <= most:
            end = next(self.sequence(nodes, ends[-1]), None)
            if end is None or end == ends[-1]:
                break
            ends.append(end)
        enough = ends[least:]
        for end in enough[:-2:-1] if keeps else reversed(enough):
            self.count += 1
            yield end

    def _looks(self, given: Any, at: int) -> bool:
        direction, part = given
        nodes = list(part)
        if direction > 0:
            return any(True for _ in self.sequence(nodes, at))
        start = at - part.getwidth()[1]
        return start >= 0 and any(end == at for end in self.sequence(nodes, start))

    def _is_at(self, place: Any, at: int) -> bool:
        if place in {ops.AT_BEGINNING, ops.AT_BEGINNING_STRING}:
            return at == 0
        if place in {ops.AT_END, ops.AT_END_STRING}:
            return at == len(self._text)
        is_word = CATEGORIES[ops.CATEGORY_WORD]
        around = [self._text[at - 1 : at] if at else "", self._text[at : at + 1]]
        before, after = (bool(char) and is_word(char) for char in around)
        return (before != after) is (place is ops.AT_BOUNDARY)


def _matches(op: Any, given: Any, char: str) -> bool:
    if op is ops.ANY:
        return char != "\n"
    if op is ops.LITERAL:
        return chr(given).lower() == char
    if op is ops.NOT_LITERAL:
        return chr(given).lower() != char
    members = [member for member in given if member[0] is not ops.NEGATE]
    return any(_is_member(member, char) for member in members) is (len(members) == len(given))


def _is_member(member: Any, char: str) -> bool:
    op, given = member
    if op is ops.LITERAL:
        return chr(given).lower() == char
    if op is ops.RANGE:
        first, last = given
        return any(first <= ord(each) <= last for each in (char, char.upper()[0]))
    return CATEGORIES[given](char)
