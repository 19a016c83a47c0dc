"""`python -m app ask`: one question to the running service, as a client would put it."""

import datetime as dt
import sys
from typing import Annotated, Any

import aiohttp
import typer
from pydantic_core import from_json
from sqlalchemy import Row

from app import wiring
from app.cli.base import Session
from gateway.accounts.audit import command_line
from gateway.accounts.principals import Role
from gateway.addresses import is_web_address
from gateway.counts import counted
from gateway.db.tables import utc_now
from gateway.errors import NotFound, StartError
from gateway.prices import NANO
from gateway.providers.completion import choices_of, text_of
from gateway.providers.sse import EventParser

ASKER = "ask@cli.invalid"
CREDENTIAL_LASTS = dt.timedelta(minutes=10)
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5)


def _address(given: str) -> str:
    if given and not is_web_address(given):
        raise typer.BadParameter("must be an address such as http://127.0.0.1:8000")
    return given


Url = Annotated[
    str, typer.Option(help="The service; by default the one on PORT.", callback=_address)
]


async def ask(
    session: Session,
    question: Annotated[str, typer.Argument(help="What to ask.", envvar="QUESTION")],
    model: Annotated[str, typer.Option(help="A model of models.toml.")] = "offline/echo",
    url: Url = "",
) -> None:
    """Ask the running service; show the answer as it comes, what it cost and what is left.

    Asks as a user of its own, with a credential of a few minutes.
    """
    user = await _asker(session)
    credential = await wiring.auth.create_access(
        session.settings,
        session.database,
        user.id,
        command_line(),
        utc_now() + CREDENTIAL_LASTS,
    )
    base = (url or f"http://127.0.0.1:{session.settings.port}").rstrip("/") + "/"
    headers = {"Authorization": wiring.auth.authorization(user.email, credential)}
    try:
        async with aiohttp.ClientSession(base, headers=headers, timeout=TIMEOUT) as http:
            await _converse(http, question, model)
    except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as error:
        raise StartError(f"Nothing answers at {base}; start it with: make run") from error
    except aiohttp.ClientError as error:
        raise StartError(f"The answer of {base} broke off; its log may say why.") from error


async def _asker(session: Session) -> Row[Any]:
    try:
        return await session.users.find(ASKER)
    except NotFound:
        plan = next(iter(session.policy.plans))
        return await session.users.create(ASKER, Role.USER, plan, command_line())


async def _converse(http: aiohttp.ClientSession, question: str, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": question}], "stream": True}
    async with http.post("v1/chat/completions", json=body) as response:
        if not response.ok or "X-Prediction-ID" not in response.headers:
            raise StartError(await _refusal(response))
        try:
            events = EventParser()
            async for block in response.content.iter_any():
                for _, data in events.feed(block):
                    _show_event(data)
        finally:
            print()
        headers = response.headers
    async with http.get(f"v1/predictions/{headers['X-Prediction-ID']}") as response:
        if not response.ok:
            raise StartError(f"What it cost cannot be read: {await _refusal(response)}")
        cost = (await response.json())["cost_nano_usd"] / NANO
    left = counted(int(headers["x-ratelimit-remaining-requests"]), "request")
    print(f"It cost {cost:.9f} USD; left this minute: {left}.", file=sys.stderr)


async def _refusal(response: aiohttp.ClientResponse) -> str:
    """Why there is no answer, in the words of the service, if it is the service."""
    try:
        return str((await response.json())["error"]["message"])
    except (aiohttp.ContentTypeError, ValueError, KeyError, TypeError):
        return f"What answers at {response.url.origin()} is not this service."


def _show_event(data: bytes) -> None:
    if data == b"[DONE]":
        return
    event = from_json(data)
    if "error" in event:
        raise StartError(event["error"]["message"])
    for choice in choices_of(event):
        delta = choice.get("delta")
        if isinstance(delta, dict):
            print(text_of(delta.get("content")), end="", flush=True)
