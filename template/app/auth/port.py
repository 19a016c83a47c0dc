"""The port of a log-in: what the chosen method provides to the service.

A method is a package of this folder with `open_authenticator`, `create_credential` for a person,
`create_access` for a program of this machine, `authorization` (the header of an access), `SCHEME`,
`FIELDS` and `buttons`; `app/wiring.py` names the chosen one. `NO_CREDENTIALS` says where people
sign in if the service makes no credentials for them.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from gateway.accounts.principals import Principal


class Field(NamedTuple):
    """A field of the page to sign in; `kind` and `autocomplete` are HTML's."""

    name: str
    label: str
    kind: str
    autocomplete: str


class Button(NamedTuple):
    """A provider to sign in with: the name in its address, and its name for people."""

    name: str
    label: str


class Method(Protocol):
    """Finds the user of a credential.

    `is_ambient`: browsers send the credential by themselves, also for a page of another site.
    """

    is_ambient: bool

    async def authenticate(self, authorization: str, address: str) -> Principal:
        """The principal of a header `Authorization`, empty if absent, from a client `address`.

        Raises `InvalidCredentials`; `TooManyAttempts` where the method has it.
        """

    async def sign_in(self, fields: Mapping[str, str], address: str) -> Principal:
        """The principal of what a person entered in the method's `FIELDS`. Raises the same."""

    async def log_out(self, authorization: str, *, everywhere: bool) -> str | None:
        """End the log-in of a header `Authorization`, and return its user.

        None where a header is no log-in, but a credential that stays. If `everywhere`, the caller
        ends all that the user was given. Raises `InvalidCredentials`.
        """

    async def with_key(self, key_id: str) -> Principal:
        """The principal of an API key. Raises `InvalidCredentials`, also if there are no keys."""
