"""OpenAI, and any server that speaks its API (`OPENAI_BASE_URL`)."""

from collections.abc import Mapping

import aiohttp

from app.policy import Kind
from app.providers.base import BadAnswer, Body, Chunks, Job, Reply
from app.providers.completion import EMBEDDING_COUNTS, usage_of
from app.providers.http import Http
from app.providers.openai_wire import CHAT_PARAMETERS, chat, stream_chat
from app.settings import Settings

OWN_ADDRESS = "https://api.openai.com/v1"


class OpenAIProvider:
    """Chats, streams and embeddings."""

    name = "openai"
    least_seconds = 0
    parameters: Mapping[Kind, frozenset[str] | None] = {
        "chat": CHAT_PARAMETERS
        | {"max_completion_tokens", "parallel_tool_calls", "reasoning_effort", "user", "verbosity"},
        "embedding": frozenset({"input", "dimensions", "encoding_format", "user"}),
    }
    timed: frozenset[Kind] = frozenset()
    responses = None

    def __init__(self, session: aiohttp.ClientSession, base_url: str, api_key: str) -> None:
        base_url = base_url.rstrip("/")
        self._http = Http(session, base_url, api_key)
        self._missing = "OPENAI_API_KEY" if base_url == OWN_ADDRESS and not api_key else None

    def missing(self) -> str | None:
        return self._missing

    async def answer(self, job: Job) -> Reply:
        if job.model.kind == "embedding":
            return await self._embed(job)
        return await chat(self._http, job, self._url("chat/completions"), _chat_body(job))

    def stream(self, job: Job) -> Chunks:
        return stream_chat(self._http, job, self._url("chat/completions"), _chat_body(job))

    async def cancel(self, job: Job) -> None:
        """Closing the connection, which the guard does, ends a stream and its bill."""

    async def find(self, job: Job) -> None:
        """Nothing runs on."""

    async def _embed(self, job: Job) -> Reply:
        body = {**job.body, "model": job.model.name}
        output = await self._http.json(job, "POST", self._url("embeddings"), body)
        if not isinstance(output, dict) or not isinstance(output.get("data"), list):
            raise BadAnswer("the answer has no embeddings")
        return Reply(output, usage_of(output.get("usage"), EMBEDDING_COUNTS))

    def _url(self, path: str) -> str:
        return f"{self._http.base_url}/{path}"


def _chat_body(job: Job) -> Body:
    """The request with its largest output, always sent, so that the bound holds."""
    body = {**job.body, "model": job.model.name}
    if not (body.get("max_tokens") or body.get("max_completion_tokens")):
        body["max_completion_tokens"] = job.model.max_output_tokens
    return body


def open_provider(settings: Settings, session: aiohttp.ClientSession) -> OpenAIProvider:
    return OpenAIProvider(
        session, settings.openai_base_url, settings.openai_api_key.get_secret_value()
    )
