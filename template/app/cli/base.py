"""The base of every command of `python -m app`: settings, the database and errors.

Exit code 0: done; 1: refused or a check failed; 2: wrong usage.
"""

import asyncio
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, NoReturn, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from app import wiring
from app.settings import Settings, load
from gateway import policy
from gateway.accounts.teams import Teams
from gateway.accounts.users import Users
from gateway.db.engine import Database
from gateway.errors import NO_DATABASE, DatabaseUnavailable, ServiceError, StartError
from gateway.findings import Finding
from gateway.policy import Policy
from gateway.schemas.base import Name

Email = Annotated[str, typer.Option(help="The user's e-mail address.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Work = Callable[..., Awaitable[None]]
Entry = TypeVar("Entry")


class Session(NamedTuple):
    """What a command works with."""

    settings: Settings
    database: Database

    @property
    def users(self) -> Users:
        return Users(self.database)

    @property
    def teams(self) -> Teams:
        return Teams(self.database)

    @property
    def policy(self) -> Policy:
        """The policy files. Raises `StartError`."""
        return policy.load(self.settings.policy_dir)


def command(app: typer.Typer, name: str | None = None) -> Callable[[Work], Work]:
    """Make a command of an async function whose first parameter is a `Session`.

    An error of ours is a sentence on standard error and exit code 1.
    """

    def register(work: Work) -> Work:
        @functools.wraps(work)
        def run(**options: Any) -> None:
            _check_text(options)
            asyncio.run(in_session(work, options))

        _, *parameters = inspect.signature(work).parameters.values()
        vars(run)["__signature__"] = inspect.Signature(parameters)
        app.command(name)(run)
        return work

    return register


async def in_session(work: Work, options: dict[str, Any]) -> None:
    """Do `work` with a session that ends with it."""
    try:
        settings = load()
        database = wiring.database.open_database(settings.gateway)
        try:
            await work(Session(settings, database), **options)
        finally:
            await database.close()
    except DatabaseUnavailable:
        fail(NO_DATABASE)
    except (ServiceError, StartError) as error:
        fail(str(error))


def checked_name(given: str) -> str:
    """The callback of an option for a name."""
    try:
        return TypeAdapter(Name).validate_python(given)
    except ValidationError as error:
        raise typer.BadParameter("must be 1 to 100 characters without control ones.") from error


def _check_text(options: Mapping[str, Any]) -> None:
    """An argument comes as bytes, and what is no text can be neither kept nor sent."""
    for name, given in options.items():
        try:
            str(given).encode()
        except UnicodeEncodeError as error:
            raise typer.BadParameter("must be text in UTF-8.", param_hint=name) from error


def fail(message: str) -> NoReturn:
    """Say what is wrong and end with exit code 1."""
    print(message, file=sys.stderr)
    raise typer.Exit(1)


def show(value: Any, as_json: bool, text: str) -> None:
    """Print `value`, of which models are a part or the whole, as JSON, or `text` for a person."""
    print(to_json(value).decode() if as_json else text)


def show_list(
    entries: Sequence[Entry], as_json: bool, line: Callable[[Entry], str], empty: str
) -> None:
    """Print `entries` as JSON, or a `line` of each for a person, who reads `empty` for none."""
    show(entries, as_json, "\n".join(map(line, entries)) or empty)


def show_findings(value: Any, findings: Sequence[Finding], as_json: bool, *more: str) -> None:
    """Print `value` as JSON, or for a person a line of each finding and what is `more`."""
    lines = [f"{f.mark} {f.check}{': ' * bool(f.advice)}{f.advice}" for f in findings]
    show(value, as_json, "\n".join([*lines, *more]))
