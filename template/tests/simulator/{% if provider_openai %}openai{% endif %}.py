"""OpenAI's API: chat completions, responses, embeddings, the list of models, and what they cost."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.simulator.chat_format import CHAT_FAULTS, complete
from tests.simulator.content import count_tokens
from tests.simulator.exchange import Exchange, Reply, Route, encode
from tests.simulator.faults import ANYWHERE, Kind, Refusal, RefusedError
from tests.simulator.openai_costs import Costs
from tests.simulator.openai_responses import RESPONSE_FAULTS, respond
from tests.simulator.vectors import DIMENSIONS, embed, to_base64

_CHAT = """
messages model audio frequency_penalty function_call functions logit_bias logprobs
max_completion_tokens max_tokens metadata modalities moderation n parallel_tool_calls
prediction presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention
reasoning_effort response_format safety_identifier seed service_tier stop store stream
stream_options temperature tool_choice tools top_logprobs top_p user verbosity
web_search_options
"""
CHAT_PARAMETERS = frozenset(_CHAT.split())
MESSAGE_FIELDS = frozenset(
    {"role", "content", "name", "refusal", "audio", "function_call", "tool_calls", "tool_call_id"}
)
EMBEDDING_FAULTS: frozenset[Kind] = ANYWHERE | {"no_usage", "excess_usage", "used_up"}
EMBEDDING_PARAMETERS = frozenset({"input", "model", "dimensions", "encoding_format", "user"})

_MODELS = ("gpt-4.1-mini", "text-embedding-3-small")
_TYPES = {402: "insufficient_quota", 429: "requests"}
_CODES = {401: "invalid_api_key", 404: "model_not_found"}


class OpenAI:
    """The wire format behind `OPENAI_BASE_URL`."""

    name = "openai"
    base = "/openai/v1"
    variable = "OPENAI_BASE_URL"
    needs_key = True

    def __init__(self) -> None:
        self._costs = Costs()

    def routes(self) -> Sequence[Route]:
        """List the routes."""
        return (
            Route("POST", "/chat/completions", self._costs.of(_chat), CHAT_FAULTS | {"used_up"}),
            Route("POST", "/responses", self._costs.of(respond), RESPONSE_FAULTS),
            Route("POST", "/embeddings", self._costs.of(_embeddings), EMBEDDING_FAULTS),
            Route("GET", "/models", _models),
            Route("GET", "/organization/costs", self._costs.answer),
        )

    def headers(self, number: int) -> dict[str, str]:
        """Tell the id of the request and a comfortable rest of both limits."""
        return {
            "x-request-id": f"req_{number:08d}",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-limit-tokens": "2000000",
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-remaining-tokens": "1999000",
            "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-reset-tokens": "30ms",
        }

    def refuse(self, refusal: Refusal) -> Reply:
        """Answer `{"error": {"message", "type", "param", "code"}}`.

        Of a reached limit the headers say when it is over; an empty account is a 429 as well.
        """
        status = refusal.status
        headers = dict(refusal.headers)
        if status == 429 and refusal.seconds is not None:
            headers |= _used_up("requests", refusal.seconds)
        error = {
            "message": refusal.message,
            "type": _TYPES.get(status, _blame(status)),
            "param": refusal.param,
            "code": refusal.code or _CODES.get(status),
        }
        shown = 429 if status == 402 else status
        return Reply(encode({"error": error}), status=shown, headers=headers)

    def reset(self) -> None:
        """Forget what was billed."""
        self._costs.forget()


def _blame(status: int) -> str:
    return "server_error" if status >= 500 else "invalid_request_error"


def _duration(seconds: float) -> str:
    """Write a duration as OpenAI does: 20ms, 30s, 6m0s."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"


def _used_up(unit: str, seconds: float) -> dict[str, str]:
    """The headers of a limit of which nothing is left."""
    return {
        f"x-ratelimit-remaining-{unit}": "0",
        f"x-ratelimit-reset-{unit}": _duration(seconds),
    }


def _headers(exchange: Exchange) -> dict[str, str]:
    if exchange.fault is None or not exchange.plays("used_up"):
        return {}
    return _used_up("tokens", exchange.fault.seconds)


def _chat(exchange: Exchange) -> Reply:
    if "max_tokens" in exchange.body and "max_completion_tokens" in exchange.body:
        message = "Setting 'max_tokens' and 'max_completion_tokens' is not supported."
        raise RefusedError(Refusal(400, message, code="invalid_parameter_combination"))
    for place, message in enumerate(exchange.body.get("messages") or ()):
        _check_message(f"messages[{place}]", message)
    return replace(complete(exchange, CHAT_PARAMETERS), headers=_headers(exchange))


def _check_message(path: str, message: dict[str, Any]) -> None:
    """Refuse a field that OpenAI's messages do not have, and a list of no calls."""
    for name in message.keys() - MESSAGE_FIELDS:
        text = f"Unknown parameter: '{path}.{name}'."
        raise RefusedError(Refusal(400, text, "unknown_parameter", param=f"{path}.{name}"))
    if message.get("tool_calls") == []:
        text = f"Invalid '{path}.tool_calls': empty array."
        raise RefusedError(Refusal(400, text, "empty_array", param=f"{path}.tool_calls"))


def _embeddings(exchange: Exchange) -> Reply:
    """Embed one text or a list; `encoding_format` decides between numbers and base64."""
    body = exchange.body
    exchange.allow(EMBEDDING_PARAMETERS)
    exchange.require("model", "input")
    texts = _texts(body["input"])
    tokens = sum(map(count_tokens, texts))
    if exchange.fault is not None and exchange.plays("excess_usage"):
        tokens += exchange.fault.excess
    answer: dict[str, Any] = {
        "object": "list",
        "data": [_embedding(body, index, text) for index, text in enumerate(texts)],
        "model": body["model"],
    }
    if not exchange.plays("no_usage"):
        answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    billed = {"input_tokens": tokens, "output_tokens": 0}
    return Reply(encode(answer), headers=_headers(exchange), billed=billed)


def _texts(given: Any) -> list[str]:
    """One text or many; each may be token ids, which count as words do."""
    if isinstance(given, str) or any(isinstance(part, int) for part in given):
        given = [given]
    return [text if isinstance(text, str) else " ".join(map(str, text)) for text in given]


def _embedding(body: dict[str, Any], index: int, text: str) -> dict[str, Any]:
    vector = embed(text, body.get("dimensions") or DIMENSIONS)
    in_base64 = body.get("encoding_format") == "base64"
    return {
        "object": "embedding",
        "index": index,
        "embedding": to_base64(vector) if in_base64 else vector,
    }


def _models(_: Exchange) -> Reply:
    models = [
        {"id": name, "object": "model", "created": 1_740_000_000, "owned_by": "system"}
        for name in _MODELS
    ]
    return Reply(encode({"object": "list", "data": models}))
