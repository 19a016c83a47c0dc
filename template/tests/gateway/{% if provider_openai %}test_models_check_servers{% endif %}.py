"""`python -m app models check` of each server that the simulator can speak as."""

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.service import Run
from tests.simulator.dialect import Speaking
from tests.simulator.faults import Fault
from tests.simulator.server import Simulator
from tests.simulator.servers import DIALECTS, NEW, OLD, UNKNOWN_MODEL, Dialect
from tests.support import CHECKED, unique, write_policy

KEY = "ACME_API_KEY"
MODEL = "acme/chat"


@pytest.fixture(params=DIALECTS, ids=lambda dialect: dialect.name)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """Give each server in turn."""
    chosen: Dialect = request.param
    return chosen


@pytest.fixture
async def upstream(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Simulator]:
    """Start a simulator that speaks as the server."""
    monkeypatch.setenv(KEY, unique("canary"))
    async with Simulator([partial(Speaking, dialect)]) as running:
        yield running


def declare(
    policy_dir: Path,
    upstream: Simulator,
    limit: str,
    *,
    name: str = "acme-large",
    path: str = "",
    responses: str = "false",
) -> None:
    """Declare the server, with `limit` for the largest output, and a model of it."""
    base_url = upstream.environment["OPENAI_BASE_URL"] + path
    models = f"""
[servers.acme]
base_url = "{base_url}"
api_key_env = "{KEY}"
output_limit = "{limit}"
responses = {responses}

[models."{MODEL}"]
provider = "acme"
name = "{name}"
kind = "chat"
input_usd_per_million_tokens = 0.25
output_usd_per_million_tokens = 2.00
cached_input_usd_per_million_tokens = 0.025
cache_write_usd_per_million_tokens = 0.3125
max_output_tokens = 64
max_input_tokens = 2000
{CHECKED}
"""
    write_policy(policy_dir, models)


async def checked(run: Run) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code, and each check's verdict and advice."""
    result = await run("models", "check", MODEL, "--json")
    found: list[dict[str, Any]] = json.loads(result.stdout)["findings"]
    return result.exit_code, {f["check"]: (f["verdict"], f["advice"]) for f in found}


@pytest.mark.parametrize("limit", [OLD, NEW])
async def test_each_spelling_is_heeded_or_its_line_is_named(
    run: Run, policy_dir: Path, dialect: Dialect, upstream: Simulator, limit: str
) -> None:
    declare(policy_dir, upstream, limit)
    code, found = await checked(run)
    verdict, advice = found.pop("output limit")
    if dialect.limits[limit] == "heeds":
        assert (code, verdict, advice) == (0, "ok", "")
    else:
        other = OLD if limit == NEW else NEW
        assert (code, verdict) == (1, "problem")
        assert advice.endswith(f'in [servers.acme], write output_limit = "{other}"')
        did = "it wrote" if dialect.limits[limit] == "ignores" else "it refuses"
        assert advice.startswith(did)
    assert {verdict for verdict, _ in found.values()} == {"ok"}


async def heeded(policy_dir: Path, dialect: Dialect, upstream: Simulator, **changes: str) -> None:
    """Declare the server with `changes`."""
    limit = next(name for name, verdict in dialect.limits.items() if verdict == "heeds")
    declare(policy_dir, upstream, limit, **changes)


async def test_a_name_that_it_does_not_know(
    run: Run, policy_dir: Path, dialect: Dialect, upstream: Simulator
) -> None:
    await heeded(policy_dir, dialect, upstream, name=UNKNOWN_MODEL)
    code, found = await checked(run)
    if dialect.unknown_model is None:
        assert code == 0
        return
    assert (code, list(found)) == (1, ["name"])
    assert 'correct `name` in [models."acme/chat"]' in found["name"][1]


async def test_a_credential_that_it_refuses(
    run: Run, policy_dir: Path, dialect: Dialect, upstream: Simulator
) -> None:
    await heeded(policy_dir, dialect, upstream)
    upstream.inject(Fault(kind="unauthorized"))
    code, found = await checked(run)
    assert (code, list(found)) == (1, ["credential"])
    assert found["credential"][1].endswith(
        f"set {KEY}, which [servers.acme] names, in the environment or in .env"
    )


async def test_an_address_without_its_path(
    run: Run, policy_dir: Path, dialect: Dialect, upstream: Simulator
) -> None:
    await heeded(policy_dir, dialect, upstream, path="/chat")
    code, found = await checked(run)
    assert (code, list(found)) == (1, ["address"])
    assert "is base_url in [servers.acme] right, http://127.0.0.1:" in found["address"][1]


async def test_a_stream_without_usage(
    run: Run, policy_dir: Path, dialect: Dialect, upstream: Simulator
) -> None:
    await heeded(policy_dir, dialect, upstream)
    upstream.inject(Fault(kind="no_usage"))
    code, found = await checked(run)
    assert code == 1
    assert found["usage"][0] == "problem"
    assert found["output limit"][0] == "ok"


@pytest.mark.parametrize("dialect", [DIALECTS[0]], ids=["openai"], indirect=True)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (None, ""),
        (Fault(kind="error", status=404, path="/responses"), "does not answer /v1/responses"),
        (Fault(kind="no_usage", path="/responses"), "it reports no usage at /v1/responses"),
        (Fault(kind="excess_usage", path="/responses"), "where 16 were allowed"),
    ],
    ids=["", "error", "no_usage", "excess_usage"],
)
async def test_a_server_that_is_said_to_speak_responses_is_asked_so(
    run: Run,
    policy_dir: Path,
    dialect: Dialect,
    upstream: Simulator,
    fault: Fault | None,
    words: str,
) -> None:
    await heeded(policy_dir, dialect, upstream, responses="true")
    if fault:
        upstream.inject(fault)
    code, found = await checked(run)
    verdict, advice = found["responses"]
    assert (code, verdict) == ((1, "problem") if fault else (0, "ok"))
    assert words in advice
    assert not fault or advice.endswith("in [servers.acme], write responses = false")
    assert [call.path for call in upstream.calls] == ["/chat/completions", "/responses"]
