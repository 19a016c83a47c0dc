"""The cost of a call and its upper bound: whole nano-dollars, never too little."""

import datetime as dt
import sys
import unicodedata
from typing import Any

import httpx2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway import pricing
from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.policy import Model
from gateway.providers.base import Usage
from gateway.text_size import GROWTH, PARTED_GROWTH, RANGES, text_bytes
from tests.fixtures.service import Start
from tests.support import chat, error_of

MILLION = 1_000_000
OVERHEAD, SEPARATORS = 16, 8
SLOW_TEXTS = ("\u0300\u0316", "\ufdfa", "\u1ea5\u0323")
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}


def model(**changes: Any) -> Model:
    declared = {
        "provider": "offline",
        "name": "echo",
        "kind": "chat",
        "input_usd_per_million_tokens": "0.25",
        "output_usd_per_million_tokens": "2",
        "max_output_tokens": 64,
        "max_input_tokens": 10**9,
        "prices_checked": dt.date(2026, 11, 1),
    }
    return Model.model_validate(declared | changes)


def bound_of(message: dict[str, Any], **rest: Any) -> Usage:
    return pricing.max_usage(model(), {"messages": [message], **rest})


def embedding_bound(given_input: Any) -> int:
    declared = model(kind="embedding", output_usd_per_million_tokens=None)
    return pricing.max_usage(declared, {"input": given_input}).input_tokens


@given(st.text(), st.sampled_from(["system", "user", "assistant", "tool"]))
def test_text_is_bounded_by_its_bytes_however_it_is_normalised(text: str, role: str) -> None:
    forms = [text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFKC"))]
    size = max(len(form.encode()) for form in forms)
    whole = bound_of({"role": role, "content": text}).input_tokens
    parts = bound_of({"role": role, "content": [{"type": "text", "text": text}]}).input_tokens
    assert whole == parts
    assert whole >= size + OVERHEAD + SEPARATORS
    assert embedding_bound(text) >= size + OVERHEAD


# Of all characters that grow, that lose a mark to another one, or that combine.
MARKS = "\u0300\u0316\u0345\u0344\u3099\u0f73\u1d16d\uff9e\u09be\u1161\u11a8"
STRANGE = st.sampled_from([*GROWTH, *PARTED_GROWTH, *(20 * MARKS), *(20 * "aeか가각\u09c7")])


@settings(max_examples=1000)
@given(st.text(STRANGE, max_size=6))
@example("か\u0f73\uff9e")
@example("\u00e9\u0323")
def test_no_normalised_text_is_longer_than_its_bound(text: str) -> None:
    forms = [text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFKC"))]
    assert text_bytes(text) >= max(len(form.encode()) for form in forms)


def test_every_character_that_can_grow_is_known() -> None:
    """The tables cover parts of Unicode. A later version may need more."""
    known = {chr(code) for first, end in RANGES for code in range(first, end)}
    strange = {each for each in map(chr, range(sys.maxunicode)) if unicodedata.decomposition(each)}
    strange |= set(filter(unicodedata.combining, map(chr, range(sys.maxunicode))))
    assert strange <= known


@pytest.mark.parametrize("text", SLOW_TEXTS, ids=ascii)
def test_no_text_is_normalised(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Normalisation takes quadratic time on unordered marks, and blocks the interpreter."""
    monkeypatch.delattr("gateway.text_size.unicodedata")
    whole = 1000 * text
    assert text_bytes(whole) <= 11 * len(whole.encode())
    assert text_bytes(whole, most=2999) == len(whole.encode())


def test_a_long_text_without_marks_counts_as_it_is() -> None:
    for text in ("가나" * 500, "äö" * 500, "漢字" * 500):
        assert text_bytes(text) == len(text.encode())


@pytest.mark.parametrize(
    ("text", "size"),
    [("ab", 2), ("ä", 2), ("ﷺ", 33), ("ａ", 3), ("ﬁ", 3), ("", 0)],  # noqa: RUF001
    ids=ascii,
)
def test_bytes_of_a_text(text: str, size: int) -> None:
    bound = bound_of({"role": "user", "content": text}).input_tokens
    assert bound == OVERHEAD + SEPARATORS + len("user") + size


def test_the_tokens_around_each_message_count() -> None:
    messages = [{"role": role, "content": ""} for role in ("system", "user", "assistant")]
    bound = pricing.max_usage(model(overhead_tokens=7), {"messages": messages})
    assert bound.input_tokens == 7 + 3 * SEPARATORS + len("system" + "user" + "assistant")


@given(st.lists(st.text(min_size=1), min_size=1))
def test_each_input_of_an_embedding_counts(texts: list[str]) -> None:
    assert embedding_bound(texts) == sum(map(embedding_bound, texts))


@pytest.mark.parametrize(
    ("given_input", "tokens"),
    [([1, 2, 3], OVERHEAD + 3), ([[1, 2], [3]], 2 * OVERHEAD + 3)],
)
def test_token_ids_count_as_they_are(given_input: Any, tokens: int) -> None:
    assert embedding_bound(given_input) == tokens


@given(st.integers(1, 64), st.integers(1, 16))
def test_n_multiplies_the_output(limit: int, n: int) -> None:
    message = {"role": "user", "content": "one"}
    alone = bound_of(message, max_tokens=limit)
    assert alone.output_tokens == limit
    assert bound_of(message, max_tokens=limit, n=n).output_tokens == n * limit
    assert bound_of(message, max_tokens=limit, n=n).input_tokens == alone.input_tokens


def test_the_largest_output_is_the_models_unless_less_is_asked_for() -> None:
    message = {"role": "user", "content": "one"}
    assert bound_of(message).output_tokens == 64
    assert bound_of(message, max_completion_tokens=3).output_tokens == 3
    assert bound_of(message, max_completion_tokens=None, max_tokens=5).output_tokens == 5


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_more_output_than_the_model_writes_is_refused(name: str) -> None:
    with pytest.raises(RequestTooLarge) as refused:
        bound_of({"role": "user", "content": "one"}, **{name: 65})
    assert refused.value.param == name


@pytest.mark.parametrize("name", ["tools", "tool_choice", "response_format"])
def test_schemas_count(name: str) -> None:
    message = {"role": "user", "content": "one"}
    schema = {"type": "function", "description": "ä" * 50}
    given = [schema] if name == "tools" else schema
    assert bound_of(message, **{name: given}).input_tokens >= (
        bound_of(message).input_tokens + 100 + len("function" + "description" + "type")
    )


@pytest.mark.parametrize(
    "extra",
    [
        {"name": "ä" * 50},
        {"refusal": "ä" * 50},
        {"tool_call_id": "ä" * 50},
        {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "ä" * 50}}]},
    ],
    ids=lambda extra: next(iter(extra)),
)
def test_all_of_a_message_counts(extra: dict[str, Any]) -> None:
    message = {"role": "assistant", "content": "one"}
    assert bound_of({**message, **extra}).input_tokens >= bound_of(message).input_tokens + 100


def test_images_cost_what_is_declared() -> None:
    declared = model(tokens_per_image=100)
    text = {"type": "text", "text": "one"}
    messages = [{"role": "user", "content": content} for content in ([text], [text, IMAGE, IMAGE])]
    alone, pictured = (pricing.max_usage(declared, {"messages": [message]}) for message in messages)
    assert pictured.input_tokens == alone.input_tokens + 200


@pytest.mark.parametrize("part", [IMAGE, {"type": "input_audio"}, {"type": "file"}, {"type": ""}])
def test_content_without_a_declared_cost_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="not declared") as refused:
        bound_of({"role": "user", "content": [part]})
    assert refused.value.param == "messages.0.content.0"


def test_only_images_are_declared_by_the_cost_of_images() -> None:
    message = {"role": "user", "content": [{"type": "input_audio"}]}
    with pytest.raises(InvalidRequest, match="not declared"):
        pricing.max_usage(model(tokens_per_image=100), {"messages": [message]})


def images(**changes: Any) -> Model:
    per_token = {f"{side}_usd_per_million_tokens": None for side in ("input", "output")}
    return model(kind="task", usd_per_output="0.003", max_outputs=4, **per_token, **changes)


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ({}, 4),
        ({"num_outputs": None}, 4),
        ({"num_outputs": 1}, 1),
        ({"num_outputs": 4}, 4),
        ({"num_images": 3}, 3),
        ({"n": 2, "seed": 3}, 2),
        ({"num_outputs": 2, "batch_size": 2}, 4),
        ({"pieces": 2}, 4),
    ],
    ids=str,
)
def test_outputs_are_as_many_as_are_asked_for(body: dict[str, Any], outputs: int) -> None:
    bound = pricing.max_usage(images(), {"prompt": "a fox", **body})
    assert bound == Usage(outputs=outputs)
    assert pricing.max_cost(images().price, bound) == outputs * 3_000_000


def test_a_model_may_name_the_number_of_its_outputs_otherwise() -> None:
    named = images(outputs_parameter="pieces")
    assert pricing.max_usage(named, {"pieces": 2}) == Usage(outputs=2)
    assert pricing.max_usage(named, {"num_outputs": 2}) == Usage(outputs=4)


@pytest.mark.parametrize("body", [{"num_outputs": 5}, {"num_outputs": 3, "batch_size": 2}], ids=str)
def test_more_outputs_than_the_model_makes_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(RequestTooLarge, match="makes 4 at most") as refused:
        pricing.max_usage(images(), body)
    assert refused.value.param == "input.num_outputs"


@pytest.mark.parametrize("count", [0, -1, True, 2.0, "2", [2], {}], ids=repr)
def test_a_number_of_outputs_that_is_none_is_refused(count: Any) -> None:
    with pytest.raises(InvalidRequest, match="a whole number from 1 to 4") as refused:
        pricing.max_usage(images(), {"num_outputs": count})
    assert refused.value.param == "input.num_outputs"


@pytest.mark.parametrize(
    ("given_input", "texts"),
    [("x" * 100, 1), (["x" * 100] * 3, 3), ([1] * 100, 1), ([[1] * 100] * 3, 3)],
    ids=["text", "texts", "ids", "lists"],
)
def test_each_text_may_be_as_long_as_the_model_takes(given_input: Any, texts: int) -> None:
    """Without the provider's overhead: clients truncate token ids exactly at the limit."""
    declared = model(kind="embedding", max_input_tokens=100, max_request_tokens=300)
    bound = pricing.max_usage(declared, {"input": given_input})
    assert bound == Usage(texts * (100 + OVERHEAD))


@pytest.mark.parametrize(
    ("given_input", "words"),
    [
        ("x" * 101, "A text of the input can be up to 101 tokens (its bytes count); this model"),
        (["x", "x" * 101], "A text of the input can be up to 101 tokens"),
        ([[1] * 101], "A text of the input can be up to 101 tokens"),
        (["x" * 100] * 4, "The input can be up to 400 tokens (its bytes count); this model take"),
    ],
    ids=["text", "texts", "ids", "all"],
)
def test_longer_texts_are_refused_each_and_together(given_input: Any, words: str) -> None:
    declared = model(kind="embedding", max_input_tokens=100, max_request_tokens=300)
    with pytest.raises(RequestTooLarge) as refused:
        pricing.max_usage(declared, {"input": given_input})
    assert str(refused.value).startswith(words)
    assert refused.value.param == "input"


def test_compute_is_bounded_by_its_longest_run() -> None:
    per_token = {f"{side}_usd_per_million_tokens": None for side in ("input", "output")}
    declared = model(kind="task", usd_per_second="0.0015", max_seconds=60, **per_token)
    bound = pricing.max_usage(declared, {"anything": "x" * 10_000})
    assert bound == Usage(microseconds=60 * MILLION)
    assert pricing.cost(declared.price, bound) == 60 * 1_500_000


async def test_a_request_may_be_as_large_as_its_model_takes_and_no_larger(start: Start) -> None:
    service = await start()
    client = service.client(await service.create_user())
    fits = 2000 - OVERHEAD - SEPARATORS - len("user")
    response = await client.post("/v1/chat/completions", json=chat("x" * fits))
    assert response.status_code == 200
    assert (await service.attempt()).bound_nano_usd == 2000 * 250 + 64 * 2000
    response = await client.post("/v1/chat/completions", json=chat("x" * (fits + 1)))
    assert error_of(response) == (400, "request_too_large", "messages")
    assert "2001" in response.json()["error"]["message"]


async def test_prices_below_a_nano_dollar_a_token_are_not_lost(
    start: Start, settings: dict[str, Any]
) -> None:
    cheap = """
[models."offline/cheap"]
provider = "offline"
name = "echo"
kind = "chat"
input_usd_per_million_tokens = 0.000000001
cache_write_usd_per_million_tokens = 0.000000001
output_usd_per_million_tokens = 0.000000001
max_output_tokens = 64
max_input_tokens = 2000
prices_checked = 2026-11-01
"""
    with (settings["policy_dir"] / "models.toml").open("a", encoding="utf-8") as models:
        models.write(cheap)
    service = await start()
    client: httpx2.AsyncClient = service.client(await service.create_user())
    await client.post("/v1/chat/completions", json=chat(model="offline/cheap"))
    attempt = await service.attempt()
    assert attempt.price == {"input": 1, "output": 1, "second": 0, "cache_write": 1}
    assert attempt.cost_nano_usd == attempt.bound_nano_usd == 1
