"""`POST /v1/responses`: answers and streams, translated for the offline provider."""

import json
from typing import Any

import httpx2
import pytest

from tests.support import Service, User, error_of

PATH = "/v1/responses"
SAID = "You said: one two"


def ask(given: Any = "one two", model: str = "offline/echo", **rest: Any) -> dict[str, Any]:
    """The body of a request for a response."""
    return {"model": model, "input": given, **rest}


def events_of(text: str) -> list[dict[str, Any]]:
    """The events of a stream, after a look at their names and numbers."""
    events = []
    for block in text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


async def test_answer(client: httpx2.AsyncClient) -> None:
    response = await client.post(PATH, json=ask())
    answer = response.json()
    assert response.status_code == 200
    assert (answer["object"], answer["model"]) == ("response", "offline/echo")
    assert (answer["status"], answer["store"]) == ("completed", False)
    (message,) = answer["output"]
    (part,) = message["content"]
    assert (message["type"], message["role"], message["status"]) == (
        "message",
        "assistant",
        "completed",
    )
    assert (part["type"], part["text"]) == ("output_text", SAID)
    assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (2, 5)


async def test_stream(client: httpx2.AsyncClient) -> None:
    response = await client.post(PATH, json=ask(stream=True))
    assert response.headers["Content-Type"].startswith("text/event-stream")
    events = events_of(response.text)
    kinds = [event["type"].removeprefix("response.") for event in events]
    deltas = [event["delta"] for event in events if event["type"].endswith("text.delta")]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * len(deltas),
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert "".join(deltas) == SAID
    whole = (await client.post(PATH, json=ask())).json()
    assert fields_of(events[-1]["response"]) == fields_of(whole)


def fields_of(response: dict[str, Any]) -> dict[str, Any]:
    """A response without what differs from one to the next."""
    items = [{**item, "id": None} for item in response["output"]]
    times = dict.fromkeys(("id", "created_at", "completed_at"))
    return {**response, **times, "output": items}


@pytest.mark.parametrize("stream", [False, True])
async def test_it_is_recorded(
    service: Service, client: httpx2.AsyncClient, user: User, stream: bool
) -> None:
    response = await client.post(PATH, json=ask(stream=stream))
    prediction, attempt = await service.prediction(), await service.attempt()
    assert response.headers["X-Prediction-ID"] == prediction.id
    assert response.headers["x-served-model"] == "offline/echo"
    assert "x-ratelimit-remaining-requests" in response.headers
    assert (prediction.kind, prediction.status, prediction.outcome) == ("chat", "succeeded", "ok")
    assert prediction.input == {"input": "one two"}
    assert prediction.output["output"][0]["content"][0]["text"] == SAID
    assert (prediction.input_tokens, prediction.output_tokens) == (2, 5)
    assert attempt.state == "settled"
    assert 0 < attempt.cost_nano_usd < attempt.bound_nano_usd


@pytest.mark.parametrize("stream", [False, True])
async def test_an_idempotent_request_is_replayed(
    service: Service, client: httpx2.AsyncClient, stream: bool
) -> None:
    headers = {"Idempotency-Key": "once"}
    first = await client.post(PATH, json=ask(stream=stream), headers=headers)
    again = await client.post(PATH, json=ask(stream=stream), headers=headers)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.text == first.text
    await service.prediction()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("conversation", "conv_1"),
        ("background", True),
        ("prompt", {"id": "pmpt_1"}),
        ("service_tier", "priority"),
        ("webhook", "http://localhost"),
    ],
)
async def test_what_is_refused_is_named(
    service: Service, client: httpx2.AsyncClient, name: str, value: Any
) -> None:
    response = await client.post(PATH, json=ask(**{name: value}))
    assert error_of(response)[1:] == ("unsupported_parameter", name)
    assert await service.rows_count() == 0


async def test_it_is_described(service: Service) -> None:
    document = (await service.client().get("/openapi.json")).json()
    operation = document["paths"][PATH]["post"]
    name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][name.rpartition("/")[2]]
    assert schema["required"] == ["model", "input"]
    assert set(schema["properties"]) >= {"instructions", "tools", "text", "reasoning", "stream"}
    assert {part["type"] for part in schema["properties"]["input"]["anyOf"]} == {"string", "array"}
