"""The formats of chat requests, and how the gateway handles each."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gateway import pricing
from gateway.policy import Model
from gateway.providers.base import Body, Outcome, Provider, Usage
from gateway.providers.completion import Transcript, outcome_of
from gateway.providers.parameters import CHAT, parameters_sent
from gateway.providers.responses.parameters import RESPONSES as TABLE
from gateway.providers.responses.reading import ResponseTranscript, response_outcome
from gateway.providers.responses.request import chat_body
from gateway.providers.responses.translated import Translated
from gateway.response_pricing import response_max_usage


class Format(NamedTuple):
    """How to adapt a request to a provider, compute its maximum usage and read its answer.

    `fit` returns the provider to call and the body to send. `max_usage` takes the client's body.
    """

    fit: Callable[[Provider, Body], tuple[Provider, Body]]
    max_usage: Callable[[Model, Mapping[str, Any]], Usage]
    outcome: Callable[[Body, Mapping[str, Any]], Outcome]
    transcript: Callable[[], Transcript | ResponseTranscript]


def _as_responses(provider: Provider, body: Body) -> tuple[Provider, Body]:
    """The provider's own `/v1/responses` if it has one, else its chat completions."""
    if provider.responses is not None:
        return provider.responses, body
    taken = provider.parameters.get("chat")
    sent = parameters_sent(TABLE, body)
    return Translated(provider, body), chat_body(sent, CHAT if taken is None else taken)


COMPLETIONS = Format(lambda *given: given, pricing.max_usage, outcome_of, Transcript)
"""OpenAI's chat completions. Embeddings and tasks use it, too."""
RESPONSES = Format(_as_responses, response_max_usage, response_outcome, ResponseTranscript)
