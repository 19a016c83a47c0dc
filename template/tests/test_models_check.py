"""`python -m app models check NAME`: the findings about an entry, and the advice."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.providers.base import (
    BadAnswer,
    Blame,
    Body,
    Chunks,
    ProviderFailure,
    ProviderRequest,
    Reply,
    Usage,
)
from gateway.providers.checking import probe
from tests.fake_provider import FakeProvider, chunk, usage_chunk
from tests.fixtures.service import Run
from tests.support import POLICY

MODEL = "offline/echo"
EVERY = ["credential", "name", "output limit", "streaming", "usage"]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    """A provider whose behaviour the test sets."""
    return FakeProvider.install(monkeypatch)


async def checked(run: Run, model: str = MODEL) -> tuple[int, dict[str, Any]]:
    """The exit code, and the findings."""
    result = await run("models", "check", model, "--json")
    return result.exit_code, json.loads(result.stdout)


async def problem_of(run: Run) -> tuple[str, str]:
    """The one check that failed, and its advice."""
    code, found = await checked(run)
    assert code == 1
    (problem,) = [f for f in found["findings"] if f["verdict"] == "problem"]
    return problem["check"], problem["advice"]


def streaming(*chunks: Body) -> Callable[[ProviderRequest], Chunks]:
    """A stream of these chunks."""

    async def stream(request: ProviderRequest) -> Chunks:
        request.sent = True
        for each in chunks:
            yield [each]

    return stream


async def test_all_is_as_it_is_declared(run: Run) -> None:
    code, found = await checked(run)
    assert code == 0
    assert found["model"] == MODEL
    assert [(f["check"], f["verdict"]) for f in found["findings"]] == [(c, "ok") for c in EVERY]
    assert found["cost_nano_usd"] > 0


async def test_a_person_reads_a_line_for_each_check_and_the_cost(run: Run) -> None:
    result = await run("models", "check", MODEL)
    *checks, cost = result.stdout.splitlines()
    assert checks == [f"✓ {check}" for check in EVERY]
    assert cost.startswith("It cost 0.0000")


async def test_an_embedding(run: Run) -> None:
    code, found = await checked(run, "offline/embedding")
    assert code == 0
    assert [f["check"] for f in found["findings"]] == ["credential", "name", "usage"]


@pytest.mark.parametrize("model", [name for name in POLICY if not name.startswith("offline")])
async def test_every_model_is_checked_but_tasks(run: Run, model: str) -> None:
    """A task has no small request: its price may be high."""
    code, found = await checked(run, model)
    is_task = POLICY[model]["kind"] == "task"
    problems = [f["check"] for f in found["findings"] if f["verdict"] == "problem"]
    assert (code, problems) == ((1, ["task"]) if is_task else (0, []))
    assert (found["cost_nano_usd"] == 0) == is_task


async def test_a_model_that_is_not_declared(run: Run) -> None:
    result = await run("models", "check", "no/such")
    assert result.exit_code == 1
    assert result.stderr.startswith("The model is not offered here; there is ")


async def test_the_call_is_small_and_on_no_ones_record(run: Run, scripted: FakeProvider) -> None:
    await run("migrate")
    await checked(run)
    (request,) = scripted.asked
    assert request.body["max_tokens"] == 16
    result = await run("usage", "--json")
    assert json.loads(result.stdout)["day"]["spent_nano_usd"] == 0


async def test_a_credential_that_is_not_set(run: Run, scripted: FakeProvider) -> None:
    scripted.lacks = "ACME_API_KEY"
    check, advice = await problem_of(run)
    assert (check, advice) == ("credential", "set ACME_API_KEY in the environment or in .env")
    assert scripted.asked == []


@pytest.mark.parametrize(
    ("chunks", "check", "words"),
    [
        ([chunk("x", "stop"), usage_chunk(Usage(9, 90))], "output limit", "wrote 90 tokens"),
        ([chunk("x" * 999, "stop")], "output limit", "wrote 63 tokens at least"),
        ([chunk("x")], "streaming", "without a finish_reason"),
        ([usage_chunk(Usage(9, 9))], "streaming", "no choices"),
        ([chunk("x", "length")], "usage", "it reports no usage"),
        ([chunk("x", "stop"), usage_chunk(Usage(9, 0))], "usage", "it counted 0 tokens"),
        ([chunk("x", "stop"), usage_chunk(Usage(999, 9))], "usage", "overhead_tokens = "),
    ],
)
async def test_findings_of_an_answer(
    run: Run, scripted: FakeProvider, chunks: list[Body], check: str, words: str
) -> None:
    scripted.on_stream = streaming(*chunks)
    _, found = await checked(run)
    problems = {f["check"]: f["advice"] for f in found["findings"] if f["verdict"] == "problem"}
    assert words in problems[check]


async def test_a_server_that_writes_without_an_end_is_left(
    run: Run, scripted: FakeProvider
) -> None:
    left = []

    async def endless(request: ProviderRequest) -> Chunks:
        try:
            while True:
                yield [chunk("x" * 1000)]
        finally:
            left.append(request)

    scripted.on_stream = endless
    check, _ = (await checked(run))[1]["findings"][2].values(), None
    assert list(check)[:2] == ["output limit", "problem"]
    assert len(left) == 1


async def test_the_overhead_that_is_needed_is_named(run: Run, scripted: FakeProvider) -> None:
    """The overhead of the advice makes the bound hold."""
    scripted.on_stream = streaming(chunk("x", "stop"), usage_chunk(Usage(999, 9)))
    _, advice = await problem_of(run)
    assert 'in [models."offline/echo"], write overhead_tokens = ' in advice
    assert int(advice.rpartition(" ")[2]) > 999 - 300


@pytest.mark.parametrize(
    "part",
    [
        {"prompt_tokens_details": {"cached_tokens": 0}},
        {"prompt_cache_hit_tokens": 0},
        {"prompt_tokens_details": {"cached_tokens": 4}},
    ],
    ids=str,
)
async def test_parts_without_a_line_are_a_warning(
    run: Run, scripted: FakeProvider, part: dict[str, Any]
) -> None:
    """Also as 0: a prompt of this size is not cached."""
    last = usage_chunk(Usage(9, 9))
    last["usage"] |= part
    scripted.on_stream = streaming(chunk("x", "stop"), last)
    code, found = await checked(run)
    assert code == 0
    (warning,) = [f for f in found["findings"] if f["verdict"] == "warning"]
    assert warning["check"] == "price lines"
    assert "add cached_input_usd_per_million_tokens" in warning["advice"]


@pytest.mark.parametrize(
    ("failure", "check", "words"),
    [
        (ProviderFailure("no connection", billed=False), "address", "cannot be reached"),
        (ProviderFailure("connection lost"), "streaming", "did not finish"),
        (BadAnswer("the answer is not JSON"), "streaming", "form that is not known"),
        (ProviderFailure("", status=401, reason="no"), "credential", "answers 401: no; set "),
        (ProviderFailure("", status=403), "credential", "answers 403; set "),
        (ProviderFailure("", status=402), "account", "needs credit"),
        (
            ProviderFailure("", status=429, blame=Blame.ACCOUNT, code="insufficient_quota"),
            "account",
            "needs credit",
        ),
        (ProviderFailure("", status=429, reason="slow down"), "server", "check again later"),
        (ProviderFailure("", status=503), "server", "check again later"),
        (ProviderFailure("", status=404, reason="Not Found"), "address", "answers 404: Not Found"),
        (ProviderFailure("", status=404, reason="no model echo"), "name", "correct `name` in [mod"),
        (ProviderFailure("", status=404, code="model_not_found"), "name", "correct `name`"),
        (ProviderFailure("", status=400, reason="Model Not Exist"), "name", "correct `name`"),
        (ProviderFailure("", status=301), "address", "answers 301"),
        (ProviderFailure("", status=400, param="max_tokens"), "output limit", "takes neither"),
        (ProviderFailure("", status=400, reason="no streams"), "request", "does not take what"),
    ],
)
async def test_findings_of_a_failure(
    run: Run, scripted: FakeProvider, failure: ProviderFailure, check: str, words: str
) -> None:
    async def fail(_: ProviderRequest) -> Chunks:
        raise failure
        yield []

    scripted.on_stream = fail
    found, advice = await problem_of(run)
    assert (found, words in advice) == (check, True), advice


async def test_an_embedding_without_vectors(run: Run, scripted: FakeProvider) -> None:
    async def nothing(_: ProviderRequest) -> Reply:
        return Reply({"data": []}, Usage(3))

    scripted.on_answer = nothing
    code, found = await checked(run, "offline/embedding")
    assert code == 1
    assert [f["check"] for f in found["findings"] if f["verdict"] == "problem"] == ["vectors"]


async def test_an_answer_that_does_not_come(
    run: Run, scripted: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_: ProviderRequest) -> Chunks:
        raise TimeoutError
        yield []

    monkeypatch.setattr(probe, "SECONDS", 0.05)
    scripted.on_stream = hang
    check, advice = await problem_of(run)
    assert check == "streaming"
    assert "no complete answer within" in advice
