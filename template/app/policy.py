"""The two reviewed policy files: `models.toml` (models, prices) and `plans.toml` (limits).

Both are read once at the start. What is wrong in them stops the start with every problem named.
"""

import datetime as dt
import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, to_json

from app.errors import ModelNotFound, StartError

NANO = 1_000_000_000
PRICES_ARE_OLD_AFTER = dt.timedelta(days=90)
# What of a model changes neither what is refused nor what is billed.
NOT_DECISIVE = {"prices_checked", "base_delay_seconds"}
Kind = Literal["chat", "embedding", "task"]
Usd = Annotated[Decimal, Field(ge=0, max_digits=20, decimal_places=9)]
Budgets = tuple[int | None, int | None]
"""What may be spent in a day and in a month, in nano-dollars; None is no cap."""


class Price(NamedTuple):
    """A model's price in integers: nano-dollars per million tokens, and per second of compute."""

    input: int
    output: int
    second: int


class Model(BaseModel):
    """A model that the service offers, as `models.toml` declares it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = ""
    provider: str
    name: str = Field(min_length=1)
    kind: Kind
    input_usd_per_million_tokens: Usd | None = None
    output_usd_per_million_tokens: Usd | None = None
    usd_per_second: Usd | None = None
    max_seconds: PositiveInt | None = None
    max_output_tokens: PositiveInt = 1
    max_input_tokens: PositiveInt | None = None
    overhead_tokens: int = Field(16, ge=0)
    tokens_per_image: PositiveInt | None = None
    fallbacks: tuple[str, ...] = ()
    attempts: int = Field(3, ge=1, le=10)
    base_delay_seconds: float = Field(0.5, gt=0, le=60)
    prices_checked: dt.date

    @model_validator(mode="after")
    def _has_a_price(self) -> Self:
        needed = {"input_usd_per_million_tokens", "max_input_tokens"}
        if self.kind == "chat":
            needed |= {"output_usd_per_million_tokens", "max_output_tokens"}
        if self.usd_per_second is not None:
            needed = {"max_seconds"}
        if missing := sorted(needed - self.model_fields_set):
            raise ValueError(f"what it can cost is unknown; add {' and '.join(missing)}")
        per_token = self.input_usd_per_million_tokens, self.output_usd_per_million_tokens
        if self.usd_per_second is not None and per_token != (None, None):
            raise ValueError("it is billed by tokens or by usd_per_second, not by both")
        return self

    @cached_property
    def price(self) -> Price:
        return Price(
            int((self.input_usd_per_million_tokens or 0) * NANO),
            int((self.output_usd_per_million_tokens or 0) * NANO),
            int((self.usd_per_second or 0) * NANO),
        )

    @property
    def prices_are_old(self) -> bool:
        return dt.datetime.now(dt.UTC).date() - self.prices_checked > PRICES_ARE_OLD_AFTER


class Plan(BaseModel):
    """What each user of this plan may use; `total_…` is for all its users together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: PositiveInt
    tokens_per_minute: PositiveInt | None = None
    concurrent_generations: PositiveInt | None = None
    daily_budget_usd: Usd | None = None
    monthly_budget_usd: Usd | None = None
    total_daily_budget_usd: Usd | None = None
    total_monthly_budget_usd: Usd | None = None

    @cached_property
    def budgets(self) -> Budgets:
        return nano(self.daily_budget_usd), nano(self.monthly_budget_usd)

    @cached_property
    def total_budgets(self) -> Budgets:
        return nano(self.total_daily_budget_usd), nano(self.total_monthly_budget_usd)


class Service(BaseModel):
    """What the whole service may use, and the parts of its budgets at which the owner is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: PositiveInt | None = None
    tokens_per_minute: PositiveInt | None = None
    concurrent_generations: PositiveInt | None = None
    daily_budget_usd: Usd | None = None
    monthly_budget_usd: Usd | None = None
    alert_percent: tuple[Annotated[int, Field(ge=1, le=100)], ...] = (50, 80, 100)

    @cached_property
    def budgets(self) -> Budgets:
        return nano(self.daily_budget_usd), nano(self.monthly_budget_usd)


class Cap(NamedTuple):
    """What an account may spend in a day and in a month, in nano-dollars; None is no cap."""

    account: str
    daily: int | None
    monthly: int | None


class Policy(NamedTuple):
    """Both files, by public model name and by plan name.

    `servers` are those that `models.toml` declares, as it does: their adapter checks them.
    """

    models: dict[str, Model]
    plans: dict[str, Plan]
    service: Service
    servers: dict[str, Any]

    @property
    def version(self) -> str:
        """A digest of all that decides what is refused and what is billed."""
        parts = [
            {name: model.model_dump(exclude=NOT_DECISIVE) for name, model in self.models.items()},
            {name: plan.model_dump() for name, plan in self.plans.items()},
            self.service.model_dump(),
            self.servers,
        ]
        return hashlib.sha256(to_json(parts)).hexdigest()

    def caps(self, user_id: str, plan_name: str) -> tuple[Cap, ...]:
        """Every budget that a call of this user counts against, in the order of their locks."""
        plan = self.plans[plan_name]
        return (
            Cap("service", *self.service.budgets),
            Cap(f"plan:{plan_name}", *plan.total_budgets),
            Cap(f"user:{user_id}", *plan.budgets),
        )

    def model(self, name: str, kind: Kind | None = None) -> Model:
        """The model that clients call `name`.

        Raises `ModelNotFound` when there is none, or none of this kind.
        """
        model = self.models.get(name)
        if model is None or (kind and model.kind != kind):
            suited = [known.id for known in self.models.values() if kind in {None, known.kind}]
            message = f"The model is not offered here; there is {', '.join(suited) or 'none'}."
            raise ModelNotFound(message, param="model")
        return model


def nano(usd: Decimal | None) -> int | None:
    """Dollars in nano-dollars; None stays None."""
    return None if usd is None else int(usd * NANO)


def load(directory: Path) -> Policy:
    """Both files in `directory`. Raises `StartError` with a line per problem."""
    problems: list[str] = []
    models = _checked(directory / "models.toml", ModelsFile, problems)
    plans = _checked(directory / "plans.toml", PlansFile, problems)
    if models is None or plans is None:
        raise StartError("\n".join(problems))
    named = {name: model.model_copy(update={"id": name}) for name, model in models.models.items()}
    if problems := list(_wrong_fallbacks(named)):
        raise StartError("\n".join(problems))
    return Policy(named, plans.plans, plans.service, models.servers)


class ModelsFile(BaseModel):
    """`models.toml`."""

    model_config = ConfigDict(extra="forbid")

    models: dict[str, Model]
    servers: dict[str, Any] = {}


class PlansFile(BaseModel):
    """`plans.toml`."""

    model_config = ConfigDict(extra="forbid")

    service: Service = Service()
    plans: dict[str, Plan]


File = TypeVar("File", ModelsFile, PlansFile)


def _checked(path: Path, form: type[File], problems: list[str]) -> File | None:
    try:
        text = path.read_text(encoding="utf-8")
        return form.model_validate(tomllib.loads(text, parse_float=Decimal))
    except OSError:
        problems.append(f"{path.name} cannot be read; it belongs into {path.parent}")
    except ValidationError as error:
        problems += problems_of(path, error)
    except ValueError as error:
        problems.append(f"{path.name} is not valid TOML: {error}")
    return None


def problems_of(path: Path, error: ValidationError) -> list[str]:
    """A line for each thing that is wrong in a policy file."""
    return [
        f"{path.name}, {_place(e).removeprefix(f'{path.stem}.')}: {_sentence(e)}"
        for e in error.errors(include_url=False, include_input=False)
    ]


def _wrong_fallbacks(models: Mapping[str, Model]) -> Iterator[str]:
    """A fallback must be another model of the same kind."""
    for name, model in models.items():
        for other in model.fallbacks:
            if other == name or other not in models or models[other].kind != model.kind:
                wanted = f"another {model.kind} model"
                yield f"models.toml, {name}: the fallback {other} must be {wanted}"


def _place(error: ErrorDetails) -> str:
    return ".".join(map(str, error["loc"]))


def _sentence(error: ErrorDetails) -> str:
    return error["msg"].removeprefix("Value error, ")
