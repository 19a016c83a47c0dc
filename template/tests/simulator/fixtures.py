"""Fixtures for tests that talk to the simulator; `conftest.py` names this module as a plugin."""

from collections.abc import AsyncIterator

import pytest

from tests.simulator.server import Simulator


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests and fixtures on asyncio alone: aiohttp knows no other loop."""
    return "asyncio"


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """Start a simulator of its own for the test, on a free port."""
    async with Simulator() as running:
        yield running
