"""What `plans.toml` declares: the limits and budgets of users, of teams and of the service."""

from functools import cached_property
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway.policy_types import Rate
from gateway.prices import Usd, nano

Budgets = tuple[int | None, int | None]
"""The caps for a day and for a month, in nano-dollars; None is no cap."""


class DeclaredLimits(BaseModel):
    """The limits and budgets that every table of `plans.toml` can have. None is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None
    concurrent_generations: Rate | None = None
    daily_budget_usd: Usd | None = None
    monthly_budget_usd: Usd | None = None

    @cached_property
    def budgets(self) -> Budgets:
        return nano(self.daily_budget_usd), nano(self.monthly_budget_usd)


class Plan(DeclaredLimits):
    """The limits of each user of a plan. `total_…` limits all its users together."""

    requests_per_minute: Rate
    total_daily_budget_usd: Usd | None = None
    total_monthly_budget_usd: Usd | None = None

    @cached_property
    def total_budgets(self) -> Budgets:
        return nano(self.total_daily_budget_usd), nano(self.total_monthly_budget_usd)


class TeamPlan(DeclaredLimits):
    """The limits that the members of a team share, beside their own."""


class Service(DeclaredLimits):
    """The limits of the whole service, and the percentages of its budgets that raise an alert."""

    alert_percent: tuple[Annotated[int, Field(ge=1, le=100)], ...] = (50, 80, 100)
