"""Logs: one JSON object a line with user, route and duration, without content."""

import asyncio
import logging
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from gateway.providers.base import ProviderRequest
from gateway.providers.offline import OfflineProvider
from tests.fixtures.service import Start
from tests.support import (
    PATIENCE_SECONDS,
    SECRET_KEY,
    Service,
    User,
    chat,
    error_of,
    eventually,
    hide_table,
    unique,
)

CHAT = "/v1/chat/completions"
WRONG_TYPE = ("invalid_request", "messages.0.content.0.type")


async def test_each_answer_is_one_line(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    response = await client.post(CHAT, json=chat())
    (event,) = service.access_events()
    assert event["message"] == "POST /v1/chat/completions 200"
    assert (event["level"], event["logger"]) == ("info", "app")
    assert event["request_id"] == response.headers["X-Request-ID"]
    assert event["user_id"] == user.id
    assert (event["route"], event["status"]) == (CHAT, 200)
    assert event["duration_ms"] > 0
    assert event["time"].endswith("+00:00")
    # And what the generation was.
    prediction = await service.prediction()
    assert event["prediction_id"] == prediction.id
    assert (event["model"], event["outcome"]) == ("offline/echo", "ok")
    assert event["cost_nano_usd"] == prediction.cost_nano_usd > 0
    assert event["input_tokens"] == prediction.input_tokens
    assert "output" not in event


async def test_a_route_is_named_without_what_was_put_into_it(service: Service) -> None:
    canary = unique("canary")
    client = service.client(await service.create_user())
    await client.get(f"/v1/predictions/{canary}?cursor={canary}")
    await client.get(f"/{canary}")
    known, unknown = service.access_events()
    assert known["route"] == "/v1/predictions/{prediction_id}"
    assert unknown["route"] == "unmatched"
    assert canary not in service.log


@pytest.mark.parametrize("stream", [False, True])
async def test_no_content_and_no_credential_on_success(service: Service, stream: bool) -> None:
    canaries = [unique("prompt"), f"{unique('mail')}@example.com"]
    user = await service.create_user(email=canaries[1])
    client = service.client(user)
    response = await client.post(CHAT, json=chat(canaries[0], stream=stream))
    assert response.status_code == 200
    assert await eventually(lambda: _logged(service))
    assert not [canary for canary in canaries if canary in service.log]
    assert not [secret for secret in _secrets(service, user) if secret in service.log]


async def test_no_content_and_no_credential_on_errors(service: Service) -> None:
    canary = unique("canary")
    user = await service.create_user(email=f"{canary}@example.com")
    client = service.client(user, **{"X-Other": canary})
    await client.post(CHAT, json={**chat(canary), canary: 1})
    await client.post(CHAT, json=chat(canary, temperature=canary))
    await client.post(CHAT, json=chat(canary, model=canary))
    await client.post(CHAT, content=canary.encode())
    await client.post(CHAT, json=chat(canary), headers={"Authorization": f"Bearer {canary}"})
    statuses = [event["status"] for event in service.access_events()]
    assert statuses == [400, 400, 404, 400, 401]
    assert canary not in service.log
    assert not [secret for secret in _secrets(service, user) if secret in service.log]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (chat(temperature=3), ("invalid_request", "temperature")),
        (chat(messages=[{"role": "user", "content": [{"type": 7}]}]), WRONG_TYPE),
        (chat(logit_bias={"made up": "x"}), ("invalid_request", "logit_bias.…")),
        (chat() | {"made_up": 1}, ("unsupported_parameter", "…")),
        (chat(model="made up"), ("model_not_found", "model")),
        ({}, ("invalid_request", "messages")),
    ],
    ids=str,
)
async def test_a_refusal_says_its_code_and_parameter(
    service: Service, client: httpx2.AsyncClient, body: dict[str, Any], expected: tuple[str, str]
) -> None:
    await client.post(CHAT, json=body)
    (event,) = service.access_events()
    assert (event["code"], event["param"]) == expected
    assert "made" not in service.log


async def test_a_limit_that_refuses_is_in_the_log(service: Service) -> None:
    client = service.client(await service.create_user(plan="one"))
    answers = [await client.post(CHAT, json=chat()) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    passed, refused = service.access_events()
    assert "code" not in passed
    assert (refused["code"], refused["param"]) == ("rate_limit_exceeded", "requests")


@pytest.mark.parametrize("path", ["/nothing", "/livez"])
async def test_an_answer_of_the_framework_says_its_code(service: Service, path: str) -> None:
    response = await service.client().post(path)
    (event,) = service.access_events()
    assert event["code"] == response.json()["error"]["code"]


async def test_no_content_when_the_database_fails(
    service: Service, client: httpx2.AsyncClient, admin_url: str
) -> None:
    """The driver's errors quote the statement; its values must not come with it."""
    canary = unique("canary")
    await hide_table(admin_url, "predictions")
    response = await client.post(CHAT, json=chat(canary))
    assert error_of(response) == (503, "database_unavailable", None)
    assert "predictions" in service.log
    assert canary not in service.log


async def test_only_the_operator_sees_the_traceback_of_a_crash(
    service: Service, client: httpx2.AsyncClient, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(_: OfflineProvider, request: ProviderRequest) -> Any:
        raise ArithmeticError("the reason")

    canary = unique("canary")
    monkeypatch.setattr(OfflineProvider, "answer", crash)
    response = await client.post(CHAT, json=chat(canary), headers={"X-Request-ID": "crash-1"})
    assert error_of(response) == (500, "internal_error", None)
    assert response.headers["X-Request-ID"] == "crash-1"
    assert "the reason" not in response.text
    assert "Traceback" not in response.text
    (crashed,) = [event for event in service.events if "traceback" in event]
    assert (crashed["level"], crashed["request_id"]) == ("error", "crash-1")
    assert crashed["user_id"] == user.id
    assert "ArithmeticError: the reason" in crashed["traceback"]
    (access,) = service.access_events()
    assert (access["status"], access["level"]) == (500, "warning")
    assert canary not in service.log
    assert not [secret for secret in _secrets(service, user) if secret in service.log]
    # It is recorded as failed, at its bound: what it cost is not known.
    assert (await service.prediction()).status == "failed"


async def test_content_is_logged_when_wanted_and_redacted(start: Start) -> None:
    service = await start(log_content=True)
    client = service.client(await service.create_user())
    await client.post(CHAT, json=chat(f"ask jane@example.com about {SECRET_KEY}"))
    (event,) = service.access_events()
    answer = event["output"]["choices"][0]["message"]["content"]
    assert answer == "You said: ask [redacted] about [redacted]"
    assert "jane@" not in service.log
    assert SECRET_KEY not in service.log


@pytest.mark.parametrize("given", ["a", "Trace-1_b", "x" * 64])
async def test_a_request_id_is_accepted(service: Service, given: str) -> None:
    response = await service.client().get("/livez", headers={"X-Request-ID": given})
    assert response.headers["X-Request-ID"] == given
    assert service.access_events()[-1]["request_id"] == given


@pytest.mark.parametrize("given", [b"", b"x" * 65, b"a b", b'a"b', b"\xfc", b"{}", b"a,b"])
async def test_another_request_id_is_replaced(service: Service, given: bytes) -> None:
    response = await service.client().get("/livez", headers={b"X-Request-ID": given})
    own = response.headers["X-Request-ID"]
    assert own.startswith("req_")
    assert service.access_events()[-1]["request_id"] == own


@pytest.mark.parametrize("given", [b"a\rb", b"a\nSet-Cookie: b", b"a\r\n b", b"a\0b", b"a\x0bb"])
async def test_a_request_id_adds_no_header_and_no_line_to_the_log(
    service: Service, given: bytes
) -> None:
    """As bytes, since a client would refuse to send them. The parser or the pattern does."""
    address = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = b"GET /livez HTTP/1.1\r\nHost: service\r\nConnection: close\r\n"
    writer.write(head + b"X-Request-ID: " + given + b"\r\n\r\n")
    async with asyncio.timeout(PATIENCE_SECONDS):
        answer = await reader.read()
    writer.close()
    headers = answer.partition(b"\r\n\r\n")[0].lower().splitlines()[1:]
    assert not [header for header in headers if header.startswith(b"set-cookie")]
    (own,) = [header for header in headers if header.startswith(b"x-request-id: ")]
    assert own.removeprefix(b"x-request-id: ").startswith(b"req_")
    assert all(isinstance(event, dict) for event in service.events)


async def test_development_is_for_a_person(start: Start) -> None:
    service = await start(environment="development")
    client = service.client(await service.create_user())
    await client.post(CHAT, json=chat())
    (line,) = [line for line in service.log.splitlines() if "POST" in line]
    assert " INFO    POST /v1/chat/completions 200  request_id=req_" in line
    assert "  outcome=ok" in line


async def test_other_libraries_log_in_the_same_form(service: Service) -> None:
    logging.getLogger("uvicorn.error").warning("from %s", "uvicorn")
    logging.getLogger("some.library").error("from a\nlibrary")
    served, other, odd = service.events[-3:] if len(service.events) > 2 else service.events
    assert served["logger"].startswith("uvicorn")
    assert (other["logger"], other["level"]) == ("uvicorn.error", "warning")
    assert other["message"] == "from uvicorn"
    assert (odd["logger"], odd["message"]) == ("some.library", "from a\nlibrary")


async def test_the_level_can_be_chosen(start: Start) -> None:
    service = await start(log_level="WARNING")
    await service.client().get("/livez")
    assert service.events == []


def _secrets(service: Service, user: User) -> list[str]:
    """All secrets in use, also in the form of a header."""
    encoded = user.headers["Authorization"].partition(" ")[2]
    return [*service.settings.secret_values(), user.credential, encoded]


async def _logged(service: Service) -> bool:
    return bool(service.access_events())
