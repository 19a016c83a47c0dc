"""Answers of the simulated OpenAI, put into the words of another server."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tests.simulator.exchange import Exchange, Reply, Route, encode
from tests.simulator.faults import Refusal, RefusedError
from tests.simulator.openai import OpenAI
from tests.simulator.servers import UNKNOWN_MODEL, Dialect

_DONE = b"data: [DONE]\n\n"
Object = dict[str, Any]


class Speaking(OpenAI):
    """OpenAI's API as the server of `dialect` speaks it."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__()
        self.needs_key = dialect.needs_key
        self._dialect = dialect

    def routes(self) -> Sequence[Route]:
        """List the routes; chats are answered in the dialect."""
        chats, *others = super().routes()
        answer = chats.answer
        return (replace(chats, answer=lambda exchange: self._chat(exchange, answer)), *others)

    def refuse(self, refusal: Refusal) -> Reply:
        """Answer an error in the server's shape."""
        reply = super().refuse(refusal)
        return replace(reply, body=encode(self._dialect.error(refusal)))

    def _chat(self, exchange: Exchange, answer: Any) -> Reply:
        self._check(exchange.body)
        heeded = {
            name: value
            for name, value in exchange.body.items()
            if self._dialect.limits.get(name, "heeds") == "heeds"
        }
        options = exchange.body.get("stream_options") or {}
        asked = bool(options.get("include_usage"))
        if exchange.body.get("stream"):  # Some servers send the usage without being asked.
            heeded["stream_options"] = {"include_usage": True}
        reply: Reply = answer(replace(exchange, body=heeded))
        if reply.chunks:
            return replace(reply, chunks=tuple(self._stream(reply.chunks, asked=asked)))
        before = b"\n\n" if self._dialect.before.startswith(b": keep") else b""
        return replace(reply, body=before + encode(self._whole(json.loads(reply.body))))

    def _check(self, body: Object) -> None:
        """Refuse a model that is not there, and a name of the largest output."""
        dialect = self._dialect
        if body.get("model") == UNKNOWN_MODEL and dialect.unknown_model:
            raise RefusedError(dialect.unknown_model)
        for name, verdict in dialect.limits.items():
            if name in body and verdict == "refuses" and dialect.unknown_limit:
                raise RefusedError(dialect.unknown_limit(name))

    def _whole(self, answer: Object) -> Object:
        choices = answer["choices"]
        answer["choices"] = [
            {**choice, **self._dialect.choice, "message": self._worded(choice["message"])}
            for choice in choices
        ]
        if usage := answer.get("usage"):
            answer |= {"usage": self._usage(usage), **self._dialect.closing(usage)}
        return answer

    def _stream(self, events: Sequence[bytes], *, asked: bool) -> Iterator[bytes]:
        """The chunks; what is no chunk, as an error, is left as it is."""
        dialect = self._dialect
        chunks = [json.loads(event[6:]) for event in events if event != _DONE]
        usage = next((chunk["usage"] for chunk in chunks if chunk.get("usage")), None)
        if dialect.before:
            yield dialect.before
        if dialect.opening:
            yield _event({**_without(chunks[0], "choices"), "choices": [], **dialect.opening})
        last = max((n for n, chunk in enumerate(chunks) if chunk.get("choices")), default=-1)
        for place, chunk in enumerate(chunks):
            if chunk.get("choices") and place == last:
                yield _event(self._last(self._chunk(chunk), usage))
            elif "choices" not in chunk:
                yield _event(chunk)
            elif chunk["choices"]:
                yield _event(self._chunk(chunk))
            elif asked and dialect.usage_place != "last":
                yield _event(self._separate(chunk, usage))
        if events[-1] == _DONE:
            yield _DONE

    def _chunk(self, chunk: Object) -> Object:
        chunk = _without(chunk, "usage") if self._dialect.usage_place == "last" else chunk
        return {**chunk, "choices": [self._choice(choice) for choice in chunk["choices"]]}

    def _choice(self, choice: Object) -> Object:
        delta = self._worded({**choice["delta"], **self._dialect.delta})
        return {**choice, **self._dialect.choice, "delta": delta}

    def _last(self, chunk: Object, usage: Object | None) -> Object:
        if usage is None:
            return chunk
        counts = {"usage": self._usage(usage)} if self._dialect.usage_place == "last" else {}
        return {**chunk, **counts, **self._dialect.closing(self._usage(usage))}

    def _separate(self, chunk: Object, usage: Object | None) -> Object:
        last = {**chunk, "usage": self._usage(usage or {})}
        if self._dialect.usage_place == "apart with a choice":
            delta = {"role": "assistant", "content": ""}
            last["choices"] = [{"index": 0, "delta": delta, "finish_reason": None}]
        return last

    def _usage(self, usage: Object) -> Object:
        counts = {**usage, **self._dialect.usage(usage)}
        return {name: value for name, value in counts.items() if value is not None}

    def _worded(self, message: Object) -> Object:
        if self._dialect.content_parts and isinstance(message.get("content"), str):
            text = message["content"]
            return {**message, "content": [{"type": "text", "text": text}] if text else ""}
        return message


def _without(chunk: Object, name: str) -> Object:
    return {key: value for key, value in chunk.items() if key != name}


def _event(chunk: Object) -> bytes:
    return b"data: " + encode(chunk) + b"\n\n"
