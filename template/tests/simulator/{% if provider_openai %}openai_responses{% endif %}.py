"""OpenAI's responses, as a whole answer and as a stream of events. Nothing is kept."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.simulator.chat_format import CHAT_FAULTS, Generation, generate
from tests.simulator.exchange import Exchange, Reply, encode
from tests.simulator.faults import Kind, Refusal, RefusedError
from tests.simulator.schemas import pieces

_PARAMETERS = """
access_programs background background_options context_management conversation image include input
instructions max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls
previous_response_id prompt prompt_cache_key prompt_cache_options prompt_cache_retention reasoning
safety_identifier service_tier store stream stream_options temperature text tool_choice tools
top_logprobs top_p truncation user
"""
RESPONSE_PARAMETERS = frozenset(_PARAMETERS.split())
_FAILED: frozenset[Kind] = frozenset({"failed"})
RESPONSE_FAULTS = CHAT_FAULTS - {"extra_fields"} | _FAILED
_ITEM_FIELDS = {
    "message": {"content", "id", "phase", "role", "status"},
    "function_call": {"arguments", "call_id", "id", "name", "status"},
    "function_call_output": {"call_id", "id", "output", "status"},
    "reasoning": {"content", "encrypted_content", "id", "status", "summary"},
}
_PREFIXES = {"message": "msg_", "function_call": "fc_", "reasoning": "rs_"}
_CREATED = 1_760_000_000
_THOUGHT = "I repeat it."
_SECRET = "gAAAA-what-was-thought"
_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Answer:
    """The response as it ended, and the texts of its items as they come bit by bit."""

    response: Document
    texts: tuple[tuple[str, ...], ...]


def respond(exchange: Exchange) -> Reply:
    """Answer a request for a response as a chat would be answered."""
    exchange.allow(RESPONSE_PARAMETERS)
    exchange.require("model", "input")
    _check_items(exchange.body["input"])
    generation = generate(replace(exchange, body=_chat(exchange.body)))
    answer = _answer(exchange, generation)
    if exchange.body.get("stream"):
        chunks = tuple(map(_encoded, _numbered(exchange, answer)))
        return Reply(chunks=chunks, content_type="text/event-stream", billed=generation.billed)
    return Reply(encode(answer.response), billed=generation.billed)


def _check_items(given: Any) -> None:
    """Refuse what OpenAI refuses: unknown fields, ids of others, and reasoning that it forgot."""
    for place, item in enumerate([] if isinstance(given, str) else given):
        kind, path = item.get("type", "message"), f"input[{place}]"
        for name in item.keys() - {"type"} - _ITEM_FIELDS.get(kind, set()):
            _refuse(f"Unknown parameter: '{path}.{name}'.", f"{path}.{name}")
        for name in (name for name, value in item.items() if value is None):
            _refuse(f"Invalid type for '{path}.{name}': null.", f"{path}.{name}")
        if not item.get("id", "").startswith(_PREFIXES.get(kind, "") if "id" in item else ""):
            _refuse(f"Invalid '{path}.id': expected an ID of another kind.", f"{path}.id")
        if kind == "reasoning" and item.get("encrypted_content") != _SECRET:
            _refuse(f"Item with id '{item['id']}' not found: `store` was false.", path, 404)


def _refuse(message: str, param: str, status: int = 400) -> None:
    raise RefusedError(Refusal(status, message, "invalid_value", param=param))


def _chat(body: Document) -> Document:
    """What a chat with the same request would be asked."""
    tools = [{"function": tool} for tool in body.get("tools") or ()]
    choice = body.get("tool_choice")
    form = (body.get("text") or {}).get("format") or {}
    return {
        "messages": list(_messages(body)),
        "tools": tools,
        "tool_choice": {"function": choice} if isinstance(choice, dict) else choice,
        "response_format": {"type": form.get("type"), "json_schema": form},
        "max_tokens": body.get("max_output_tokens"),
    }


def _messages(body: Document) -> Iterator[Document]:
    if body.get("instructions"):
        yield {"role": "system", "content": body["instructions"]}
    given = body["input"]
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        match item.get("type", "message"):
            case "message":
                yield {"role": item["role"], "content": _content(item["content"])}
            case "function_call_output":
                yield {"role": "tool", "content": _content(item["output"])}
            case "function_call":
                yield {"role": "assistant", "content": item["arguments"]}


def _content(content: Any) -> Any:
    if isinstance(content, str):
        return content
    images = {"input_image": "image_url"}
    return [
        {"type": images.get(part["type"], "text"), "text": part.get("text", "")} for part in content
    ]


def _answer(exchange: Exchange, generation: Generation) -> _Answer:
    reason = _REASONS.get(generation.finish_reason)
    status = "incomplete" if reason else "completed"
    items: list[Document] = []
    texts: list[tuple[str, ...]] = []
    if exchange.body.get("reasoning") is not None:
        items.append(_reasoning(exchange))
        texts.append((_THOUGHT,))
    for place, function in enumerate(generation.calls):
        number = f"{exchange.number:08d}_{place}"
        call = {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}"}
        items.append({**call, **function, "status": "completed"})
        texts.append(pieces(function["arguments"]))
    if not generation.calls and generation.pieces:
        items.append(_message(exchange, generation, status))
        texts.append(generation.pieces)
    response = _response(exchange) | {
        "status": status,
        "output": items,
        "incomplete_details": {"reason": reason} if reason else None,
        "usage": None if exchange.plays("no_usage") else _usage(generation),
    }
    if exchange.plays("failed"):
        error = {"code": "server_error", "message": "Something went wrong at org-simulator."}
        response |= {"status": "failed", "error": error}
    return _Answer(response, tuple(texts))


def _message(exchange: Exchange, generation: Generation, status: str) -> Document:
    text = "".join(generation.pieces)
    part: Document = {"type": "refusal", "refusal": text}
    if generation.field == "content":
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {"type": "message", "id": f"msg_{exchange.number:08d}", "role": "assistant"}
    return {**message, "status": status, "content": [part]}


def _reasoning(exchange: Exchange) -> Document:
    summary = [{"type": "summary_text", "text": _THOUGHT}]
    item = {"type": "reasoning", "id": f"rs_{exchange.number:08d}", "summary": summary}
    if "reasoning.encrypted_content" in (exchange.body.get("include") or ()):
        item["encrypted_content"] = _SECRET
    return item


def _usage(generation: Generation) -> Document:
    return {
        "input_tokens": generation.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": generation.cached,
            "cache_write_tokens": generation.written,
        },
        "output_tokens": generation.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": generation.prompt_tokens + generation.completion_tokens,
    }


def _response(exchange: Exchange) -> Document:
    body = exchange.body
    return {
        "id": f"resp_{exchange.number:08d}",
        "object": "response",
        "created_at": _CREATED,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": body["model"],
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "service_tier": "default",
        "store": body.get("store", True),
        "temperature": 1.0,
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
    }


def _numbered(exchange: Exchange, answer: _Answer) -> Iterator[Document]:
    """The events, up to an error if the fault is one."""
    for number, event in enumerate(_events(exchange, answer)):
        fault = exchange.fault
        if fault is not None and exchange.plays("stream_error") and number == fault.after:
            message = "The server had an error while processing your request."
            error = {"code": "server_error", "message": message, "param": None}
            yield {"type": "error", "sequence_number": number, **error}
            return
        yield {**event, "sequence_number": number}


def _events(exchange: Exchange, answer: _Answer) -> Iterator[Document]:
    begun = _response(exchange)
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for place, item in enumerate(answer.response["output"]):
        at = {"output_index": place}
        yield {"type": "response.output_item.added", **at, "item": _empty(item)}
        at["item_id"] = item["id"]
        yield from _bits(at, item, answer.texts[place])
        yield {"type": "response.output_item.done", "output_index": place, "item": item}
    yield {"type": f"response.{answer.response['status']}", "response": answer.response}


def _empty(item: Document) -> Document:
    """An item before its first bit."""
    nothing = {"content": [], "arguments": "", "summary": [], "status": "in_progress"}
    return {name: nothing.get(name, value) for name, value in item.items()}


def _bits(at: Document, item: Document, texts: tuple[str, ...]) -> Iterator[Document]:
    match item["type"]:
        case "function_call":
            kind = "response.function_call_arguments"
            yield from ({"type": f"{kind}.delta", **at, "delta": text} for text in texts)
            yield {"type": f"{kind}.done", **at, "arguments": item["arguments"]}
        case "reasoning":
            kind, at = "response.reasoning_summary", {**at, "summary_index": 0}
            (part,) = item["summary"]
            yield {"type": f"{kind}_part.added", **at, "part": {**part, "text": ""}}
            yield from ({"type": f"{kind}_text.delta", **at, "delta": text} for text in texts)
            yield {"type": f"{kind}_text.done", **at, "text": part["text"]}
            yield {"type": f"{kind}_part.done", **at, "part": part}
        case _:
            yield from _message_bits({**at, "content_index": 0}, item["content"][0], texts)


def _message_bits(at: Document, part: Document, texts: tuple[str, ...]) -> Iterator[Document]:
    name = "text" if part["type"] == "output_text" else "refusal"
    more: Document = {"logprobs": []} if name == "text" else {}
    kind = f"response.{part['type']}"
    yield {"type": "response.content_part.added", **at, "part": {**part, name: ""}}
    yield from ({"type": f"{kind}.delta", **at, "delta": text, **more} for text in texts)
    yield {"type": f"{kind}.done", **at, name: part[name], **more}
    yield {"type": "response.content_part.done", **at, "part": part}


def _encoded(event: Document) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), encode(event))
