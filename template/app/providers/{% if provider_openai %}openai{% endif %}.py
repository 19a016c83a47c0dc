"""OpenAI, and any server that speaks its API (`OPENAI_BASE_URL`)."""

from collections.abc import Mapping

import aiohttp

from app.policy import Kind
from app.providers.base import BadAnswer, Blame, Body, Chunks, Job, Reply
from app.providers.completion import EMBEDDING_COUNTS, usage_of
from app.providers.error_answers import CONTEXT_LENGTH, ErrorCase, ErrorTable
from app.providers.http import Http
from app.providers.openai_wire import CHAT_PARAMETERS, chat, stream_chat
from app.settings import Settings

OWN_ADDRESS = "https://api.openai.com/v1"
# OpenAI bills tokens of answers. Its error answers are refusals before any work, or say that there
# is none (https://platform.openai.com/docs/guides/error-codes). 502, 504 and 408 without a body of
# its own come from something in between: the work may go on unseen, so that they stay uncertain.
ERRORS = ErrorTable(
    codes={
        "account_deactivated": ErrorCase(Blame.ACCOUNT),
        "billing_hard_limit_reached": ErrorCase(Blame.ACCOUNT),
        "billing_not_active": ErrorCase(Blame.ACCOUNT),
        "insufficient_quota": ErrorCase(Blame.ACCOUNT),
        "invalid_api_key": ErrorCase(Blame.ACCOUNT),
        CONTEXT_LENGTH: ErrorCase(Blame.CALLER),
        "DeploymentNotFound": ErrorCase(Blame.OPERATOR),
        "model_not_found": ErrorCase(Blame.OPERATOR),
        "unsupported_country_region_territory": ErrorCase(Blame.OPERATOR),
    },
    texts=(),
    statuses={
        408: ErrorCase(Blame.PROVIDER),
        500: ErrorCase(Blame.PROVIDER),
        503: ErrorCase(Blame.PROVIDER),
    },
)


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
        self._http = Http(session, base_url, api_key, ERRORS)
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
