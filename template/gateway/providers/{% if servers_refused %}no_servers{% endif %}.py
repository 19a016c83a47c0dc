"""Refuses `[servers.NAME]` in `models.toml`, as this service has no adapter for such servers."""

from collections.abc import Collection, Mapping
from typing import Any, Never

import aiohttp

from gateway.config import GatewayConfig
from gateway.errors import StartError


def open_servers(
    _: GatewayConfig, __: aiohttp.ClientSession, declared: Mapping[str, Any], ___: Collection[str]
) -> Mapping[str, Never]:
    """An empty mapping. Raises `StartError` if any server is declared."""
    if declared:
        names = ", ".join(f"servers.{name}" for name in declared)
        raise StartError(
            f"models.toml, {names}: this service has no provider for such servers; "
            "add openai to `providers` in .copier-answers.yml by make update"
        )
    return {}
