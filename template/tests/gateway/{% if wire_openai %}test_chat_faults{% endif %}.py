"""Chats of providers that speak OpenAI's format: every fault, its error and its place in the books.

"released" costs nothing, "uncertain" is paid at the bound, "settled" at what was used.
"""

import aiohttp
import httpx2
import pytest

from tests.fixtures.service import Start
from tests.simulator.faults import Fault
from tests.simulator.wiring import FORMATS
from tests.support import (
    POLICY,
    SOON_SECONDS,
    Service,
    chat,
    describe,
    error_of,
    eventually,
    said,
    sse,
)
from tests.upstream import answering

CHAT = "/v1/chat/completions"
VARIABLES = {each.name: each.variable.lower() for each in FORMATS}
COOLING = (503, "provider_cooling_down", None)
FAILED = (502, "provider_error", None)
NO_ACCOUNT = (503, "provider_quota_exceeded", None)
REFUSED = (400, "invalid_request", None)
LATE = (504, "deadline_exceeded", None)


@pytest.fixture(params=[name for name in POLICY if name.endswith("/chat")])
def model(request: pytest.FixtureRequest) -> str:
    """The chat model of each chosen provider in turn."""
    chosen: str = request.param
    return chosen


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("fault", "error", "state"),
    [
        (Fault(kind="rate_limited"), COOLING, "released"),
        (Fault(kind="bad_request"), REFUSED, "released"),
        (Fault(kind="error", status=422), REFUSED, "released"),
        (Fault(kind="unauthorized"), NO_ACCOUNT, "released"),
        (Fault(kind="error", status=403), NO_ACCOUNT, "released"),
        (Fault(kind="error", status=404), FAILED, "released"),
        (Fault(kind="error", status=529), FAILED, "uncertain"),
        (Fault(kind="drop"), FAILED, "uncertain"),
        (Fault(kind="redirect"), FAILED, "uncertain"),
    ],
    ids=describe,
)
async def test_failures(
    service: Service,
    client: httpx2.AsyncClient,
    model: str,
    fault: Fault,
    error: tuple[int, str, None],
    state: str,
    stream: bool,
) -> None:
    service.simulator.inject(fault)
    response = await client.post(CHAT, json=chat(model=model, stream=stream))
    assert error_of(response) == error
    assert await service.books() == (state, "provider_error")
    prediction = await service.prediction()
    assert (prediction.status, prediction.output) == ("failed", None)
    assert prediction.error == response.json()["error"]
    # One call, to the provider itself: nothing was tried again or followed.
    (call,) = service.simulator.calls
    assert call.provider == model.partition("/")[0]


async def test_a_busy_server_bills_nothing(
    service: Service, client: httpx2.AsyncClient, model: str
) -> None:
    service.simulator.inject(Fault(kind="overloaded"))
    assert error_of(await client.post(CHAT, json=chat(model=model))) == COOLING
    assert await service.books() == ("released", "provider_error")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(kind="unauthorized"), "its credential is not valid"),
        (Fault(kind="error", status=404), "does not serve"),
        (Fault(kind="redirect"), "moved to another address"),
        (Fault(kind="error", status=500), "Try again"),
    ],
    ids=describe,
)
async def test_a_failure_names_the_party_that_can_fix_it(
    service: Service, client: httpx2.AsyncClient, model: str, fault: Fault, words: str
) -> None:
    service.simulator.inject(fault)
    response = await client.post(CHAT, json=chat(model=model))
    assert words in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "fault", [Fault(kind="malformed", after=0), Fault(kind="cut", after=0)], ids=str
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_nonsense(
    service: Service, client: httpx2.AsyncClient, model: str, fault: Fault, stream: bool
) -> None:
    service.simulator.inject(fault)
    response = await client.post(CHAT, json=chat(model=model, stream=stream))
    assert error_of(response) == FAILED
    assert await service.books() == ("uncertain", "provider_error")


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_the_providers_pause_is_passed_on(
    service: Service, client: httpx2.AsyncClient, model: str, form: str
) -> None:
    service.simulator.inject(Fault(kind="rate_limited", seconds=40, retry_after=form))
    response = await client.post(CHAT, json=chat(model=model))
    assert 38 <= int(response.headers["Retry-After"]) <= 40


async def test_without_a_pause_a_short_one_is_advised(
    service: Service, client: httpx2.AsyncClient, model: str
) -> None:
    service.simulator.inject(Fault(kind="rate_limited", retry_after="absent"))
    response = await client.post(CHAT, json=chat(model=model))
    assert 1 <= int(response.headers["Retry-After"]) <= 30


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_provider_that_never_answers_meets_the_deadline(
    start: Start, model: str, stream: bool
) -> None:
    service = await start(request_deadline_seconds=SOON_SECONDS)
    client = service.client(await service.create_user())
    service.simulator.inject(Fault(kind="timeout"))
    response = await client.post(CHAT, json=chat(model=model, stream=stream))
    assert error_of(response) == LATE
    assert await service.books() == ("uncertain", "timeout")
    assert await eventually(service.upstream_was_left)


async def test_a_slow_answer_is_an_answer(
    service: Service, client: httpx2.AsyncClient, model: str
) -> None:
    service.simulator.inject(Fault(kind="slow", seconds=0.1))
    assert (await client.post(CHAT, json=chat(model=model))).status_code == 200
    assert await service.books() == ("settled", "ok")
    assert (await service.prediction()).latency_ms >= 100


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("outcome", ["empty", "refusal", "truncated", "filtered"])
async def test_an_answer_is_not_always_a_success(
    service: Service, client: httpx2.AsyncClient, model: str, outcome: str, stream: bool
) -> None:
    service.simulator.inject(Fault.model_validate({"kind": outcome}))
    response = await client.post(CHAT, json=chat(model=model, stream=stream))
    assert response.status_code == 200
    assert await service.books() == ("settled", outcome)
    assert (await service.prediction()).status == "succeeded"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_missing_usage_is_paid_at_the_bound(
    service: Service, client: httpx2.AsyncClient, model: str, stream: bool
) -> None:
    service.simulator.inject(Fault(kind="no_usage"))
    await client.post(CHAT, json=chat(model=model, stream=stream))
    assert await service.books() == ("uncertain", "ok")
    assert (await service.prediction()).input_tokens == 0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_more_usage_than_the_bound_is_settled_in_full(
    service: Service, client: httpx2.AsyncClient, model: str, stream: bool
) -> None:
    service.simulator.inject(Fault(kind="excess_usage", excess=100_000))
    await client.post(CHAT, json=chat(model=model, stream=stream))
    assert await service.books() == ("settled", "ok")
    attempt = await service.attempt()
    assert attempt.cost_nano_usd > attempt.bound_nano_usd
    assert (await service.prediction()).output_tokens == 100_064


async def test_all_that_a_request_allows_is_what_was_reserved_for_it(
    service: Service, client: httpx2.AsyncClient, model: str
) -> None:
    service.simulator.inject(Fault(kind="full_usage"))
    await client.post(CHAT, json=chat(model=model))
    assert (await service.books())[0] == "settled"
    attempt = await service.attempt()
    # The simulator adds nothing to the text; a real provider may.
    overhead = 16 * attempt.price["input"] // 1_000_000
    assert attempt.cost_nano_usd == attempt.bound_nano_usd - overhead


@pytest.mark.parametrize(
    "fault",
    [Fault(kind="cut"), Fault(kind="stream_error"), Fault(kind="malformed")],
    ids=str,
)
async def test_a_stream_that_breaks_says_so_and_has_no_end(
    service: Service, client: httpx2.AsyncClient, model: str, fault: Fault
) -> None:
    service.simulator.inject(fault)
    response = await client.post(CHAT, json=chat(model=model, stream=True))
    assert response.status_code == 200
    *chunks, last = sse(response.text)
    assert said(chunks) == "You"
    assert (last["error"]["code"], last["error"]["type"]) == ("provider_error", "server_error")
    assert await service.books() == ("uncertain", "provider_error")
    prediction = await service.prediction()
    assert prediction.status == "failed"
    assert prediction.output["choices"][0]["message"]["content"] == "You"


async def test_a_stream_that_stalls_meets_the_deadline(start: Start, model: str) -> None:
    service = await start(request_deadline_seconds=SOON_SECONDS)
    client = service.client(await service.create_user())
    service.simulator.inject(Fault(kind="stall"))
    response = await client.post(CHAT, json=chat(model=model, stream=True))
    *chunks, last = sse(response.text)
    assert (said(chunks), last["error"]["code"]) == ("You", "deadline_exceeded")
    assert await service.books() == ("uncertain", "timeout")
    assert await eventually(service.upstream_was_left)


async def test_when_the_client_leaves_the_provider_is_left_too(
    service: Service, client: httpx2.AsyncClient, model: str
) -> None:
    service.simulator.inject(Fault(kind="stall"))
    async with client.stream("POST", CHAT, json=chat(model=model, stream=True)) as response:
        lines = response.aiter_lines()  # kept, as the connection goes with it
        await anext(lines)
        assert (await service.attempt()).state == "reserved"
    assert await eventually(service.upstream_was_left)
    await eventually(service.is_settled)
    assert await service.books() == ("uncertain", "cancelled")
    assert (await service.prediction()).status == "cancelled"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_provider_that_is_down_costs_nothing(
    service: Service, client: httpx2.AsyncClient, model: str, stream: bool
) -> None:
    await service.simulator.stop()
    response = await client.post(CHAT, json=chat(model=model, stream=stream))
    assert error_of(response) == FAILED
    assert await service.books() == ("released", "provider_error")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_answer_names_the_public_model(
    service: Service, client: httpx2.AsyncClient, model: str, stream: bool
) -> None:
    body = chat(model=model, stream=stream, stream_options={"include_usage": True})
    response = await client.post(CHAT, json=body if stream else chat(model=model))
    bodies = sse(response.text)[:-1] if stream else [response.json()]
    assert {body["model"] for body in bodies} == {model}
    assert response.headers["x-served-model"] == model
    assert bodies[-1]["usage"]["prompt_tokens"] == 2
    assert service.simulator.calls[0].body is not None
    assert service.simulator.calls[0].body["model"] == POLICY[model]["name"]


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("x"),
        KeyError("x"),
        MemoryError(),
        OSError("x"),
        RecursionError("x"),
        RuntimeError("Session is closed"),
        TypeError("x"),
        UnicodeEncodeError("ascii", "ü", 0, 1, "x"),
        ValueError("Forbidden control character detected in headers."),
        aiohttp.ClientError("x"),
        aiohttp.InvalidURL("x"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "target", ["aiohttp.ClientRequest.__init__", "gateway.providers.http.to_json"]
)
async def test_a_request_that_cannot_be_built_costs_nothing(
    service: Service,
    client: httpx2.AsyncClient,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    stream: bool,
    target: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(target, fail)
    response = await client.post(CHAT, json=chat(model=model, stream=stream))
    assert response.status_code in {500, 502}
    assert (await service.books())[0] == "released"
    assert (await client.get("/v1/usage")).json()["day"]["spent_nano_usd"] == 0
    assert service.simulator.calls == []


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"Retry-After": "2.5"}, 3),
        ({"retry-after-ms": "2500"}, 3),
        ({"retry-after-ms": "2500", "Retry-After": "60"}, 3),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "NaN", "retry-after-ms": "inf"}, None),
    ],
    ids=str,
)
async def test_a_pause_has_several_forms(
    start: Start, model: str, headers: dict[str, str], pause: int | None
) -> None:
    document = {"error": {"message": "slow down"}}
    async with answering(lambda _: document, status=429, headers=headers) as url:
        service = await start(**{VARIABLES[model.partition("/")[0]]: url})
        client = service.client(await service.create_user())
        response = await client.post(CHAT, json=chat(model=model))
    assert error_of(response) == COOLING
    advised = int(response.headers["Retry-After"])
    assert advised == pause if pause else 1 <= advised <= 30
