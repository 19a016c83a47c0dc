"""`python -m app serve` as a host runs it: its log, its end, and why it does not start."""

import asyncio
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from app import wiring
from app.cli import serve
from app.settings import Settings
from gateway.errors import StartError
from gateway.http import listeners, server
from gateway.http.listeners import ABSENT, _bound, listen
from gateway.http.server import EVERYWHERE, LOOPBACK, Server
from tests.ports import has_ipv6, kept_port
from tests.support import PATIENCE_SECONDS, ROOT, SECRET_KEY, environment, eventually

Environment = dict[str, str]
Refusal = Callable[..., str]
# This machine, in each family that it has; the service listens on both.
LOOPBACKS = ["127.0.0.1", *(["[::1]"] if has_ipv6() else [])]


@pytest.fixture
def chosen(settings: dict[str, Any]) -> Iterator[Environment]:
    """The environment of a process that serves on a port of its own."""
    with kept_port() as port:
        yield {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            **environment(settings),
            "PORT": str(port),
        }


@asynccontextmanager
async def _process(
    directory: Path, chosen: Environment, *words: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process, from a folder without a `.env`; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "serve", *words),
        cwd=directory,
        env=chosen,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
def refusal(
    anyio_backend: str,
    chosen: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    restored_logging: None,
) -> Iterator[Refusal]:
    """Starts it within this process, to say why it does not start."""
    stopping = signal.getsignal(signal.SIGTERM)

    def refuse(**changes: str) -> str:
        for name, value in (chosen | changes).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as refused:
            serve.main()
        said = "".join(capfd.readouterr())
        if isinstance(refused.value.code, str):  # Python prints it and exits with 1.
            return f"{said}{refused.value.code}\n"
        assert refused.value.code == 1
        return said

    yield refuse
    signal.signal(signal.SIGTERM, stopping)


async def _refusal(directory: Path, chosen: Environment, *words: str) -> str:
    """What the process says when it does not start."""
    async with _process(directory, chosen, *words) as process, asyncio.timeout(PATIENCE_SECONDS):
        output, errors = await process.communicate()
    said = output.decode() + errors.decode()
    assert process.returncode == 1
    assert "Traceback" not in said
    return said


def _metrics(directory: Path) -> list[Path]:
    """The folders that several processes share."""
    return list(directory.glob("metrics-*"))


async def _until_ready(address: str) -> None:
    async with httpx2.AsyncClient(base_url=address, trust_env=False) as client:

        async def ready() -> bool:
            try:
                return (await client.get("/readyz")).status_code == 200
            except httpx2.TransportError:
                return False

        await eventually(ready)


async def test_it_migrates_serves_logs_and_stops(
    tmp_path: Path, chosen: Environment, empty_database_url: str
) -> None:
    chosen = {**chosen, "DATABASE_URL": empty_database_url}
    async with _process(tmp_path, chosen, "--migrate") as process:
        for host in LOOPBACKS:
            await _until_ready(f"http://{host}:{chosen['PORT']}")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            output, errors = await process.communicate()
    assert process.returncode == 0
    assert errors == b""
    events = [json.loads(line) for line in output.splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(event) for event in events)
    # Outside of production, this machine alone is served.
    messages = [event["message"] for event in events if event["message"].startswith("Listening on")]
    assert messages == [f"Listening on {host}:{chosen['PORT']}" for host in LOOPBACKS]
    assert events[-1]["logger"].startswith("uvicorn")
    answered = [event["route"] for event in events if event.get("status") == 200]
    assert answered == ["/readyz"] * len(LOOPBACKS)


STOPPED_WITHIN = """
import os, signal
from app.cli import serve

def load():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException as error:
        raise ValueError("as libraries do with what is raised in them") from error

serve.load = load
serve.main()
"""


async def test_a_request_to_stop_in_the_middle_of_the_start_is_no_failure(
    tmp_path: Path, chosen: Environment
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STOPPED_WITHIN),
        cwd=tmp_path,
        env=chosen,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")


def test_a_wrong_environment(refusal: Refusal) -> None:
    said = refusal(PORT="eighty", LOG_LEVEL="LOUD")
    assert [line.partition(":")[0] for line in said.splitlines()] == ["LOG_LEVEL", "PORT"]


@pytest.mark.parametrize(
    ("chosen_environment", "hosts"),
    [("development", LOOPBACK), ("test", LOOPBACK), ("production", EVERYWHERE)],
)
def test_only_production_is_reached_from_other_machines(
    monkeypatch: pytest.MonkeyPatch,
    clean_environment: None,
    chosen_environment: str,
    hosts: dict[socket.AddressFamily, str],
) -> None:
    given: dict[str, Any] = {"environment": chosen_environment, "secret_key": SECRET_KEY}
    seen: dict[socket.AddressFamily, str] = {}

    def run(_: uvicorn.Config, listeners: list[socket.socket]) -> None:
        seen.update({each.family: each.getsockname()[0] for each in listeners})

    monkeypatch.setattr(server, "run", run)
    serve._serve(Settings(_env_file=None, port=0, **given))
    assert seen == {family: hosts[family] for family in seen}
    assert socket.AF_INET in seen


def test_an_idle_connection_outlives_the_one_that_a_proxy_keeps(clean_environment: None) -> None:
    """nginx and cloud balancers keep theirs for 60 to 75 seconds."""
    config = serve._config(Settings(_env_file=None))
    assert config.timeout_keep_alive > 75


def test_callers_have_the_address_of_their_family() -> None:
    """As FORWARDED_ALLOW_IPS names it: none is ::ffff:127.0.0.1."""
    for listener, host in zip(listen(LOOPBACK, 0), LOOPBACKS, strict=True):
        with listener:
            listener.listen()
            port = listener.getsockname()[1]
            with socket.create_connection((host.strip("[]"), port)):
                accepted, address = listener.accept()
                accepted.close()
        assert address[0] == host.strip("[]")


@pytest.mark.parametrize("reason", sorted(ABSENT))
@pytest.mark.parametrize("missing", LOOPBACK)
def test_a_machine_with_one_family(
    monkeypatch: pytest.MonkeyPatch, missing: socket.AddressFamily, reason: int
) -> None:
    def bound(family: socket.AddressFamily, *place: Any) -> socket.socket:
        if family == missing:
            raise OSError(reason, "not here")
        return _bound(family, *place)

    monkeypatch.setattr(listeners, "_bound", bound)
    (listener,) = listen(LOOPBACK, 0)
    with listener:
        assert listener.family == next(family for family in LOOPBACK if family != missing)


def test_a_machine_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def bound(*_: Any) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "not here")

    monkeypatch.setattr(listeners, "_bound", bound)
    with pytest.raises(StartError, match="neither IPv4 nor IPv6"):
        listen(LOOPBACK, 0)


async def test_a_port_that_is_taken_in_the_meantime(caplog: pytest.LogCaptureFixture) -> None:
    (mine, *rest), app = listen(LOOPBACK, 0), FastAPI()
    port = mine.getsockname()[1]
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(SystemExit):
            await Server(uvicorn.Config(app, port=port, log_config=None)).serve([mine, *rest])
    for listener in (mine, *rest):
        listener.close()
    assert f"PORT {port} cannot be used: Address already in use." in caplog.text


@pytest.mark.parametrize("host", [host.strip("[]") for host in LOOPBACKS])
def test_a_port_that_is_taken(refusal: Refusal, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as taken:
        port = taken.getsockname()[1]
        said = refusal(PORT=str(port))
    assert said == (
        f"PORT {port} cannot be used: Address already in use. Stop the program that listens "
        "there, or set another PORT in the environment or in .env.\n"
    )


def test_a_wrong_address(refusal: Refusal) -> None:
    # pragma: allowlist nextline secret
    said = refusal(DATABASE_URL="db://jane:top@s3cret:pass@host/db")
    assert "DATABASE_URL: it has an @ too many" in said
    assert "s3cret" not in said


def test_a_weak_secret_in_production(refusal: Refusal) -> None:
    said = refusal(ENVIRONMENT="production", SECRET_KEY="changeme")
    assert said == "SECRET_KEY is weak; make a new one with: openssl rand -base64 48\n"


def test_a_broken_policy_file(refusal: Refusal, policy_dir: Path) -> None:
    (policy_dir / "models.toml").write_text("[models", encoding="utf-8")
    assert "models.toml is not valid TOML" in refusal()


@pytest.mark.skipif(not wiring.MANY_PROCESSES, reason="here one process serves")
async def test_a_broken_policy_file_with_several_processes(
    tmp_path: Path, chosen: Environment, policy_dir: Path
) -> None:
    (policy_dir / "models.toml").write_text("[models", encoding="utf-8")
    said = await _refusal(tmp_path, {**chosen, "WEB_CONCURRENCY": "2"})
    assert "models.toml is not valid TOML" in said


@pytest.mark.skipif(not wiring.MANY_PROCESSES, reason="here one process serves")
async def test_several_processes_serve_every_family_and_leave_no_metrics_behind(
    tmp_path: Path, chosen: Environment
) -> None:
    several = {**chosen, "WEB_CONCURRENCY": "2", "TMPDIR": str(tmp_path)}
    async with _process(tmp_path, several) as process:
        for host in LOOPBACKS:
            await _until_ready(f"http://{host}:{chosen['PORT']}")
        assert _metrics(tmp_path)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await process.communicate()
    assert process.returncode == 0
    assert not _metrics(tmp_path)


async def test_a_dead_database(tmp_path: Path, chosen: Environment, dead_database_url: str) -> None:
    said = await _refusal(tmp_path, {**chosen, "DATABASE_URL": dead_database_url}, "--migrate")
    assert "database" in said.lower()


@pytest.mark.skipif(wiring.MANY_IN_PRODUCTION, reason="here several processes may serve")
def test_several_processes_where_one_may_serve(refusal: Refusal) -> None:
    production = {"ENVIRONMENT": "production"} if wiring.MANY_PROCESSES else {}
    said = refusal(**production, WEB_CONCURRENCY="2")
    assert said.startswith("WEB_CONCURRENCY must be 1")
