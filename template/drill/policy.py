"""The drill's own models and plans: those of the project may change."""

from pathlib import Path

from drill.wiring import PROVIDER, work

NANO = 1_000_000_000
# The calls that a budget pays for at their bound.
PAID_FOR, TIGHT = 37, 5

PLANS = """
[plans.roomy]
requests_per_minute = 60_000

[plans.requests]
requests_per_minute = 12

[plans.slots]
requests_per_minute = 60_000
concurrent_generations = 3

[plans.capped]
requests_per_minute = 60_000
daily_budget_usd = {cap}

[plans.tight]
requests_per_minute = 60_000
daily_budget_usd = {tight}
"""


def write(directory: Path, dearer: int = 1) -> Path:
    """Write both files, with prices that are `dearer` times the first ones."""
    directory.mkdir()
    plans = PLANS.format(cap=_usd(PAID_FOR * work.BOUND), tight=_usd(TIGHT * work.BOUND))
    (directory / "models.toml").write_text(work.models(PROVIDER, dearer), encoding="utf-8")
    (directory / "plans.toml").write_text(plans + work.PLANS, encoding="utf-8")
    return directory


def _usd(nano: int) -> str:
    return f"{nano / NANO:.9f}"
