"""The built-in provider: answers at once, always the same, without a network or a key."""

import base64
import hashlib
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp

from app.policy import Kind
from app.providers.base import Body, Chunks, Job, Reply
from app.providers.completion import EMBEDDING_COUNTS, usage_of
from app.settings import Settings

DIMENSIONS = 64
TOKEN = re.compile(r"\s*(?:\w{1,8}|[^\w\s])|\s+")


class OfflineProvider:
    """Echoes chats and embeds texts by their hash; counts tokens and so costs something."""

    name = "offline"
    least_seconds = 0
    parameters: Mapping[Kind, frozenset[str] | None] = {
        "chat": frozenset({"messages", "max_tokens", "max_completion_tokens", "temperature"}),
        "embedding": frozenset({"input", "dimensions", "encoding_format"}),
    }
    timed: frozenset[Kind] = frozenset()
    counted: frozenset[Kind] = frozenset()
    responses = None

    def missing(self) -> None:
        """Needs no credential."""

    async def answer(self, job: Job) -> Reply:
        if job.model.kind == "embedding":
            return _embed(job.body)
        tokens, reason = _reply(job)
        message = {"role": "assistant", "content": "".join(tokens), "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
        usage = _usage(job.body["messages"], tokens)
        output = {**_frame(job), "object": "chat.completion", "choices": [choice], "usage": usage}
        return Reply(output, usage_of(usage))

    async def stream(self, job: Job) -> Chunks:
        tokens, reason = _reply(job)
        frame = {**_frame(job), "object": "chat.completion.chunk"}
        for token in tokens:
            delta = {"role": "assistant", "content": token}
            yield [{**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}]
        end = {"index": 0, "delta": {}, "finish_reason": reason}
        usage = _usage(job.body["messages"], tokens)
        yield [{**frame, "choices": [end]}, {**frame, "choices": [], "usage": usage}]

    async def cancel(self, job: Job) -> None:
        """Nothing runs on."""

    async def find(self, job: Job) -> None:
        """Nothing runs on."""


def _frame(job: Job) -> Body:
    return {"id": "chatcmpl-offline", "created": 0, "model": job.model.name}


def _reply(job: Job) -> tuple[list[str], str]:
    """The answer in tokens, and why it ended."""
    tokens = _tokens(f"You said: {_text(job.body['messages'][-1])}")
    asked = job.body.get("max_completion_tokens") or job.body.get("max_tokens")
    most = asked or job.model.max_output_tokens
    return tokens[:most], "length" if len(tokens) > most else "stop"


def _tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


def _text(message: Body) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(p.get("text", "") for p in content)


def _usage(messages: list[Body], answer: list[str]) -> dict[str, int]:
    asked = sum(len(_tokens(_text(message))) for message in messages)
    total = asked + len(answer)
    return {"prompt_tokens": asked, "completion_tokens": len(answer), "total_tokens": total}


def _embed(body: Body) -> Reply:
    texts = list(_texts(body["input"]))
    size = body.get("dimensions") or DIMENSIONS
    vectors: list[Any] = [_vector(text, size) for text in texts]
    if body.get("encoding_format") == "base64":
        vectors = [base64.b64encode(struct.pack(f"<{size}f", *v)).decode() for v in vectors]
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
    count = sum(len(_tokens(text)) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    answer = {"object": "list", "data": data, "usage": usage}
    return Reply(answer, usage_of(usage, EMBEDDING_COUNTS))


def _texts(given: Any) -> Iterator[str]:
    """Each input as a text; token ids count as words."""
    if isinstance(given, str):
        yield given
    elif isinstance(given[0], int):
        yield " ".join(map(str, given))
    else:
        for item in given:
            yield from _texts(item)


def _vector(text: str, size: int) -> list[float]:
    """A unit vector that depends on the text alone."""
    numbers = [byte - 127.5 for byte in hashlib.shake_256(text.encode()).digest(size)]
    length = sum(number * number for number in numbers) ** 0.5
    return [number / length for number in numbers]


def open_provider(_: Settings, __: aiohttp.ClientSession) -> OfflineProvider:
    return OfflineProvider()
