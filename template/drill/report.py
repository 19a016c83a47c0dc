"""The drill's table, for a person."""

import textwrap
from itertools import zip_longest

from drill.guarantees import Finding

WIDTHS = (46, 34, 34, 8)


def heading() -> str:
    """The names of the columns, and a rule."""
    return f"{_row(Finding._fields)}\n{_row(['-' * width for width in WIDTHS])}"


def line(finding: Finding) -> str:
    """A finding, over as many lines as its longest text takes."""
    return _row(finding)


def _row(cells: tuple[str, ...] | list[str]) -> str:
    wrapped = [textwrap.wrap(cell, width) for cell, width in zip(cells, WIDTHS, strict=True)]
    rows = zip_longest(*wrapped, fillvalue="")
    return "\n".join(
        "  ".join(f"{text:{width}}" for text, width in zip(row, WIDTHS, strict=True)).rstrip()
        for row in rows
    )
