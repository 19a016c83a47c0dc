"""The models and plans that a new project has."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from combinations import PROVIDER_SETS
from conftest import Render

# What LangChain's `embed_documents` sends by default, at its largest: texts of 1000 bytes, each
# with the overhead that is counted around it.
TEXTS, BYTES, OVERHEAD = 20, 1000, 16
PER_TOKEN = ("input", "output", "cached_input", "cache_write")


@pytest.mark.parametrize("providers", PROVIDER_SETS, ids="+".join)
def test_a_default_clients_batch_fits_the_plan_of_new_users(
    render: Render, providers: tuple[str, ...]
) -> None:
    project = render(providers=list(providers))
    free = _toml(project / "plans.toml")["plans"]["free"]
    models = _toml(project / "models.toml")["models"].values()
    embeddings = [model for model in models if "max_request_tokens" in model]
    assert embeddings
    for model in embeddings:
        assert model["max_input_tokens"] >= BYTES
        assert model["max_request_tokens"] >= TEXTS * BYTES
    assert free["tokens_per_minute"] >= TEXTS * (BYTES + OVERHEAD)


@pytest.mark.parametrize("providers", PROVIDER_SETS, ids="+".join)
def test_every_model_by_the_token_has_a_line_for_cache_writes(
    render: Render, providers: tuple[str, ...]
) -> None:
    """Without one, each call would reserve 1.25 times its input."""
    models = _toml(render(providers=list(providers)) / "models.toml")["models"].values()
    for model in models:
        for lines in (model, *model.get("tiers", ())):
            if "input_usd_per_million_tokens" in lines:
                assert "cache_write_usd_per_million_tokens" in lines, model["name"]


def test_a_longer_input_costs_what_openai_says(render: Render) -> None:
    """Twice the price of input and cache, 1.5 times that of output; a write is 1.25 times input."""
    models = _toml(render(providers=["openai"]) / "models.toml")["models"].values()
    tiered = [model for model in models if "tiers" in model]
    assert {model["name"] for model in tiered} == {"gpt-6.2-sol", "gpt-6-luna"}
    for model in tiered:
        (tier,) = model["tiers"]
        factors = [_price(tier, name) / _price(model, name) for name in PER_TOKEN]
        assert factors == pytest.approx([2, 1.5, 2, 2])
        for lines in (model, tier):
            assert _price(lines, "cache_write") == pytest.approx(1.25 * _price(lines, "input"))


def _price(lines: dict[str, Any], name: str) -> float:
    return float(lines[f"{name}_usd_per_million_tokens"])


def _toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))
