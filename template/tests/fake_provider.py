"""A provider whose behaviour a test sets, in place of the offline one."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import aiohttp
import pytest

from app.settings import Settings
from gateway.policy import Kind
from gateway.providers import offline
from gateway.providers.base import (
    Body,
    Chunks,
    Provider,
    ProviderFailure,
    ProviderRequest,
    Reply,
    Usage,
)
from gateway.providers.parameters import Table

# The upper bound of the cost of `tests.support.chat()` with the tests' model offline/echo: the
# bytes of role and text, the tokens around a message (8) and the overhead (16); the largest output.
MAX_COST = (len("user" + "one two") + 8 + 16) * 250 + 64 * 2000
USAGE = Usage(2, 5)
COST = 2 * 250 + 5 * 2000


async def say_fine(request: ProviderRequest) -> Reply:
    """Answer at once."""
    request.sent = True
    return Reply(completion("fine"), USAGE)


def answer_with(text: str) -> Callable[[ProviderRequest], Awaitable[Reply]]:
    """Make a provider that answers each chat with `text`."""

    async def answer(request: ProviderRequest) -> Reply:
        request.sent = True
        return Reply(completion(text), USAGE)

    return answer


async def hang(request: ProviderRequest) -> NoReturn:
    """Never answer."""
    request.sent = True
    await asyncio.Event().wait()
    raise AssertionError("this event is never set")


def fail_with(*, sent: bool, **details: Any) -> Callable[[ProviderRequest], Awaitable[Reply]]:
    """An answer that fails before or after the first byte was sent."""

    async def answer(request: ProviderRequest) -> Reply:
        request.sent = sent
        raise ProviderFailure("words of the provider", **details)

    return answer


async def stream_fine(request: ProviderRequest) -> Chunks:
    """Stream an answer of three chunks, the last with the usage."""
    request.sent = True
    yield [chunk("fi")]
    yield [chunk("ne", "stop")]
    yield [usage_chunk(USAGE)]


class FakeProvider(Provider):
    """Calls `on_answer`, `on_stream` and `on_fetch_result`; records each request."""

    name = "offline"
    parameters: Mapping[Kind, Table | None] = {"chat": None}

    def __init__(self) -> None:
        self.on_answer: Callable[[ProviderRequest], Awaitable[Reply]] = say_fine
        self.on_stream: Callable[[ProviderRequest], Chunks] = stream_fine
        self.on_fetch_result: Callable[[ProviderRequest], Awaitable[Reply | None]] = say_fine
        self.lacks: str | None = None
        self.asked: list[ProviderRequest] = []
        self.cancelled: list[ProviderRequest] = []
        self.cancel_error: Exception | None = None

    def missing_credential(self) -> str | None:
        return self.lacks

    async def answer(self, request: ProviderRequest) -> Reply:
        self.asked.append(request)
        return await self.on_answer(request)

    def stream(self, request: ProviderRequest) -> Chunks:
        self.asked.append(request)
        return self.on_stream(request)

    async def cancel(self, request: ProviderRequest) -> None:
        self.cancelled.append(request)
        if self.cancel_error:
            raise self.cancel_error

    async def fetch_result(self, request: ProviderRequest) -> Reply | None:
        return await self.on_fetch_result(request)

    @classmethod
    def install(cls, monkeypatch: pytest.MonkeyPatch) -> "FakeProvider":
        """Make it the offline provider of every service that starts from now on."""
        scripted = cls()

        def open_provider(_: Settings, __: aiohttp.ClientSession) -> FakeProvider:
            return scripted

        monkeypatch.setattr(offline, "open_provider", open_provider)
        return scripted


def completion(content: str | None, reason: str = "stop", **message: Any) -> Body:
    """A chat completion with one choice."""
    spoken = {"role": "assistant", "content": content, **message}
    return {"choices": [{"index": 0, "message": spoken, "finish_reason": reason}]}


def chunk(content: str, reason: str | None = None) -> Body:
    """A chunk of a stream."""
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": reason}]}


def usage_chunk(usage: Usage) -> Body:
    """The chunk with the usage."""
    counts = {"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens}
    return {"choices": [], "usage": counts}
