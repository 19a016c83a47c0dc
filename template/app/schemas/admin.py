"""Bodies of `/v1/admin/…`."""

from typing import Annotated, Literal

from pydantic import Field

from gateway.accounts.principals import Role
from gateway.prices import MAX_USD, NANO
from gateway.schemas.base import Day, RequestBody, Time
from gateway.schemas.usage import Me

Amount = Annotated[int, Field(ge=0, le=MAX_USD * NANO)]


class StopRequest(RequestBody):
    """`target` is `service`, `provider:…` or `model:…`; `running` ends running calls, too."""

    reason: str
    target: str = "service"
    running: bool = False


class StartRequest(RequestBody):
    target: str = "service"


class UserChange(RequestBody):
    """What is absent stays."""

    role: Annotated[Role, Field(strict=False)] | None = None
    plan: str | None = None
    disabled: bool | None = None


class User(Me):
    """A user as administrators see them. `raised_until` is the last day of the raised budgets."""

    disabled_at: Time | None
    team_id: str | None
    team_role: Literal["owner", "member"] | None
    raised_daily_nano_usd: int | None
    raised_monthly_nano_usd: int | None
    raised_until: str | None


class UserRequest(RequestBody):
    email: str
    role: Annotated[Role, Field(strict=False)] = Role.USER
    plan: str = "free"


class CreatedUser(User):
    """A user with a credential, which is shown this once; null if the log-in makes none."""

    credential: str | None = None


class BudgetRaise(RequestBody):
    """Budgets of a user until the end of a UTC day, where they are higher than the plan's."""

    daily_nano_usd: Amount | None = None
    monthly_nano_usd: Amount | None = None
    until: Annotated[Day, Field(strict=False)]
