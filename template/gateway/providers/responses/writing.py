"""Translates a chat's answer into a response, and its chunks into events.

The same code makes both, so that a stream and an answer without streaming agree.
"""

import itertools
import time
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.ids import new_id
from gateway.providers.base import Body, Usage
from gateway.providers.completion import UsageCounter, choices_of, text_of
from gateway.providers.responses.items import CallItem, Item, TextItem, added
from gateway.providers.responses.reading import USAGE

# The reason of an incomplete response, by the finish reason of a chat.
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
# The request's fields that a response repeats, with their defaults.
ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": None,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
REASONING = ("reasoning_content", "reasoning")


class ResponseWriter:
    """Writes the response to one request. Each method returns the events of its change."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.response = _blank(request)
        self._begun = False
        self._items: list[Item] = []
        self._text: tuple[str, TextItem] | None = None
        self._open_calls: list[CallItem] = []
        self._calls: dict[Any, tuple[Any, CallItem]] = {}
        self._call_ids: set[str] = set()
        self._finish_reason: Any = None
        self._counter = UsageCounter()
        self._numbers = itertools.count()

    def add(self, chunk: Mapping[str, Any]) -> list[Body]:
        """Add a chunk of a chat, or a complete chat."""
        before, has_ended = self._counter.usage, bool(self._finish_reason)
        events = self._numbered(list(self._events(chunk)))
        is_counted = self._counter.add(chunk)
        if not (is_counted or has_ended):
            self._counter.drop_before(chunk)
        if is_counted or self._counter.usage is not before:
            usage = self.response["usage"] = _usage(self._counter.usage, chunk.get("usage"))
            # A chunk before the end may have a running count, which some servers send.
            if usage is None or self._finish_reason or not chunk.get("choices"):
                events.append({"type": USAGE, "usage": usage})
        return events

    def end(self) -> list[Body]:
        """End the response."""
        return self._numbered([*self._begin(), *self._end()])

    def _events(self, chunk: Mapping[str, Any]) -> Iterator[Body]:
        yield from self._begin()
        for choice in choices_of(chunk):
            if not choice.get("index"):
                delta = choice.get("delta") or choice.get("message")
                if isinstance(delta, dict):
                    yield from self._write(delta, _logprobs(choice.get("logprobs")))
                self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def _begin(self) -> Iterator[Body]:
        if self._begun:
            return
        self._begun = True
        for kind in ("response.created", "response.in_progress"):
            yield {"type": kind, "response": {**self.response}}

    def _write(self, delta: Mapping[str, Any], logprobs: list[Body]) -> Iterator[Body]:
        for name in REASONING:
            if isinstance(delta.get(name), str) and delta[name]:
                yield from self._write_text("reasoning", "reasoning_text", delta[name])
                break
        if text := text_of(delta.get("content")):
            yield from self._write_text("message", "output_text", text, logprobs)
        if isinstance(delta.get("refusal"), str) and delta["refusal"]:
            yield from self._write_text("message", "refusal", delta["refusal"])
        if self._text and delta.get("annotations"):
            yield from self._text[1].annotate(list(_citations(delta["annotations"])))
        calls = delta.get("tool_calls")
        for piece in calls if isinstance(calls, list) else ():
            if isinstance(piece, dict):
                yield from self._write_call(piece)

    def _write_text(
        self, kind: str, part: str, piece: str, logprobs: list[Body] | None = None
    ) -> Iterator[Body]:
        if self._text is None or self._text[0] != kind:
            yield from self._close_text()
            self._text = kind, TextItem(len(self._items), kind)
            yield self._add_item(self._text[1])
        yield from self._text[1].write(part, piece, logprobs or ())

    def _write_call(self, piece: Mapping[str, Any]) -> Iterator[Body]:
        """Add to the call of the piece's index, or begin a call if its id differs.

        Without an index, a piece with an id or a name begins a call.
        """
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        index = piece.get("index") if isinstance(piece.get("index"), int | str) else None
        name, (known, call) = piece.get("id"), self._calls.get(index, (None, None))
        is_new = call is None or (index is None and not name and bool(function.get("name")))
        if call is None or is_new or (name and name != known):
            call = CallItem(len(self._items), self._call_id(name))
            call.document["name"] = str(function.get("name") or "")
            self._calls[index] = name, call
            self._open_calls.append(call)
            yield from self._close_text()
            yield self._add_item(call)
        call.document["name"] = call.document["name"] or str(function.get("name") or "")
        if isinstance(function.get("arguments"), str) and function["arguments"]:
            yield from call.write(function["arguments"])

    def _call_id(self, given: Any) -> str:
        """The server's id if it is unique among the calls, else a new one."""
        is_unique = isinstance(given, str) and given and given not in self._call_ids
        call_id: str = given if is_unique else new_id("call")
        self._call_ids.add(call_id)
        return call_id

    def _add_item(self, item: Item) -> Body:
        self._items.append(item)
        return added(item)

    def _close_text(self, status: str = "completed") -> list[Body]:
        text, self._text = self._text, None
        return text[1].close(status) if text else []

    def _end(self) -> Iterator[Body]:
        reason = INCOMPLETE.get(str(self._finish_reason))
        status = "incomplete" if reason else "completed"
        yield from self._close_text(status)
        for call in self._open_calls:
            is_last = call is self._items[-1]
            yield from call.close(status if is_last else "completed")
        self.response |= {
            "status": status,
            "incomplete_details": {"reason": reason} if reason else None,
            "output": [item.document for item in self._items],
        }
        if not reason:
            self.response["completed_at"] = int(time.time())
        yield {"type": f"response.{status}", "response": self.response}

    def _numbered(self, events: list[Body]) -> list[Body]:
        for event in events:
            event["sequence_number"] = next(self._numbers)
        return events


def _blank(request: Mapping[str, Any]) -> Body:
    """The response to `request` before any output."""
    echo = {name: request.get(name, default) for name, default in ECHOED.items()}
    echo["tools"] = [{"parameters": None, "strict": None, **tool} for tool in echo["tools"]]
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": "",
        "output": [],
        "previous_response_id": None,
        "service_tier": "default",
        "store": False,
        "text": {"format": {"type": "text"}, **(request.get("text") or {})},
        "usage": None,
        **echo,
    }


def _usage(usage: Usage | None, reported: Any) -> Body | None:
    """A chat's usage in the format of a response."""
    if usage is None:
        return None
    details = reported.get("completion_tokens_details")
    reasoning = details.get("reasoning_tokens") if isinstance(details, dict) else 0
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning or 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _logprobs(logprobs: Any) -> list[Body]:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    content = content if isinstance(content, list) else []
    return [each for each in content if isinstance(each, dict)]


def _citations(annotations: Any) -> Iterator[Body]:
    """A chat's citations in the format of a response, which has no `url_citation` around them."""
    for annotation in annotations if isinstance(annotations, list) else ():
        cited = annotation.get("url_citation") if isinstance(annotation, dict) else None
        if isinstance(cited, dict):
            yield {"type": "url_citation", **cited}
