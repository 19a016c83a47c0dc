"""OpenAI, and any server that speaks its API (`OPENAI_BASE_URL`)."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from gateway.config import GatewayConfig
from gateway.policy import Kind
from gateway.providers.base import BadAnswer, Blame, Body, Chunks, Provider, ProviderRequest, Reply
from gateway.providers.completion import EMBEDDING_COUNTS, usage_of
from gateway.providers.error_answers import CONTEXT_LENGTH, ErrorCase, ErrorTable
from gateway.providers.messages import OWN, messages_sent, needed_back
from gateway.providers.openai_wire import chat, failure_of_document, stream_chat, with_output_limit
from gateway.providers.output_limit import LimitedHttp
from gateway.providers.parameters import CHAT, EMBEDDING, Table
from gateway.providers.responses.native import ResponsesProvider

OWN_HOST = "api.openai.com"
# OpenAI bills the tokens of answers. It sends its error answers before any work, or in place of its
# result (https://platform.openai.com/docs/guides/error-codes). 502, 504 and 408 in another format
# come from a proxy: the work may go on behind it, so that billing is uncertain.
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


class OpenAIProvider(Provider):
    """Chats, streams and embeddings."""

    parameters: Mapping[Kind, Table | None] = {"chat": CHAT, "embedding": EMBEDDING}

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        api_key: str,
        *,
        name: str = "openai",
        key_variable: str | None = None,
        output_limit: str = "max_tokens",
        speaks_responses: bool = False,
    ) -> None:
        self.name = name
        self.http = LimitedHttp(session, base_url, api_key, ERRORS, output_limit)
        self._is_own = is_own(base_url)
        native = ResponsesProvider(self.http, name, own=self._is_own)
        self.responses = native if speaks_responses else None
        self._missing_credential = None if api_key else key_variable

    def missing_credential(self) -> str | None:
        return self._missing_credential

    async def answer(self, request: ProviderRequest) -> Reply:
        if request.model.kind == "embedding":
            return await self._embed(request)
        return await chat(self.http, request, self._chat_url, self._chat_body(request))

    def stream(self, request: ProviderRequest) -> Chunks:
        return stream_chat(self.http, request, self._chat_url, self._chat_body(request))

    async def _embed(self, request: ProviderRequest) -> Reply:
        body = {**request.body, "model": request.model.name}
        output = await self.http.json(request, "POST", f"{self.http.base_url}/embeddings", body)
        if not isinstance(output, dict) or not isinstance(output.get("data"), list):
            raise failure_of_document(self.http, output, EMBEDDING_COUNTS)
        usage = usage_of(output.get("usage"), EMBEDDING_COUNTS)
        data, given = output["data"], request.body["input"]
        count = 1 if isinstance(given, str) or isinstance(given[0], int) else len(given)
        if len(data) != count or not all(map(_is_embedding, data)):
            raise BadAnswer("the answer has no embedding for each input", usage=usage)
        if all(item.get("index") is None for item in data):
            # Some servers send no index, but answer in order.
            for place, item in enumerate(data):
                item["index"] = place
        return Reply(output, usage)

    @property
    def _chat_url(self) -> str:
        return f"{self.http.base_url}/chat/completions"

    def _chat_body(self, request: ProviderRequest) -> Body:
        model = request.model.name
        body = with_output_limit(request, self.http.output_limit(model))
        if self._is_own:
            # A project's default may be another tier, with other prices.
            body["service_tier"] = "default"
        more = OWN if self._is_own else needed_back(self.name, self.http.base_url, model)
        body["messages"] = messages_sent(body["messages"], more)
        return body


def is_own(base_url: str) -> bool:
    """Whether an address belongs to OpenAI itself, in any of its regions."""
    host = urlsplit(base_url).hostname or ""
    return host == OWN_HOST or host.endswith(f".{OWN_HOST}")


def _is_embedding(item: Any) -> bool:
    vector = item.get("embedding") if isinstance(item, dict) else None
    return isinstance(vector, list | str) and bool(vector)


def open_provider(config: GatewayConfig, session: aiohttp.ClientSession) -> OpenAIProvider:
    """The provider of `OPENAI_BASE_URL`. OpenAI itself needs `OPENAI_API_KEY`."""
    base_url, key = config.openai_base_url, config.openai_api_key.get_secret_value()
    own = is_own(base_url)
    return OpenAIProvider(
        session,
        base_url,
        key,
        key_variable="OPENAI_API_KEY" if own else None,
        output_limit="max_completion_tokens" if own else "max_tokens",
        speaks_responses=own,
    )
