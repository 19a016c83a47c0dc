"""The findings of checks, such as those of `doctor`."""

from typing import NamedTuple


class Finding(NamedTuple):
    """The result of a check.

    `verdict` is ok, warning or problem. `advice` says what to do; for an ok `policy`, its version.
    """

    check: str
    verdict: str = "ok"
    advice: str = ""

    @property
    def mark(self) -> str:
        """The symbol of the verdict."""
        return {"ok": "✓", "warning": "!", "problem": "✗"}[self.verdict]
