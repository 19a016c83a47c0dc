"""Replicate's answers: predictions that never started, usage after a cancel, pauses, blame."""

from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web

from gateway import policy
from gateway.errors import StartError
from gateway.providers.http import open_session
from gateway.providers.replicate import ReplicateProvider, throttled_seconds
from gateway.startup_checks import check
from tests.fixtures.service import Start
from tests.support import SOON_SECONDS, Service, error_of, eventually, write_policy
from tests.upstream import answering

BODY = {"model": "replicate/version", "input": {"prompt": "one"}}
FAILED, BUSY = (502, "provider_error"), (503, "provider_cooling_down")
STARTED = "2026-01-01T00:00:00Z"


def prediction(status: str, **fields: Any) -> dict[str, Any]:
    """A prediction that never started, unless `fields` say so."""
    return {"id": "made-up-1", "status": status, "started_at": None, "metrics": {}, **fields}


class Replicate:
    """Answers each create, poll and cancel with what a test sets."""

    def __init__(self, created: Any, *, polled: Any = None, cancelled: Any = None) -> None:
        self.created, self.polled, self.cancelled = created, polled, cancelled
        self.paths: list[str] = []

    def __call__(self, request: web.Request) -> Any:
        self.paths.append(request.path)
        if request.path.endswith("/cancel"):
            return self.cancelled
        return self.polled if request.method == "GET" else self.created


async def ask(
    start: Start, answer: Any, status: int = 200, **settings: Any
) -> tuple[Service, httpx2.Response]:
    """The answer of the service if Replicate sends this answer."""
    async with answering(answer if callable(answer) else lambda _: answer, status) as url:
        service = await start(replicate_base_url=url, **settings)
        client = service.client(await service.create_user())
        response = await client.post("/v1/predictions", json=BODY)
        await eventually(service.is_settled)
        return service, response


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll with a very short pause."""
    monkeypatch.setattr("gateway.providers.replicate.FIRST_PAUSE_SECONDS", 0.001)


@pytest.mark.parametrize("status", ["aborted", "failed", "canceled"])
async def test_a_prediction_that_never_started_is_free(start: Start, status: str) -> None:
    service, response = await ask(start, prediction(status, error="interrupted (code: PA)"))
    assert error_of(response)[:2] == FAILED
    assert (await service.attempt()).cost_nano_usd == 0


@pytest.mark.parametrize("started_at", [STARTED, None])
async def test_a_prediction_that_failed_costs_its_time(
    start: Start, started_at: str | None
) -> None:
    failed = prediction("failed", started_at=started_at, metrics={"predict_time": 2})
    service, _ = await ask(start, failed)
    assert (await service.attempt()).cost_nano_usd == 2 * 1_500_000


@pytest.mark.parametrize(
    ("cancelled", "state", "cost"),
    [
        (prediction("canceled"), "settled", 0),
        (
            prediction("canceled", started_at=STARTED, metrics={"predict_time": 1}),
            "settled",
            1_500_000,
        ),
        (prediction("processing", started_at=STARTED), "uncertain", 60 * 1_500_000),
    ],
    ids=["never started", "started", "not known yet"],
)
async def test_the_answer_of_a_cancel_corrects_the_ledger(
    start: Start, cancelled: dict[str, Any], state: str, cost: int
) -> None:
    starting = prediction("starting")
    replicate = Replicate(starting, polled=starting, cancelled=cancelled)
    service, response = await ask(start, replicate, request_deadline_seconds=SOON_SECONDS)
    assert error_of(response)[:2] == (504, "deadline_exceeded")
    attempt = await service.attempt()
    assert (attempt.state, attempt.cost_nano_usd) == (state, cost)
    assert (await service.prediction()).cost_nano_usd == cost


BY_THE_SECOND = """
[models."replicate/pictures"]
provider = "replicate"
name = "black-forest-labs/pictures"
kind = "task"
usd_per_second = 0.0015
max_seconds = 60
prices_checked = 2026-11-01
"""
BY_THE_OUTPUT = BY_THE_SECOND.replace(
    "usd_per_second = 0.0015", "usd_per_output = 0.003\nmax_outputs = 8"
)
PICTURES = {"model": "replicate/pictures", "input": {"prompt": "one", "num_outputs": 4}}


async def test_an_official_model_is_not_billed_by_the_second(
    start: Start, policy_dir: Path
) -> None:
    write_policy(policy_dir, BY_THE_SECOND)
    async with answering(lambda _: prediction("succeeded")) as url:
        service = await start(replicate_base_url=url)
        client = service.client(await service.create_user())
        response = await client.post("/v1/predictions", json=PICTURES)
    assert error_of(response)[:2] == FAILED
    assert await service.rows_count() == 0


async def test_production_does_not_start_with_such_a_price(policy_dir: Path) -> None:
    (policy_dir / "models.toml").write_text(BY_THE_SECOND, encoding="utf-8")
    rules = policy.load(policy_dir)
    async with open_session() as session:
        providers = {"replicate": ReplicateProvider(session, "http://127.0.0.1:1", "made-up")}
        check(rules, providers, production=False)
        with pytest.raises(StartError, match="bills black-forest-labs/pictures by the output"):
            check(rules, providers, production=True)


async def test_outputs_are_billed_as_they_are_counted(start: Start, policy_dir: Path) -> None:
    write_policy(policy_dir, BY_THE_OUTPUT)
    metrics = {"predict_time": 0.5, "image_count": 4}
    done = prediction("succeeded", output=["x"] * 4, started_at=STARTED, metrics=metrics)
    async with answering(lambda _: done) as url:
        service = await start(replicate_base_url=url)
        client = service.client(await service.create_user())
        assert (await client.post("/v1/predictions", json=PICTURES)).status_code == 201
    attempt = await service.attempt()
    assert attempt.cost_nano_usd == attempt.bound_nano_usd == 4 * 3_000_000


@pytest.mark.parametrize("host", ["https://api.replicate.com", "http://127.0.0.1:1"])
async def test_polls_go_to_our_own_address(start: Start, host: str) -> None:
    urls = {"get": f"{host}/v1/predictions/made-up-1"}
    done = prediction("succeeded", output="x", started_at=STARTED, metrics={"predict_time": 1})
    replicate = Replicate(prediction("processing", urls=urls), polled=done)
    service, response = await ask(start, replicate)
    assert response.status_code == 201
    assert replicate.paths[-1] == "/v1/predictions/made-up-1"
    assert (await service.attempt()).cost_nano_usd == 1_500_000


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (402, {"title": "Insufficient credit", "detail": "x"}, (503, "provider_quota_exceeded")),
        (401, {"title": "Unauthenticated", "detail": "x"}, (503, "provider_quota_exceeded")),
        (404, {"detail": "The requested resource could not be found."}, FAILED),
        (422, {"title": "Invalid version or not permitted", "detail": "x"}, FAILED),
        (422, {"title": "Input validation failed", "detail": "x"}, (422, "invalid_request")),
        (429, {"detail": "Request was throttled."}, BUSY),
    ],
    ids=str,
)
async def test_blame_of_a_failure(
    start: Start, status: int, answer: dict[str, str], error: tuple[int, str]
) -> None:
    service, response = await ask(start, answer, status)
    assert error_of(response)[:2] == error
    assert (await service.attempt()).state == "released"


@pytest.mark.parametrize(
    ("answer", "pause"),
    [
        ({"detail": "Request was throttled. Expected available in 3 seconds."}, "3"),
        ({"detail": "Request was throttled. Expected available in 1 second."}, "1"),
        ({"detail": "Request was throttled. Your rate limit resets in ~30s."}, "30"),
        ({"detail": "Request was throttled.", "retry_after": 4}, "4"),
        ({"detail": "Request was throttled.", "retry_after": 2.5}, "3"),
    ],
    ids=str,
)
async def test_pauses_in_each_form(start: Start, answer: dict[str, Any], pause: str) -> None:
    _, response = await ask(start, answer, 429)
    assert response.headers["Retry-After"] == pause


@pytest.mark.parametrize("detail", [None, [], 7, "resets soon", "resets in ~xs"], ids=str)
def test_text_without_a_pause(detail: Any) -> None:
    assert throttled_seconds({"detail": detail}) is None
