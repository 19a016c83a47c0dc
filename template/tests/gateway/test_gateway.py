"""The gateway for an owner's features: the same guarantees as the built-in routes."""

import asyncio
from typing import Any

import pytest
from fastapi import APIRouter, Response
from pydantic import BaseModel

from app.dependencies import GatewayDep
from gateway import Result
from gateway.accounts.audit import command_line
from gateway.errors import Forbidden, InvalidRequest, NotFound, ProviderError
from gateway.ids import new_id
from gateway.providers.base import Chunks, ProviderFailure, ProviderRequest
from tests.fake_provider import FakeProvider, chunk, stream_fine
from tests.support import Service, User, error_of, eventually, said, sse

PATH, STREAM = "/v1/summaries", "/v1/summaries/stream"
ECHO = "offline/echo"
router = APIRouter()


class Text(BaseModel):
    text: str


class Summary(BaseModel):
    summary: str


@router.post(PATH)
async def summarise(body: Text, gateway: GatewayDep) -> Summary:
    """Summarise a text."""
    reply = await gateway.chat(ECHO, f"Summarise: {body.text}")
    return Summary(summary=reply.text)


@router.post(STREAM)
async def summarise_slowly(body: Text, gateway: GatewayDep) -> Response:
    """Stream the summary of a text."""
    return (await gateway.stream(ECHO, f"Summarise: {body.text}")).response()


@router.post("/v1/nothing")
async def ask_nothing(gateway: GatewayDep) -> dict[str, str]:
    """Generate nothing."""
    return {"feature": gateway.feature}


@router.post("/v1/twice")
async def ask_twice(gateway: GatewayDep) -> list[str]:
    """Generate twice."""
    return [(await gateway.chat(ECHO, text)).text for text in ("one", "two")]


@router.post("/v1/parsed")
async def parse(gateway: GatewayDep) -> Summary:
    """Generate what does not match the schema."""
    return (await gateway.chat(ECHO, "c4nary", schema=Summary)).parsed(Summary)


@router.post("/v1/crash")
async def crash(gateway: GatewayDep) -> None:
    """Generate, and crash."""
    await gateway.chat(ECHO, "one")
    raise ZeroDivisionError


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    """In place of the offline provider."""
    return FakeProvider.install(monkeypatch)


@pytest.fixture
async def user(service: Service) -> User:
    """A client with a plan of five requests a minute; the routes are installed."""
    service.app.include_router(router)
    return await service.create_user("few")


async def test_it_answers_with_the_limits_and_is_recorded(service: Service, user: User) -> None:
    answer = await service.client(user).post(PATH, json={"text": "hello"})
    assert answer.json() == {"summary": "You said: Summarise: hello"}
    row = await service.prediction()
    assert (row.feature, row.kind, row.status) == ("summaries", "chat", "succeeded")
    assert answer.headers["X-Prediction-ID"] == row.id
    assert answer.headers["x-served-model"] == ECHO
    assert answer.headers["x-ratelimit-remaining-requests"] == "4"
    assert await service.books() == ("settled", "ok")


@pytest.mark.parametrize("path", [PATH, STREAM])
async def test_the_same_key_gets_the_first_answer(service: Service, user: User, path: str) -> None:
    client = service.client(user, **{"Idempotency-Key": "one"})
    first = await client.post(path, json={"text": "hello"})
    again = await client.post(path, json={"text": "hello"})
    assert (again.status_code, again.text) == (200, first.text)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert await service.rows_count() == 2
    other = await client.post(path, json={"text": "hallo"})
    assert error_of(other)[:2] == (422, "idempotency_mismatch")


async def test_a_refused_request_is_not_stored(service: Service, user: User) -> None:
    client = service.client(user, **{"Idempotency-Key": "one"})
    for body in ({"text": 1}, {"text": 1}):
        assert (await client.post(PATH, json=body)).status_code == 422
    assert (await client.post(PATH, json={"text": "hello"})).status_code == 200


async def test_a_route_without_a_generation_is_asked_again(service: Service, user: User) -> None:
    client = service.client(user, **{"Idempotency-Key": "one"})
    for _ in range(2):
        answer = await client.post("/v1/nothing")
        assert answer.json() == {"feature": "nothing"}
        assert "Idempotent-Replayed" not in answer.headers


async def test_two_generations_are_both_paid_and_replayed(service: Service, user: User) -> None:
    client = service.client(user, **{"Idempotency-Key": "one"})
    answers = [await client.post("/v1/twice") for _ in range(2)]
    assert [answer.json() for answer in answers] == [["You said: one", "You said: two"]] * 2
    assert await service.rows_count() == 4
    assert answers[0].headers["x-ratelimit-remaining-requests"] == "3"


async def test_an_answer_in_another_form_is_not_logged(service: Service, user: User) -> None:
    answer = await service.client(user).post("/v1/parsed")
    assert error_of(answer)[:2] == (502, "provider_error")
    assert "c4nary" not in service.log + answer.text


async def test_after_a_crash_nothing_is_done_again(service: Service, user: User) -> None:
    client = service.client(user, **{"Idempotency-Key": "one"})
    assert (await client.post("/v1/crash")).status_code == 500
    assert error_of(await client.post("/v1/crash"))[:2] == (409, "outcome_unknown")
    assert await service.rows_count() == 2


async def test_a_key_that_is_too_long(service: Service, user: User) -> None:
    client = service.client(user, **{"Idempotency-Key": "x" * 256})
    answer = await client.post(PATH, json={"text": "hello"})
    assert error_of(answer) == (422, "invalid_request", "Idempotency-Key")


async def test_limits_refuse_it(service: Service, user: User) -> None:
    client = service.client(user)
    answers = [await client.post(PATH, json={"text": "hello"}) for _ in range(6)]
    assert error_of(answers[-1])[:2] == (429, "rate_limit_exceeded")
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert await service.rows_count() == 10
    assert (await service.client().post(PATH, json={"text": "hello"})).status_code == 401


async def test_a_stream_is_openais(service: Service, user: User) -> None:
    answer = await service.client(user).post(STREAM, json={"text": "hello"})
    assert said(sse(answer.text)) == "You said: Summarise: hello"
    assert answer.headers["x-ratelimit-limit-requests"] == "5"
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_a_stream_that_the_provider_cuts_frees_the_key(
    scripted: FakeProvider, service: Service, user: User
) -> None:
    async def cut(request: ProviderRequest) -> Chunks:
        request.sent = True
        yield [chunk("one")]
        raise ProviderFailure("cut")

    client = service.client(user, **{"Idempotency-Key": "one"})
    scripted.on_stream = cut
    assert '"error"' in (await client.post(STREAM, json={"text": "hello"})).text
    scripted.on_stream = stream_fine
    again = await client.post(STREAM, json={"text": "hello"})
    assert said(sse(again.text)) == "fine"
    assert "Idempotent-Replayed" not in again.headers


async def test_a_job_works_for_a_user(service: Service, user: User) -> None:
    gateway = await service.engine.gateway_for(user.id, "nightly report")
    reply = await gateway.chat(ECHO, [{"role": "user", "content": "hi"}], temperature=0)
    assert (reply.text, reply.model) == ("You said: hi", ECHO)
    row = await service.prediction()
    assert (row.feature, row.cost_nano_usd) == ("nightly report", reply.cost_nano_usd)
    assert reply.prediction_id == row.id
    assert (await gateway.predict(ECHO, {"prompt": "hi"})).text == "You said: hi"
    assert len((await gateway.embed("offline/embedding", ["a", "b"])).vectors) == 2
    async with await gateway.stream(ECHO, "a b") as stream:
        assert "".join([piece async for piece in stream]) == "You said: a b"


async def test_a_stream_that_is_left_is_settled(service: Service, user: User) -> None:
    gateway = await service.engine.gateway_for(user.id, "job")
    async with await gateway.stream(ECHO, "a b c") as stream:
        async for _ in stream:
            break
    assert await eventually(service.is_settled)


async def test_the_answer_is_parsed(service: Service, user: User) -> None:
    gateway = await service.engine.gateway_for(user.id, "job")
    reply = await gateway.chat(ECHO, "hi", schema=Summary)
    sent = (await service.prediction()).input
    assert sent["response_format"]["json_schema"]["name"] == "Summary"
    with pytest.raises(ProviderError):
        reply.parsed(Summary)
    written: dict[str, Any] = {"choices": [{"message": {"content": '{"summary": "x"}'}}]}
    assert Result(written, ECHO, "pred_1", 0).parsed(Summary) == Summary(summary="x")
    assert Result({}, ECHO, "pred_1", 0).text == ""


@pytest.mark.parametrize("wrong", [{"temperature": 9}, {"unknown": 1}])
async def test_wrong_parameters(service: Service, user: User, wrong: dict[str, Any]) -> None:
    gateway = await service.engine.gateway_for(user.id, "job")
    with pytest.raises(InvalidRequest) as raised:
        await gateway.chat(ECHO, "hi", **wrong)
    assert raised.value.param in wrong
    with pytest.raises(InvalidRequest):
        await gateway.predict(ECHO, {"messages": 1})
    assert await service.rows_count() == 0


async def test_there_is_no_gateway_for_missing_and_disabled_users(
    service: Service, user: User
) -> None:
    with pytest.raises(NotFound):
        await service.engine.gateway_for(new_id("usr"), "job")
    await service.engine.users.change(user.id, command_line(), disabled=True)
    with pytest.raises(Forbidden):
        await service.engine.gateway_for(user.id, "job")


async def test_two_requests_with_one_key_run_once(service: Service, user: User) -> None:
    client = service.client(user, **{"Idempotency-Key": "one"})
    work = [client.post(PATH, json={"text": "hello"}) for _ in range(4)]
    answers = await asyncio.gather(*work)
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert await service.rows_count() == 2
