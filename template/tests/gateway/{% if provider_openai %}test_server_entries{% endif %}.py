"""The entries of docs/add-a-model.md, each checked against a simulated server."""

import json
import re
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.parts import open_parts
from app.settings import Settings
from gateway.providers import openai
from gateway.providers.http import open_session
from gateway.providers.servers import Server
from tests.fixtures.service import Run
from tests.simulator.dialect import Speaking
from tests.simulator.server import Simulator
from tests.simulator.servers import BY_NAME, DIALECTS
from tests.support import ROOT, unique, write_policy

PAGE = (ROOT / "docs/add-a-model.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ENTRIES = {next(iter(tomllib.loads(b)["servers"])): b for b in BLOCKS if "[servers." in b}


def test_every_server_that_the_simulator_plays_has_an_entry() -> None:
    spoken = {d.name.replace(".", "-") for d in DIALECTS} - {"openai", "vllm-0-6"}
    assert set(ENTRIES) == spoken


def test_every_line_of_a_server_is_explained() -> None:
    for line in Server.model_fields:
        assert f"| `{line}` |" in PAGE


def declare(policy_dir: Path, models: str) -> None:
    """Write the tests' plans, and only these models."""
    write_policy(policy_dir)
    (policy_dir / "models.toml").write_text(models, encoding="utf-8")


@pytest.mark.usefixtures("clean_environment")
async def test_all_entries_are_right_together(settings: dict[str, Any], policy_dir: Path) -> None:
    """In addition to the models of models.toml."""
    own = (ROOT / "models.toml").read_text(encoding="utf-8")
    declare(policy_dir, "\n".join([own, *BLOCKS]))
    async with open_session() as session:
        rules, providers = open_parts(Settings(_env_file=None, **settings), session)
    assert set(ENTRIES) <= set(rules.servers) & set(providers)


@pytest.mark.parametrize("name", ENTRIES)
async def test_each_entry_is_as_its_server_is(
    run: Run, policy_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    document = tomllib.loads(ENTRIES[name])
    (model,), server = document["models"], document["servers"][name]
    dialect = BY_NAME[name.replace("llama-cpp", "llama.cpp")]
    assert dialect.needs_key == ("api_key_env" in server)
    if key := server.get("api_key_env"):
        monkeypatch.setenv(key, unique("canary"))
    async with Simulator([partial(Speaking, dialect)]) as upstream:
        url = upstream.environment["OPENAI_BASE_URL"]
        write_policy(policy_dir, ENTRIES[name].replace(server["base_url"], url))
        result = await run("models", "check", model, "--json")
    found = json.loads(result.stdout)["findings"]
    problems = [f for f in found if f["verdict"] == "problem"]
    assert (result.exit_code, problems) == (0, [])


async def test_the_entry_of_openai_is_as_openai_is(
    run: Run, policy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model,) = tomllib.loads(BLOCKS[0])["models"]
    monkeypatch.setattr(openai, "is_own", lambda _: True)
    async with Simulator([partial(Speaking, BY_NAME["openai"])]) as upstream:
        monkeypatch.setenv("OPENAI_BASE_URL", upstream.environment["OPENAI_BASE_URL"])
        write_policy(policy_dir, BLOCKS[0])
        result = await run("models", "check", model, "--json")
    assert result.exit_code == 0, result.stdout
