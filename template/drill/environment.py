"""The environment of the drill: the running service, the simulator behind it, users who ask."""

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp
from pydantic import SecretStr
from sqlalchemy import Executable, Row, select

from app import wiring as app_wiring
from app.settings import Settings
from drill import policy
from drill.backends import Backend
from drill.processes import Service, command, environment, simulator
from drill.simulator import Simulator
from drill.webhook_receiver import Owner, listening
from drill.wiring import BACKENDS, work
from gateway.accounts.audit import command_line
from gateway.accounts.principals import Role
from gateway.accounts.users import Users
from gateway.counts import counted
from gateway.db.engine import Database
from gateway.db.tables import attempts, predictions
from tests.ports import kept_port

# Short, so that what was left behind by a crash is settled within the drill.
DEADLINE_SECONDS = 5
INTERVAL_SECONDS = 0.02


Kind = TypeVar("Kind")


class User(NamedTuple):
    """A user of the service, with a credential."""

    id: str
    headers: Mapping[str, str]


class Answer(NamedTuple):
    """What came back, and after how many seconds."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def code(self) -> str:
        """`ok`, or an error's status, code and parameter."""
        if self.status < 400:
            return "ok"
        error = json.loads(self.body)["error"]
        return " ".join(filter(None, (str(self.status), error["code"], error["param"])))

    @property
    def retry_after(self) -> int:
        return int(self.headers["Retry-After"])


def tally(answers: Sequence[Answer]) -> str:
    """How many answers there are of each kind: `12 times ok, 188 times 429 …`."""
    counts = Counter(answer.code for answer in answers)
    return ", ".join(
        f"{counted(counts[code], 'time')} {code}" for code in sorted(counts, reverse=True)
    )


class Environment:
    """What a look at a promise works with."""

    def __init__(
        self,
        directory: Path,
        http: aiohttp.ClientSession,
        simulator: Simulator,
        owner: Owner,
        backends: Sequence[Backend],
        processes: int,
    ) -> None:
        self.directory = directory
        self.processes = processes
        self.http = http
        self.simulator = simulator
        self.owner = owner
        self._backends = backends
        self.services: list[Service] = []
        # Of a plan that allows all that this machine can do.
        self.user = User("", {})
        self.environment = _environment(directory, simulator, owner, backends)
        self._started: list[Service] = []
        self._ports = ExitStack()

    async def start(self, **overrides: str) -> Service:
        """Start a process of the service, without waiting for it; it ends with the drill."""
        port = self._ports.enter_context(kept_port())
        service = await Service.start(self.directory, {**self.environment, **overrides}, port)
        self._started.append(service)
        return service

    async def start_like_a_host(self) -> Service:
        """Start a process again and again until it serves."""
        while True:
            service = await self.start()
            with suppress(RuntimeError):
                await service.wait_until_ready(self.http)
                return service

    async def replace(self, **overrides: str) -> None:
        """Start as many processes as are asked for, in the place of those that run."""
        await asyncio.gather(*(service.stop() for service in self.services))
        self.services = [await self.start(**overrides) for _ in range(self.processes)]
        await asyncio.gather(*(each.wait_until_ready(self.http) for each in self.services))

    async def command(self, *words: str) -> Any:
        """Run a command of the service's own command line."""
        return await command(self.directory, self.environment, *words)

    async def create_user(self, plan: str, name: str = "") -> User:
        """A new user of a plan; each process has seen the credential once."""
        email = f"{name or secrets.token_hex(6)}@example.com"
        async with self._database() as (settings, database):
            made = await Users(database).create(email, Role.USER, plan, command_line())
            secret = await app_wiring.auth.create_access(
                settings, database, made.id, command_line()
            )
        header = app_wiring.auth.authorization(email, secret)
        user = User(made.id, {"Authorization": header})
        for service in self.services:
            await self.get(service, "/v1/me", user)
        return user

    async def ask(
        self, user: User, service: Service | None = None, key: str = "", **body: Any
    ) -> Answer:
        """Ask for one generation."""
        url = (service or self.services[0]).url + work.PATH
        headers = {**user.headers, **({"Idempotency-Key": key} if key else {})}
        return await self._request("POST", url, headers=headers, json=work.body(**body))

    async def burst(self, user: User, count: int, key: str = "") -> list[Answer]:
        """Ask `count` times at once, each process in turn."""
        turns = (self.services[number % len(self.services)] for number in range(count))
        return await asyncio.gather(*(self.ask(user, service, key) for service in turns))

    async def get(self, service: Service, path: str, user: User | None = None) -> Answer:
        """Read from one process."""
        headers = user.headers if user else {}
        return await self._request("GET", service.url + path, headers=headers)

    def backend(self, kind: type[Kind]) -> Kind:
        """The backend of this kind."""
        return next(backend for backend in self._backends if isinstance(backend, kind))

    async def attempts(self, user: User) -> Sequence[Row[Any]]:
        """The ledger of a user, oldest first."""
        mine = attempts.c.user_id == user.id
        return await self.fetch(select(attempts).where(mine).order_by(attempts.c.id))

    async def predictions(self, user: User) -> Sequence[Row[Any]]:
        """The records of a user, oldest first."""
        mine = predictions.c.user_id == user.id
        return await self.fetch(select(predictions).where(mine).order_by(predictions.c.id))

    async def fetch(self, statement: Executable) -> Sequence[Row[Any]]:
        """Read the service's tables, on a connection of its own."""
        async with self._database() as (_, database):
            return await database.fetch(statement)

    async def close(self) -> None:
        """Stop every process of the service."""
        await asyncio.gather(*(service.stop() for service in self._started))
        self._ports.close()

    @asynccontextmanager
    async def _database(self) -> AsyncIterator[tuple[Settings, Database]]:
        """The service's database, on connections of the drill's own."""
        settings = Settings(
            _env_file=None,
            environment="test",
            database_url=self.environment["DATABASE_URL"],
            secret_key=SecretStr(self.environment["SECRET_KEY"]),
        )
        database = app_wiring.database.open_database(settings.gateway)
        try:
            yield settings, database
        finally:
            await database.close()

    async def _request(self, method: str, url: str, **options: Any) -> Answer:
        started = time.monotonic()
        async with self.http.request(method, url, **options) as response:
            body = await response.read()
        return Answer(response.status, response.headers, body, time.monotonic() - started)


async def eventually(happens: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Whether it happens in time."""
    give_up_at = time.monotonic() + seconds
    while not await happens():
        if time.monotonic() > give_up_at:
            return False
        await asyncio.sleep(INTERVAL_SECONDS)
    return True


@asynccontextmanager
async def open_environment(directory: Path, processes: int) -> AsyncIterator[Environment]:
    """Everything that the drill needs, up and ready; all of it ends with the block."""
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        backends = []
        for open_backend in BACKENDS:
            backends.append(open_backend(directory))
            stack.callback(backends[-1].close)
        url = await stack.enter_async_context(simulator(directory))
        owner = await stack.enter_async_context(listening())
        made = Environment(directory, http, Simulator(url, http), owner, backends, processes)
        stack.push_async_callback(made.close)
        await made.command("migrate")
        await made.replace()
        made.user = await made.create_user("roomy")
        yield made


def _environment(
    directory: Path, simulator: Simulator, owner: Owner, backends: Sequence[Backend]
) -> dict[str, str]:
    """The settings of every process: nothing of the machine's own, no account at a provider."""
    credentials = [
        name.upper()
        for name, info in Settings.model_fields.items()
        if info.annotation is SecretStr and name.endswith(("_api_key", "_token"))
    ]
    chosen = {
        "ENVIRONMENT": "test",
        "SECRET_KEY": secrets.token_urlsafe(48),
        "POLICY_DIR": str(policy.write(directory / "policy")),
        "ALERT_WEBHOOK_URL": owner.url,
        "REQUEST_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
        **dict.fromkeys(credentials, "drill"),
        **simulator.environment,
    }
    for backend in backends:
        chosen |= backend.environment
    return environment(chosen)
