"""OpenAI's wire format, which several providers speak."""

from collections.abc import Iterator

from app.providers.base import MAXIMA, BadAnswer, Body, Chunks, Job, ProviderFailure, Reply
from app.providers.completion import usage_of
from app.providers.http import Http, check_length, decode

LINE_BYTES = 8 * 1024 * 1024


def with_output_limit(job: Job, name: str) -> Body:
    """The request with its largest output under `name`, always sent, so that the bound holds."""
    body = {**job.body, "model": job.model.name}
    job.output_limits = (name,)
    asked = [body.pop(maximum, None) for maximum in MAXIMA]
    body[name] = next(filter(None, asked), job.model.max_output_tokens)
    return body


async def chat(http: Http, job: Job, url: str, body: Body) -> Reply:
    """A chat completion in one piece."""
    output = await http.json(job, "POST", url, body)
    if not isinstance(output, dict) or not isinstance(output.get("choices"), list):
        raise BadAnswer("the answer has no choices")
    return Reply(output, usage_of(output.get("usage")))


async def stream_chat(http: Http, job: Job, url: str, body: Body) -> Chunks:
    """A chat completion in chunks. A stream that ends without `[DONE]` was cut."""
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with http.request(job, "POST", url, body) as response:
        rest, received = b"", 0
        async for block in response.content.iter_any():
            received += len(block)
            check_length(received)
            *lines, rest = (rest + block).split(b"\n")
            if len(rest) > LINE_BYTES:
                raise BadAnswer("a line of the stream is too long")
            events = list(_events(lines))
            chunks = [event for event in events if isinstance(event, dict)]
            if chunks:
                yield chunks
            ending = events[-1] if events else chunks
            if ending is None:
                return
            if isinstance(ending, ProviderFailure):
                raise ending
    raise ProviderFailure("the stream was cut")


def _events(lines: list[bytes]) -> Iterator[Body | ProviderFailure | None]:
    """The chunks in lines of server-sent events, and how they end: None stands for `[DONE]`."""
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            yield None
            return
        try:
            chunk = decode(data)
        except ProviderFailure as failure:
            yield failure
            return
        if not isinstance(chunk, dict) or chunk.get("error"):
            yield ProviderFailure("the stream told of an error")
            return
        yield chunk
