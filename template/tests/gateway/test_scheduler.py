"""Routes that block the event loop are in the log."""

import asyncio
import time
from typing import Any

import httpx2
import pytest

from gateway.providers import offline
from gateway.telemetry.scheduler import LONG_SECONDS, timed
from tests.support import Service, chat, eventually

CHAT = "/v1/chat/completions"


@pytest.fixture
def _holding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chat of the offline provider blocks the event loop."""
    reply = offline._reply

    def hold(*given: Any) -> Any:
        time.sleep(LONG_SECONDS)
        return reply(*given)

    monkeypatch.setattr(offline, "_reply", hold)


def held(service: Service) -> list[dict[str, Any]]:
    return [each for each in service.events if "event loop was held" in each["message"]]


@pytest.mark.usefixtures("_holding")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_route_that_blocks_the_loop_is_logged(
    service: Service, client: httpx2.AsyncClient, stream: bool
) -> None:
    response = await client.post(CHAT, json=chat(stream=stream))
    assert response.status_code == 200
    (event,) = held(service)
    assert (event["level"], event["route"]) == ("warning", CHAT)
    assert event["request_id"] == response.headers["X-Request-ID"]
    assert event["seconds"] >= LONG_SECONDS


@pytest.mark.usefixtures("_holding")
async def test_a_prediction_that_blocks_the_loop_is_logged(
    service: Service, client: httpx2.AsyncClient
) -> None:
    body = {"model": "offline/echo", "input": {"prompt": "x"}}
    headers = {"Prefer": "respond-async"}
    await client.post("/v1/predictions", json=body, headers=headers)

    async def logged() -> list[dict[str, Any]]:
        return held(service)

    (event,) = await eventually(logged)
    assert event["route"] == "/v1/predictions"


async def test_timed_work_is_as_it_is() -> None:
    reached, ended = asyncio.Event(), []

    async def work(given: Any) -> Any:
        try:
            reached.set()
            await asyncio.sleep(0)
            if isinstance(given, BaseException):
                raise given
            return await given
        finally:
            ended.append(given)

    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_result(7)
    assert await timed(work(future)) == 7
    with pytest.raises(KeyError):
        await timed(work(KeyError()))
    assert len(ended) == 2


async def test_timed_work_is_cancelled_and_closed() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        finally:
            ended.append("closed")

    async def run() -> None:
        await timed(work())

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    begun = timed(work())
    begun.send(None)
    begun.close()
    assert ended == ["cancelled", "closed", "closed"]
