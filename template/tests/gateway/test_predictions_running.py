"""`/v1/predictions` while the provider still works: polled, cancelled, failed, erased."""

import asyncio
import functools
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from gateway.db.tables import predictions, utc_now
from gateway.pipeline.generation import Generation
from gateway.pipeline.pipeline import Pipeline
from gateway.providers.base import Reply
from tests.fixtures.service import Start
from tests.simulator.faults import Fault, Kind
from tests.simulator.wiring import FORMATS
from tests.support import PATIENCE_SECONDS, POLICY, Service, error_of, eventually, unique

LATER = {"Prefer": "respond-async"}

# Each chosen provider with each way in which its work goes on for ever.
HANGS: list[tuple[str, Kind]] = [
    (wire_format.name, kind)
    for wire_format in FORMATS
    for kind in ("timeout", "endless")
    if any(kind in route.faults for route in wire_format().routes())
]
PROVIDER = FORMATS[0].name


def _asked(provider: str, prompt: str = "one two") -> dict[str, Any]:
    """A request for the provider's first model; chats and tasks take a prompt alike."""
    model = next(name for name in POLICY if name.startswith(f"{provider}/"))
    return {"model": model, "input": {"prompt": prompt}}


async def _begin(client: httpx2.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    response = await client.post("/v1/predictions", json=body, headers=LATER)
    assert response.status_code == 202
    record: dict[str, Any] = response.json()
    return record


async def _end(client: httpx2.AsyncClient, path: str) -> dict[str, Any]:
    """The record when it does not run any more."""

    async def ended() -> dict[str, Any]:
        record: dict[str, Any] = (await client.get(path)).json()
        return record if record["status"] != "running" else {}

    return await eventually(ended)


async def _reached(service: Service) -> bool:
    """Whether the simulator plays the fault by now."""
    return any(call.fault for call in service.simulator.calls)


async def _erase_elsewhere(service: Service, prediction_id: str) -> None:
    """As another process does it."""
    own = predictions.c.id == prediction_id
    await service.write(update(predictions).where(own).values(input=None, erased_at=utc_now()))


async def test_a_background_prediction_answers_at_once_and_is_polled(
    client: httpx2.AsyncClient,
) -> None:
    body = {"model": "offline/echo", "input": {"prompt": "one two"}}
    response = await client.post("/v1/predictions", json=body, headers=LATER)
    path = response.headers["Location"]
    assert response.status_code == 202
    assert path == f"/v1/predictions/{response.json()['id']}"
    assert response.headers["X-Prediction-ID"] == response.json()["id"]
    assert response.headers["x-served-model"] == "offline/echo"
    assert "x-ratelimit-remaining-requests" in response.headers
    record = await _end(client, path)
    assert (record["status"], record["outcome"]) == ("succeeded", "ok")
    assert record["output"]["choices"][0]["message"]["content"] == "You said: one two"
    assert record["cost_nano_usd"] > 0


@pytest.mark.parametrize(("provider", "kind"), HANGS)
async def test_one_that_runs_can_be_read_and_is_cancelled_when_it_is_erased(
    service: Service, client: httpx2.AsyncClient, provider: str, kind: Kind
) -> None:
    service.simulator.inject(Fault(kind=kind, provider=provider))
    canary = unique("canary")
    record = await _begin(client, _asked(provider, canary))
    path = f"/v1/predictions/{record['id']}"
    await eventually(functools.partial(_reached, service))
    assert (record["status"], record["output"], record["finished_at"]) == ("running", None, None)
    assert (await client.get(path)).json()["status"] == "running"
    assert (await client.get("/v1/usage")).json()["day"]["reserved_nano_usd"] > 0

    assert (await client.delete(path)).status_code == 204
    row, attempt = await service.prediction(), await service.attempt()
    assert (row.status, row.outcome) == ("cancelled", "cancelled")
    assert canary not in repr(row)
    # The maximum is paid, unless the provider said with the cancel what was used: nothing, if the
    # work had not started.
    assert attempt.cost_nano_usd == row.cost_nano_usd
    is_known = attempt.cost_nano_usd < attempt.bound_nano_usd
    assert attempt.state == ("settled" if is_known else "uncertain")
    assert error_of(await client.get(path)) == (404, "not_found", None)
    usage = (await client.get("/v1/usage")).json()["day"]
    assert (usage["spent_nano_usd"], usage["reserved_nano_usd"]) == (row.cost_nano_usd, 0)


@pytest.mark.parametrize(("provider", "kind"), HANGS)
async def test_a_cancelled_prediction_is_cancelled_at_the_provider(
    service: Service, client: httpx2.AsyncClient, provider: str, kind: Kind
) -> None:
    service.simulator.inject(Fault(kind=kind, provider=provider))
    record = await _begin(client, _asked(provider))
    await eventually(functools.partial(_reached, service))

    # Work with an id of its own is cancelled by its id; other work by leaving.
    async def has_an_id() -> bool:
        return kind == "timeout" or service.simulator.calls[0].outcome == "answered"

    await eventually(has_an_id)
    await client.delete(f"/v1/predictions/{record['id']}")

    async def told() -> bool:
        first, last = service.simulator.calls[0], service.simulator.calls[-1]
        return first.outcome == "abandoned" or last.path.endswith("/cancel")

    assert await eventually(told)


async def test_one_that_is_erased_through_another_process_is_cancelled(
    service: Service, client: httpx2.AsyncClient
) -> None:
    service.simulator.inject(Fault(kind="timeout", provider=PROVIDER))
    record = await _begin(client, _asked(PROVIDER))
    await eventually(functools.partial(_reached, service))
    await _erase_elsewhere(service, record["id"])

    async def ended() -> bool:
        return bool((await service.prediction()).status != "running")

    await eventually(ended)
    row, attempt = await service.prediction(), await service.attempt()
    assert (row.status, row.outcome) == ("cancelled", "cancelled")
    assert attempt.state == "uncertain"


async def test_a_failure_is_in_the_record(service: Service, client: httpx2.AsyncClient) -> None:
    service.simulator.inject(Fault(kind="rate_limited", provider=PROVIDER))
    created = await _begin(client, _asked(PROVIDER))
    record = await _end(client, f"/v1/predictions/{created['id']}")
    assert (record["status"], record["outcome"]) == ("failed", "provider_error")
    assert record["error"]["code"] == "provider_cooling_down"
    assert (record["output"], record["cost_nano_usd"]) == (None, 0)
    assert (await service.attempt()).state == "released"


@pytest.mark.parametrize("here", [True, False])
async def test_what_is_erased_while_a_client_waits_is_cancelled(
    service: Service, client: httpx2.AsyncClient, here: bool
) -> None:
    canary = unique("canary")
    service.simulator.inject(Fault(kind="timeout", provider=PROVIDER))
    body = _asked(PROVIDER, canary)
    waiting = asyncio.create_task(client.post("/v1/predictions", json=body))
    await eventually(functools.partial(_reached, service))
    row = await service.prediction()
    assert canary in repr(row)
    if here:
        assert (await client.delete(f"/v1/predictions/{row.id}")).status_code == 204
    else:
        await _erase_elsewhere(service, row.id)
    assert error_of(await waiting) == (409, "conflict", None)
    row, attempt = await service.prediction(), await service.attempt()
    assert (row.status, row.outcome, row.output) == ("cancelled", "cancelled", None)
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", row.cost_nano_usd)
    assert canary not in repr(row)


@pytest.mark.parametrize("headers", [{}, LATER], ids=["waiting", "later"])
@pytest.mark.parametrize("fault", [None, "rate_limited"])
async def test_no_content_is_kept_unless_wanted(
    start: Start, headers: dict[str, str], fault: Kind | None
) -> None:
    service = await start(store_content=False)
    client = service.client(await service.create_user())
    if fault:
        service.simulator.inject(Fault(kind=fault, provider=PROVIDER))
    canary = unique("canary")
    body = _asked(PROVIDER, canary)
    answer = await client.post("/v1/predictions", json=body, headers=headers)
    # The waiting client gets the answer all the same.
    assert (canary in answer.text) is not bool(headers or fault)

    async def ended() -> bool:
        return bool((await service.prediction()).status != "running")

    await eventually(ended)
    row = await service.prediction()
    assert canary not in repr(row)
    assert (row.input, row.output) == (None, None)
    assert row.status == ("failed" if fault else "succeeded")


async def test_a_stop_of_the_service_settles_what_runs(start: Start) -> None:
    service = await start()
    client = service.client(await service.create_user())
    service.simulator.inject(Fault(kind="timeout", provider=PROVIDER))
    record = await _begin(client, _asked(PROVIDER))
    await eventually(functools.partial(_reached, service))
    await client.aclose()
    await service.stop()
    after = await start()
    row, attempt = await after.prediction(), await after.attempt()
    assert (row.id, row.status, row.outcome) == (record["id"], "cancelled", "cancelled")
    assert attempt.state == "uncertain"


async def test_a_stop_cancels_all_at_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider may take seconds for each."""
    together, finish = asyncio.Barrier(3), Pipeline.finish

    async def finish_slowly(pipeline: Pipeline, generation: Generation) -> Reply:
        try:
            return await finish(pipeline, generation)
        finally:
            try:
                await asyncio.wait_for(together.wait(), PATIENCE_SECONDS)
            except TimeoutError:
                await together.abort()

    monkeypatch.setattr(Pipeline, "finish", finish_slowly)
    service = await start()
    client = service.client(await service.create_user())
    for _ in range(together.parties):
        service.simulator.inject(Fault(kind="timeout", provider=PROVIDER))
        await _begin(client, _asked(PROVIDER))
    await client.aclose()
    await service.stop()
    assert not together.broken
    assert {row.status for row in await (await start()).rows(predictions)} == {"cancelled"}
