"""Cached input, cache writes, tiers and outputs: reserved, settled, recorded and shown."""

import json
from math import ceil
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.providers.base import Chunks, ProviderRequest, Reply, Usage
from gateway.providers.completion import EMBEDDING_COUNTS, usage_of
from tests.fake_provider import FakeProvider, chunk, completion
from tests.fixtures.service import Run, Start
from tests.support import CHECKED, Service, chat, eventually, write_policy

LISTED, BARE, VECTORS, IMAGES = (
    f"offline/{name}" for name in ("listed", "bare", "vectors", "images")
)
# gpt-6.2-sol's list, but for the limit of its tier.
MODELS = f"""
[models."{LISTED}"]
provider = "offline"
name = "listed"
kind = "chat"
input_usd_per_million_tokens = 2.00
cached_input_usd_per_million_tokens = 0.10
cache_write_usd_per_million_tokens = 2.50
output_usd_per_million_tokens = 10.00
max_output_tokens = 64
max_input_tokens = 2000
{CHECKED}

[[models."{LISTED}".tiers]]
above_input_tokens = 1000
input_usd_per_million_tokens = 4.00
cached_input_usd_per_million_tokens = 0.20
cache_write_usd_per_million_tokens = 5.00
output_usd_per_million_tokens = 15.00

[models."{BARE}"]
provider = "offline"
name = "bare"
kind = "chat"
input_usd_per_million_tokens = 2.00
output_usd_per_million_tokens = 10.00
max_output_tokens = 64
max_input_tokens = 2000
{CHECKED}

[models."{VECTORS}"]
provider = "offline"
name = "vectors"
kind = "embedding"
input_usd_per_million_tokens = 2.00
cached_input_usd_per_million_tokens = 0.10
max_input_tokens = 2000
{CHECKED}

[models."{IMAGES}"]
provider = "offline"
name = "images"
kind = "task"
usd_per_output = 0.003
max_outputs = 4
attempts = 1
{CHECKED}
"""
CHAT, OVERHEAD = "/v1/chat/completions", 16 + 8 + len("user")
# The usage that OpenAI reports: 40 tokens read from the cache, 50 written into it, 10 neither.
REPORTED = {
    "prompt_tokens": 100,
    "completion_tokens": 5,
    "total_tokens": 105,
    "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 50, "audio_tokens": 0},
}
PARTS = {"cached_input_tokens": 40, "cache_write_tokens": 50}
LISTED_COST = 10 * 2000 + 40 * 100 + 50 * 2500 + 5 * 10_000


class Caching(FakeProvider):
    """Reports cached tokens in chats, streams and embeddings; makes the requested images."""

    counted = frozenset({"task"})

    def __init__(self) -> None:
        super().__init__()
        self.parameters = {"chat": None, "embedding": None, "task": None}
        self.reported: Any = REPORTED
        self.on_answer, self.on_stream = self._tell, self._tell_in_chunks

    async def _tell(self, request: ProviderRequest) -> Reply:
        request.sent = True
        if request.model.kind == "task":
            count = request.body.get("num_outputs", 1)
            return Reply(["made"] * count, Usage(outputs=count))
        if request.model.kind == "embedding":
            vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
            output = {"object": "list", "data": [vector], "usage": self.reported}
            return Reply(output, usage_of(self.reported, EMBEDDING_COUNTS))
        return Reply({**completion("fine"), "usage": self.reported}, usage_of(self.reported))

    async def _tell_in_chunks(self, request: ProviderRequest) -> Chunks:
        request.sent = True
        yield [chunk("fine", "stop")]
        yield [{"choices": [], "usage": self.reported}]


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Caching:
    caching: Caching = Caching.install(monkeypatch)  # type: ignore[assignment]
    return caching


@pytest.fixture
async def service(provider: Caching, policy_dir: Path, start: Start) -> Service:
    write_policy(policy_dir, MODELS)
    return await start()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("size", "dearest"), [(100, 2500 * 100 + 64 * 10_000), (1500, 5000 * 1500 + 64 * 15_000)]
)
async def test_a_chat_reserves_the_dearest_line_and_pays_the_list(
    service: Service, client: httpx2.AsyncClient, size: int, dearest: int, stream: bool
) -> None:
    body = chat("x" * (size - OVERHEAD), LISTED, stream=stream)
    assert (await client.post(CHAT, json=body)).status_code == 200
    assert await service.books() == ("settled", "ok")
    attempt, prediction = await service.attempt(), await service.prediction()
    assert attempt.bound_nano_usd == dearest
    assert attempt.cost_nano_usd == LISTED_COST
    assert {name: getattr(prediction, name) for name in PARTS} == PARTS


async def test_an_input_above_the_limit_pays_the_tier_for_all_of_it(
    service: Service, client: httpx2.AsyncClient, provider: Caching
) -> None:
    parts = {"cached_tokens": 1000, "cache_write_tokens": 1}
    provider.reported = {**REPORTED, "prompt_tokens": 1001, "prompt_tokens_details": parts}
    await client.post(CHAT, json=chat("x" * 1500, LISTED))
    assert (await service.attempt()).cost_nano_usd == 1000 * 200 + 1 * 5000 + 5 * 15_000


async def test_without_lines_cached_input_is_input_and_a_write_a_quarter_more(
    service: Service, client: httpx2.AsyncClient
) -> None:
    await client.post(CHAT, json=chat("x" * (100 - OVERHEAD), BARE))
    attempt = await service.attempt()
    assert attempt.bound_nano_usd == 100 * 2500 + 64 * 10_000
    assert attempt.cost_nano_usd == 50 * 2000 + 50 * 2500 + 5 * 10_000


async def test_embeddings_have_parts_as_well(service: Service, client: httpx2.AsyncClient) -> None:
    await client.post("/v1/embeddings", json={"model": VECTORS, "input": "x" * 200})
    attempt = await service.attempt()
    assert attempt.bound_nano_usd == (200 + 16) * 2500
    assert attempt.cost_nano_usd == 10 * 2000 + 40 * 100 + 50 * 2500


@pytest.mark.parametrize("details", [None, "many", [], {"cached_tokens": None}, {"x": -1}], ids=str)
async def test_details_of_no_known_form_are_ignored(
    service: Service, client: httpx2.AsyncClient, provider: Caching, details: Any
) -> None:
    provider.reported = {**REPORTED, "prompt_tokens_details": details}
    assert (await client.post(CHAT, json=chat("x" * 200, LISTED))).status_code == 200
    assert (await service.attempt()).cost_nano_usd == 100 * 2000 + 5 * 10_000


@pytest.mark.parametrize(("asked", "bound"), [({}, 4), ({"num_outputs": 3}, 3)], ids=str)
async def test_outputs_are_reserved_counted_and_billed(
    service: Service, client: httpx2.AsyncClient, asked: dict[str, int], bound: int
) -> None:
    body = {"model": IMAGES, "input": {"prompt": "a fox", **asked}}
    record = (await client.post("/v1/predictions", json=body)).json()
    made = asked.get("num_outputs", 1)
    assert record["usage"]["outputs"] == made
    assert record["cost_nano_usd"] == made * 3_000_000
    assert (await service.attempt()).bound_nano_usd == bound * 3_000_000
    (line,) = (await client.get("/v1/usage")).json()["data"]
    assert line["outputs"] == made


async def test_more_outputs_than_the_model_makes_are_refused_by_name(
    service: Service, client: httpx2.AsyncClient
) -> None:
    body = {"model": IMAGES, "input": {"num_outputs": 5}}
    response = await client.post("/v1/predictions", json=body)
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "request_too_large"
    assert response.json()["error"]["param"] == "input.num_outputs"
    assert await service.rows_count() == 0


async def test_the_parts_are_shown(service: Service, client: httpx2.AsyncClient, run: Run) -> None:
    labels = {"model": LISTED}
    names = ("cached_input", "cache_write", "input")
    before = [await service.metric("tokens_total", direction=each, **labels) for each in names]
    answer = await client.post(CHAT, json=chat("x" * 200, LISTED))
    assert answer.json()["usage"] == REPORTED
    record = (await client.get(f"/v1/predictions/{answer.headers['x-prediction-id']}")).json()
    shown = {"input_tokens": 100, "output_tokens": 5, **PARTS, "outputs": 0}
    assert record["usage"] == {**shown, "seconds": 0}
    (line,) = (await client.get("/v1/usage")).json()["data"]
    assert {name: line[name] for name in shown} == shown

    async def counted() -> bool:
        values = [await service.metric("tokens_total", direction=each, **labels) for each in names]
        return [new - old for new, old in zip(values, before, strict=True)] == [40, 50, 100]

    assert await eventually(counted)
    told = (await run("usage")).stdout
    assert f"{LISTED}  1 request  100 (40 cached, 50 written) + 5 tokens  " in told
    (line,) = json.loads((await run("usage", "--json")).stdout)["data"]
    assert {name: line[name] for name in shown} == shown


async def test_the_same_prompt_again_is_read_from_the_cache(
    service: Service, client: httpx2.AsyncClient, provider: Caching
) -> None:
    """Over several calls, the settled cost is what the provider bills."""
    told = [(100, 0, 100), (100, 100, 0), (100, 60, 40), (1200, 1000, 200)]
    for tokens, cached, written in told:
        parts = {"cached_tokens": cached, "cache_write_tokens": written}
        provider.reported = {**REPORTED, "prompt_tokens": tokens, "prompt_tokens_details": parts}
        await client.post(CHAT, json=chat("x" * 1500, LISTED))
    billed = 100 * 2.5 + 100 * 0.1 + (60 * 0.1 + 40 * 2.5) + (1000 * 0.2 + 200 * 5)
    billed += 5 * (10 + 10 + 10 + 15)
    (line,) = (await client.get("/v1/usage")).json()["data"]
    assert line["cost_nano_usd"] == ceil(billed * 1000)


async def test_doctor_names_the_parts_that_no_line_bills(
    service: Service, client: httpx2.AsyncClient, run: Run
) -> None:
    for model in (LISTED, BARE):
        await client.post(CHAT, json=chat("x" * 200, model))
    for _ in range(2):
        await client.post("/v1/embeddings", json={"model": VECTORS, "input": "x" * 200})
    found = {each["check"]: each for each in json.loads((await run("doctor", "--json")).stdout)}
    warned = {name: each["advice"] for name, each in found.items() if " of offline/" in name}
    assert warned.keys() == {
        f"cached_input_tokens of {BARE}",
        f"cache_write_tokens of {BARE}",
        f"cache_write_tokens of {VECTORS}",
    }
    assert {found[name]["verdict"] for name in warned} == {"warning"}
    assert "counted 40 in the last 7 days" in warned[f"cached_input_tokens of {BARE}"]
    assert "cached_input_usd_per_million_tokens" in warned[f"cached_input_tokens of {BARE}"]
    assert "billed as input" in warned[f"cached_input_tokens of {BARE}"]
    assert "counted 100 in" in warned[f"cache_write_tokens of {VECTORS}"]
    assert "billed at 1.25 times the input" in warned[f"cache_write_tokens of {VECTORS}"]
