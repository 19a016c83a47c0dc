"""Hugging Face: chats through its router, embeddings and any task's model."""

import base64
import re
import struct
from collections.abc import Mapping
from typing import Any

import aiohttp

from gateway.config import GatewayConfig
from gateway.policy import Kind
from gateway.providers.base import (
    BadAnswer,
    Blame,
    Body,
    Chunks,
    Provider,
    ProviderRequest,
    Reply,
    Usage,
    compute,
)
from gateway.providers.error_answers import ErrorCase, ErrorTable
from gateway.providers.http import Http, decode, read
from gateway.providers.messages import messages_sent
from gateway.providers.openai_wire import chat, stream_chat, with_output_limit
from gateway.providers.parameters import CHAT, DROPPED, EMBEDDING, PASSED, Table, only, refused

OWN_ADDRESS = "https://router.huggingface.co"
# The text of an error tells whose fault it is: the router also answers 400 for a model that the
# operator declared wrongly. Billing is for compute, so that refusals and a model that is still
# being loaded are free (https://huggingface.co/docs/inference-providers/pricing). 424 is a
# generation that broke off: its compute may be billed. Billing of other 5xx errors is unknown.
ERRORS = ErrorTable(
    codes={"model_not_supported": ErrorCase(Blame.OPERATOR)},
    texts=(
        (
            re.compile(
                r"not supported by (?:any )?(?:enabled )?provider|no enabled provider|deprecated"
                r"|invalid state|endpoint is (?:paused|scaled)|is paused|gated|access to model",
                re.IGNORECASE,
            ),
            ErrorCase(Blame.OPERATOR),
        ),
    ),
    statuses={
        424: ErrorCase(Blame.PROVIDER, None),
        503: ErrorCase(Blame.PROVIDER),
    },
)
NUMBER = re.compile(r"\d{1,20}(?:\.\d{1,20})?", re.ASCII)
TASKS = "hf-inference/models"
IN_MILLISECONDS = "x-compute-tokens"
# The largest 32-bit float, as which base64 encodes the numbers of a vector.
MAX_FLOAT = (2 - 2**-23) * 2.0**127
MAX_LOADING_SECONDS = 24 * 60 * 60
NOT_TAKEN = "Hugging Face does not take it"
# The router accepts the parameters of `ChatCompletionInput` in huggingface_hub.
ROUTER_CHAT: Table = {
    **CHAT,
    "function_call": refused(f"{NOT_TAKEN}; send tool_choice"),
    "functions": refused(f"{NOT_TAKEN}; send tools"),
    "parallel_tool_calls": only(True, reason=NOT_TAKEN),
    "prompt_cache_key": DROPPED,
    "prompt_cache_options": DROPPED,
    "prompt_cache_retention": DROPPED,
    "reasoning_effort": refused(NOT_TAKEN),
    "verbosity": refused(NOT_TAKEN),
}


class HuggingFaceProvider(Provider):
    """Chats in OpenAI's format; other models as `{"inputs": …}`, billed by seconds of compute."""

    name = "huggingface"
    parameters: Mapping[Kind, Table | None] = {
        "chat": ROUTER_CHAT,
        "embedding": {**EMBEDDING, "dimensions": refused(NOT_TAKEN)},
        "task": {"inputs": PASSED, "parameters": PASSED, "options": PASSED},
    }
    billed_by_time: frozenset[Kind] = frozenset({"embedding", "task"})

    def __init__(self, session: aiohttp.ClientSession, base_url: str, token: str) -> None:
        base_url = base_url.rstrip("/").removesuffix("/v1")
        self._http = Http(session, base_url, token, ERRORS, loading_seconds)
        self._missing_credential = "HF_TOKEN" if base_url == OWN_ADDRESS and not token else None

    def missing_credential(self) -> str | None:
        return self._missing_credential

    async def answer(self, request: ProviderRequest) -> Reply:
        if request.model.kind == "chat":
            return await chat(self._http, request, self._chat_url, _chat_body(request))
        if request.model.kind == "embedding":
            return await self._embed(request)
        return await self._run(request)

    def stream(self, request: ProviderRequest) -> Chunks:
        return stream_chat(self._http, request, self._chat_url, _chat_body(request))

    @property
    def _chat_url(self) -> str:
        return f"{self._http.base_url}/v1/chat/completions"

    async def _embed(self, request: ProviderRequest) -> Reply:
        texts = request.body["input"]
        texts = [texts] if isinstance(texts, str) else texts
        url = f"{self._http.base_url}/{TASKS}/{request.model.name}/pipeline/feature-extraction"
        async with self._http.request(request, "POST", url, {"inputs": texts}) as response:
            usage = compute_of(response)
            vectors = vectors_of(decode(await read(response)), len(texts))
        if vectors is None:
            raise BadAnswer("the answer has no embeddings", usage=usage)
        encode = _base64 if request.body.get("encoding_format") == "base64" else list
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(vectors)
        ]
        output = {"object": "list", "model": request.model.name, "data": data}
        return Reply({**output, "usage": {"prompt_tokens": 0, "total_tokens": 0}}, usage)

    async def _run(self, request: ProviderRequest) -> Reply:
        url = f"{self._http.base_url}/{TASKS}/{request.model.name}"
        async with self._http.request(request, "POST", url, request.body) as response:
            raw = await read(response)
            if response.content_type == "application/json":
                return Reply(decode(raw), compute_of(response))
            encoded = base64.b64encode(raw).decode()
            return Reply(f"data:{response.content_type};base64,{encoded}", compute_of(response))


def loading_seconds(details: Mapping[str, Any]) -> float | None:
    """The seconds until a model is loaded, from an error body; None if it has no estimate."""
    estimated = details.get("estimated_time")
    if isinstance(estimated, int | float) and 0 < estimated < MAX_LOADING_SECONDS:
        return float(estimated)
    return None


def compute_of(response: aiohttp.ClientResponse) -> Usage | None:
    """The compute in the header `x-compute-time`, or None.

    The header is in seconds. text-embeddings-inference, which alone sends `x-compute-tokens`,
    writes it in whole milliseconds.
    """
    header = response.headers.get("x-compute-time", "")
    reported = float(header) if NUMBER.fullmatch(header) else None
    if IN_MILLISECONDS in response.headers:
        milliseconds = compute(reported)
        return milliseconds and compute(milliseconds.microseconds / 1e9)
    return compute(reported)


def vectors_of(answer: Any, count: int) -> list[list[float]] | None:
    """One vector for each of `count` texts; None if the answer has another form.

    Servers send a list of vectors, a flat vector for one text, each vector in a list of its own, or
    OpenAI's format.
    """
    vectors = answer
    if isinstance(vectors, dict):
        vectors = vectors.get("embeddings", vectors.get("data"))
    if not isinstance(vectors, list):
        return None
    if count == 1 and _is_vector(vectors):
        return [vectors]
    vectors = [_unpacked(vector) for vector in vectors]
    return vectors if len(vectors) == count and all(map(_is_vector, vectors)) else None


def _unpacked(vector: Any) -> Any:
    if isinstance(vector, dict):
        return vector.get("embedding")
    is_alone = isinstance(vector, list) and len(vector) == 1 and isinstance(vector[0], list)
    return vector[0] if is_alone else vector


def _is_vector(vector: Any) -> bool:
    return isinstance(vector, list) and bool(vector) and all(map(_is_number, vector))


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and -MAX_FLOAT <= value <= MAX_FLOAT


def _base64(vector: list[float]) -> str:
    """A vector as OpenAI encodes it: 32-bit floats, little-endian."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _chat_body(request: ProviderRequest) -> Body:
    body = with_output_limit(request, "max_tokens")
    return {**body, "messages": messages_sent(body["messages"])}


def open_provider(config: GatewayConfig, session: aiohttp.ClientSession) -> HuggingFaceProvider:
    """The provider of `HF_BASE_URL`. Hugging Face itself needs `HF_TOKEN`."""
    return HuggingFaceProvider(session, config.hf_base_url, config.hf_token.get_secret_value())
