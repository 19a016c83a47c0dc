"""Opens the policy files and the providers, for the service and for its checks."""

import aiohttp

from app import wiring
from app.settings import Settings
from gateway import policy
from gateway.policy import Policy
from gateway.providers.base import Provider
from gateway.startup_checks import check


def open_parts(
    chosen: Settings, session: aiohttp.ClientSession
) -> tuple[Policy, dict[str, Provider]]:
    """The policy files, and by name the providers that they may use: the chosen ones, the offline
    one and the servers of `models.toml`. Raises `StartError` as `check` does.
    """
    rules = policy.load(chosen.policy_dir)
    config = chosen.gateway
    opened: list[Provider] = [part.open_provider(config, session) for part in wiring.PROVIDERS]
    providers = {provider.name: provider for provider in opened}
    providers |= wiring.open_servers(config, session, rules.servers, providers.keys())
    check(rules, providers, production=chosen.production)
    return rules, providers
