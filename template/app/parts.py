"""What the service and `doctor` open alike."""

from collections.abc import Iterator, Mapping

import aiohttp

from app import policy, wiring
from app.errors import StartError
from app.policy import Policy
from app.providers.base import Provider
from app.settings import Settings


def open_providers(chosen: Settings, session: aiohttp.ClientSession) -> dict[str, Provider]:
    """The chosen providers and the offline one, by name."""
    opened: list[Provider] = [part.open_provider(chosen, session) for part in wiring.PROVIDERS]
    return {provider.name: provider for provider in opened}


def open_policy(chosen: Settings, providers: Mapping[str, Provider]) -> Policy:
    """The policy files. Raises `StartError` when they are wrong or, in production, when a
    provider that they use has no credential.
    """
    rules = policy.load(chosen.policy_dir)
    used = {model.provider for model in rules.models.values()}
    if unknown := used - set(providers):
        raise StartError(
            f"models.toml: {', '.join(sorted(unknown))} is no provider of this service; "
            f"it has {', '.join(sorted(providers))}"
        )
    if problems := [*_wrong_prices(rules, providers), *_too_short(rules, providers)]:
        raise StartError("\n".join(problems))
    missing = [name for key in sorted(used) if (name := providers[key].missing())]
    if missing and chosen.production:
        raise StartError(
            f"{', '.join(missing)}: not set, but models.toml offers models that need it. "
            "Set it, or remove those models."
        )
    return rules


def _wrong_prices(rules: Policy, providers: Mapping[str, Provider]) -> Iterator[str]:
    """A model needs the price of what its provider tells: with another, all would be free."""
    for model in rules.models.values():
        is_timed = model.kind in providers[model.provider].timed
        if is_timed != (model.usd_per_second is not None):
            told = "seconds, not tokens" if is_timed else "tokens, not seconds"
            price = "usd_per_second" if is_timed else "prices per million tokens"
            of = f"of a model of kind {model.kind}"
            yield f"models.toml, {model.id}: {model.provider} tells {told}, {of}; give {price}"


def _too_short(rules: Policy, providers: Mapping[str, Provider]) -> Iterator[str]:
    """A time to bill that the provider cannot keep to bounds nothing."""
    for name, model in rules.models.items():
        least = providers[model.provider].least_seconds
        if model.usd_per_second is not None and (model.max_seconds or 0) < least:
            ends = f"{model.provider} ends nothing earlier"
            yield f"models.toml, {name}: max_seconds must be {least} at least, as {ends}"
