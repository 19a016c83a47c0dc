"""The report of a failed attempt: what the operator sees, and what is removed."""

from typing import Any

import httpx2
import pytest

from gateway.accounts.principals import Role
from gateway.pipeline.failure_report import without_words_of
from gateway.providers.base import Blame
from tests.fake_provider import FakeProvider, fail_with
from tests.fixtures.service import Start
from tests.support import Service, chat, error_of, eventually, unique

CHAT = "/v1/chat/completions"
MODEL = "offline/echo"


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    return FakeProvider.install(monkeypatch)


@pytest.fixture
async def scripted_client(
    scripted: FakeProvider, start: Start
) -> tuple[Service, httpx2.AsyncClient]:
    service = await start()
    return service, service.client(await service.create_user())


def events(service: Service, message: str) -> list[dict[str, Any]]:
    """The log's lines with this message."""
    return [event for event in service.events if event["message"] == message]


async def test_a_failed_attempt_is_a_warning_with_its_reason_and_cost(
    scripted: FakeProvider, scripted_client: tuple[Service, httpx2.AsyncClient]
) -> None:
    service, client = scripted_client
    scripted.on_answer = fail_with(sent=True, status=400, billed=False, reason="bad seed 7")
    response = await client.post(CHAT, json=chat())
    assert error_of(response)[:2] == (400, "invalid_request")
    assert "seed" not in response.text
    (event,) = events(service, "An attempt failed")
    attempt = await service.attempt()
    assert event["level"] == "warning"
    assert (event["attempt"], event["model"]) == (attempt.id, MODEL)
    assert (event["provider_status"], event["reason"]) == (400, attempt.reason)
    assert (event["state"], event["cost_nano_usd"]) == ("released", 0)
    assert attempt.reason.endswith("bad seed 7")


async def test_no_word_of_the_caller_is_in_the_reason(
    scripted: FakeProvider, scripted_client: tuple[Service, httpx2.AsyncClient]
) -> None:
    service, client = scripted_client
    canary = unique("canary")
    told = f"cannot read {canary}, nor 'sk-{'a' * 30}'"
    scripted.on_answer = fail_with(sent=True, status=500, reason=told)
    await client.post(CHAT, json=chat(f"my {canary} is here"))
    reason = (await service.attempt()).reason
    assert "cannot read …" in reason
    assert canary not in service.log + reason
    assert "sk-a" not in service.log + reason


async def test_the_metric_has_the_blame_as_its_label(
    scripted: FakeProvider, scripted_client: tuple[Service, httpx2.AsyncClient]
) -> None:
    service, client = scripted_client
    for blame in Blame:
        before = await service.metric("attempts_total", model=MODEL, result=blame.value)
        scripted.on_answer = fail_with(sent=True, status=418, blame=blame)
        await client.post(CHAT, json=chat())
        after = await service.metric("attempts_total", model=MODEL, result=blame.value)
        assert after - before == 1


async def test_an_account_that_does_not_pay_is_an_alert_once_a_day(
    scripted: FakeProvider, scripted_client: tuple[Service, httpx2.AsyncClient]
) -> None:
    service, client = scripted_client
    scripted.on_answer = fail_with(sent=True, status=429, billed=False, blame=Blame.ACCOUNT)
    for _ in range(2):
        response = await client.post(CHAT, json=chat())
        assert error_of(response) == (503, "provider_quota_exceeded", None)
        assert response.headers["x-should-retry"] == "false"
        assert "Retry-After" not in response.headers

    async def told() -> list[dict[str, Any]]:
        return events(service, "Alert")

    (alert,) = await eventually(told)
    assert (alert["kind"], alert["provider"], alert["status"]) == ("account", "offline", 429)


async def test_the_log_line_of_a_request_names_the_model_that_served(
    scripted: FakeProvider, scripted_client: tuple[Service, httpx2.AsyncClient]
) -> None:
    service, client = scripted_client
    await client.post(CHAT, json=chat())
    assert service.access_events()[-1]["served_model"] == MODEL


async def test_an_operator_finds_the_attempts_of_a_prediction(
    start: Start, scripted: FakeProvider
) -> None:
    service = await start()
    client = service.client(await service.create_user(role=Role.ADMIN))
    scripted.on_answer = fail_with(sent=True, status=404, billed=False, reason="no such model")
    await client.post(CHAT, json=chat())
    (record,) = (await client.get("/v1/admin/predictions")).json()["data"]
    (attempt,) = record["attempts"]
    assert (attempt["provider_status"], attempt["state"]) == (404, "released")
    assert attempt["reason"] == "words of the provider: no such model"


@pytest.mark.parametrize(
    ("body", "told", "left"),
    [
        ({"messages": [{"content": "secret plan"}]}, "the secret is out", "the … is out"),
        ({"tools": [{"function": {"name": "launch_it"}}]}, "no launch_it", "no …"),
        ({}, "nothing to hide", "nothing to hide"),
        ({"input": ["abc"]}, "abc is short", "abc is short"),
        ({"input": "Secret Straße"}, "secret SECRET STRASSE", "… … …"),
        ({"input": "41112222333344"}, "input='41112222...3344'", "input='…...…'"),
        ({"input": "41112222333344"}, "input='41112222…', 2222 found", "input='……', 2222 found"),
        ({"input": "41112222333344"}, "the text is cut: 41112", "the text is cut: …"),
    ],
)
def test_words_of_a_body(body: dict[str, Any], told: str, left: str) -> None:
    assert without_words_of(body, told) == left
