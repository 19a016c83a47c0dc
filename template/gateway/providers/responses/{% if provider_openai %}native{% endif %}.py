"""The adapter for a server that speaks `/v1/responses`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.policy import Kind
from gateway.providers.base import Body, Chunks, Provider, ProviderFailure, ProviderRequest, Reply
from gateway.providers.http import Http
from gateway.providers.openai_wire import count_block, failure_of_document, next_block
from gateway.providers.parameters import Table, is_usual_cache
from gateway.providers.responses.event_reader import EventReader, failure_of_response
from gateway.providers.responses.parameters import RESPONSES
from gateway.providers.responses.reading import COUNTS, response_usage

# The values of `include` that are sent. All others belong to tools that are not offered.
INCLUDED = frozenset(
    {
        "message.input_image.image_url",
        "message.output_text.logprobs",
        "reasoning.encrypted_content",
    }
)
BREAKPOINT = "prompt_cache_breakpoint"
# The fields of each kind of item that a server reads. Other ids are left out: no item is stored
# under them, and a server refuses ids that another server made.
ITEM_FIELDS: Mapping[str, tuple[str, ...]] = {
    "message": ("type", "role", "content", "phase"),
    "function_call": ("type", "call_id", "name", "arguments"),
    "function_call_output": ("type", "call_id", "output"),
    "reasoning": ("type", "id", "summary", "content", "encrypted_content"),
}
REQUIRED = {"message": ("content",), "reasoning": ("summary",)}
PART_FIELDS: Mapping[str, tuple[str, ...]] = {
    "input_text": ("type", "text"),
    "input_image": ("type", "image_url", "detail"),
    "output_text": ("type", "text", "annotations"),
    "refusal": ("type", "refusal"),
}


class ResponsesProvider(Provider):
    """Requests responses that the server does not store. `own` is true for OpenAI itself."""

    parameters: Mapping[Kind, Table | None] = {"chat": RESPONSES}

    def __init__(self, http: Http, name: str, *, own: bool) -> None:
        self.name = name
        self._http = http
        self._own = own

    async def answer(self, request: ProviderRequest) -> Reply:
        output = await self._http.json(request, "POST", self._url, self._body(request))
        if not isinstance(output, dict) or not isinstance(output.get("output"), list):
            raise failure_of_document(self._http, output, COUNTS)
        if output.get("status") == "failed":
            raise failure_of_response(self._http, output)
        return Reply(output, response_usage(output))

    async def stream(self, request: ProviderRequest) -> Chunks:
        reader, received = EventReader(self._http), 0
        body = {**self._body(request), "stream": True}
        async with self._http.request(request, "POST", self._url, body) as response:
            while block := await next_block(response, None):
                received = await count_block(self._http, response, block, received, COUNTS)
                if events := reader.feed(block):
                    yield events
                if reader.failure:
                    raise reader.failure
                if reader.is_over:
                    return
                await request.note_answer()
        raise ProviderFailure("the stream was cut")

    @property
    def _url(self) -> str:
        return f"{self._http.base_url}/responses"

    def _body(self, request: ProviderRequest) -> Body:
        """The body of a request. It always has an output limit: the bound of the cost needs it."""
        most = request.body.get("max_output_tokens") or request.model.max_output_tokens
        body = {
            **request.body,
            "model": request.model.name,
            "store": False,
            "max_output_tokens": most,
        }
        if isinstance(body["input"], list):
            body["input"] = list(_items_sent(body["input"], own=self._own))
        if "include" in body:
            body["include"] = [name for name in body["include"] if name in INCLUDED]
        if self._own:
            # A project's default may be another tier, with other prices.
            body["service_tier"] = "default"
        return body


def _items_sent(items: Sequence[Body], *, own: bool) -> Iterator[Body]:
    for item in items:
        kind = item.get("type") or "message"
        sent = {"type": kind, **_fields(item, ITEM_FIELDS[kind])}
        for name in REQUIRED.get(kind, ()):
            sent.setdefault(name, [])
        # OpenAI stores no reasoning here, and accepts it back only in encrypted form.
        if kind == "reasoning" and own and "encrypted_content" not in sent:
            continue
        for name in ("content", "output"):
            if kind != "reasoning" and isinstance(sent.get(name), list):
                sent[name] = [_part_sent(part, own=own) for part in sent[name] if _is_read(part)]
        yield sent


def _is_read(part: Any) -> bool:
    """Whether a server reads this part. A part of an assistant's message may have any form."""
    kind = part.get("type") if isinstance(part, dict) else None
    fields = PART_FIELDS.get(kind, ()) if isinstance(kind, str) else ()
    return any(isinstance(part.get(name), str) for name in fields[1:])


def _part_sent(part: Body, *, own: bool) -> Body:
    sent = _fields(part, PART_FIELDS[part["type"]])
    if own and is_usual_cache(part.get(BREAKPOINT)):
        sent[BREAKPOINT] = part[BREAKPOINT]
    return sent


def _fields(given: Mapping[str, Any], names: Sequence[str]) -> Body:
    return {name: given[name] for name in names if given.get(name) is not None}
