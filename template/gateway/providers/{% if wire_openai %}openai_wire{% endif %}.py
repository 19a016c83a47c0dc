"""OpenAI's wire format, which several providers speak."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import aiohttp

from gateway.json_text import decode
from gateway.providers.base import (
    MAXIMA,
    BadAnswer,
    Body,
    Chunks,
    ProviderFailure,
    ProviderRequest,
    Reply,
)
from gateway.providers.chat_reader import ChatReader, is_error
from gateway.providers.completion import CHAT_COUNTS, choices_of, usage_of
from gateway.providers.http import Http, check_length, read
from gateway.providers.tool_calls import mend

# The time to wait for the usage and the end of a stream after its last choice has ended.
LAST_SECONDS = 5.0
# Decode a stream in blocks of this size, so that output which the client has not read stays bytes.
BLOCK_BYTES = 16 * 1024


def with_output_limit(request: ProviderRequest, name: str) -> Body:
    """The body of a request with its largest output under `name`.

    The limit is always sent, since the upper bound of the cost relies on it.
    """
    body = {**request.body, "model": request.model.name}
    request.output_limits = (name,)
    asked = [body.pop(maximum, None) for maximum in MAXIMA]
    body[name] = next(filter(None, asked), request.model.max_output_tokens)
    return body


async def chat(http: Http, request: ProviderRequest, url: str, body: Body) -> Reply:
    """A chat completion without streaming. Raises `ProviderFailure`."""
    output = await http.json(request, "POST", url, body)
    if not isinstance(output, dict) or not isinstance(output.get("choices"), list):
        raise failure_of_document(http, output)
    for choice in choices_of(output):
        mend(choice.get("message"))
    return Reply(output, usage_of(output.get("usage")))


async def stream_chat(http: Http, request: ProviderRequest, url: str, body: Body) -> Chunks:
    """The chunks of a streamed chat completion. Raises `ProviderFailure`.

    A stream is complete after `[DONE]`, or once all its choices have ended, whatever follows.
    """
    until, received = None, 0
    reader = ChatReader(body.get("n") or 1, partial(failure_of_document, http))
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    try:
        async with http.request(request, "POST", url, body) as response:
            while block := await next_block(response, until):
                received = await count_block(http, response, block, received)
                chunks = reader.feed(block)
                if chunks:
                    yield chunks
                if reader.failure:
                    raise reader.failure
                if reader.is_over:
                    return
                if not chunks:  # A comment, for example: the server is working.
                    await request.note_answer()
                if reader.has_ended and (chunks or until is None):
                    seconds = min(LAST_SECONDS, request.deadline.remaining / 2)
                    until = asyncio.get_running_loop().time() + seconds
        reader.close()
    except ProviderFailure:
        if not reader.has_ended:
            raise


async def next_block(response: aiohttp.ClientResponse, until: float | None) -> bytes:
    """The next block of a body. Empty at its end, and at `until` on the loop's clock."""
    try:
        if until is None:
            return await response.content.read(BLOCK_BYTES)
        async with asyncio.timeout_at(until):
            return await response.content.read(BLOCK_BYTES)
    except TimeoutError:
        return b""
    except (aiohttp.ClientError, ConnectionError):
        # The bytes that arrived before the connection broke. aiohttp's public methods lose them.
        if unread := response.content._read_nowait(-1):
            return unread
        raise


async def count_block(
    http: Http,
    response: aiohttp.ClientResponse,
    block: bytes,
    received: int,
    counted: Sequence[str] = CHAT_COUNTS,
) -> int:
    """The bytes of a stream that were received, with those of `block`.

    Raises the failure in a document that a server sends instead of a stream, and `BadAnswer`.
    """
    if not received and block.lstrip().startswith((b"{", b"[")):
        try:
            document = decode(block + await read(response))
        except ValueError as error:
            raise BadAnswer("the answer is no stream") from error
        raise failure_of_document(http, document, counted)
    check_length(received + len(block))
    return received + len(block)


def failure_of_document(
    http: Http, document: Any, counted: Sequence[str] = CHAT_COUNTS
) -> ProviderFailure:
    """The failure of an unexpected document: the error that it contains, else `BadAnswer`."""
    if not is_error(document):
        usage = usage_of(document.get("usage"), counted) if isinstance(document, dict) else None
        return BadAnswer("the answer has another form", usage=usage)
    failure = http.failure_of(document)
    # Without a status, there is no sign that a retry may help.
    failure.should_retry = failure.should_retry and failure.status is not None
    return failure
