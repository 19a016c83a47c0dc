"""The built-in provider: the same text each time, at once, without a network or a key."""

import asyncio
import base64
import hashlib
import re
import secrets
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp

from gateway.config import GatewayConfig
from gateway.policy import Kind
from gateway.providers.base import Body, Chunks, Provider, ProviderFailure, ProviderRequest, Reply
from gateway.providers.completion import EMBEDDING_COUNTS, usage_of
from gateway.providers.parameters import CHAT, DROPPED, EMBEDDING, Table, Verdict

DIMENSIONS = 64
# In all vectors of an answer together: more take long to compute and to encode.
MAX_NUMBERS = 2**19
TURN_TOKENS = 32
# It accepts what OpenAI accepts, so that any client can be tried with it. It ignores all other
# parameters: it never calls a tool, and echoes whatever the requested format.
HEEDED = frozenset({"messages", "max_tokens", "max_completion_tokens", "n"})
ECHO: Table = {
    name: rule if name in HEEDED or rule.verdict is Verdict.REFUSED else DROPPED
    for name, rule in CHAT.items()
}
TOKEN = re.compile(r"\s*(?:\w{1,8}|[^\w\s])|\s+")


class OfflineProvider(Provider):
    """Echoes chats, and embeds texts by their hash. Counts tokens, so that calls have a cost."""

    name = "offline"
    parameters: Mapping[Kind, Table | None] = {"chat": ECHO, "embedding": EMBEDDING}

    async def answer(self, request: ProviderRequest) -> Reply:
        if request.model.kind == "embedding":
            return await _embed(request.body)
        tokens, reason = _reply(request)
        message = {"role": "assistant", "content": "".join(tokens), "refusal": None}
        choice = {"message": message, "finish_reason": reason, "logprobs": None}
        choices = [{"index": index, **choice} for index in range(_count(request))]
        usage = _usage(request, tokens)
        output = {
            **_frame(request),
            "object": "chat.completion",
            "choices": choices,
            "usage": usage,
        }
        return Reply(output, usage_of(usage))

    async def stream(self, request: ProviderRequest) -> Chunks:
        tokens, reason = _reply(request)
        frame = {**_frame(request), "object": "chat.completion.chunk"}
        for place, token in enumerate(tokens):
            if place % TURN_TOKENS == 0:
                await asyncio.sleep(0)  # Lets other tasks run: there is no network to wait for.
            delta = {"role": "assistant", "content": token}
            yield [{**frame, "choices": _parts(request, delta, None)}]
        ends = {**frame, "choices": _parts(request, {}, reason)}
        yield [ends, {**frame, "choices": [], "usage": _usage(request, tokens)}]


def _frame(request: ProviderRequest) -> Body:
    """What an answer and each chunk of a stream begin with."""
    name = f"chatcmpl-{secrets.token_hex(12)}"
    return {"id": name, "created": int(time.time()), "model": request.model.name}


def _reply(request: ProviderRequest) -> tuple[list[str], str]:
    """The tokens of the answer, and its finish reason."""
    tokens = _tokens(f"You said: {_text(request.body['messages'][-1])}")
    asked = request.body.get("max_completion_tokens") or request.body.get("max_tokens")
    most = asked or request.model.max_output_tokens
    return tokens[:most], "length" if len(tokens) > most else "stop"


def _count(request: ProviderRequest) -> int:
    """The number of choices."""
    count: int = request.body.get("n") or 1
    return count


def _parts(request: ProviderRequest, delta: Body, reason: str | None) -> list[Body]:
    """The same piece of each choice."""
    return [
        {"index": index, "delta": delta, "finish_reason": reason}
        for index in range(_count(request))
    ]


def _tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


def _text(message: Body) -> str:
    """The text of a message. The content of an assistant's message may have any form."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return " ".join(text for text in texts if isinstance(text, str))


def _usage(request: ProviderRequest, answer: list[str]) -> dict[str, int]:
    asked = sum(len(_tokens(_text(message))) for message in request.body["messages"])
    written = len(answer) * _count(request)
    total = asked + written
    return {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": total}


async def _embed(body: Body) -> Reply:
    texts = list(_texts(body["input"]))
    size = body.get("dimensions") or DIMENSIONS
    if size * len(texts) > MAX_NUMBERS:
        raise ProviderFailure(
            f"over {MAX_NUMBERS} numbers", status=400, billed=False, param="dimensions"
        )
    vectors: list[Any] = []
    for text in texts:
        vectors.append(_vector(text, size))
        await asyncio.sleep(0)
    if body.get("encoding_format") == "base64":
        vectors = [base64.b64encode(struct.pack(f"<{size}f", *v)).decode() for v in vectors]
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
    count = _input_count(body["input"])
    usage = {"prompt_tokens": count, "total_tokens": count}
    answer = {"object": "list", "data": data, "usage": usage}
    return Reply(answer, usage_of(usage, EMBEDDING_COUNTS))


def _input_count(given: Any) -> int:
    """The tokens of all inputs. Each token id counts as one."""
    if isinstance(given, str):
        return len(_tokens(given))
    return len(given) if isinstance(given[0], int) else sum(map(_input_count, given))


def _texts(given: Any) -> Iterator[str]:
    """The text of each input. Token ids become words."""
    if isinstance(given, str):
        yield given
    elif isinstance(given[0], int):
        yield " ".join(map(str, given))
    else:
        for item in given:
            yield from _texts(item)


def _vector(text: str, size: int) -> list[float]:
    """A unit vector that depends only on the text."""
    numbers = [byte - 127.5 for byte in hashlib.shake_256(text.encode()).digest(size)]
    length = sum(number * number for number in numbers) ** 0.5
    return [number / length for number in numbers]


def open_provider(_: GatewayConfig, __: aiohttp.ClientSession) -> OfflineProvider:
    """The offline provider. It needs no configuration."""
    return OfflineProvider()
