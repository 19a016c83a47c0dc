"""The two policy files: `models.toml` (models, prices) and `plans.toml` (limits).

Both are read once at the start. An error in them stops the start; all problems are reported.
"""

import datetime as dt
import difflib
import hashlib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, to_json

from gateway.accounts.principals import Membership, Raise
from gateway.errors import InvalidRequest, ModelNotFound, StartError, shortened
from gateway.plans import Budgets, Plan, Service, TeamPlan
from gateway.policy_types import (
    MAX_TOKENS,
    ModelName,
    Outputs,
    OutputTokens,
    PlanName,
    Seconds,
    Tokens,
)
from gateway.prices import DeclaredLines, DeclaredTier, Price, Usd, nano, require_tiers
from gateway.schemas.base import Day

PRICES_ARE_OLD_AFTER = dt.timedelta(days=90)
# The fields of a model that affect neither refusals nor bills.
NOT_DECISIVE = {"prices_checked", "base_delay_seconds", "max_cooldown_seconds"}
PER_TOKEN = ("input_usd_per_million_tokens", "output_usd_per_million_tokens")
Kind = Literal["chat", "embedding", "task"]


class Model(DeclaredLines):
    """A model that the service offers, as `models.toml` declares it.

    `max_input_tokens` limits a request; for embeddings, each text. `max_request_tokens` limits all
    texts of a request. `outputs_parameter` is the input's name for the number of outputs.
    """

    id: str = ""
    provider: str
    name: str = Field(min_length=1)
    kind: Kind
    tiers: tuple[DeclaredTier, ...] = ()
    usd_per_second: Usd | None = None
    max_seconds: Seconds | None = None
    usd_per_output: Usd | None = None
    max_outputs: Outputs | None = None
    outputs_parameter: str | None = Field(None, min_length=1)
    max_output_tokens: OutputTokens = 1
    max_input_tokens: Tokens | None = None
    max_request_tokens: Tokens | None = None
    overhead_tokens: int = Field(16, ge=0, le=MAX_TOKENS)
    tokens_per_image: Tokens | None = None
    fallbacks: tuple[str, ...] = ()
    attempts: int = Field(3, ge=1, le=10)
    base_delay_seconds: float = Field(0.5, gt=0, le=60)
    max_cooldown_seconds: float = Field(3600, ge=1, le=86_400)
    prices_checked: Day

    @model_validator(mode="after")
    def _has_a_price(self) -> Self:
        if missing := sorted(self._needed - self.model_fields_set):
            raise ValueError(f"its cost is unknown; add {' and '.join(missing)}")
        lines = (getattr(self, name) for name in DeclaredLines.model_fields)
        by_tokens = bool(self.tiers) or any(line is not None for line in lines)
        ways = by_tokens, self.usd_per_second is not None, self.usd_per_output is not None
        if sum(ways) > 1:
            raise ValueError("give one price: by tokens or by usd_per_second or by usd_per_output")
        tier_lines = [name for name in PER_TOKEN if name in self._needed]
        require_tiers(self.tiers, tier_lines)
        return self

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        """Refuse limits that would have no effect."""
        counts = self.max_outputs is not None or self.outputs_parameter is not None
        if counts and self.usd_per_output is None:
            raise ValueError("max_outputs and outputs_parameter need usd_per_output")
        if self.usd_per_output is not None and self.kind != "task":
            raise ValueError("usd_per_output is for models of kind task")
        if self.max_request_tokens is not None and self.kind != "embedding":
            raise ValueError("max_request_tokens is for models of kind embedding")
        return self

    @property
    def _needed(self) -> set[str]:
        """The fields that the upper bound of a call's cost needs."""
        if self.usd_per_output is not None:
            return {"max_outputs"}
        if self.usd_per_second is not None:
            return {"max_seconds"}
        chat = {"output_usd_per_million_tokens", "max_output_tokens"}
        needed = {"input_usd_per_million_tokens", "max_input_tokens"}
        return needed | chat if self.kind == "chat" else needed

    @cached_property
    def price(self) -> Price:
        """The price in nano-dollars."""
        return Price(
            **self.lines(),
            second=nano(self.usd_per_second) or 0,
            per_output=nano(self.usd_per_output) or 0,
            tiers=tuple(tier.tier for tier in self.tiers),
        )

    @property
    def prices_are_old(self) -> bool:
        """Whether the prices were checked more than 90 days ago."""
        return dt.datetime.now(dt.UTC).date() - self.prices_checked > PRICES_ARE_OLD_AFTER


class Cap(NamedTuple):
    """The caps of an account for a day and a month, in nano-dollars; None is no cap.

    On the days of `raised`, the higher amounts count.
    """

    account: str
    daily: int | None
    monthly: int | None
    raised: Raise | None = None

    def on(self, day: str) -> Budgets:
        """The caps on a UTC day, such as `2026-11-30`."""
        if self.raised is None or day > self.raised.until:
            return self.daily, self.monthly
        return higher(self.daily, self.raised.daily), higher(self.monthly, self.raised.monthly)


def higher(cap: int | None, raised: int | None) -> int | None:
    """A cap with what it is raised to; None is no cap, and no raise."""
    return cap if cap is None or raised is None else max(cap, raised)


class Policy(NamedTuple):
    """The content of both files, by public model name and by the names of plans.

    `servers` is the unchecked table of `models.toml`: their adapter checks it.
    """

    models: dict[str, Model]
    plans: dict[str, Plan]
    team_plans: dict[str, TeamPlan]
    service: Service
    servers: dict[str, Any]

    @property
    def version(self) -> str:
        """A digest of all that affects refusals and bills: 12 hexadecimal digits."""
        parts = [
            {name: model.model_dump(exclude=NOT_DECISIVE) for name, model in self.models.items()},
            {name: plan.model_dump() for name, plan in self.plans.items()},
            {name: plan.model_dump() for name, plan in self.team_plans.items()},
            self.service.model_dump(),
            self.servers,
        ]
        return hashlib.sha256(to_json(parts)).hexdigest()[:12]

    def models_of(self, target: str) -> list[Model]:
        """The models that `service`, `provider:NAME` or `model:NAME` covers."""
        kind, _, name = target.partition(":")
        owned = {"provider": "provider", "model": "id"}.get(kind)
        return [m for m in self.models.values() if not owned or getattr(m, owned) == name]

    def caps(
        self,
        user_id: str,
        plan_name: str,
        team: Membership | None = None,
        raised: Raise | None = None,
    ) -> tuple[Cap, ...]:
        """The caps on a call of this user, in the order in which the ledger locks the accounts."""
        plan = self.plans[plan_name]
        of_team: tuple[Cap, ...] = ()
        if team is not None:
            of_team = (Cap(f"team:{team.team_id}", *self.team_plans[team.plan].budgets),)
        return (
            Cap("service", *self.service.budgets),
            Cap(f"plan:{plan_name}", *plan.total_budgets),
            *of_team,
            Cap(f"user:{user_id}", *plan.budgets, raised),
        )

    def model(self, name: str, kind: Kind | None = None) -> Model:
        """The model with the public `name`.

        Raises `ModelNotFound` if there is none, or if it has another kind.
        """
        model = self.models.get(name)
        if model is None or (kind and model.kind != kind):
            suited = [known.id for known in self.models.values() if kind in {None, known.kind}]
            message = f"The model is not offered here; there is {', '.join(suited) or 'none'}."
            raise ModelNotFound(message, param="model")
        return model

    def require_plan(self, name: str | None) -> None:
        """Raise `InvalidRequest` unless there is a plan of users with this name; None passes."""
        _require(name, "plan", self.plans)

    def require_team_plan(self, name: str | None) -> None:
        """As `require_plan`, for a plan of teams."""
        _require(name, "team plan", self.team_plans)


def _require(name: str | None, kind: str, known: Iterable[str]) -> None:
    if name is not None and name not in known:
        has = ", ".join(known) or "none"
        raise InvalidRequest(f"There is no such {kind} in plans.toml; it has {has}.", param="plan")


def load(directory: Path) -> Policy:
    """The policy in `directory`. Raises `StartError` with a line per problem."""
    problems: list[str] = []
    models = _checked(directory / "models.toml", ModelsFile, problems)
    plans = _checked(directory / "plans.toml", PlansFile, problems)
    if models is None or plans is None:
        raise StartError("\n".join(problems))
    named = {name: model.model_copy(update={"id": name}) for name, model in models.models.items()}
    if problems := list(_wrong_fallbacks(named)):
        raise StartError("\n".join(problems))
    return Policy(named, plans.plans, plans.team_plans, plans.service, models.servers)


class ModelsFile(BaseModel):
    """`models.toml`."""

    model_config = ConfigDict(extra="forbid")

    models: dict[ModelName, Model]
    servers: dict[str, Any] = {}


class PlansFile(BaseModel):
    """`plans.toml`."""

    model_config = ConfigDict(extra="forbid")

    service: Service = Service()
    plans: dict[PlanName, Plan]
    team_plans: dict[PlanName, TeamPlan] = {}


File = TypeVar("File", ModelsFile, PlansFile)


def _checked(path: Path, form: type[File], problems: list[str]) -> File | None:
    try:
        text = path.read_text(encoding="utf-8")
        return form.model_validate(tomllib.loads(text, parse_float=Decimal))
    except OSError:
        problems.append(f"{path.name} cannot be read; it must be in {path.parent}")
    except ValidationError as error:
        problems += problems_of(path, error, form)
    except ValueError as error:
        problems.append(f"{path.name} is not valid TOML: {error}")
    return None


def problems_of(path: Path, error: ValidationError, form: type[BaseModel]) -> list[str]:
    """A line for each error in a policy file."""
    return [
        f"{path.name}, {_place(e).removeprefix(f'{path.stem}.')}: {_sentence(e, form)}"
        for e in error.errors(include_url=False, include_input=False)
    ]


def _wrong_fallbacks(models: Mapping[str, Model]) -> Iterator[str]:
    """A line for each fallback that is not another model of the same kind."""
    for name, model in models.items():
        for other in model.fallbacks:
            if other == name or other not in models or models[other].kind != model.kind:
                wanted = f"another {model.kind} model"
                yield f"models.toml, {name}: the fallback {other} must be {wanted}"


def _names(form: type[BaseModel], table: Iterable[int | str]) -> list[str]:
    """The names that the schema of the file allows in a table."""
    schema = part = form.model_json_schema()
    for step in table:
        inner = part.get("properties", {}).get(step) or part.get("items")
        inner = inner or part.get("additionalProperties") or {}
        part = schema["$defs"][inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
    return list(part.get("properties", {}))


def _place(error: ErrorDetails) -> str:
    steps = (shortened(str(step)) for step in error["loc"])
    return ".".join(step if step.isprintable() else ascii(step) for step in steps)


def _sentence(error: ErrorDetails, form: type[BaseModel]) -> str:
    """The error in TOML's terms. Suggests the nearest name for an unknown one."""
    if error["type"] == "extra_forbidden":
        *table, name = error["loc"]
        near = difflib.get_close_matches(str(name), _names(form, table), n=1)
        return f"no such name; did you mean {near[0]}?" if near else "no such name"
    if error["type"] == "tuple_type":
        return "Input should be an array"
    return error["msg"].removeprefix("Value error, ")
