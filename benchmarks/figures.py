"""What was measured, and how it is printed."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Round:
    """The service and its reference, measured one after the other."""

    value: float
    reference: float

    @property
    def ratio(self) -> float:
        """How the service compares."""
        return self.value / self.reference


def middle(rounds: Iterable[Round]) -> Round:
    """Choose the round with the median ratio: its two values were seen together."""
    ordered = sorted(rounds, key=lambda each: each.ratio)
    return ordered[len(ordered) // 2]


@dataclass(frozen=True)
class Figure:
    """One line of the result: a ratio and the target that it has to meet."""

    name: str
    unit: str
    round: Round
    target: float
    at_most: bool = False
    """Less is better, as for seconds."""

    @property
    def met(self) -> bool:
        """Whether the ratio is on the right side of its target."""
        ratio = self.round.ratio
        return ratio <= self.target if self.at_most else ratio >= self.target

    @property
    def bound(self) -> str:
        """The target in words."""
        return f"at {'most' if self.at_most else 'least'} {self.target}"


@dataclass(frozen=True)
class Server:
    """For information: medians of a server's latencies in milliseconds, and its memory in MiB."""

    name: str
    chats_p50: float
    chats_p99: float
    chunks_p50: float
    """Of whole streams."""
    chunks_p99: float
    memory: float | None
    """Resident after the load; None where the system does not tell."""


def as_json(figures: Sequence[Figure], servers: Sequence[Server]) -> str:
    """Give everything to a program."""
    lines = [
        {
            "name": figure.name,
            "unit": figure.unit,
            "value": figure.round.value,
            "reference": figure.round.reference,
            "ratio": figure.round.ratio,
            "target": figure.target,
            "at_most": figure.at_most,
            "met": figure.met,
        }
        for figure in figures
    ]
    return json.dumps({"figures": lines, "servers": [vars(server) for server in servers]}, indent=2)


def as_table(figures: Sequence[Figure], servers: Sequence[Server]) -> str:
    """Give everything to a person."""
    ratios = ("", "value", "reference", "unit", "ratio", "target", "")
    details = ("for information", "chat p50", "p99", "stream p50", "p99 (ms)", "memory (MiB)")
    return "\n\n".join(
        (
            _align(ratios, *map(_line, figures)),
            _align(
                details, *((name, *map(_number, rest)) for name, *rest in map(astuple, servers))
            ),
        )
    )


def _line(figure: Figure) -> tuple[str, ...]:
    return (
        figure.name,
        _number(figure.round.value),
        _number(figure.round.reference),
        figure.unit,
        f"{figure.round.ratio:.2f}",
        figure.bound,
        "ok" if figure.met else "MISSED",
    )


def _number(value: float | None) -> str:
    """Write three significant digits, and more only before the point."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _align(*rows: tuple[str, ...]) -> str:
    """Put names to the left and everything else to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        row[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
