"""Price lists as `models.toml` declares them, and in the exact integers that `pricing.py` uses."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

NANO = 1_000_000_000
# More than any price or budget, so that sums of nano-dollars stay below 2^63, as columns hold them.
MAX_USD = 1_000_000_000
Usd = Annotated[Decimal, Field(ge=0, le=MAX_USD, max_digits=20, decimal_places=9)]
ALWAYS_KEPT = frozenset({"input", "output", "second"})


class Tier(NamedTuple):
    """The lines for requests with more input tokens than `above`; None where there is no line."""

    above: int
    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None


class Price(NamedTuple):
    """A model's price in integers: nano-dollars per million tokens, second of compute or output.

    `tiers` are in ascending order of their limits.
    """

    input: int = 0
    output: int = 0
    second: int = 0
    cached_input: int | None = None
    cache_write: int | None = None
    per_output: int = 0
    tiers: tuple[Tier, ...] = ()

    def document(self) -> dict[str, Any]:
        """The price as the ledger stores it.

        Leaves out missing lines, so that an earlier version of this service can settle at it.
        """
        listed = {
            name: value
            for name, value in self._asdict().items()
            if name in ALWAYS_KEPT or value != self._field_defaults[name]
        }
        tiers = [tier._asdict() for tier in self.tiers]
        return {**listed, "tiers": tiers} if tiers else listed

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The price from a `document()` of this or an earlier version."""
        tiers = tuple(Tier(**tier) for tier in document.get("tiers", ()))
        return cls(**{**document, "tiers": tiers})


class DeclaredLines(BaseModel):
    """The prices per token, as `models.toml` has them for a model and for each of its tiers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_usd_per_million_tokens: Usd | None = None
    output_usd_per_million_tokens: Usd | None = None
    cached_input_usd_per_million_tokens: Usd | None = None
    cache_write_usd_per_million_tokens: Usd | None = None

    def lines(self) -> dict[str, Any]:
        """The arguments of `Price` and `Tier`."""
        return {
            "input": nano(self.input_usd_per_million_tokens) or 0,
            "output": nano(self.output_usd_per_million_tokens) or 0,
            "cached_input": nano(self.cached_input_usd_per_million_tokens),
            "cache_write": nano(self.cache_write_usd_per_million_tokens),
        }


class DeclaredTier(DeclaredLines):
    """A tier of `models.toml`: the lines for a request with more input tokens."""

    above_input_tokens: PositiveInt

    @property
    def tier(self) -> Tier:
        """The tier in nano-dollars."""
        return Tier(self.above_input_tokens, **self.lines())


def require_tiers(tiers: Sequence[DeclaredTier], needed: Sequence[str]) -> None:
    """Raise `ValueError` for tiers that lack a line or do not ascend."""
    for tier in tiers:
        if missing := [name for name in needed if getattr(tier, name) is None]:
            raise ValueError(f"the cost of a tier is unknown; add {' and '.join(missing)}")
    if any(one.above_input_tokens >= other.above_input_tokens for one, other in pairwise(tiers)):
        raise ValueError("tiers: each above_input_tokens must be greater than the one before")


def nano(usd: Decimal | None) -> int | None:
    """Dollars in nano-dollars; None stays None."""
    return None if usd is None else int(usd * NANO)
