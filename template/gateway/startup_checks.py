"""Checks that the policy files fit the providers, before anything is served."""

from collections.abc import Iterator, Mapping

from gateway.errors import StartError
from gateway.ledger.budget import usd
from gateway.policy import Policy
from gateway.prices import NANO
from gateway.pricing import largest_usage, max_cost
from gateway.providers.base import Provider, misbilled

# A million US dollars, far below 2^63.
MAX_NANO_USD = 1_000_000 * NANO


def check(rules: Policy, providers: Mapping[str, Provider], *, production: bool) -> None:
    """Raise `StartError` when the policy files do not fit the providers or, in production, when a
    provider that they use has no credential.
    """
    used = {model.provider for model in rules.models.values()}
    known = ", ".join(sorted(providers))
    if unknown := [model for model in rules.models.values() if model.provider not in providers]:
        raise StartError(
            "\n".join(
                f"models.toml, {model.id}: {model.provider} is no provider of this service; "
                f"it has {known}"
                for model in unknown
            )
        )
    if unused := sorted(set(rules.servers) - used):
        names = ", ".join(f"servers.{name}" for name in unused)
        raise StartError(f"models.toml, {names}: no model has it as its provider; remove it")
    problems = [*_wrong_prices(rules, providers), *_too_short(rules, providers), *_too_dear(rules)]
    if problems:
        raise StartError("\n".join(problems))
    models = rules.models.values()
    wrong = [text for each in models if (text := misbilled(providers[each.provider], each))]
    if wrong and production:
        raise StartError("\n".join(wrong))
    missing = [name for key in sorted(used) if (name := providers[key].missing_credential())]
    if missing and production:
        raise StartError(
            f"{', '.join(missing)}: not set, but models.toml offers models that need it. "
            "Set it, or remove those models."
        )


def _wrong_prices(rules: Policy, providers: Mapping[str, Provider]) -> Iterator[str]:
    """A model needs the price of what its provider tells: with another, all would be free."""
    for model in rules.models.values():
        provider = providers[model.provider]
        if model.usd_per_output is not None:
            if model.kind not in provider.counted:
                unit = f"no number of outputs, of a model of kind {model.kind}"
                yield f"models.toml, {model.id}: {model.provider} counts {unit}"
            continue
        is_timed = model.kind in provider.billed_by_time
        if is_timed != (model.usd_per_second is not None):
            unit = "seconds, not tokens" if is_timed else "tokens, not seconds"
            price = "usd_per_second" if is_timed else "prices per million tokens"
            of = f"of a model of kind {model.kind}"
            yield f"models.toml, {model.id}: {model.provider} counts {unit}, {of}; give {price}"


def _too_short(rules: Policy, providers: Mapping[str, Provider]) -> Iterator[str]:
    """A time to bill that the provider cannot keep to bounds nothing."""
    for name, model in rules.models.items():
        least = providers[model.provider].least_seconds
        if model.usd_per_second is not None and (model.max_seconds or 0) < least:
            ends = f"{model.provider} ends nothing earlier"
            yield f"models.toml, {name}: max_seconds must be {least} at least, as {ends}"


def _too_dear(rules: Policy) -> Iterator[str]:
    """What a call of such a model reserves, or what several do, could not be counted."""
    for model in rules.models.values():
        most = max_cost(model.price, largest_usage(model))
        if most > MAX_NANO_USD:
            yield (
                f"models.toml, {model.id}: one call could cost {usd(most)}, more than a million; "
                "are its prices in US dollars, and its limits right?"
            )
