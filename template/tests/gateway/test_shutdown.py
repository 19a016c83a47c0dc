"""`python -m app serve` that is asked to stop while it works: nothing stays open in the ledger."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.background import in_background
from gateway.db.tables import attempts, predictions
from tests.fake_provider import FakeProvider, hang
from tests.fixtures.service import Start
from tests.ports import kept_port
from tests.simulator.faults import Fault
from tests.simulator.server import Simulator
from tests.simulator.wiring import FORMATS
from tests.support import (
    PATIENCE_SECONDS,
    POLICY,
    ROOT,
    User,
    chat,
    environment,
    error_of,
    eventually,
    said,
    sse,
)

LATER = {"Prefer": "respond-async"}
CHATS = [name for name in POLICY if name.endswith("/chat")]
# A model of each chosen provider.
MODELS = [
    next(name for name in POLICY if name.startswith(f"{wire_format.name}/"))
    for wire_format in FORMATS
]


@pytest.fixture
def port() -> Iterator[int]:
    """Where the process serves."""
    with kept_port() as port:
        yield port


@pytest.fixture
async def user(start: Start) -> User:
    """A user in the database of the process; the service that created the user has stopped."""
    service = await start()
    user = await service.create_user()
    await service.stop()
    return user


@pytest.fixture
async def process(
    user: User, settings: dict[str, Any], tmp_path: Path, port: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx2.AsyncClient]]:
    """The process, ready, and a client of it."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "serve"),
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            **environment(settings),
            "PORT": str(port),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    client = httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers=user.headers,
        timeout=PATIENCE_SECONDS,
        trust_env=False,
    )

    async def ready() -> bool:
        try:
            return (await client.get("/readyz")).status_code == 200
        except httpx2.TransportError:
            return False

    try:
        await eventually(ready)
        yield running, client
    finally:
        await client.aclose()
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def stop(running: asyncio.subprocess.Process) -> None:
    """Ask it to stop, as a host does, and expect a clean end."""
    running.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE_SECONDS):
        _, errors = await running.communicate()
    assert (running.returncode, errors) == (0, b"")


def called(simulator: Simulator) -> Any:
    async def check() -> bool:
        return bool(simulator.calls)

    return check


@pytest.mark.parametrize("model", MODELS)
async def test_a_prediction_that_runs_is_cancelled_and_paid_at_its_bound(
    process: tuple[asyncio.subprocess.Process, httpx2.AsyncClient],
    start: Start,
    simulator: Simulator,
    model: str,
) -> None:
    running, client = process
    simulator.inject(Fault(kind="timeout", times=None))
    name = "inputs" if POLICY[model]["kind"] == "task" else "prompt"
    body = {"model": model, "input": {name: "one two"}}
    assert (await client.post("/v1/predictions", json=body, headers=LATER)).status_code == 202
    await eventually(called(simulator))
    await stop(running)
    service = await start()
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", attempt.bound_nano_usd)
    assert (prediction.status, prediction.outcome) == ("cancelled", "cancelled")
    assert prediction.finished_at is not None


@pytest.mark.parametrize("model", CHATS)
async def test_a_stream_that_runs_is_finished_first(
    process: tuple[asyncio.subprocess.Process, httpx2.AsyncClient],
    start: Start,
    simulator: Simulator,
    model: str,
) -> None:
    running, client = process
    simulator.inject(Fault(kind="slow", seconds=1))
    body = {"model": model, "messages": [{"role": "user", "content": "one"}], "stream": True}
    asked = asyncio.create_task(client.post("/v1/chat/completions", json=body))
    await eventually(called(simulator))
    await stop(running)
    *chunks, done = sse((await asked).text)
    assert (said(chunks), done) == ("You said: one", "[DONE]")
    service = await start()
    (attempt,), (prediction,) = await service.rows(attempts), await service.rows(predictions)
    assert (attempt.state, prediction.outcome) == ("settled", "ok")


async def test_a_call_that_outlives_the_shutdown_gets_an_error(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = FakeProvider.install(monkeypatch)
    scripted.on_answer = hang
    service = await start()
    client = service.client(await service.create_user())
    asked = asyncio.create_task(client.post("/v1/chat/completions", json=chat()))

    async def runs() -> bool:
        return bool(scripted.asked)

    await eventually(runs)
    # What uvicorn does then.
    for task in asyncio.all_tasks():
        if getattr(task.get_coro(), "__name__", "") == "run_asgi":
            task.cancel()
    response = await asked
    assert error_of(response) == (503, "generation_stopped", None)
    assert response.headers["Retry-After"] == "1"
    assert (await service.attempt()).state == "uncertain"
    assert "Traceback" not in service.log


async def test_an_idle_process_stops_at_once(
    process: tuple[asyncio.subprocess.Process, httpx2.AsyncClient],
) -> None:
    running, _ = process
    async with asyncio.timeout(5):
        await stop(running)


async def test_what_runs_in_the_background_ends_although_its_cancellation_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python 3.11's `asyncio.wait_for`, which libraries use, forgets it when what it waits for ends
    at the same moment.
    """
    monkeypatch.setattr("gateway.background.CANCEL_AGAIN_SECONDS", 0.01)

    async def forget() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE_SECONDS), in_background(forget()) as (loop,):
        await asyncio.sleep(0)
    assert loop.cancelled()
