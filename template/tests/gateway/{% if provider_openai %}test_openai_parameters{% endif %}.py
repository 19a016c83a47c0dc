"""The tables of verdicts have all parameters of the official client's types."""

from typing import Any

import pytest
from openai.types import embedding_create_params
from openai.types.chat import completion_create_params

from gateway.providers.offline import OfflineProvider
from gateway.providers.openai import OpenAIProvider
from gateway.providers.parameters import CHAT, EMBEDDING, Table

OFFICIAL: dict[str, set[str]] = {
    "chat": {*completion_create_params.CompletionCreateParamsBase.__annotations__, "stream"},
    "embedding": set(embedding_create_params.EmbeddingCreateParams.__annotations__),
}


@pytest.mark.parametrize(("kind", "table"), [("chat", CHAT), ("embedding", EMBEDDING)])
def test_the_table_has_the_official_parameters_and_no_other(kind: str, table: Table) -> None:
    assert set(table) == OFFICIAL[kind]


@pytest.mark.parametrize("adapter", [OpenAIProvider, OfflineProvider])
@pytest.mark.parametrize("kind", OFFICIAL)
def test_each_adapter_has_a_verdict_on_each_of_them(adapter: Any, kind: str) -> None:
    assert set(adapter.parameters[kind]) == OFFICIAL[kind]
