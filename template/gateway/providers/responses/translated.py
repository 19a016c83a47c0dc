"""Offers `/v1/responses` on a provider of chat completions."""

import re
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

from gateway.providers.base import Chunks, Provider, ProviderFailure, ProviderRequest, Reply
from gateway.providers.responses.writing import ResponseWriter

# The parameters of a response for those of a chat with another name.
PLACES = {
    "messages": "input",
    "reasoning_effort": "reasoning",
    "response_format": "text",
    "verbosity": "text",
}


class Translated(Provider):
    """Answers one `request` of `/v1/responses` by a chat with the same meaning."""

    def __init__(self, provider: Provider, request: Mapping[str, Any]) -> None:
        self.name = provider.name
        self.parameters = provider.parameters
        self._provider = provider
        self._request = request

    async def answer(self, request: ProviderRequest) -> Reply:
        with _response_params():
            reply = await self._provider.answer(request)
        writer = ResponseWriter(self._request)
        writer.add(reply.output)
        writer.end()
        return Reply(writer.response, reply.usage)

    async def stream(self, request: ProviderRequest) -> Chunks:
        writer = ResponseWriter(self._request)
        async with aclosing(self._provider.stream(request)) as source:
            with _response_params():
                async for chunks in source:
                    if events := [event for chunk in chunks for event in writer.add(chunk)]:
                        yield events
        yield writer.end()

    async def cancel(self, request: ProviderRequest) -> None:
        await self._provider.cancel(request)

    async def fetch_result(self, request: ProviderRequest) -> Reply | None:
        return await self._provider.fetch_result(request)


@contextmanager
def _response_params() -> Iterator[None]:
    """Make a failure name the parameter of the client's request, not that of the chat."""
    try:
        yield
    except ProviderFailure as failure:
        name = re.split(r"[.\[]", failure.param or "", maxsplit=1)[0]
        failure.param = PLACES.get(name, failure.param)
        raise
