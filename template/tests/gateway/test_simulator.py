"""The simulator's control routes and the faults that every wire format can play."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError, ClientPayloadError, ClientSession, ClientTimeout
from pydantic import ValidationError

from tests.simulator.exchange import WireFormat
from tests.simulator.faults import ANYWHERE, REFUSALS, Fault, FaultQueue
from tests.simulator.server import Simulator
from tests.simulator.wiring import FORMATS

pytestmark = pytest.mark.anyio

_ROOT = Path(__file__).parents[2]


@pytest.fixture(params=FORMATS, ids=lambda wire_format: wire_format.name)
def wire_format(request: pytest.FixtureRequest) -> WireFormat:
    """Give each chosen wire format in turn."""
    chosen: WireFormat = request.param()
    return chosen


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[ClientSession]:
    """Open a session that sends a token."""
    headers = {"Authorization": "Bearer token"}
    async with ClientSession(simulator.url, headers=headers) as session:
        yield session


@pytest.fixture
def path(wire_format: WireFormat) -> str:
    """The path of the format's first route. It refuses an empty body, but records the request."""
    return wire_format.base + wire_format.routes()[0].path


async def test_environment_names_a_base_url_per_format(
    simulator: Simulator, wire_format: WireFormat
) -> None:
    assert simulator.environment[wire_format.variable] == simulator.url + wire_format.base


async def test_the_journal_records_requests(
    simulator: Simulator, client: ClientSession, wire_format: WireFormat, path: str
) -> None:
    await client.post(path, json={"a": 1})
    (call,) = simulator.calls
    assert (call.provider, call.method) == (wire_format.name, "POST")
    assert call.path == wire_format.routes()[0].path
    assert call.headers["authorization"] == "Bearer token"
    assert call.body == {"a": 1}
    assert call.outcome == "answered"
    assert call.billed is None


async def test_credentials_are_needed(simulator: Simulator, path: str) -> None:
    async with ClientSession(simulator.url) as client, client.post(path, json={}) as response:
        assert response.status == 401


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
async def test_body_must_be_a_json_object(client: ClientSession, path: str, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    async with client.post(path, data=content, headers=headers) as response:
        assert response.status == 400


@pytest.mark.parametrize(
    ("fault", "statuses"),
    [
        (Fault(kind="rate_limited"), {429}),
        (Fault(kind="quota"), {402, 429}),
        (Fault(kind="overloaded"), {503}),
        (Fault(kind="bad_request"), {400}),
        (Fault(kind="too_long"), {400, 422}),
        (Fault(kind="unauthorized"), {401}),
        (Fault(kind="error"), {500}),
        (Fault(kind="error", status=502), {502}),
    ],
    ids=str,
)
async def test_refusals_have_their_status(
    simulator: Simulator, client: ClientSession, path: str, fault: Fault, statuses: set[int]
) -> None:
    simulator.inject(fault)
    async with client.post(path, json={}) as response:
        assert response.status in statuses
        assert isinstance(await response.json(), dict)


async def test_retry_after_in_seconds(
    simulator: Simulator, client: ClientSession, path: str
) -> None:
    simulator.inject(Fault(kind="rate_limited", seconds=7))
    async with client.post(path, json={}) as response:
        assert response.headers["Retry-After"] == "7"


async def test_retry_after_as_a_date(
    simulator: Simulator, client: ClientSession, path: str
) -> None:
    simulator.inject(Fault(kind="rate_limited", seconds=60, retry_after="date"))
    async with client.post(path, json={}) as response:
        until = parsedate_to_datetime(response.headers["Retry-After"])
    assert timedelta(seconds=50) < until - datetime.now(UTC) <= timedelta(seconds=60)


async def test_retry_after_absent(simulator: Simulator, client: ClientSession, path: str) -> None:
    simulator.inject(Fault(kind="rate_limited", retry_after="absent"))
    async with client.post(path, json={}) as response:
        assert "Retry-After" not in response.headers


async def test_a_redirect_leads_to_a_host_that_records_requests(
    simulator: Simulator, client: ClientSession, path: str
) -> None:
    simulator.inject(Fault(kind="redirect", times=2))
    async with client.post(path, json={}, allow_redirects=False) as response:
        assert response.status == 302
        assert response.headers["Location"].startswith("http://localhost:")
    await client.post(path, json={})
    assert [call.provider == "elsewhere" for call in simulator.calls] == [False, False, True]


async def test_slow_answers_late(simulator: Simulator, client: ClientSession, path: str) -> None:
    simulator.inject(Fault(kind="slow", seconds=0.2))
    started = asyncio.get_running_loop().time()
    await client.post(path, json={})
    assert asyncio.get_running_loop().time() - started >= 0.2


async def test_timeout_lasts_until_the_client_leaves(
    simulator: Simulator, client: ClientSession, path: str
) -> None:
    simulator.inject(Fault(kind="timeout"))
    with pytest.raises(TimeoutError):
        await client.post(path, json={}, timeout=ClientTimeout(0.1))
    for _ in range(100):
        await asyncio.sleep(0.01)
        if simulator.calls[0].outcome != "open":
            break
    assert simulator.calls[0].outcome == "abandoned"


async def test_drop_closes_the_connection(
    simulator: Simulator, client: ClientSession, path: str
) -> None:
    simulator.inject(Fault(kind="drop"))
    with pytest.raises(ClientConnectionError):
        await client.post(path, json={})
    assert simulator.calls[0].outcome == "dropped"


async def test_malformed_is_no_json(simulator: Simulator, client: ClientSession, path: str) -> None:
    simulator.inject(Fault(kind="malformed"))
    async with client.post(path, json={}) as response:
        assert response.content_type == "application/json"
        with pytest.raises(json.JSONDecodeError):
            await response.json()


async def test_cut_sends_half_an_answer(
    simulator: Simulator, client: ClientSession, path: str
) -> None:
    simulator.inject(Fault(kind="cut"))
    async with client.post(path, json={}) as response:
        with pytest.raises(ClientPayloadError):
            await response.read()


async def test_fault_waits_for_the_request_that_it_is_meant_for(
    simulator: Simulator, client: ClientSession, wire_format: WireFormat, path: str
) -> None:
    simulator.inject(
        Fault(kind="error", provider=wire_format.name, method="GET", status=501),
        Fault(kind="error", provider=wire_format.name, path="/elsewhere/*", status=502),
        Fault(kind="error", provider=wire_format.name, path="*", status=503),
    )
    async with client.post(path, json={}) as response:
        assert response.status == 503


@pytest.mark.parametrize(("times", "expected"), [(1, [500]), (2, [500, 500]), (None, [500] * 3)])
async def test_fault_applies_as_often_as_it_says(
    simulator: Simulator,
    client: ClientSession,
    path: str,
    times: int | None,
    expected: list[int],
) -> None:
    simulator.inject(Fault(kind="error", times=times))
    statuses = [(await client.post(path, json={})).status for _ in range(3)]
    assert [status for status in statuses if status == 500] == expected


async def test_reset_forgets_calls_and_faults(
    simulator: Simulator, client: ClientSession, path: str
) -> None:
    simulator.inject(Fault(kind="error", times=None))
    await client.post(path, json={})
    simulator.reset()
    async with client.post(path, json={}) as response:
        assert response.status != 500
    assert len(simulator.calls) == 1


async def test_control_routes_do_the_same(client: ClientSession, path: str) -> None:
    faults = [Fault(kind="error", status=502).model_dump()]
    async with client.post("/_control/faults", json=faults) as response:
        assert response.status == 204
    async with client.post(path, json={}) as response:
        assert response.status == 502
    async with client.get("/_control/calls") as response:
        journal = await response.json()
    assert journal["total"] == 1
    assert journal["calls"][0]["fault"] == "error"
    assert journal["calls"][0]["status"] == 502
    await client.post("/_control/reset")
    async with client.get("/_control/calls") as response:
        assert (await response.json())["calls"] == []


@pytest.mark.parametrize(
    "faults",
    [
        b"{",
        b'{"kind": "error"}',
        b'[{"kind": "unheard_of"}]',
        b'[{"kind": "error", "typo": 1}]',
        b'[{"kind": "error", "provider": "nobody"}]',
    ],
)
async def test_control_refuses_what_is_no_fault(client: ClientSession, faults: bytes) -> None:
    async with client.post("/_control/faults", data=faults) as response:
        assert response.status == 400
        assert (await response.json())["error"]


async def test_fault_that_nothing_can_play_is_an_error(simulator: Simulator) -> None:
    with pytest.raises(ValueError, match="nobody can play error"):
        simulator.inject(Fault(kind="error", provider="nobody"))


async def test_runs_as_a_process_until_a_signal() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.simulator", "--port", "0", cwd=_ROOT, stdout=PIPE
    )
    assert process.stdout is not None
    url = json.loads(await process.stdout.readline())["url"]
    async with ClientSession(url) as client, client.get("/_control/calls") as response:
        assert await response.json() == {"total": 0, "calls": []}
    process.terminate()
    assert await process.wait() == 0


def test_fault_survives_json() -> None:
    fault = Fault(kind="rate_limited", path="/v1/*", times=None, retry_after="date")
    assert Fault.model_validate_json(fault.model_dump_json()) == fault


def test_fault_has_no_other_fields() -> None:
    with pytest.raises(ValidationError):
        Fault.model_validate({"kind": "error", "unknown": 1})


def test_queue_plays_faults_in_order_and_only_where_they_can_be_played() -> None:
    queue = FaultQueue()
    queue.add(Fault(kind="drop"))
    queue.add(Fault(kind="error"))
    taken = [queue.take("any", "GET", "/", playable) for playable in (REFUSALS, ANYWHERE, ANYWHERE)]
    assert [fault and fault.kind for fault in taken] == ["error", "drop", None]
