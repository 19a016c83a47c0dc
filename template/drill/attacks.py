"""The attacks of `checks/hostile.py`: each is a kind of request that could harm other callers.

An attacker repeats its request, waits for the answer and pauses. So the check sees the harm of a
request, and not that a small machine has no processor time left for so many.
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp

from app import wiring as app_wiring
from drill.environment import Environment, User
from drill.wiring import work

PAUSE_SECONDS = 1.0
# How long a call without a waiting client goes on.
PATIENCE_SECONDS = 0.1
# How long a caller of a stream goes on without reading it; longer than a request may take.
UNREAD_SECONDS = 7
JSON = {"Content-Type": "application/json"}

Turn = Callable[[Environment, User], Awaitable[None]]


async def attack(environment: Environment, user: User, turn: Turn) -> None:
    """Take turns until it is cancelled. A connection that the service closes ends no attack."""
    while True:
        with suppress(aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError):
            await turn(environment, user)
        await asyncio.sleep(PAUSE_SECONDS)


async def _post(environment: Environment, user: User, body: bytes | str) -> None:
    url = environment.services[0].url + work.PATH
    async with environment.http.post(url, headers={**user.headers, **JSON}, data=body) as response:
        await response.read()


async def marks(environment: Environment, user: User) -> None:
    """Combining marks in the wrong order, which take a quadratic time to sort."""
    await environment.ask(user, **work.text("\u0300" * 30_000 + "\u0316" * 30_000))


async def brackets(environment: Environment, user: User) -> None:
    """Nesting without end."""
    await _post(environment, user, "[" * 1_000_000)


async def names(environment: Environment, user: User) -> None:
    """A name of 900 KB, and 5,000 others."""
    await _post(environment, user, json.dumps(work.body() | {"x" * 900_000: 1}))
    await _post(environment, user, json.dumps(work.body() | {f"name-{n}": n for n in range(5_000)}))


async def head(environment: Environment, user: User) -> None:
    """10,000 headers at once, and then a head that never ends."""
    address = urlsplit(environment.services[0].url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"x: y\r\n" * 10_000)
        await writer.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(UNREAD_SECONDS):
                await reader.read()
    finally:
        writer.close()


async def strangers(environment: Environment, _: User) -> None:
    """Ten log-ins at once, each with another name."""
    wrong = [User("", {"Authorization": _wrong()}) for _ in range(10)]
    await asyncio.gather(
        *(environment.get(environment.services[0], "/v1/me", each) for each in wrong)
    )


def _wrong() -> str:
    email = f"{secrets.token_hex(6)}@example.com"
    return app_wiring.auth.authorization(email, secrets.token_hex(16))


async def leavers(environment: Environment, user: User) -> None:
    """Eight calls without a waiting client."""
    calls = [asyncio.create_task(environment.ask(user)) for _ in range(8)]
    await asyncio.sleep(PATIENCE_SECONDS)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)


async def long_streams(environment: Environment, user: User) -> None:
    """Eight streams that last as long as they may; see the fault that is queued for streams."""
    await asyncio.gather(*(environment.ask(user, stream=True) for _ in range(8)))


async def unread_streams(environment: Environment, user: User) -> None:
    """Streams that no client reads."""
    url, body = environment.services[0].url + work.PATH, work.body(stream=True)
    async with environment.http.post(url, headers=user.headers, json=body):
        await asyncio.sleep(UNREAD_SECONDS)


TURNS: Sequence[Turn] = (
    marks,
    brackets,
    names,
    head,
    strangers,
    leavers,
    *((long_streams, unread_streams) if work.STREAMS else (marks, leavers)),
)
