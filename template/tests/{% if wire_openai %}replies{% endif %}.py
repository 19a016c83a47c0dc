"""Streams of servers that speak OpenAI's format, as people have reported them."""

import json
from typing import Any, NamedTuple

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
DONE = b"data: [DONE]\n\n"


class Reply(NamedTuple):
    """A stream, and what the message of the record says then."""

    stream: bytes
    message: dict[str, Any]


def event(value: Any) -> bytes:
    """An event with a value, or bytes, as its data."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b"data: " + data + b"\n\n"


def chunk(choices: Any, **rest: Any) -> dict[str, Any]:
    """A chunk with such choices."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": choices, **rest}


def piece(delta: Any, reason: Any = None, index: Any = 0) -> dict[str, Any]:
    """A chunk with a piece of a choice."""
    return chunk([{"index": index, "delta": delta, "finish_reason": reason}])


def call(arguments: Any, index: Any = 0, **rest: Any) -> dict[str, Any]:
    """A piece of a tool call."""
    return {"index": index, "function": {"arguments": arguments, **rest}}


def first_call(arguments: Any, index: Any = 0) -> dict[str, Any]:
    """The first piece of a tool call."""
    piece_of_it = call(arguments, index, name="f")
    return piece({"tool_calls": [{**piece_of_it, "id": "call_1", "type": "function"}]})


def called(arguments: str) -> dict[str, Any]:
    """The message of that call."""
    function = {"name": "f", "arguments": arguments}
    return {"tool_calls": [{"id": "call_1", "type": "function", "function": function}]}


HELLO = piece({"role": "assistant", "content": "Hello"})
STOP = piece({}, "stop")
CALLED = piece({}, "tool_calls")
USAGE_CHUNK = chunk([], usage=USAGE)
BARE_CALL = {"index": 0, "id": "", "type": "function"}
TEXT = b'{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%s"}}]}'
SPOKEN = {"content": "Hello"}


def stream(*chunks: Any, end: bytes = DONE) -> bytes:
    """Chunks, the usage and an end."""
    return b"".join(map(event, (*chunks, USAGE_CHUNK))) + end


STREAMS = {
    "arguments that are null": Reply(
        stream(first_call(None), piece({"tool_calls": [call('{"a":1}')]}), CALLED),
        called('{"a":1}'),
    ),
    "arguments that are an object": Reply(stream(first_call({"a": 1}), CALLED), called('{"a":1}')),
    "an index that is null": Reply(stream(first_call("{}", None), CALLED), called("{}")),
    "content that is a list": Reply(
        stream(
            piece({"content": [{"type": "thinking", "thinking": [{"text": "a"}]}]}), HELLO, STOP
        ),
        SPOKEN,
    ),
    "no newline after DONE": Reply(stream(HELLO, STOP, end=DONE.strip()), SPOKEN),
    "no DONE": Reply(stream(HELLO, STOP, end=b""), SPOKEN),
    "empty data": Reply(b"data:\n\ndata\n\ndata: \n\n" + stream(HELLO, STOP), SPOKEN),
    "two lines of data": Reply(
        stream(HELLO, STOP).replace(b', "choices"', b',\ndata: "choices"'), SPOKEN
    ),
    "half an emoji": Reply(
        event(TEXT % rb"hi \ud83d") + event(TEXT % rb"\ude00") + stream(STOP),
        {"content": "hi \ufffd\ufffd"},
    ),
    "bytes that are no UTF-8": Reply(
        event(TEXT % b"hi \xff\xc3") + stream(STOP), {"content": "hi \ufffd\ufffd"}
    ),
    "names, comments and no space": Reply(
        b": keep-alive\n\nevent: message\n"
        + stream(HELLO, {**STOP, "usage": USAGE}).replace(b"data: ", b"data:"),
        SPOKEN,
    ),
    "CRLF": Reply(stream(HELLO, STOP).replace(b"\n", b"\r\n"), SPOKEN),
    "CR": Reply(stream(HELLO, STOP).replace(b"\n", b"\r"), SPOKEN),
    "a byte order mark": Reply(b"\xef\xbb\xbf" + stream(HELLO, STOP), SPOKEN),
    "tool calls that are an object": Reply(
        stream(
            piece({"tool_calls": {**BARE_CALL, **call('{"a":1}', name=None)}}),
            piece({}, "eos_token"),
        ),
        {"tool_calls": [{"type": "function", "function": {"arguments": '{"a":1}'}}]},
    ),
    "a legacy function call": Reply(
        stream(
            piece({"function_call": {"name": "f", "arguments": "{"}}),
            piece({"function_call": {"arguments": "}"}}),
            piece({}, "function_call"),
        ),
        {"function_call": {"name": "f", "arguments": "{}"}},
    ),
    "reasoning": Reply(
        stream(
            piece({"reasoning_content": "a", "content": None}),
            piece({"reasoning_content": "b", "content": ""}),
            piece({"reasoning": "c"}),
            HELLO,
            STOP,
        ),
        {"reasoning_content": "ab", "reasoning": "c", **SPOKEN},
    ),
    "DONE with spaces": Reply(stream(HELLO, STOP, end=b"data:  [DONE]  \n\n"), SPOKEN),
}
