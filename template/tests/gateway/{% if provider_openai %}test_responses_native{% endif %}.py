"""Responses of a server that speaks `/v1/responses`: requests, events and settlement."""

import itertools
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web

from tests.fixtures.service import Start
from tests.simulator.faults import Fault
from tests.support import Service, User, error_of, eventually
from tests.test_responses import PATH, ask, events_of

TEXT = "You said: one two"


@pytest.fixture
def settings(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The simulator is OpenAI's own server."""
    monkeypatch.setattr("gateway.providers.openai.OWN_HOST", "127.0.0.1")
    return settings


def native(given: Any = "one two", **rest: Any) -> dict[str, Any]:
    return ask(given, "openai/chat", **rest)


async def test_requests_are_not_stored_and_have_the_default_tier(
    service: Service, client: httpx2.AsyncClient
) -> None:
    asked = native(
        store=True,
        service_tier="auto",
        metadata={"a": "b"},
        stream_options={"include_obfuscation": False},
        max_tool_calls=3,
        include=["reasoning.encrypted_content", "web_search_call.results"],
    )
    response = (await client.post(PATH, json=asked)).json()
    (call,) = service.simulator.calls
    assert call.path == "/responses"
    assert call.body == {
        "model": "gpt-5-mini",
        "input": "one two",
        "store": False,
        "service_tier": "default",
        "max_output_tokens": 64,
        "include": ["reasoning.encrypted_content"],
    }
    assert response["metadata"] == {"a": "b"}
    assert (response["store"], response["model"]) == (False, "openai/chat")
    assert response["id"].startswith("resp_0")
    prediction = await service.prediction()
    assert prediction.output["id"] == response["id"]


async def test_every_event_is_passed_on_under_the_public_name(
    service: Service, client: httpx2.AsyncClient
) -> None:
    events = events_of((await client.post(PATH, json=native(stream=True))).text)
    responses = [event["response"] for event in events if "response" in event]
    assert {(each["model"], each["store"]) for each in responses} == {("openai/chat", False)}
    assert "".join(e["delta"] for e in events if e["type"].endswith(".delta")) == TEXT
    assert (await service.books())[0] == "settled"


async def test_reasoning_is_taken_back_encrypted_or_not_at_all(
    service: Service, client: httpx2.AsyncClient
) -> None:
    think = {"reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"]}
    kept = (await client.post(PATH, json=native(**think))).json()["output"]
    lost = (await client.post(PATH, json=native(reasoning={"effort": "low"}))).json()["output"]
    assert [item["type"] for item in kept + lost] == ["reasoning", "message"] * 2
    answer = await client.post(PATH, json=native([*kept, *lost, {"role": "user", "content": "x"}]))
    assert answer.status_code == 200
    sent = (service.simulator.calls[-1].body or {})["input"]
    kinds = ["reasoning", "message", "message", "message"]
    assert [item["type"] for item in sent] == kinds
    assert [sorted(item) for item in sent[:2]] == [
        ["encrypted_content", "id", "summary", "type"],
        ["content", "role", "type"],
    ]


async def test_fields_and_nulls_of_others_are_taken_and_not_sent(
    service: Service, client: httpx2.AsyncClient
) -> None:
    part: Any = {
        "type": "output_text",
        "text": "x",
        "annotations": [],
        "parsed": None,
        "logprobs": [],
    }
    items = [
        {"role": "assistant", "id": "run-1", "status": None, "content": [part], "name": "x"},
        {"type": "function_call", "id": "x", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "id": None, "call_id": "c", "output": "x", "tool": 1},
        {"type": "reasoning", "id": "rs_other", "content": [], "summary": []},
        {"role": "assistant", "content": [{"type": "of_tomorrow"}, 1, {"type": ["x"]}]},
        {"role": "user", "content": "one"},
    ]
    assert (await client.post(PATH, json=native(items))).status_code == 200
    sent = (service.simulator.calls[-1].body or {})["input"]
    assert len(sent) == 5
    assert sent[3]["content"] == []
    assert sent[0]["content"] == [{"type": "output_text", "text": "x", "annotations": []}]


async def test_a_failure_before_any_output_is_retried(start: Start, policy_dir: Path) -> None:
    models = policy_dir / "models.toml"
    whole = models.read_text("utf-8")
    models.write_text(whole.replace("attempts = 1", "attempts = 2"), "utf-8")
    service = await start()
    client = service.client(await service.create_user())
    service.simulator.inject(Fault(kind="failed"))
    assert (await client.post(PATH, json=native())).status_code == 200
    service.simulator.inject(Fault(kind="stream_error", after=2))
    events = events_of((await client.post(PATH, json=native(stream=True))).text)
    assert events[-1]["type"] == "response.completed"
    assert len(service.simulator.calls) == 4


async def test_a_response_that_fails_says_so_once_and_its_usage_is_paid(
    service: Service, client: httpx2.AsyncClient
) -> None:
    service.simulator.inject(Fault(kind="failed"))
    response = await client.post(PATH, json=native(stream=True), headers={"Idempotency-Key": "x"})
    events = events_of(response.text)
    last = events[-1]
    assert [event["type"] for event in events].count("error") == 0
    assert (last["type"], last["response"]["error"]["code"]) == ("response.failed", "server_error")
    assert "org-simulator" not in response.text
    assert await service.books() == ("settled", "provider_error")
    # An error is not replayed.
    again = await client.post(PATH, json=native(stream=True), headers={"Idempotency-Key": "x"})
    assert events_of(again.text)[-1]["type"] == "response.completed"


async def test_a_fallback_may_speak_chats_alone(start: Start, policy_dir: Path) -> None:
    models = policy_dir / "models.toml"
    entry = '[models."openai/chat"]\n'
    whole = models.read_text("utf-8").replace(entry, f'{entry}fallbacks = ["offline/echo"]\n')
    models.write_text(whole, "utf-8")
    service = await start()
    client = service.client(await service.create_user())
    service.simulator.inject(Fault(kind="error", status=500))
    response = await client.post(PATH, json=native(stream=True))
    assert response.headers["x-served-model"] == "offline/echo"
    events = events_of(response.text)
    assert events[-1]["response"]["model"] == "offline/echo"
    assert "".join(e["delta"] for e in events if e["type"].endswith(".delta")) == TEXT


async def test_a_client_that_leaves_ends_the_work(service: Service, user: User) -> None:
    service.simulator.inject(Fault(kind="stall", after=6))
    client = service.client(user)
    async with client.stream("POST", PATH, json=native(stream=True)) as response:
        async for line in response.aiter_lines():
            if "output_text.delta" in line:
                break
    await eventually(service.upstream_was_left)
    await eventually(service.is_settled)
    assert await service.books() == ("uncertain", "cancelled")
    output = (await service.prediction()).output
    assert output["output"][0]["content"][0]["text"].startswith("You")


CREATED = {"type": "response.created", "response": {"id": "resp_1", "output": []}}
USAGE = {"input_tokens": 3, "output_tokens": 2}
ITEM = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}
WHOLE = {"id": "resp_1", "status": "completed", "output": [ITEM], "usage": USAGE}
COMPLETED = {"type": "response.completed", "response": WHOLE}
DELTA = {"type": "response.output_text.delta", "output_index": 0, "delta": "x"}


@asynccontextmanager
async def streaming(events: Iterable[Any], end: bytes = b"") -> AsyncIterator[str]:
    """Serve these events on every path, each named."""
    blocks = [
        event if isinstance(event, bytes) else b"data: " + json.dumps(event).encode()
        for event in events
    ]

    async def handle(_: web.Request) -> web.Response:
        body = b"\n\n".join([*blocks, end])
        return web.Response(body=body, content_type="text/event-stream")

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def numbered(events: Sequence[Any]) -> list[Any]:
    """These documents with sequence numbers; bytes are not events."""
    numbers = itertools.count()
    return [
        {**event, "sequence_number": next(numbers)} if isinstance(event, dict) else event
        for event in events
    ]


@pytest.mark.parametrize(
    ("events", "kinds", "state"),
    [
        ([CREATED, DELTA, COMPLETED], ["created", "output_text.delta", "completed"], "settled"),
        ([DELTA, {"type": "response.of_tomorrow", "x": 1}, COMPLETED], None, "settled"),
        (
            [b": keep-alive", CREATED, COMPLETED, b"data: [DONE]"],
            ["created", "completed"],
            "settled",
        ),
        ([CREATED, COMPLETED, b"data: nonsense"], ["created", "completed"], "settled"),
        ([CREATED, DELTA], ["created", "output_text.delta", "error"], "uncertain"),
        ([CREATED, DELTA, b"data: [DONE]"], ["created", "output_text.delta", "error"], "uncertain"),
        ([CREATED, DELTA, b"data: {"], ["created", "output_text.delta", "error"], "uncertain"),
        (
            [DELTA, {"type": "error", "code": "server_error", "message": "secret"}],
            ["output_text.delta", "error"],
            "uncertain",
        ),
        (
            [DELTA, {"type": "error", "error": {"code": "x", "message": "secret"}}],
            ["output_text.delta", "error"],
            "uncertain",
        ),
        (
            [DELTA, {**COMPLETED, "response": {**WHOLE, "usage": None}}],
            ["output_text.delta", "completed"],
            "uncertain",
        ),
        ([DELTA, {"type": "response.completed"}], ["output_text.delta", "error"], "uncertain"),
        ([DELTA, {"type": 1, "output_index": []}, COMPLETED], None, "settled"),
    ],
    ids=str,
)
async def test_streams_as_they_come(
    start: Start, events: Sequence[Any], kinds: list[str] | None, state: str
) -> None:
    async with streaming(numbered(events)) as url:
        service = await start(openai_base_url=url)
        client = service.client(await service.create_user())
        events = events_of((await client.post(PATH, json=native(stream=True))).text)
    seen = [event["type"].removeprefix("response.") for event in events]
    assert seen == (kinds or seen)
    assert kinds is not None or len(seen) == len(events)
    assert "secret" not in json.dumps(events)
    assert (await service.books())[0] == state


@pytest.mark.parametrize(
    ("error", "answer", "state"),
    [
        ({"code": "rate_limit_exceeded"}, (503, "provider_cooling_down"), "released"),
        ({"code": "server_error"}, (502, "provider_error"), "released"),
        ({"code": "invalid_prompt"}, (400, "invalid_request"), "released"),
        ({"code": "insufficient_quota"}, (503, "provider_quota_exceeded"), "released"),
        ({"code": None}, (502, "provider_error"), "uncertain"),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["flat", "nested", "failed", "whole"])
async def test_an_error_before_any_output_is_an_answer(
    start: Start, error: dict[str, Any], answer: tuple[int, str], state: str, form: str
) -> None:
    error = {**error, "message": "secret"}
    failed: Any = {"id": "resp_1", "status": "failed", "output": [], "error": error, "usage": None}
    event = {
        "flat": {"type": "error", **error},
        "nested": {"type": "error", "error": error},
        "failed": {"type": "response.failed", "response": failed},
        "whole": failed,
    }[form]
    events = numbered([CREATED, event]) if form != "whole" else [json.dumps(failed).encode()]
    async with streaming(events) as url:
        service = await start(openai_base_url=url)
        client = service.client(await service.create_user())
        response = await client.post(PATH, json=native(stream=form != "whole"))
    assert error_of(response)[:2] == answer
    assert "secret" not in response.text
    assert (await service.attempt()).state == state


async def test_a_document_in_place_of_a_stream_is_the_error_in_it(start: Start) -> None:
    async with streaming([b'{"error": {"code": "rate_limit_exceeded", "message": "x"}}']) as url:
        service = await start(openai_base_url=url)
        client = service.client(await service.create_user())
        response = await client.post(PATH, json=native(stream=True))
    assert error_of(response)[:2] == (503, "provider_cooling_down")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "output", [None, [{"type": "message", "content": [{"type": "output_text", "text": 5}]}]]
)
async def test_a_document_of_another_form_costs_the_usage_in_it(
    start: Start, output: Any, stream: bool
) -> None:
    given = {"output": output, "usage": {"input_tokens": 2, "output_tokens": 5}}
    text = {"format": {"type": "json_object"}}
    async with streaming([json.dumps(given).encode()]) as url:
        service = await start(openai_base_url=url)
        client = service.client(await service.create_user())
        response = await client.post(PATH, json=native(stream=stream, text=text))
    assert error_of(response)[:2] == (502, "provider_error")
    assert (await service.attempt()).state == "settled"
