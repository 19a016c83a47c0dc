"""Reads settings from the environment and `.env`, and says what is wrong with them."""

import os
import re
import stat
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from gateway.addresses import is_web_address, origins

# The characters that a header allows, without tabs: a tab in a secret is a mistake.
SENDABLE = re.compile(r"[\x20-\x7e]*")
OTHERS = stat.S_IRWXG | stat.S_IRWXO
ENV_FILE = Path(".env")
WEAK_SECRETS = ("changeme", "change-me", "secret", "password", "example", "placeholder")


def _address(given: str) -> str:
    if given and not is_web_address(given):
        raise ValueError("must be an address such as https://example.com")
    return given


def _secret_address(given: SecretStr) -> SecretStr:
    text = given.get_secret_value()
    if text and not is_web_address(text, plain=False):
        raise ValueError("must be an address such as https://example.com")
    return given


def _origins(given: str | frozenset[str]) -> frozenset[str]:
    return origins(given) if isinstance(given, str) else given


Address = Annotated[str, AfterValidator(_address)]
Origins = Annotated[frozenset[str], NoDecode, BeforeValidator(_origins)]
SecretAddress = Annotated[SecretStr, AfterValidator(_secret_address)]


class Environment(BaseSettings):
    """Settings from the environment. A variable that is not set there is read from `.env`."""

    model_config = SettingsConfigDict(env_file=ENV_FILE, extra="ignore", env_ignore_empty=True)

    @model_validator(mode="before")
    @classmethod
    def _trim(cls, given: dict[str, Any]) -> dict[str, Any]:
        """White space around a value is not part of it, and a value of white space is not set."""
        trimmed = {n: v.strip() if isinstance(v, str) else v for n, v in given.items()}
        return {name: value for name, value in trimmed.items() if value != ""}

    @field_validator("*")
    @classmethod
    def _secrets_can_be_sent(cls, given: Any) -> Any:
        if isinstance(given, SecretStr) and not SENDABLE.fullmatch(given.get_secret_value()):
            raise ValueError("has a character that no header can carry; copy it again")
        return given


def explain(error: ValidationError) -> str:
    """A line for each problem of an environment, without the values."""
    lines = []
    for problem in error.errors(include_input=False):
        name = ".".join(map(str, problem["loc"])).upper()
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{name}: {message}" if name else message)
    return "\n".join(lines)


def weakness(name: str, secret: SecretStr) -> str | None:
    """A sentence if a secret is too weak for production, else None. An empty one is not weak."""
    value = secret.get_secret_value()
    is_made_up = _repeats(value) or value.lower().startswith(WEAK_SECRETS)
    if value and (len(value) < 32 or len(set(value)) < 10 or is_made_up):
        return f"{name} is weak; make a new one with: openssl rand -base64 48"
    return None


def _repeats(value: str) -> bool:
    """Whether most of a text repeats itself or counts on, as chance does not."""
    triples = [value[start : start + 3] for start in range(len(value) - 2)]
    steps = [ord(after) - ord(before) for before, after in pairwise(value)]
    regular = sum(abs(step) <= 1 for step in steps)
    return 2 * len(set(triples)) < len(triples) or 4 * regular > 3 * len(steps)


def exposure() -> str | None:
    """A sentence if other users of the machine can read `.env`, else None."""
    if os.name != "posix" or not ENV_FILE.is_file():
        return None
    mode = stat.S_IMODE(ENV_FILE.stat().st_mode)
    if not mode & OTHERS:
        return None
    return f".env has the mode {mode:04o}: other users of this machine read it. Run: chmod 600 .env"
