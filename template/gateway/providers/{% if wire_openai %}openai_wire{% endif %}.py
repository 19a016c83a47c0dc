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
    Deadline,
    ProviderFailure,
    ProviderRequest,
    Reply,
)
from gateway.providers.chat_reader import ChatReader, is_error
from gateway.providers.completion import CHAT_COUNTS, choices_of, usage_of
from gateway.providers.http import Http, check_length, read
from gateway.providers.tool_calls import mend

# The usage and the end of a stream whose choices have all ended are waited for so long.
LAST_SECONDS = 5.0
# Of a stream, so much is decoded at a time: what a client does not read yet waits as bytes.
BLOCK_BYTES = 16 * 1024


def with_output_limit(request: ProviderRequest, name: str) -> Body:
    """The request with its largest output under `name`, always sent, so that the bound holds."""
    body = {**request.body, "model": request.model.name}
    request.output_limits = (name,)
    asked = [body.pop(maximum, None) for maximum in MAXIMA]
    body[name] = next(filter(None, asked), request.model.max_output_tokens)
    return body


async def chat(http: Http, request: ProviderRequest, url: str, body: Body) -> Reply:
    """A chat completion in one piece."""
    output = await http.json(request, "POST", url, body)
    if not isinstance(output, dict) or not isinstance(output.get("choices"), list):
        raise failure_of_document(http, output)
    for choice in choices_of(output):
        mend(choice.get("message"))
    return Reply(output, usage_of(output.get("usage")))


async def stream_chat(http: Http, request: ProviderRequest, url: str, body: Body) -> Chunks:
    """A chat completion in chunks.

    A stream has ended well after `[DONE]`, or once all its choices have ended, whatever follows.
    """
    until, received = None, 0
    reader = ChatReader(body.get("n") or 1, partial(failure_of_document, http))
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    try:
        async with http.request(request, "POST", url, body) as response:
            while block := await next_block(response, until):
                if not received and block.lstrip().startswith((b"{", b"[")):
                    raise failure_of_document(http, await document_of(response, block))
                received += len(block)
                check_length(received)
                chunks = reader.feed(block)
                if chunks:
                    yield chunks
                if reader.failure:
                    raise reader.failure
                if reader.is_over:
                    return
                if not chunks:  # Such as a comment: the server is at work.
                    await request.note_answer()
                if reader.has_ended and (chunks or until is None):
                    until = _last_moment(request.deadline)
        reader.close()
    except ProviderFailure:
        if not reader.has_ended:
            raise


async def next_block(response: aiohttp.ClientResponse, until: float | None) -> bytes:
    """The next block of a body; empty at its end, and when none comes in time."""
    try:
        if until is None:
            return await response.content.read(BLOCK_BYTES)
        async with asyncio.timeout_at(until):
            return await response.content.read(BLOCK_BYTES)
    except TimeoutError:
        return b""
    except (aiohttp.ClientError, ConnectionError):
        # What had come before the connection broke; aiohttp's public methods lose it.
        if unread := response.content._read_nowait(-1):
            return unread
        raise


def _last_moment(deadline: Deadline) -> float:
    """Until when the loop's clock waits for what follows the last choice."""
    return asyncio.get_running_loop().time() + min(LAST_SECONDS, deadline.remaining / 2)


async def document_of(response: aiohttp.ClientResponse, block: bytes) -> Any:
    """What a server answers instead of a stream."""
    raw = block + await read(response)
    try:
        return decode(raw)
    except ValueError as error:
        raise BadAnswer("the answer is no stream") from error


def failure_of_document(
    http: Http, document: Any, counted: Sequence[str] = CHAT_COUNTS
) -> ProviderFailure:
    """What a document in place of an answer means: the error that it tells, or that it is none."""
    if not is_error(document):
        usage = usage_of(document.get("usage"), counted) if isinstance(document, dict) else None
        return BadAnswer("the answer has another form", usage=usage)
    failure = http.failure_of(document)
    # Without a status, nothing says that asking again may help.
    failure.should_retry = failure.should_retry and failure.status is not None
    return failure
