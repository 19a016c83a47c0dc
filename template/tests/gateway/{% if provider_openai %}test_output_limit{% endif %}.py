"""The largest output: sent to each server under the parameter that it accepts."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.db.tables import attempts, predictions
from gateway.policy import Model
from gateway.providers.base import Deadline, ProviderFailure, ProviderRequest
from gateway.providers.http import open_session
from gateway.providers.openai import ERRORS
from gateway.providers.output_limit import LimitedHttp
from tests.fixtures.service import Start
from tests.simulator.dialect import Speaking
from tests.simulator.server import Simulator
from tests.simulator.servers import BY_NAME, DIALECTS, NEW, OLD
from tests.support import CHECKED, POLICY, Service, chat, error_of, sse, unique, write_policy
from tests.upstream import answering

CHAT = "/v1/chat/completions"
MODEL = "acme/chat"
MADE_UP = Model.model_validate(POLICY["openai/chat"])
LONG = " ".join(["word"] * 90)


def declared(base_url: str, limit: str) -> str:
    """A server and its model; at most 64 tokens of output."""
    return f"""
[servers.acme]
base_url = "{base_url}"
api_key_env = "ACME_API_KEY"
output_limit = "{limit}"

[models."{MODEL}"]
provider = "acme"
name = "acme-large"
kind = "chat"
input_usd_per_million_tokens = 0.25
output_usd_per_million_tokens = 2.00
max_output_tokens = 64
max_input_tokens = 2000
{CHECKED}
attempts = 1
"""


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of the server."""
    monkeypatch.setenv("ACME_API_KEY", unique("canary"))


@pytest.fixture
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[Simulator]:
    """The server that the test names."""
    async with Simulator([partial(Speaking, BY_NAME[request.param])]) as running:
        yield running


async def started(start: Start, policy_dir: Path, upstream: Simulator, limit: str) -> Service:
    """A service that has this server, with `limit` for the largest output."""
    write_policy(policy_dir, declared(upstream.environment["OPENAI_BASE_URL"], limit))
    return await start()


def limits_of(simulator: Simulator) -> list[dict[str, int]]:
    """The parameters for the largest output in each request."""
    bodies = [call.body or {} for call in simulator.calls]
    return [{name: body[name] for name in (OLD, NEW) if name in body} for body in bodies]


@pytest.mark.parametrize(
    ("upstream", "limit"),
    [(d.name, limit) for d in DIALECTS for limit in (OLD, NEW) if d.limits[limit] != "ignores"],
    indirect=["upstream"],
)
async def test_every_server_is_bounded_whatever_the_client_says(
    start: Start,
    policy_dir: Path,
    upstream: Simulator,
    limit: str,
) -> None:
    """A refused parameter is replaced by the other one, once for each model."""
    service = await started(start, policy_dir, upstream, limit)
    client = service.client(await service.create_user())
    asked = [{**given, "stream": s} for given in ({}, {OLD: 50}, {NEW: 40}) for s in (True, False)]
    for body in asked:
        response = await client.post(CHAT, json=chat(LONG, model=MODEL, **body))
        assert response.status_code == 200
        assert sse(response.text)[-1] == "[DONE]" if body["stream"] else response.json()["choices"]
    refused = [{limit: 64}] * (upstream.calls[0].status != 200)
    name = limits_of(upstream)[-1].popitem()[0]
    most = [64, 64, 50, 50, 40, 40]
    assert limits_of(upstream) == [*refused, *({name: each} for each in most)]
    assert [row.output_tokens for row in await service.rows(predictions)] == most
    assert {row.state for row in await service.rows(attempts)} == {"settled"}


@pytest.mark.parametrize("upstream", ["ollama"], indirect=True)
async def test_a_server_that_ignores_the_new_name_is_bounded(
    start: Start, policy_dir: Path, upstream: Simulator
) -> None:
    """By the address: OPENAI_BASE_URL leads to another server."""
    service = await start(openai_base_url=upstream.environment["OPENAI_BASE_URL"])
    client = service.client(await service.create_user())
    for _ in range(2):
        assert (await client.post(CHAT, json=chat(LONG, model="openai/chat"))).status_code == 200
    assert limits_of(upstream) == [{OLD: 64}, {OLD: 64}]


@pytest.mark.parametrize("upstream", ["openai"], indirect=True)
async def test_the_accepted_name_is_kept_for_one_server_and_model(
    start: Start, upstream: Simulator
) -> None:
    service = await start(openai_base_url=upstream.environment["OPENAI_BASE_URL"])
    client = service.client(await service.create_user())
    for model in ("openai/chat", "openai/vision", "openai/chat"):
        await client.post(CHAT, json=chat(model=model))
    assert limits_of(upstream) == [{OLD: 64}, {NEW: 64}, {OLD: 64}, {NEW: 64}, {NEW: 64}]


REFUSALS: list[tuple[int, Any, bool]] = [
    (400, {"error": {"message": "no", "param": OLD, "code": "unsupported_parameter"}}, True),
    (422, {"error": {"message": "made up", "param": OLD}}, True),
    (422, {"detail": [{"loc": ["body", OLD], "msg": "extra fields not permitted"}]}, True),
    (422, {"detail": [{"loc": ["body", OLD], "msg": "Extra inputs are not permitted"}]}, True),
    (400, {"error": f"Unrecognized request argument supplied: {OLD}"}, True),
    (400, {"error": {"message": f"property '{OLD}' is unsupported"}}, True),
    (400, {"object": "error", "message": f"{OLD} is not allowed"}, True),
    (400, {"message": f"Additional properties are not allowed ('{OLD}' was unexpected)"}, True),
    (400, {"message": f"Use '{NEW}' instead of '{OLD}'."}, True),
    (400, {"error": {"message": f"{OLD} is too large: 64. At most 8.", "param": OLD}}, False),
    (400, {"error": {"message": "bad", "param": OLD, "code": "invalid_value"}}, False),
    (400, {"error": {"message": f"{OLD} above 8 is not supported; it must be less than 9"}}, False),
    (400, {"detail": [{"loc": ["body", OLD], "msg": "Input should be less than 9"}]}, False),
    (400, {"error": {"message": "Unsupported parameter: 'seed'", "param": "seed"}}, False),
    (
        400,
        {"error": {"message": "too long", "param": OLD, "code": "context_length_exceeded"}},
        False,
    ),
    (400, {"error": {"message": f"Unsupported parameter: 'my_{OLD}'"}}, False),
    (404, {"error": {"message": "no", "param": OLD, "code": "unsupported_parameter"}}, False),
    (500, {"error": {"message": "no", "param": OLD, "code": "unsupported_parameter"}}, False),
]


@pytest.mark.parametrize(("status", "body", "again"), REFUSALS, ids=str)
async def test_only_a_name_that_the_server_does_not_know_is_sent_again(
    status: int, body: Any, again: bool
) -> None:
    """The other parameter could lift the limit where the server ignores it."""
    asked = []

    def answer(request: Any) -> Any:
        asked.append(request)
        return body

    async with answering(answer, status=status) as url, open_session() as session:
        http = LimitedHttp(session, url, "", ERRORS, OLD)
        request = ProviderRequest(MADE_UP, {}, Deadline(30))
        with pytest.raises(ProviderFailure) as failed:
            await http.json(request, "POST", f"{url}/x", {"model": "m", OLD: 64, "n": 1})
    assert len(asked) == (2 if again else 1)
    assert failed.value.status == status
    assert http.output_limit("m") == OLD


async def test_a_request_without_a_limit_is_not_sent_again() -> None:
    async with answering(lambda _: REFUSALS[0][1], status=400) as url, open_session() as session:
        http = LimitedHttp(session, url, "", ERRORS, OLD)
        with pytest.raises(ProviderFailure):
            await http.json(
                ProviderRequest(MADE_UP, {}, Deadline(30)), "POST", f"{url}/x", {"input": OLD}
            )


@pytest.mark.parametrize("upstream", ["mistral"], indirect=True)
async def test_the_first_refusal_is_reported_if_the_server_knows_neither_name(
    start: Start, policy_dir: Path, upstream: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect = BY_NAME["mistral"]
    monkeypatch.setitem(dialect.limits, OLD, "refuses")
    service = await started(start, policy_dir, upstream, OLD)
    client = service.client(await service.create_user())
    response = await client.post(CHAT, json=chat(model=MODEL))
    assert error_of(response)[0] == 400
    assert limits_of(upstream) == [{OLD: 64}, {NEW: 64}]
    assert await service.books() == ("released", "provider_error")
