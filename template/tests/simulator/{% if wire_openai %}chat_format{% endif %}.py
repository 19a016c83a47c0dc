"""Chat completions in the format that OpenAI defined, as a whole answer and as a stream."""

from dataclasses import dataclass
from typing import Any

from tests.simulator.content import count_tokens, say
from tests.simulator.exchange import Exchange, Reply, encode
from tests.simulator.faults import ANYWHERE, STREAMING, Kind, RefusedError, too_long
from tests.simulator.schemas import called, filled, pieces

_CONTENTS: frozenset[Kind] = frozenset(
    {"empty", "refusal", "truncated", "filtered", "prose", "extra_fields"}
)
_USAGES: frozenset[Kind] = frozenset(
    {"no_usage", "full_usage", "excess_usage", "cache_write", "cache_read"}
)
CHAT_FAULTS = ANYWHERE | STREAMING | _CONTENTS | _USAGES
# The words that every model reads and writes at most, in one request.
CONTEXT_TOKENS = 20_000

# What OpenAI says that an image of low detail costs.
_TOKENS_PER_IMAGE = 85
# What a template writes around a message at most.
_AROUND_A_MESSAGE = 8
_CREATED = 1_760_000_000
_REFUSAL = ("I'm", " sorry,", " but", " I", " can't", " help", " with", " that.")
_DONE = b"data: [DONE]\n\n"
# What servers add to a message: OpenAI, vLLM, DeepSeek and OpenRouter.
_EXTRA_FIELDS = {
    "annotations": [],
    "audio": None,
    "function_call": None,
    "reasoning": "I repeat it.",
    "reasoning_content": "I repeat it.",
    "reasoning_details": [{"type": "reasoning.text", "text": "I repeat it.", "index": 0}],
}


@dataclass(frozen=True, slots=True)
class Generation:
    """What the model says, before the wire format: the same for each of the `n` choices."""

    pieces: tuple[str, ...]
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    """Over all choices."""
    field: str = "content"
    """The field of the message that carries the pieces: content or refusal."""
    calls: tuple[dict[str, str], ...] = ()
    """The name and the arguments of each function that is called instead."""
    cached: int = 0
    written: int = 0
    """Tokens of the prompt that were read from the cache, and written into it."""

    @property
    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {
                "cached_tokens": self.cached,
                "cache_write_tokens": self.written,
                "audio_tokens": 0,
            },
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    @property
    def billed(self) -> dict[str, float]:
        parts = {"cached_input_tokens": self.cached, "cache_write_tokens": self.written}
        return {
            "input_tokens": self.prompt_tokens,
            "output_tokens": self.completion_tokens,
            **{name: tokens for name, tokens in parts.items() if tokens},
        }


def complete(exchange: Exchange, parameters: frozenset[str]) -> Reply:
    """Answer a chat; `parameters` are the ones that the provider knows."""
    exchange.allow(parameters)
    exchange.require("model", "messages")
    generation = generate(exchange)
    if exchange.body.get("stream"):
        chunks = _stream(exchange, generation)
        return Reply(chunks=chunks, content_type="text/event-stream", billed=generation.billed)
    return Reply(_whole(exchange, generation), billed=generation.billed)


def generate(exchange: Exchange) -> Generation:
    """Call a tool, fill in a schema or repeat the last message, and then as the fault asks."""
    messages, choices = exchange.body["messages"], exchange.body.get("n") or 1
    asked = _asked(messages)
    if calls := _calls(exchange.body):
        count = sum(len(pieces(call["arguments"])) for call in calls) * choices
        return Generation((), "tool_calls", asked, count, calls=calls)
    said, reason, field = _said(exchange), "stop", "content"
    limit = _limit(exchange.body)
    if exchange.plays("refusal"):
        said, field = _REFUSAL, "refusal"
    elif exchange.plays("empty"):
        said = ()
    elif exchange.plays("truncated", "filtered"):
        said = said[: len(said) // 2]
        reason = "length" if exchange.plays("truncated") else "content_filter"
    if limit is not None and len(said) > limit:
        said, reason = said[:limit], "length"
    count = len(said) * choices
    if exchange.fault is not None and exchange.plays("excess_usage"):
        count = max(count, limit or 0) + exchange.fault.excess
    if exchange.plays("full_usage"):
        asked, count = sum(map(_size, messages)), (limit or 0) * choices
    cached, written = (asked * exchange.plays(kind) for kind in ("cache_read", "cache_write"))
    return Generation(said, reason, asked, count, field, cached=cached, written=written)


def _asked(messages: list[dict[str, Any]]) -> int:
    """Count the input, and refuse what no model can read."""
    asked = sum(map(_count, messages))
    if asked > CONTEXT_TOKENS:
        raise RefusedError(too_long(CONTEXT_TOKENS, asked))
    return asked


def _calls(body: dict[str, Any]) -> tuple[dict[str, str], ...]:
    """Make the calls that answer a user; a tool's result is answered in words."""
    last = body["messages"][-1]
    functions = [tool["function"] for tool in body.get("tools") or () if "function" in tool]
    choice = body.get("tool_choice")
    choice = choice["function"]["name"] if isinstance(choice, dict) else choice
    if last.get("role") == "tool" and choice in (None, "auto"):
        return ()
    prompt = _text(last)
    return tuple(
        {
            "name": function["name"],
            "arguments": filled(function.get("parameters") or {"type": "object"}, prompt),
        }
        for function in called(functions, choice, prompt)
    )


def _said(exchange: Exchange) -> tuple[str, ...]:
    """Fill in the schema that was asked for, or repeat the last message."""
    prompt = _text(exchange.body["messages"][-1])
    form = {} if exchange.plays("prose") else exchange.body.get("response_format") or {}
    match form.get("type"):
        case "json_schema":
            return pieces(filled(form["json_schema"].get("schema") or {}, prompt))
        case "json_object":
            return pieces(encode({"said": prompt}).decode())
        case _:
            return say(prompt)


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


def _whole(exchange: Exchange, generation: Generation) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    if generation.calls:
        message["tool_calls"] = [
            _call(exchange, place, function) for place, function in enumerate(generation.calls)
        ]
    else:
        message[generation.field] = "".join(generation.pieces)
    if exchange.plays("extra_fields"):
        message = {"tool_calls": [], **_EXTRA_FIELDS, **message}
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


def _stream(exchange: Exchange, generation: Generation) -> tuple[bytes, ...]:
    """Make the events: a role, the pieces, a reason, and the usage if it was asked for.

    Only the choices differ between events, so the rest of them is encoded once.
    """
    options = exchange.body.get("stream_options") or {}
    with_usage = bool(options.get("include_usage")) and not exchange.plays("no_usage")
    head = b"data: " + encode(_envelope(exchange, "chat.completion.chunk"))[:-1] + b',"choices":'
    tail = b',"usage":null}\n\n' if with_usage else b"}\n\n"
    events = [
        head + b"[" + _choice(index, delta, reason) + b"]" + tail
        for delta, reason in _deltas(exchange, generation)
        for index in range(exchange.body.get("n") or 1)
    ]
    if exchange.fault is not None and exchange.plays("stream_error"):
        return (*events[: exchange.fault.after], _error_event())
    if with_usage:
        events.append(head + b'[],"usage":' + encode(generation.usage) + b"}\n\n")
    return (*events, _DONE)


def _deltas(exchange: Exchange, generation: Generation) -> list[tuple[dict[str, Any], str | None]]:
    """Give what each event of one choice adds, and the reason with which the last ends it."""
    opening: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    if generation.field == "refusal" or generation.calls:
        opening["content"] = None
    if exchange.plays("extra_fields"):
        opening |= _EXTRA_FIELDS
    added: list[dict[str, Any]] = [{generation.field: piece} for piece in generation.pieces]
    for place, function in enumerate(generation.calls):
        start = _call(exchange, place, {**function, "arguments": ""})
        added.append({"tool_calls": [{"index": place, **start}]})
        added += [
            {"tool_calls": [{"index": place, "function": {"arguments": piece}}]}
            for piece in pieces(function["arguments"])
        ]
    ending: dict[str, Any] = {}
    return [
        (opening, None),
        *((delta, None) for delta in added),
        (ending, generation.finish_reason),
    ]


def _call(exchange: Exchange, place: int, function: dict[str, str]) -> dict[str, Any]:
    number = f"call_{exchange.number:08d}_{place}"
    return {"id": number, "type": "function", "function": function}


def _choice(index: int, delta: dict[str, Any], reason: str | None) -> bytes:
    return encode({"index": index, "delta": delta, "logprobs": None, "finish_reason": reason})


def _error_event() -> bytes:
    message = "The server had an error while processing your request."
    error = {"message": message, "type": "server_error", "param": None, "code": None}
    return b"data: " + encode({"error": error}) + b"\n\n"
