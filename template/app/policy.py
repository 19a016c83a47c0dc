"""The two reviewed policy files: `models.toml` (models, prices) and `plans.toml` (limits).

Both are read once at the start. What is wrong in them stops the start with every problem named.
"""

import datetime as dt
import tomllib
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from app.errors import ModelNotFound, StartError

NANO = 1_000_000_000
PRICES_ARE_OLD_AFTER = dt.timedelta(days=90)
# Known to the file formats, but without effect in this version: said loudly, never silently.
NOT_ENFORCED = {
    "service",
    "fallbacks",
    "tokens_per_minute",
    "concurrent_generations",
    "daily_budget_usd",
    "monthly_budget_usd",
}

Kind = Literal["chat", "embedding", "task"]
Usd = Annotated[Decimal, Field(ge=0, max_digits=20, decimal_places=9)]


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
    """What a user of this plan may use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: PositiveInt


class Policy(NamedTuple):
    """Both files, by public model name and by plan name, and what the owner should know."""

    models: dict[str, Model]
    plans: dict[str, Plan]
    warnings: list[str]

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


def load(directory: Path) -> Policy:
    """Both files in `directory`. Raises `StartError` with a line per problem."""
    problems: list[str] = []
    warnings: list[str] = []
    models = _tables(directory / "models.toml", TypeAdapter(dict[str, Model]), problems, warnings)
    plans = _tables(directory / "plans.toml", TypeAdapter(dict[str, Plan]), problems, warnings)
    if problems:
        raise StartError("\n".join(problems))
    named = {name: model.model_copy(update={"id": name}) for name, model in models.items()}
    return Policy(named, plans, warnings)


def _tables(path: Path, form: TypeAdapter[Any], problems: list[str], warnings: list[str]) -> Any:
    """The tables `[models.…]` of `models.toml`, say, checked."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        tables = _enforced(path.name, document, warnings).get(path.stem)
        if isinstance(tables, dict):
            tables = {
                name: _enforced(f"{path.name}, {name}", table, warnings)
                for name, table in tables.items()
            }
        return form.validate_python(tables)
    except OSError:
        problems.append(f"{path.name} cannot be read; it belongs into {path.parent}")
    except ValidationError as error:
        problems += [
            f"{path.name}, {'.'.join(map(str, e['loc'])) or 'whole file'}: {_sentence(e)}"
            for e in error.errors(include_url=False, include_input=False)
        ]
    except ValueError as error:
        problems.append(f"{path.name} is not valid TOML: {error}")
    return {}


def _sentence(error: ErrorDetails) -> str:
    return error["msg"].removeprefix("Value error, ")


def _enforced(where: str, table: Any, warnings: list[str]) -> Any:
    """`table` without the keys that have no effect yet."""
    if not isinstance(table, dict):
        return table
    ignored = [key for key in table if key in NOT_ENFORCED and table[key] != []]
    warnings += [f"{where}: {key} is not enforced by this version" for key in ignored]
    return {key: value for key, value in table.items() if key not in NOT_ENFORCED}
