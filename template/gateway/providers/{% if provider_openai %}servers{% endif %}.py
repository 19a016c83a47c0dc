"""Servers that speak OpenAI's API: each `[servers.NAME]` in `models.toml` is a provider NAME."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import aiohttp
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gateway.addresses import is_web_address
from gateway.config import VARIABLE, GatewayConfig
from gateway.errors import StartError
from gateway.policy import problems_of
from gateway.policy_types import matching
from gateway.providers.openai import OpenAIProvider

FILE = Path("models.toml")
# As long as the ledger's column for a provider's name, which stops and metrics use too.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,38}[a-z0-9])?", re.ASCII)
OutputLimit = Literal["max_tokens", "max_completion_tokens"]


Variable = Annotated[
    str,
    matching(VARIABLE, "must be the name of an environment variable, such as ACME_API_KEY"),
]


def _base_url(given: str) -> str:
    """Refuse an address to which no path can be added, and one with a secret."""
    if not is_web_address(given, plain=False):
        raise ValueError("must be an address such as https://api.example.com/v1")
    if "?" in given or "#" in given:
        raise ValueError("must end with its path; leave out ? and # and what follows")
    if "@" in given:
        raise ValueError("must hold no credential; api_key_env names the variable of the key")
    if given.rstrip("/").endswith(("/chat/completions", "/embeddings", "/responses")):
        raise ValueError("must end before the name of a route, such as /chat/completions")
    return given.rstrip("/")


class Server(BaseModel):
    """A server that speaks OpenAI's API.

    `api_key_env` is the environment variable with its key, None if it needs no key. `output_limit`
    is its parameter for the largest output. `responses` is true if it speaks `/v1/responses`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: Annotated[str, AfterValidator(_base_url)]
    api_key_env: Variable | None = None
    output_limit: OutputLimit = "max_tokens"
    responses: bool = Field(False, strict=True)


class Servers(BaseModel):
    """The part of `models.toml` that declares servers."""

    servers: dict[str, Server]


def open_servers(
    config: GatewayConfig,
    session: aiohttp.ClientSession,
    declared: Mapping[str, Any],
    built_in: Collection[str],
) -> dict[str, OpenAIProvider]:
    """The providers of the `declared` servers, by name. Raises `StartError`, a line per problem."""
    try:
        servers = Servers(servers=dict(declared)).servers
    except ValidationError as error:
        raise StartError("\n".join(problems_of(FILE, error, Servers))) from error
    if problems := list(_problems(servers, built_in, config.taken_variables)):
        raise StartError("\n".join(problems))
    return {name: _open(config, session, name, server) for name, server in servers.items()}


def _problems(
    servers: Mapping[str, Server], built_in: Collection[str], taken: Collection[str]
) -> Iterator[str]:
    for name, server in servers.items():
        if not NAME.fullmatch(name):
            form = "lower-case letters and digits, with . _ - in between, 40 at most"
            yield f"{FILE}, servers.{name}: a server's name has {form}"
        if name in built_in:
            yield f"{FILE}, servers.{name}: {name} is built in; give the server another name"
        if server.api_key_env in taken:
            yield (
                f"{FILE}, servers.{name}.api_key_env: {server.api_key_env} is not a server's key; "
                "name a variable that holds nothing else"
            )


def _open(
    config: GatewayConfig, session: aiohttp.ClientSession, name: str, server: Server
) -> OpenAIProvider:
    key = config.server_keys[server.api_key_env] if server.api_key_env else None
    return OpenAIProvider(
        session,
        server.base_url,
        key.get_secret_value() if key else "",
        name=name,
        key_variable=server.api_key_env,
        output_limit=server.output_limit,
        speaks_responses=server.responses,
    )
