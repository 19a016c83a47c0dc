"""What a check of the service's surroundings found."""

from typing import NamedTuple


class Finding(NamedTuple):
    """What a check found: `verdict` is ok, warning or problem; `advice` says what to do, for an ok
    `policy` its version.
    """

    check: str
    verdict: str = "ok"
    advice: str = ""

    @property
    def mark(self) -> str:
        return {"ok": "✓", "warning": "!", "problem": "✗"}[self.verdict]
