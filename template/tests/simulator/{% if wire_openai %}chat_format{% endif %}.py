"""Chat completions in the format that OpenAI defined, as a whole answer and as a stream."""

from dataclasses import dataclass
from typing import Any

from tests.simulator.content import count_tokens, say
from tests.simulator.exchange import Exchange, Reply, encode
from tests.simulator.faults import ANYWHERE, STREAMING, Kind

CHAT_FAULTS: frozenset[Kind] = (
    ANYWHERE
    | STREAMING
    | {"empty", "refusal", "truncated", "filtered", "no_usage", "full_usage", "excess_usage"}
)

# What OpenAI says that an image of low detail costs.
_TOKENS_PER_IMAGE = 85
# What a template writes around a message at most.
_AROUND_A_MESSAGE = 8
_CREATED = 1_760_000_000
_REFUSAL = ("I'm", " sorry,", " but", " I", " can't", " help", " with", " that.")
_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class _Generation:
    """What the model says, before the wire format: the same for each of the `n` choices."""

    pieces: tuple[str, ...]
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    """Over all choices."""
    field: str = "content"
    """The field of the message that carries the pieces: content or refusal."""

    @property
    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    @property
    def billed(self) -> dict[str, float]:
        return {"input_tokens": self.prompt_tokens, "output_tokens": self.completion_tokens}


def complete(exchange: Exchange, parameters: frozenset[str]) -> Reply:
    """Answer a chat; `parameters` are the ones that the provider knows."""
    exchange.allow(parameters)
    exchange.require("model", "messages")
    generation = _generate(exchange)
    if exchange.body.get("stream"):
        chunks = _stream(exchange, generation)
        return Reply(chunks=chunks, content_type="text/event-stream", billed=generation.billed)
    return Reply(_whole(exchange, generation), billed=generation.billed)


def _generate(exchange: Exchange) -> _Generation:
    """Repeat the last message, within the request's limit and as the fault asks."""
    messages = exchange.body["messages"]
    pieces, reason, field = say(_text(messages[-1])), "stop", "content"
    limit = _limit(exchange.body)
    if exchange.plays("refusal"):
        pieces, field = _REFUSAL, "refusal"
    elif exchange.plays("empty"):
        pieces = ()
    elif exchange.plays("truncated", "filtered"):
        pieces = pieces[: len(pieces) // 2]
        reason = "length" if exchange.plays("truncated") else "content_filter"
    if limit is not None and len(pieces) > limit:
        pieces, reason = pieces[:limit], "length"
    count = len(pieces) * (exchange.body.get("n") or 1)
    if exchange.fault is not None and exchange.plays("excess_usage"):
        count = max(count, limit or 0) + exchange.fault.excess
    asked = sum(map(_count, messages))
    if exchange.plays("full_usage"):
        asked, count = sum(map(_size, messages)), (limit or 0) * (exchange.body.get("n") or 1)
    return _Generation(pieces, reason, asked, count, field)


def _limit(body: dict[str, Any]) -> int | None:
    """Read the largest output under its new or its old name."""
    new: int | None = body.get("max_completion_tokens")
    old: int | None = body.get("max_tokens")
    return old if new is None else new


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the content of a message as parts; it may be a text, parts or nothing."""
    content = message.get("content") or ""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text(message: dict[str, Any]) -> str:
    return " ".join(part.get("text", "") for part in _parts(message))


def _count(message: dict[str, Any]) -> int:
    images = [part for part in _parts(message) if part.get("type") == "image_url"]
    return count_tokens(_text(message)) + len(images) * _TOKENS_PER_IMAGE


def _size(message: dict[str, Any]) -> int:
    """The bytes of the role and the text, which no tokenizer makes more tokens of, and more."""
    return _AROUND_A_MESSAGE + len((message["role"] + _text(message)).encode())


def _envelope(exchange: Exchange, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{exchange.number:08d}",
        "object": kind,
        "created": _CREATED,
        "model": exchange.body["model"],
        "system_fingerprint": "fp_simulator",
    }


def _whole(exchange: Exchange, generation: _Generation) -> bytes:
    message = {"role": "assistant", "content": None, "refusal": None}
    message[generation.field] = "".join(generation.pieces)
    answer = _envelope(exchange, "chat.completion")
    answer["choices"] = [
        {
            "index": index,
            "message": message,
            "logprobs": None,
            "finish_reason": generation.finish_reason,
        }
        for index in range(exchange.body.get("n") or 1)
    ]
    if not exchange.plays("no_usage"):
        answer["usage"] = generation.usage
    return encode(answer)


def _stream(exchange: Exchange, generation: _Generation) -> tuple[bytes, ...]:
    """Make the events: a role, the pieces, a reason, and the usage if it was asked for.

    Only the choices differ between events, so the rest of them is encoded once.
    """
    options = exchange.body.get("stream_options") or {}
    with_usage = bool(options.get("include_usage")) and not exchange.plays("no_usage")
    head = b"data: " + encode(_envelope(exchange, "chat.completion.chunk"))[:-1] + b',"choices":'
    tail = b',"usage":null}\n\n' if with_usage else b"}\n\n"
    events = [
        head + b"[" + _choice(index, delta, reason) + b"]" + tail
        for delta, reason in _deltas(generation)
        for index in range(exchange.body.get("n") or 1)
    ]
    if exchange.fault is not None and exchange.plays("stream_error"):
        return (*events[: exchange.fault.after], _error_event())
    if with_usage:
        events.append(head + b'[],"usage":' + encode(generation.usage) + b"}\n\n")
    return (*events, _DONE)


def _deltas(generation: _Generation) -> list[tuple[dict[str, Any], str | None]]:
    """Give what each event of one choice adds, and the reason with which the last ends it."""
    opening: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    if generation.field == "refusal":
        opening["content"] = None
    pieces = [({generation.field: piece}, None) for piece in generation.pieces]
    return [(opening, None), *pieces, ({}, generation.finish_reason)]


def _choice(index: int, delta: dict[str, Any], reason: str | None) -> bytes:
    return encode({"index": index, "delta": delta, "logprobs": None, "finish_reason": reason})


def _error_event() -> bytes:
    message = "The server had an error while processing your request."
    error = {"message": message, "type": "server_error", "param": None, "code": None}
    return b"data: " + encode({"error": error}) + b"\n\n"
