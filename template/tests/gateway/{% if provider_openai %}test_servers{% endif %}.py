"""`[servers.NAME]` in `models.toml`: a provider of its own for each server."""

from pathlib import Path
from typing import Any

import pytest

from app.parts import open_parts
from app.settings import Settings, load
from gateway.accounts.principals import Role
from gateway.errors import StartError
from gateway.policy import Policy
from gateway.providers.base import Provider
from gateway.providers.http import open_session
from tests.fixtures.service import Start
from tests.simulator.faults import Fault
from tests.support import CHECKED, Service, chat, error_of, unique, write_policy

CHAT = "/v1/chat/completions"
KEY = "ACME_API_KEY"
SERVER = {"base_url": '"https://api.acme.example/v1"', "api_key_env": f'"{KEY}"'}
MODEL = f"""
[models."acme/chat"]
provider = "acme"
name = "acme-large"
kind = "chat"
input_usd_per_million_tokens = 0.25
output_usd_per_million_tokens = 2.00
max_output_tokens = 64
max_input_tokens = 2000
{CHECKED}
attempts = 1
"""


def server(name: str = "acme", **changes: str) -> str:
    """A server in TOML. An empty value removes a line."""
    lines = [f"{key} = {value}" for key, value in {**SERVER, **changes}.items() if value]
    return "\n".join(["", f"[servers.{name}]", *lines, ""])


async def opened(settings: dict[str, Any], models: str) -> tuple[Policy, dict[str, Provider]]:
    """The parts of a service with these models and the tests' own."""
    write_policy(settings["policy_dir"], models)
    async with open_session() as session:
        return open_parts(Settings(_env_file=None, **settings), session)


def write_env(text: str) -> None:
    """Write the `.env` file of the service."""
    Path(".env").write_text(text, encoding="utf-8")


@pytest.fixture
async def acme(
    start: Start, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, policy_dir: Path
) -> Service:
    """A service with a declared server, which the simulator plays."""
    monkeypatch.setenv(KEY, unique("canary"))
    base_url = f'"{settings["openai_base_url"]}"'
    write_policy(policy_dir, server(base_url=base_url) + MODEL)
    return await start()


async def test_a_model_is_asked_at_its_server(acme: Service) -> None:
    user = await acme.create_user()
    client = acme.client(user)
    assert (await client.post(CHAT, json=chat(model="acme/chat"))).status_code == 200
    (call,) = acme.simulator.calls
    key = acme.settings.server_keys[KEY].get_secret_value()
    assert call.headers["authorization"] == f"Bearer {key}"
    assert call.body is not None
    assert call.body["model"] == "acme-large"
    assert (await acme.attempt()).provider == "acme"
    models = {m["id"]: m["owned_by"] for m in (await client.get("/v1/models")).json()["data"]}
    assert models["acme/chat"] == "acme"
    assert models["openai/chat"] == "openai"


async def test_its_key_is_redacted(acme: Service) -> None:
    assert acme.settings.server_keys[KEY].get_secret_value() in acme.settings.secret_values()


async def test_a_stop_of_one_server_is_none_of_another(acme: Service) -> None:
    user = await acme.create_user(role=Role.ADMIN)
    client = acme.client(user)
    stop = {"target": "provider:acme", "reason": "its bill"}
    assert (await client.post("/v1/admin/stop", json=stop)).status_code == 200
    stopped = await client.post(CHAT, json=chat(model="acme/chat"))
    assert error_of(stopped) == (503, "generation_stopped", None)
    assert (await client.post(CHAT, json=chat(model="openai/chat"))).status_code == 200


async def test_a_server_without_a_key_gets_none(
    start: Start, settings: dict[str, Any], policy_dir: Path
) -> None:
    base_url = f'"{settings["openai_base_url"]}"'
    write_policy(policy_dir, server(base_url=base_url, api_key_env="") + MODEL)
    service = await start()
    client = service.client(await service.create_user())
    await client.post(CHAT, json=chat(model="acme/chat"))
    (call,) = service.simulator.calls
    assert "authorization" not in call.headers


async def test_a_key_that_is_not_set_is_named_in_each_call(
    start: Start, policy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    write_policy(policy_dir, server() + MODEL)
    service = await start()
    client = service.client(await service.create_user())
    response = await client.post(CHAT, json=chat(model="acme/chat"))
    assert error_of(response) == (502, "provider_error", None)
    assert KEY in response.json()["error"]["message"]


async def test_production_does_not_start_without_a_servers_key(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    accepted = {name: True for name in Settings.model_fields if name.startswith("accept_")}
    production = {**settings, "environment": "production", **accepted}
    with pytest.raises(StartError, match=f"^{KEY}: not set"):
        await opened(production, server() + MODEL)
    monkeypatch.setenv(KEY, unique("canary"))
    _, providers = await opened(production, server() + MODEL)
    assert providers["acme"].missing_credential() is None


async def test_a_key_in_the_env_file_is_read(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, policy_dir: Path
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    write_policy(policy_dir, server() + MODEL)
    write_env(f"{KEY}=from-the-file\n")
    keys = Settings(_env_file=None, **settings).server_keys
    assert [key.get_secret_value() for key in keys.values()] == ["from-the-file"]


def test_white_space_around_a_key_is_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(KEY, " acme-key\r\n")
    monkeypatch.setenv("POLICY_DIR", str(tmp_path))
    write_policy(tmp_path, server() + MODEL)
    assert load().secrets()[KEY] == "acme-key"


def test_a_key_that_no_header_can_carry_stops_the_start_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(KEY, "acme\nkey")
    monkeypatch.setenv("POLICY_DIR", str(tmp_path))
    write_policy(tmp_path, server() + MODEL)
    with pytest.raises(StartError, match=f"^{KEY}: has a character that no header can carry"):
        load()


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("Acme", {}, "servers.Acme: a server's name has lower-case letters and"),
        ('"a/b"', {}, "servers.a/b: a server's name has lower-case letters"),
        (f'"{"a" * 41}"', {}, "a server's name has lower-case letters"),
        ("openai", {}, "servers.openai: openai is built in; give the server another name"),
        ("offline", {}, "servers.offline: offline is built in"),
        ("acme", {"base_url": ""}, "servers.acme.base_url: Field required"),
        ("acme", {"base_url": '""'}, "servers.acme.base_url: must be an address such as"),
        ("acme", {"base_url": '"api.acme.example/v1"'}, "servers.acme.base_url: must be an"),
        ("acme", {"base_url": '"https://x:99999/v1"'}, "servers.acme.base_url: must be an"),
        ("acme", {"base_url": '"https://x/v1?api-version=1"'}, "must end with its path"),
        # pragma: allowlist nextline secret
        ("acme", {"base_url": '"https://me:secret@x/v1"'}, "must hold no credential"),
        ("acme", {"base_url": '"https://x/v1/chat/completions"'}, "must end before the name of"),
        ("acme", {"api_key_env": '"sk-pasted"'}, "servers.acme.api_key_env: must be the name of"),
        ("acme", {"api_key_env": '"SECRET_KEY"'}, "SECRET_KEY is not a server's key"),
        ("acme", {"api_key_env": '"OPENAI_ADMIN_KEY"'}, "OPENAI_ADMIN_KEY is not a server's key"),
        ("acme", {"output_limit": '"max_output_tokens"'}, "acme.output_limit: Input should"),
        ("acme", {"responses": '"yes"'}, "servers.acme.responses: Input should be a valid boolean"),
        ("acme", {"key": '"x"'}, "servers.acme.key: no such name"),
        ("other", {}, "servers.other: no model has it as its provider; remove it"),
    ],
)
async def test_errors_in_servers_are_reported(
    settings: dict[str, Any], name: str, changes: dict[str, str], words: str
) -> None:
    provider = "openai" if name == "other" else name.strip('"')
    used = MODEL.replace('provider = "acme"', f'provider = "{provider}"')
    with pytest.raises(StartError) as problem:
        await opened(settings, server(name, **changes) + used)
    (line,) = str(problem.value).splitlines()
    assert line.startswith("models.toml, servers.")
    assert words in line
    assert "pasted" not in line


async def test_a_provider_that_is_no_server_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(StartError, match=r"^models\.toml, acme/chat: acme is no provider"):
        await opened(settings, MODEL)


@pytest.mark.parametrize("servers", ["servers = 5\n", "servers.acme = 5\n"])
async def test_servers_of_another_form_are_named(settings: dict[str, Any], servers: str) -> None:
    write_policy(settings["policy_dir"])
    models = settings["policy_dir"] / "models.toml"
    models.write_text(servers + models.read_text("utf-8"), encoding="utf-8")
    async with open_session() as session:
        with pytest.raises(StartError, match=r"^models\.toml, servers"):
            open_parts(Settings(_env_file=None, **settings), session)


async def test_a_circuit_of_one_server_is_none_of_another(acme: Service) -> None:
    acme.simulator.inject(Fault(kind="rate_limited", seconds=30))
    client = acme.client(await acme.create_user())
    await client.post(CHAT, json=chat(model="acme/chat"))
    assert (await client.post(CHAT, json=chat(model="acme/chat"))).status_code == 503
    assert (await client.post(CHAT, json=chat(model="openai/chat"))).status_code == 200
