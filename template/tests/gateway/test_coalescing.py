"""Batching: requests of one user that arrive together are one call, and each pays its share."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import pricing
from gateway.pipeline.coalescing import MAX_INPUTS, Coalescer, JoinedReply
from gateway.pipeline.shares import shares
from gateway.policy import Model
from gateway.providers.base import (
    BadAnswer,
    Body,
    Deadline,
    ProviderFailure,
    ProviderRequest,
    Quota,
    Reply,
    Usage,
)
from gateway.providers.offline import OfflineProvider
from tests.fake_provider import FakeProvider
from tests.support import POLICY

MODEL = Model.model_validate(POLICY["offline/embedding"]).model_copy(
    update={"id": "offline/embedding"}
)
Asked = tuple[ProviderRequest, Usage]


def asked(given_input: Any, model: Model = MODEL, seconds: float = 60, **rest: Any) -> Asked:
    body = {"input": given_input, **rest}
    return ProviderRequest(model, body, Deadline(seconds)), pricing.max_usage(model, body)


def embeddings(request: ProviderRequest, usage: Usage | None = None) -> Reply:
    """An answer whose vectors are the inputs themselves."""
    given_input = request.body["input"]
    is_one = isinstance(given_input, str) or isinstance(given_input[0], int)
    inputs = [given_input] if is_one else given_input
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(inputs)]
    used = usage or Usage(sum(map(len, inputs)))
    counts = {"prompt_tokens": used.input_tokens, "total_tokens": used.input_tokens}
    return Reply({"object": "list", "model": "m", "data": data, "usage": counts}, used)


class Gated:
    """Answers once the gate is open; `entered` is set when it is asked."""

    def __init__(self) -> None:
        self.gate, self.entered = asyncio.Event(), asyncio.Event()

    async def __call__(self, request: ProviderRequest) -> Reply:
        request.sent = True
        request.quota = Quota(1, 2, 0.0)
        self.entered.set()
        await self.gate.wait()
        return embeddings(request)


def raising(error: Exception) -> Callable[[ProviderRequest], Awaitable[Reply]]:
    async def answer(request: ProviderRequest) -> Reply:
        request.sent = not (isinstance(error, ProviderFailure) and error.status is None)
        raise error

    return answer


def replying(change: Callable[[Body], Any], usage: Usage | None = None) -> Any:
    """Answers with what `change` makes of the body."""

    async def answer(request: ProviderRequest) -> Reply:
        reply = embeddings(request, usage)
        return Reply(change(reply.output), reply.usage)

    return answer


@pytest.fixture
def provider() -> FakeProvider:
    scripted = FakeProvider()
    scripted.on_answer = replying(lambda output: output)
    return scripted


async def ask(
    coalescer: Coalescer,
    provider: FakeProvider | OfflineProvider,
    *requests: Asked,
    user: str = "usr",
) -> list[JoinedReply]:
    """The answers to requests at once."""
    answers = (coalescer.answer(user, provider, *request) for request in requests)
    return await asyncio.gather(*answers)


def sent(provider: FakeProvider) -> list[Any]:
    """The inputs of each call."""
    return [request.body["input"] for request in provider.asked]


async def test_a_single_request_is_passed_on_as_it_is(provider: FakeProvider) -> None:
    request, bound = asked("one", dimensions=4)
    coalescer = Coalescer()
    for _ in range(3):
        turns = 0
        answering = asyncio.create_task(coalescer.answer("usr", provider, request, bound))
        while not answering.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns < 10, "it waits for nothing but its turn"
        assert answering.result() == (embeddings(request), None)
    assert all(each is request for each in provider.asked)


async def test_requests_at_once_are_one_call(provider: FakeProvider) -> None:
    texts: list[Any] = ["one", ["two", "three"], "four"]
    requests = [asked(text, dimensions=4) for text in texts]
    answers = await ask(Coalescer(), provider, *requests)
    (call,) = provider.asked
    assert call.body == {"input": ["one", "two", "three", "four"], "dimensions": 4}
    vectors = [[item["embedding"] for item in reply.output["data"]] for reply, _ in answers]
    assert vectors == [["one"], ["two", "three"], ["four"]]
    indexes = [[item["index"] for item in reply.output["data"]] for reply, _ in answers]
    assert indexes == [[0], [0, 1], [0]]
    assert {(reply.output["object"], reply.output["model"]) for reply, _ in answers} == {
        ("list", "m")
    }


async def test_token_ids_are_joined_too(provider: FakeProvider) -> None:
    ids, more = asked([1, 2]), asked([[3], [4, 5]])
    answers = await ask(Coalescer(), provider, ids, more)
    assert sent(provider) == [[[1, 2], [3], [4, 5]]]
    assert answers[0][0].output["data"][0]["embedding"] == [1, 2]


async def test_the_built_in_models_vectors_are_those_of_each_alone() -> None:
    texts: list[Any] = ["one", ["two", "three three"], [1, 2], [[3], [4]]]
    together = await ask(Coalescer(), OfflineProvider(), *map(asked, texts))
    for text, (reply, _) in zip(texts, together, strict=True):
        ((alone, _),) = await ask(Coalescer(), OfflineProvider(), asked(text))
        assert reply.output["data"] == alone.output["data"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (asked("one", dimensions=4), asked("two", dimensions=8)),
        (asked("one"), asked("two", encoding_format="base64")),
        (asked("one", user="a"), asked("two", user="b")),
        (asked("one"), asked([1, 2])),
        (asked("one"), asked("two", MODEL.model_copy(update={"id": "offline/other"}))),
    ],
    ids=["dimensions", "encoding", "end user", "token ids", "model"],
)
async def test_what_differs_is_not_joined(
    provider: FakeProvider, first: Asked, second: Asked
) -> None:
    answers = await ask(Coalescer(), provider, first, second)
    assert len(provider.asked) == 2
    assert [share for _, share in answers] == [None, None]


async def test_users_are_never_joined(provider: FakeProvider) -> None:
    coalescer = Coalescer()
    await asyncio.gather(
        *(ask(coalescer, provider, asked(user), user=user) for user in ("usr_1", "usr_2"))
    )
    assert sorted(sent(provider)) == ["usr_1", "usr_2"]


async def test_what_comes_while_a_call_runs_goes_together_when_it_is_over(
    provider: FakeProvider,
) -> None:
    slow = Gated()
    provider.on_answer = slow
    coalescer = Coalescer()
    first = asyncio.create_task(ask(coalescer, provider, asked("one")))
    await slow.entered.wait()
    rest = asyncio.create_task(ask(coalescer, provider, asked("two"), asked("three")))
    await asyncio.sleep(0)
    slow.gate.set()
    await asyncio.gather(first, rest)
    assert sent(provider) == ["one", ["two", "three"]]


async def test_a_hanging_call_does_not_delay_other_requests(provider: FakeProvider) -> None:
    slow = Gated()
    provider.on_answer = slow
    coalescer = Coalescer()
    hanging = asyncio.create_task(ask(coalescer, provider, asked("one")))
    await slow.entered.wait()
    provider.on_answer = replying(lambda output: output)
    async with asyncio.timeout(5):
        await ask(coalescer, provider, asked("two"), asked("three"))
    assert not hanging.done()
    slow.gate.set()
    await hanging
    assert sent(provider) == ["one", ["two", "three"]]


async def test_a_call_takes_a_bounded_number_of_inputs(provider: FakeProvider) -> None:
    requests = [asked(["x"] * 10) for _ in range(10)] + [asked(["y"] * (MAX_INPUTS + 1))]
    roomy = MODEL.model_copy(update={"max_input_tokens": None})
    for request, _ in requests:
        request.model = roomy
    await ask(Coalescer(), provider, *requests)
    assert [len(inputs) for inputs in sent(provider)] == [60, 40, MAX_INPUTS + 1]


async def test_a_call_takes_no_more_tokens_than_the_model(provider: FakeProvider) -> None:
    """The maximum tokens of the joined inputs stay within those of one request."""
    requests = [asked("x" * 900) for _ in range(5)]
    await ask(Coalescer(), provider, *requests)
    assert [len(inputs) for inputs in sent(provider) if isinstance(inputs, list)] == [2, 2]
    assert len(provider.asked) == 3


async def test_a_call_takes_no_more_tokens_than_a_request_may_have(provider: FakeProvider) -> None:
    model = MODEL.model_copy(update={"max_request_tokens": 3000})
    await ask(Coalescer(), provider, *(asked("x" * 900, model) for _ in range(5)))
    assert [len(inputs) for inputs in sent(provider)] == [3, 2]


async def test_joined_requests_pay_no_higher_tier_than_alone(provider: FakeProvider) -> None:
    line = {"input_usd_per_million_tokens": 2, "cache_write_usd_per_million_tokens": 2}
    tiers = {"tiers": [{"above_input_tokens": 2000, **line}], "max_request_tokens": 10_000}
    model = Model.model_validate(POLICY["offline/embedding"] | tiers)
    requests = [asked("x" * 900, model) for _ in range(5)]
    answers = await ask(Coalescer(), provider, *requests)
    assert len(provider.asked) == 3
    for (_, cost), (_, bound) in zip(answers, requests, strict=True):
        assert cost is None or cost <= pricing.max_cost(model.price, bound)


async def test_a_call_may_last_as_long_as_the_most_patient_of_its_requests(
    provider: FakeProvider,
) -> None:
    requests = [asked("one", seconds=seconds) for seconds in (5, 50, 20)]
    await ask(Coalescer(), provider, *requests)
    assert 40 < provider.asked[0].deadline.remaining <= 50


@given(
    st.integers(0, 10**13),
    st.lists(st.integers(0, 10**9), min_size=1, max_size=MAX_INPUTS),
)
def test_shares_add_up_and_none_is_above_its_weight(whole: int, weights: list[int]) -> None:
    parts = shares(whole, weights)
    assert sum(parts) == whole
    assert min(parts) >= 0
    total = sum(weights)
    for part, weight in zip(parts, weights, strict=True):
        if total:
            assert abs(part * total - whole * weight) < total
        if whole <= total:
            assert part <= weight


@given(
    st.lists(st.text(min_size=1, max_size=9), min_size=2, max_size=12),
    st.integers(0, 3000),
    st.sampled_from(["0.02", "0.000000001", "13.37", "0"]),
)
async def test_shares_are_the_bill_to_the_last_nano_dollar(
    texts: list[str], tokens: int, dollars: str
) -> None:
    declared = {**POLICY["offline/embedding"], "input_usd_per_million_tokens": dollars}
    model = Model.model_validate(declared)
    scripted, usage = FakeProvider(), Usage(tokens)
    scripted.on_answer = replying(lambda output: output, usage)
    requests = [asked(text, model) for text in texts]
    answers = await ask(Coalescer(), scripted, *requests)
    assert len(scripted.asked) == 1
    costs = [cost for _, cost in answers if cost is not None]
    assert len(costs) == len(texts)
    assert sum(costs) == pricing.cost(model.price, usage)
    used = [reply.usage for reply, _ in answers if reply.usage is not None]
    assert sum(each.input_tokens for each in used) == tokens
    told = [reply.output["usage"]["prompt_tokens"] for reply, _ in answers]
    assert told == [each.input_tokens for each in used]
    if tokens <= sum(bound.input_tokens for _, bound in requests):
        for cost, (_, bound) in zip(costs, requests, strict=True):
            assert cost <= pricing.max_cost(model.price, bound)


@given(
    st.lists(st.text(min_size=1, max_size=9), min_size=2, max_size=12),
    st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300)),
)
@example(["one", "two"], (0, 1, 1))
async def test_parts_of_the_input_are_parts_of_each_share(
    texts: list[str], parts: tuple[int, int, int]
) -> None:
    _, cached, written = parts
    usage = Usage(sum(parts), cached_input_tokens=cached, cache_write_tokens=written)
    scripted = FakeProvider()
    scripted.on_answer = replying(lambda output: output, usage)
    answers = await ask(Coalescer(), scripted, *map(asked, texts))
    used = [reply.usage for reply, _ in answers if reply.usage is not None]
    assert [sum(column) for column in zip(*used, strict=True)] == list(usage)
    for each in used:
        assert each.cached_input_tokens + each.cache_write_tokens <= each.input_tokens


async def test_seconds_of_compute_are_shared(provider: FakeProvider) -> None:
    lines = ("input_usd_per_million_tokens", "cache_write_usd_per_million_tokens")
    by_time = {**dict.fromkeys(lines), "usd_per_second": "0.00012", "max_seconds": 30}
    model = Model.model_validate(POLICY["offline/embedding"] | by_time)
    provider.on_answer = replying(lambda output: output, Usage(microseconds=1_000_001))
    answers = await ask(Coalescer(), provider, asked("one", model), asked("two", model))
    assert [reply.usage for reply, _ in answers] == [
        Usage(microseconds=500_001),
        Usage(microseconds=500_000),
    ]
    assert sum(cost or 0 for _, cost in answers) == 120_001


async def test_without_usage_there_are_no_shares(provider: FakeProvider) -> None:
    """So each is settled at its own maximum."""

    async def answer(request: ProviderRequest) -> Reply:
        return embeddings(request)._replace(usage=None)

    provider.on_answer = answer
    answers = await ask(Coalescer(), provider, asked("one"), asked("two"))
    assert [(reply.usage, cost) for reply, cost in answers] == [(None, None)] * 2


async def test_the_quota_is_set_on_each_joined_request(provider: FakeProvider) -> None:
    slow = Gated()
    slow.gate.set()
    provider.on_answer = slow
    requests = [asked("one"), asked("two")]
    await ask(Coalescer(), provider, *requests)
    seen = [(request.sent, request.quota) for request, _ in requests]
    assert seen == [(True, Quota(1, 2, 0.0))] * 2
    assert requests[0][0].exchange is requests[1][0].exchange


@pytest.mark.parametrize(
    ("error", "is_sent"),
    [
        (ProviderFailure("no connection", billed=False), False),
        (ProviderFailure("busy", status=503), True),
        (ProviderFailure("too many", status=429, billed=False), True),
        (OSError("broken"), True),
    ],
    ids=str,
)
async def test_a_failure_is_everybodys(
    provider: FakeProvider, error: Exception, is_sent: bool
) -> None:
    provider.on_answer = raising(error)
    requests = [asked("one"), asked("two")]
    coalescer = Coalescer()
    work = (coalescer.answer("usr", provider, *request) for request in requests)
    assert await asyncio.gather(*work, return_exceptions=True) == [error, error]
    assert [request.sent for request, _ in requests] == [is_sent, is_sent]
    assert len(provider.asked) == 1


async def test_what_a_failed_call_used_is_shared(provider: FakeProvider) -> None:
    """Each pays its part of what the provider counted, and not all of it."""
    provider.on_answer = raising(BadAnswer("nonsense", usage=Usage(7)))
    coalescer = Coalescer()
    requests = [ask(coalescer, provider, asked(text)) for text in ("one", "two")]
    errors = await asyncio.gather(*requests, return_exceptions=True)
    used = [error.usage for error in errors if isinstance(error, BadAnswer)]
    assert len(provider.asked) == 1
    assert sorted(each.input_tokens for each in used if each) == [3, 4]


async def test_a_refused_input_does_not_fail_the_other_requests(provider: FakeProvider) -> None:
    """A refused call costs nothing, so each may ask alone."""
    refusal = ProviderFailure("too long", status=400, billed=False)

    async def answer(request: ProviderRequest) -> Reply:
        request.sent = True
        if "wrong" in request.body["input"]:
            raise refusal
        return embeddings(request)

    provider.on_answer = answer
    coalescer = Coalescer()
    requests = [asked(text) for text in ("one", "wrong", "two")]
    work = (coalescer.answer("usr", provider, *request) for request in requests)
    first, failed, last = await asyncio.gather(*work, return_exceptions=True)
    assert failed is refusal
    assert (first, last) == tuple((embeddings(requests[i][0]), None) for i in (0, 2))
    assert sent(provider) == [["one", "wrong", "two"], "one", "wrong", "two"]
    assert len({id(request.exchange) for request, _ in requests}) == 3


async def test_a_request_that_is_sent_alone_after_a_refusal_can_be_cancelled(
    provider: FakeProvider,
) -> None:
    """Also when another one has its answer."""
    asking, ended = asyncio.Event(), asyncio.Event()

    async def answer(request: ProviderRequest) -> Reply:
        request.sent = True
        if request.body["input"] == "endless":
            asking.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
        if "endless" in request.body["input"]:
            raise ProviderFailure("too long", status=400, billed=False)
        return embeddings(request)

    provider.on_answer = answer
    coalescer = Coalescer()
    requests = (asked(text) for text in ("endless", "one"))
    leaving, answered = (
        asyncio.create_task(coalescer.answer("usr", provider, *request)) for request in requests
    )
    await answered
    await asking.wait()
    leaving.cancel()
    async with asyncio.timeout(5):
        await ended.wait()


@pytest.mark.parametrize(
    "change",
    [
        lambda output: {**output, "data": output["data"][1:]},
        lambda output: {**output, "data": output["data"][:1] * 2},
        lambda output: {**output, "data": []},
        lambda output: {**output, "data": [{**each, "embedding": []} for each in output["data"]]},
        lambda output: {**output, "data": [{**each, "embedding": None} for each in output["data"]]},
        lambda output: {**output, "data": [{"index": each["index"]} for each in output["data"]]},
        lambda output: {**output, "data": [1, 2]},
        lambda output: {**output, "data": None},
        lambda _: None,
    ],
    ids=["less", "twice", "empty", "emptied", "null", "bare", "numbers", "none", "nothing"],
)
@pytest.mark.parametrize("inputs", [["one", "two"], [["one", "two"]]], ids=["joined", "alone"])
async def test_an_answer_without_a_vector_for_each_is_of_no_use(
    provider: FakeProvider, change: Callable[[Body], Any], inputs: list[Any]
) -> None:
    """Each pays what it used."""
    provider.on_answer = replying(change, Usage(5))
    coalescer = Coalescer()
    work = (coalescer.answer("usr", provider, *asked(given)) for given in inputs)
    met = await asyncio.gather(*work, return_exceptions=True)
    failures = [each for each in met if isinstance(each, BadAnswer)]
    assert len(failures) == len(inputs)
    assert sum(each.usage.input_tokens for each in failures if each.usage) == 5


async def test_vectors_without_an_index_are_in_the_order_of_their_inputs(
    provider: FakeProvider,
) -> None:
    provider.on_answer = replying(
        lambda output: {**output, "data": [{"embedding": v["embedding"]} for v in output["data"]]}
    )
    answers = await ask(Coalescer(), provider, asked(["one", "two"]), asked("three"))
    vectors = [[item["embedding"] for item in reply.output["data"]] for reply, _ in answers]
    assert vectors == [["one", "two"], ["three"]]


async def test_vectors_may_come_in_any_order(provider: FakeProvider) -> None:
    provider.on_answer = replying(lambda output: {**output, "data": output["data"][::-1]})
    answers = await ask(Coalescer(), provider, asked(["one", "two"]), asked("three"))
    vectors = [[item["embedding"] for item in reply.output["data"]] for reply, _ in answers]
    assert vectors == [["one", "two"], ["three"]]


async def test_a_cancelled_request_does_not_cancel_the_joined_call(provider: FakeProvider) -> None:
    slow = Gated()
    provider.on_answer = slow
    coalescer = Coalescer()
    leaving, staying = (
        asyncio.create_task(ask(coalescer, provider, asked(text))) for text in ("one", "two")
    )
    await slow.entered.wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    slow.gate.set()
    ((reply, cost),) = await staying
    assert reply.output["data"][0]["embedding"] == "two"
    # The cancelled request pays its own maximum; its share does not fall on the others.
    assert cost == pricing.cost(MODEL.price, Usage(6)) // 2


@pytest.mark.parametrize("count", [1, 3])
async def test_the_joined_call_is_cancelled_with_its_last_request(
    provider: FakeProvider, count: int
) -> None:
    ended = asyncio.Event()
    slow = Gated()

    async def answer(request: ProviderRequest) -> Reply:
        try:
            return await slow(request)
        except asyncio.CancelledError:
            ended.set()
            raise

    provider.on_answer = answer
    coalescer = Coalescer()
    requests = [asked("one") for _ in range(count)]
    leaving = [asyncio.create_task(ask(coalescer, provider, each)) for each in requests]
    await slow.entered.wait()
    for each in leaving:
        each.cancel()
    async with asyncio.timeout(5):
        await ended.wait()
    assert all(request.sent for request, _ in requests)
    provider.on_answer = replying(lambda output: output)
    await ask(coalescer, provider, asked("two"))


async def test_a_request_that_is_cancelled_before_the_call_is_not_sent(
    provider: FakeProvider,
) -> None:
    slow = Gated()
    provider.on_answer = slow
    coalescer = Coalescer()
    first = asyncio.create_task(ask(coalescer, provider, asked("one")))
    await slow.entered.wait()
    gone = asked("two")
    leaving = asyncio.create_task(coalescer.answer("usr", provider, *gone))
    await asyncio.sleep(0)
    leaving.cancel()
    slow.gate.set()
    await first
    await ask(coalescer, provider, asked("three"))
    assert sent(provider) == ["one", "three"]
    assert not gone[0].sent


async def test_finished_queues_are_removed(provider: FakeProvider) -> None:
    coalescer = Coalescer()
    for user in range(20):
        await ask(coalescer, provider, asked("one"), asked("two"), user=f"usr_{user}")
    await asyncio.sleep(0)
    assert not any(vars(coalescer).values())


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 3)), max_size=25))
async def test_each_request_gets_its_own_vectors(requests: list[tuple[int, int]]) -> None:
    coalescer, scripted = Coalescer(), FakeProvider()

    async def answer(request: ProviderRequest) -> Reply:
        await asyncio.sleep(0)
        return embeddings(request)

    async def embed(number: int, turns: int, size: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        texts = [f"{number} {each}" for each in range(size)]
        reply, _ = await coalescer.answer(f"usr_{turns % 2}", scripted, *asked(texts))
        assert [item["embedding"] for item in reply.output["data"]] == texts

    scripted.on_answer = answer
    await asyncio.gather(*(embed(i, *request) for i, request in enumerate(requests)))
    assert all(len(request.body["input"]) <= MAX_INPUTS for request in scripted.asked)
