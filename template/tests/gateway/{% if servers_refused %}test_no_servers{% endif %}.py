"""`[servers.NAME]` in `models.toml` of a service without an adapter for such servers."""

from typing import Any

import pytest

from app.parts import open_parts
from app.settings import Settings
from gateway.errors import StartError
from gateway.providers.http import open_session
from tests.support import write_policy

SERVERS = """
[servers.acme]
base_url = "https://api.acme.example/v1"
"""


async def test_the_start_says_which_provider_to_choose(settings: dict[str, Any]) -> None:
    write_policy(settings["policy_dir"], SERVERS)
    async with open_session() as session:
        with pytest.raises(StartError) as problem:
            open_parts(Settings(_env_file=None, **settings), session)
    line = str(problem.value)
    assert line.startswith("models.toml, servers.acme: this service has no provider")
    assert "add openai to `providers`" in line
