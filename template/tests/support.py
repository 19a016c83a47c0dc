"""Helpers of the tests: the running service, users, clients and requests."""

import asyncio
import io
import json
import re
import secrets
import socket
import ssl
import threading
import time
import tomllib
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import Connection, Executable, Row, Table, insert, select, text

from app import wiring
from app.settings import Settings
from gateway.accounts.audit import command_line
from gateway.accounts.principals import Role
from gateway.batcher import Batcher
from gateway.db import engine
from gateway.db.engine import Database
from gateway.db.migrate import upgrade
from gateway.db.tables import attempts, audit, predictions, users, utc_now
from gateway.engine import Engine
from gateway.http.header_limits import BoundedProtocol
from gateway.ids import new_id
from gateway.ledger.batch import OPEN
from gateway.patience import is_done
from tests.simulator.faults import Fault
from tests.simulator.server import Simulator

ROOT = Path(__file__).resolve().parent.parent
SECRET_KEY = "k3yForTests-0123456789-abcdefghijklmnop"
PATIENCE_SECONDS = 30.0
# "Within a second", in the time of `free_time`, and with what the request itself takes.
PROMISED_SECONDS = 1.5
TICK_SECONDS = 0.01
# For a deadline that is to come after the provider was reached, on a busy machine too.
SOON_SECONDS = 0.5
# Made once: no test uses TLS, and loading the machine's certificates is slow.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

# The providers' credentials, whatever they are called.
CREDENTIALS = [
    name
    for name, info in Settings.model_fields.items()
    if info.annotation is SecretStr and name.endswith(("_api_key", "_token"))
    if name != "metrics_token"
]

# Their prices were checked today, whenever that is.
CHECKED = f"prices_checked = {utc_now().date()}"
MODELS_TOML = "\n".join(
    re.sub("prices_checked = .*", CHECKED, path.read_text("utf-8"))
    for path in (ROOT / "tests/policy").glob("*.toml")
)
# The tests' models by their public names: those of the project may change.
POLICY: dict[str, dict[str, Any]] = tomllib.loads(MODELS_TOML)["models"]
PLANS_TOML = """
[team_plans]
shared = {requests_per_minute = 6000}
narrow = {concurrent_generations = 2}
[plans]
one = {requests_per_minute = 1}
few = {requests_per_minute = 5}
poor = {requests_per_minute = 6000, daily_budget_usd = 1e-9, monthly_budget_usd = 1e-9}
brisk = {requests_per_minute = 60}
many = {requests_per_minute = 6000}
thrifty = {requests_per_minute = 6000, tokens_per_minute = 550}
narrow = {requests_per_minute = 6000, concurrent_generations = 2}
"""

Value = TypeVar("Value")


class User(NamedTuple):
    """A user with a credential."""

    id: str
    email: str
    credential: str
    headers: dict[str, str]


class Server(uvicorn.Server):
    """uvicorn in the event loop of the test, without signal handlers and its tick of 0.1 s."""

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(
            app, http=BoundedProtocol, ws="none", log_config=None, server_header=False
        )
        super().__init__(config)
        self.is_up = asyncio.Event()
        self.is_over = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    async def main_loop(self) -> None:
        await self.is_over.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()  # One that idles would stay for seconds.
        await eventually(self._is_idle)
        await self.lifespan.shutdown()

    async def _is_idle(self) -> bool:
        return not (self.server_state.connections or self.server_state.tasks)


@dataclass
class Service:
    """The running service."""

    url: str
    app: FastAPI
    settings: Settings
    simulator: Simulator
    output: io.StringIO
    stack: AsyncExitStack

    @property
    def engine(self) -> Engine:
        """The service's engine."""
        engine: Engine = self.app.state.engine
        return engine

    @property
    def database(self) -> Database:
        """The service's database."""
        return self.engine.database

    async def create_user(
        self, plan: str = "many", email: str = "", role: Role = Role.USER
    ) -> User:
        """A new user with a credential."""
        user_id = new_id("usr")
        email = email or f"{user_id}@example.com"
        row = {
            "id": user_id,
            "email": email,
            "role": role.value,
            "plan": plan,
            "created_at": utc_now(),
        }
        await self.database.transact(lambda connection: connection.execute(insert(users), row))
        return await self.admit(user_id, email)

    async def admit(self, user_id: str, email: str) -> User:
        """A user with a new credential of this service."""
        made = (self.settings, self.database, user_id, command_line())
        # In most log-ins a program uses what a person does.
        makers = dict.fromkeys((wiring.auth.create_credential, wiring.auth.create_access))
        credential, *rest = [str(await make(*made)) for make in makers]
        header = wiring.auth.authorization(email, rest[0] if rest else credential)
        return User(user_id, email, credential, {"Authorization": header})

    def client(self, user: User | None = None, **headers: str) -> httpx2.AsyncClient:
        """A client with the credential of `user`; it is closed with the service."""
        given = {**(user.headers if user else {}), **headers}
        client = httpx2.AsyncClient(
            base_url=self.url,
            headers=given,
            timeout=PATIENCE_SECONDS,
            trust_env=False,
            verify=NO_TLS,
        )
        self.stack.push_async_callback(client.aclose)
        return client

    async def write(self, *statements: Executable) -> None:
        """Change the database directly."""

        def work(connection: Connection) -> None:
            for statement in statements:
                connection.execute(statement)

        await self.database.transact(work)

    async def rows(self, table: Table) -> Sequence[Row[Any]]:
        """All rows, oldest first."""
        return await self.database.fetch(select(table).order_by(table.c.id))

    async def changes(self) -> list[Row[Any]]:
        """The audit, without the credentials of the tests' own users."""
        rows = await self.rows(audit)
        return [row for row in rows if not row.target.startswith(("key:", "password:"))]

    async def prediction(self) -> Row[Any]:
        """The row of the only generation so far."""
        (row,) = await self.rows(predictions)
        return row

    async def attempt(self) -> Row[Any]:
        """The row of the only attempt so far."""
        (row,) = await self.rows(attempts)
        return row

    async def stop(self) -> None:
        """Stop the service before the test ends."""
        await self.stack.aclose()

    async def rows_count(self) -> int:
        """The number of generations and of attempts."""
        return len(await self.rows(predictions)) + len(await self.rows(attempts))

    async def metric(self, name: str, **labels: str) -> float:
        """The value of a counter, zero before its first event."""
        token = self.settings.metrics_token.get_secret_value()
        client = self.client(Authorization=f"Bearer {token}".strip())
        for family in text_string_to_metric_families((await client.get("/metrics")).text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0.0

    async def settled(self, model: str = "offline/echo") -> Counter[str]:
        """The metrics of a model's settled usage: cost, and tokens by direction."""
        return Counter(
            cost=int(await self.metric("cost_nano_usd_total", model=model)),
            input=int(await self.metric("tokens_total", model=model, direction="input")),
            output=int(await self.metric("tokens_total", model=model, direction="output")),
        )

    async def is_settled(self) -> bool:
        """Whether the only generation has ended."""
        return (await self.attempt()).state not in OPEN

    async def upstream_was_left(self) -> bool:
        """Whether the service closed its connection to the provider."""
        return self.simulator.calls[0].outcome == "abandoned"

    async def books(self) -> tuple[str, str]:
        """State and outcome of the only generation, after a look at what it costs."""
        prediction, attempt = await self.prediction(), await self.attempt()
        cost, bound = attempt.cost_nano_usd, attempt.bound_nano_usd
        assert prediction.cost_nano_usd == cost
        assert cost == {"released": 0, "uncertain": bound}.get(attempt.state, cost)
        assert bound > 0
        assert attempt.closed_at is not None
        assert prediction.finished_at is not None
        return attempt.state, prediction.outcome

    @property
    def log(self) -> str:
        """The log so far."""
        return self.output.getvalue()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log's lines."""
        return [json.loads(line) for line in self.log.splitlines()]

    def access_events(self) -> list[dict[str, Any]]:
        """The log's lines of answered requests."""
        return [event for event in self.events if "duration_ms" in event]


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """Serve `app` on a free port, and yield its address."""
    # With an explicit TCP socket, asyncio disables Nagle's algorithm, which delays small answers.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(app)
        task = asyncio.create_task(server.serve([listener]))
        task.add_done_callback(lambda _: server.is_up.set())
        await server.is_up.wait()
        try:
            host, port = listener.getsockname()
            yield f"http://{host}:{port}"
        finally:
            server.is_over.set()
            await task


def environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as environment variables."""
    return {name.upper(): str(value) for name, value in settings.items()}


def migrate(url: str, **settings: Any) -> None:
    """Create the tables of a new database."""
    chosen = Settings(_env_file=None, database_url=url, **settings)

    async def work() -> None:
        database = wiring.database.open_database(chosen.gateway)
        await upgrade(database)
        await database.close()

    asyncio.run(work())


async def hide_table(admin_url: str, name: str) -> None:
    """Rename a table, as its owner."""

    def rename(connection: Connection) -> None:
        schema = (connection.get_execution_options().get("schema_translate_map") or {}).get(None)
        table = f"{schema}.{name}" if schema else name
        connection.execute(text(f"ALTER TABLE {table} RENAME TO elsewhere"))

    chosen = Settings(_env_file=None, database_url=admin_url)
    database = wiring.database.open_database(chosen.gateway)
    await database.transact(rename)
    await database.close()


def write_policy(directory: Path, models: str = "") -> None:
    """Write the tests' plans and models, and additional `models`."""
    (directory / "models.toml").write_text(MODELS_TOML + models, encoding="utf-8")
    (directory / "plans.toml").write_text(PLANS_TOML, encoding="utf-8")


def chat(text: str = "one two", model: str = "offline/echo", **rest: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **rest}


def sse(text: str) -> list[Any]:
    """The events of a stream as JSON, except for `[DONE]`."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def said(events: list[Any]) -> str:
    """The text of a streamed answer."""
    chunks = [event for event in events if isinstance(event, dict) and "choices" in event]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def error_of(response: httpx2.Response) -> tuple[int, str, str | None]:
    """Status, code and param of an error. Checks its format."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert error["message"].endswith((".", "…", "?"))
    return response.status_code, error["code"], error["param"]


async def eventually(check: Callable[[], Awaitable[Value]]) -> Value:
    """The first true result of `check`. Fails after a time-out."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while not (value := await check()):
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail("it did not happen in time")
        await asyncio.sleep(0.005)
    return value


@contextmanager
def stalling(owner: type, name: str) -> Iterator[None]:
    """Make the next call of a method block its thread until the end of the context."""
    work, over = getattr(owner, name), threading.Event()
    with pytest.MonkeyPatch.context() as patch:

        def stall(*given: Any) -> Any:
            patch.setattr(owner, name, work)
            over.wait(PATIENCE_SECONDS)
            return work(*given)

        patch.setattr(owner, name, stall)
        patch.setattr(Database, "patience_seconds", 0.2)
        try:
            yield
        finally:
            over.set()


async def leave_with_the_answer(work: Coroutine[Any, Any, Any]) -> None:
    """Cancel `work` in the turn of the event loop in which the result of a batcher arrives."""
    enqueue = Batcher.enqueue

    def leaving(batcher: Batcher[Any, Any], item: Any) -> asyncio.Future[Any]:
        future = enqueue(batcher, item)
        future.add_done_callback(lambda _: task.cancel())
        return future

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batcher, "enqueue", leaving)
        task = asyncio.create_task(work)
        await asyncio.wait([task])
    assert task.cancelled()


def describe(value: object) -> str | None:
    """The id of a test's parameter, from a fault's kind."""
    if not isinstance(value, Fault):
        return None
    status = value.status if value.kind == "error" else ""
    return f"{value.kind} {status} {value.method or ''}".strip()


def unique(word: str) -> str:
    """A unique word."""
    return f"{word}{secrets.token_hex(8)}"


@asynccontextmanager
async def busy(seconds: float, turns: int) -> AsyncIterator[None]:
    """Block the event loop for `seconds` in one of every `turns` turns."""

    async def work() -> None:
        while True:
            time.sleep(seconds)  # noqa: ASYNC251 - blocks on purpose
            for _ in range(turns):
                await asyncio.sleep(0)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()


@asynccontextmanager
async def free_time() -> AsyncIterator[Callable[[], float]]:
    """A clock that counts only the seconds in which the event loop was free.

    So a slow answer on a busy machine is not blamed on the service.
    """
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(TICK_SECONDS)
            ticks += 1

    task = asyncio.create_task(tick())
    try:
        yield lambda: ticks * TICK_SECONDS
    finally:
        task.cancel()


@contextmanager
def outlasting(then: Callable[[], None]) -> Iterator[None]:
    """Call `then` once a wait for the database exceeds `patience_seconds`."""
    parts: Counter[asyncio.Future[Any]] = Counter()

    async def count(work: asyncio.Future[Any], seconds: float, slices: int) -> bool:
        parts[work] += 1
        if parts[work] == engine.PARTS + 1:
            then()
        return await is_done(work, seconds, slices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "patience_seconds", 0.3)
        patch.setattr(engine, "is_done", count)
        yield
