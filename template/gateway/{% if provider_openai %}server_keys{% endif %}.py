"""The keys of the servers in `models.toml`, from the environment."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, create_model

from gateway.config import VARIABLE
from gateway.environment import Environment


def read_server_keys(path: Path) -> dict[str, SecretStr]:
    """The keys of the servers in the file by their variables; empty where not set.

    Raises `ValidationError`.
    """
    names = _key_variables(path)
    keys = _settings(names)()
    return {name: getattr(keys, f"key_{place}") for place, name in enumerate(names)}


@cache
def _settings(names: tuple[str, ...]) -> type[Environment]:
    """The settings with these names. The position is the field's name, as a variable may have a
    name that no field can have.
    """
    fields: dict[str, Any] = {
        f"key_{place}": (SecretStr, Field(SecretStr(""), validation_alias=name))
        for place, name in enumerate(names)
    }
    return create_model("ServerKeys", __base__=Environment, **fields)


def _key_variables(path: Path) -> tuple[str, ...]:
    """The variables that `[servers.NAME]` in `models.toml` names. A wrong file has none here: its
    own check reports what is wrong.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    servers = document.get("servers")
    declared = servers.values() if isinstance(servers, dict) else ()
    names = [server.get("api_key_env") for server in declared if isinstance(server, dict)]
    valid = {name for name in names if isinstance(name, str) and VARIABLE.fullmatch(name)}
    return tuple(sorted(valid))
