"""The processes that the drill starts, and ends: the service, its command line, the simulator."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from app.settings import Settings
from gateway.config import ROOT

READY_SECONDS = 90.0
STOP_SECONDS = 10.0
INTERVAL_SECONDS = 0.05

Environment = Mapping[str, str]


class Process:
    """A module of this project that runs until it is stopped; what it says goes to a log."""

    def __init__(self, running: asyncio.subprocess.Process, log: Path) -> None:
        self._running = running
        self.log = log

    @property
    def has_ended(self) -> bool:
        return self._running.returncode is not None

    async def stop(self) -> None:
        """Ask it to stop; insist when it does not."""
        if not self.has_ended:
            self._running.terminate()
        try:
            await asyncio.wait_for(self._running.wait(), STOP_SECONDS)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End it as a crash does."""
        if not self.has_ended:
            self._running.kill()
        await self._running.wait()


class Service(Process):
    """The service on a port of this machine."""

    url = ""

    @classmethod
    async def start(cls, directory: Path, environment: Environment, port: int) -> "Service":
        """Start it, without waiting until it is ready."""
        log = directory / f"service-{port}.log"
        chosen = {**environment, "PORT": str(port)}
        service = cls(await _run(("app", "serve"), directory, chosen, log), log)
        service.url = f"http://127.0.0.1:{port}"
        return service

    async def wait_until_ready(self, http: aiohttp.ClientSession) -> None:
        """Return once `/readyz` says so."""
        give_up_at = time.monotonic() + READY_SECONDS
        while not await self.is_ready(http):
            if self.has_ended or time.monotonic() > give_up_at:
                said = self.log.read_text(encoding="utf-8").splitlines()
                raise RuntimeError(f"The service did not start: {' '.join(said[-1:])}")
            await asyncio.sleep(INTERVAL_SECONDS)

    async def is_ready(self, http: aiohttp.ClientSession) -> bool:
        """Whether it listens, and says that it is ready."""
        try:
            async with http.get(f"{self.url}/readyz") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


@asynccontextmanager
async def simulator(directory: Path) -> AsyncIterator[str]:
    """Run the providers' stand-in, and yield its address."""
    log = directory / "simulator.log"
    running = await _run(("tests.simulator",), directory, environment({}), log)
    process = Process(running, log)
    try:
        while not (said := log.read_text(encoding="utf-8")).endswith("\n"):
            if process.has_ended:
                raise RuntimeError(f"The simulator did not start: {said}")
            await asyncio.sleep(INTERVAL_SECONDS)
        yield json.loads(said.splitlines()[0])["url"]
    finally:
        await process.stop()


async def command(directory: Path, chosen: Environment, *words: str) -> Any:
    """What a command of the service prints with `--json`; None without it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", *words),
        cwd=directory,
        env=chosen,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {errors.decode()}")
    return json.loads(output) if "--json" in words else None


def environment(chosen: Environment) -> dict[str, str]:
    """What programs need of this machine's environment, no setting of the service, and `chosen`.

    Processes run in a folder without a `.env`.
    """
    settings = {name.upper() for name in Settings.model_fields}
    kept = {name: value for name, value in os.environ.items() if name not in settings}
    return {**kept, "PYTHONPATH": str(ROOT), **chosen}


async def _run(
    module: tuple[str, ...], directory: Path, chosen: Environment, log: Path
) -> asyncio.subprocess.Process:
    # A session of its own: Ctrl-C is for the drill, which stops everything in order.
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *module),
            cwd=directory,
            env=chosen,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
