"""The environment: what is wrong in it is named before the start, and never shown."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex, token_urlsafe

import pytest
from pydantic import AfterValidator, SecretStr

from app.main import create_app, lifespan
from app.settings import Settings, load
from gateway.errors import StartError
from tests.fixtures.service import Run, Start
from tests.support import CREDENTIALS, ROOT, SECRET_KEY, environment, unique

EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
ADDRESSES = sorted(
    name
    for name, field in Settings.model_fields.items()
    if any(isinstance(rule, AfterValidator) for rule in field.metadata)
)
SECRETS = sorted(
    name
    for name, field in Settings.model_fields.items()
    if field.annotation is SecretStr and name not in ADDRESSES
)
LINE = re.compile(r"^(?:# )?([A-Z][A-Z_]+)=(.*)$", re.MULTILINE)

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def production(
    clean_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    limiter_settings: dict[str, str],
    policy_dir: Path,
) -> dict[str, str]:
    """An environment that production takes; it is set."""
    chosen = environment(
        {name: "true" for name in Settings.model_fields if name.startswith("accept_")}
        | {name: unique("canary") for name in CREDENTIALS}
        | {"environment": "production", "secret_key": SECRET_KEY, "database_url": database_url}
        | {"policy_dir": policy_dir, **limiter_settings}
    )
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    return chosen


def _problem() -> str:
    with pytest.raises(StartError) as problem:
        load()
    return str(problem.value)


def test_a_file_in_another_encoding() -> None:
    Path(".env").write_text("PORT=8001\n", encoding="utf-16")
    assert _problem() == ".env is not in UTF-8: save it again in this encoding."


def test_every_setting_is_in_the_example_and_the_other_way_round() -> None:
    shown = [name.lower() for name, _ in LINE.findall(EXAMPLE)]
    assert sorted(shown) == sorted(Settings.model_fields)


def test_the_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    default = Settings(_env_file=None).model_dump(exclude={"secret_key"})
    for name, value in LINE.findall(EXAMPLE):
        monkeypatch.setenv(name, value)
    assert load().model_dump(exclude={"secret_key"}) == default


def test_the_example_explains_every_setting() -> None:
    lines = EXAMPLE.splitlines()
    for number, line in enumerate(lines):
        if LINE.fullmatch(line):
            assert re.match(r"# [A-Za-z].*[.)]$", lines[number - 1]), line


def test_development_needs_nothing() -> None:
    first, second = load(), load()
    assert first.environment == "development"
    keys = {settings.secret_key.get_secret_value() for settings in (first, second)}
    assert len(keys) == 2
    assert all(len(key) >= 32 for key in keys)


def test_production_starts_with_what_it_needs(production: dict[str, str]) -> None:
    assert load().production
    assert load().secret_key.get_secret_value() == SECRET_KEY


@pytest.mark.parametrize("value", [None, ""])
def test_production_needs_a_secret(
    production: dict[str, str], monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("SECRET_KEY")
    if value is not None:
        monkeypatch.setenv("SECRET_KEY", value)
    assert _problem() == "SECRET_KEY is not set; make one with: openssl rand -base64 48"


@pytest.mark.parametrize("name", ["SECRET_KEY", "SECRET_KEY_PREVIOUS", "METRICS_TOKEN"])
@pytest.mark.parametrize(
    "weak",
    [
        *("short", "a" * 64, "0123456" * 8, "changeme-0123456789-abcdefghijklmnopqrstuvw"),
        *("1234567890" * 4, "1a2b3c4d5e" * 4, "0123456789abcdefghijklmnopqrstuvwxyz"),
        "12345678901234567890123456789012345678-abcdef",
    ],
)
def test_production_refuses_weak_secrets(
    production: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str, weak: str
) -> None:
    monkeypatch.setenv(name, weak)
    problem = _problem()
    assert problem == f"{name} is weak; make a new one with: openssl rand -base64 48"


@pytest.mark.parametrize("make", [token_hex, token_urlsafe])
def test_what_chance_makes_is_strong(
    production: dict[str, str], monkeypatch: pytest.MonkeyPatch, make: Callable[[int], str]
) -> None:
    for _ in range(100):
        monkeypatch.setenv("SECRET_KEY", make(32))
        assert load().production


def write_secrets(mode: int) -> None:
    path = Path(".env")
    path.write_text("", encoding="utf-8")
    path.chmod(mode)


@pytest.mark.skipif(os.name != "posix", reason="has no modes")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
async def test_secrets_that_others_can_read_are_told(start: Start, run: Run, mode: int) -> None:
    write_secrets(mode)
    service = await start()
    warning = f".env has the mode {mode:04o}: other users of this machine read it."
    (event,) = [each for each in service.events if each["message"].startswith(warning)]
    assert event["level"] == "warning"
    assert warning in (await run("doctor")).output


async def test_secrets_that_the_owner_alone_can_read_are_not_told(start: Start) -> None:
    write_secrets(0o600)
    assert "has the mode" not in (await start()).log


def test_all_weak_secrets_are_named(
    production: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECRET_KEY")
    monkeypatch.setenv("METRICS_TOKEN", "weak")
    assert {"SECRET_KEY", "METRICS_TOKEN"} <= set(re.findall("[A-Z_]{5,}", _problem()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENVIRONMENT", "prod"),
        ("PORT", "eighty"),
        ("PORT", "65536"),
        ("WEB_CONCURRENCY", "0"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_CONTENT", "perhaps"),
        ("ALERT_WEBHOOK_URL", "https:///alerts"),
        ("CORS_ORIGINS", "https://app.example.com/path"),
        ("CORS_ORIGINS", "*,https://app.example.com"),
        ("FORWARDED_ALLOW_IPS", "proxy"),
        ("FORWARDED_ALLOW_IPS", "10.0.0.0/99"),
        ("FORWARDED_ALLOW_IPS", "10.1.2.3/8"),
        ("FORWARDED_ALLOW_IPS", "*,10.0.0.1"),
        ("FORWARDED_ALLOW_IPS", "10.0.0.1 10.0.0.2"),
        ("MAX_BODY_BYTES", "10"),
        ("REQUEST_DEADLINE_SECONDS", "0"),
        ("REQUEST_DEADLINE_SECONDS", "0.5"),
        ("REQUEST_DEADLINE_SECONDS", "soon"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert _problem().startswith(f"{name}: ")


@pytest.mark.parametrize("value", ["*", "10.0.0.1, ::1", "172.16.0.0/12,fd00::/8"])
def test_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", value)
    assert load().forwarded_allow_ips == value


@pytest.mark.parametrize(
    "value",
    [
        *("foo", "chat.example.com", "ftp://example.com", "http://a:99999", "http://a:/v1"),
        *("https://${{Service.HOST}}/v1", "https://a..b", "https://example.com/{path}"),
    ],
)
@pytest.mark.parametrize("name", ADDRESSES)
def test_an_address_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name.upper(), value)
    assert _problem() == f"{name.upper()}: must be an address such as https://example.com"


@pytest.mark.parametrize("name", [name for name in ADDRESSES if name.endswith("base_url")])
@pytest.mark.parametrize("value", ["https://u:p@a/v1", "https://a/v1?version=1", "https://a/v1#x"])
def test_an_address_that_a_path_is_added_to_ends_with_one(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name.upper(), value)
    assert _problem() == f"{name.upper()}: must be an address such as https://example.com"


@pytest.mark.parametrize("space", [" ", "\n", "\r\n", "\t", "\u00a0"])
def test_white_space_around_a_value_is_not_part_of_it(
    monkeypatch: pytest.MonkeyPatch, space: str
) -> None:
    """As `echo` leaves a line feed at the end of a secret."""
    # A provider to sign in with needs an id beside its secret.
    ids = [name for name in Settings.model_fields if name.endswith("_client_id")]
    for name in [*SECRETS, "port", *ADDRESSES, *ids]:
        value = {"port": "8001"}.get(name) or ("https://a" if name in ADDRESSES else SECRET_KEY)
        monkeypatch.setenv(name.upper(), f"{space}{value}{space}")
    settings = load()
    assert {getattr(settings, name).get_secret_value() for name in SECRETS} == {SECRET_KEY}
    assert settings.port == 8001
    for name in [*SECRETS, "port", *ADDRESSES, *ids]:
        monkeypatch.setenv(name.upper(), space)
    assert load().model_dump(exclude={"secret_key"}) == Settings(_env_file=None).model_dump(
        exclude={"secret_key"}
    )


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("character", ["\n", "\r", "\t", "\x7f", "\u00a0", "\u200b", "\u2013", "ü"])
def test_a_secret_that_no_header_can_carry_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, character: str
) -> None:
    canary = unique("canary")
    monkeypatch.setenv(name.upper(), f"{canary}{character}{canary}")
    problem = _problem()
    assert problem == f"{name.upper()}: has a character that no header can carry; copy it again"


def test_all_wrong_values_are_named_and_none_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    canary = unique("canary")
    names = ["ALERT_WEBHOOK_URL", "LOG_LEVEL", "PORT"]
    for name in names:
        monkeypatch.setenv(name, canary)
    problem = _problem()
    assert sorted(line.partition(":")[0] for line in problem.splitlines()) == names
    assert canary not in problem


def test_an_empty_value_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "")
    assert load().port == 8000


def test_other_variables_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNKNOWN", "1")
    assert "unknown" not in load().model_dump()


@pytest.mark.usefixtures("restored_logging", "production")
@pytest.mark.parametrize("name", CREDENTIALS)
async def test_production_needs_the_keys_of_the_providers_in_use(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name.upper())
    app = create_app()
    with pytest.raises(StartError, match=f"^{name.upper()}: not set, but models.toml offers"):
        async with lifespan(app):
            pytest.fail("it started")


def test_every_secret_is_known_to_the_redactor(production: dict[str, str]) -> None:
    hidden = [production[name.upper()] for name in CREDENTIALS] + [SECRET_KEY]
    assert set(hidden) <= set(load().secret_values())


@pytest.mark.parametrize("password", ["p4ssw0rd", "p[4ssw0rd", "p4#ss/w0?rd", "p4ss:w0rd"])
def test_passwords_in_addresses_are_secrets(password: str) -> None:
    settings = Settings(_env_file=None, database_url=f"scheme://jane:{password}@host/name")
    assert password in settings.secret_values()


def test_longer_secrets_come_first_and_short_words_are_none() -> None:
    settings = Settings(_env_file=None, secret_key="abcdefgh", metrics_token="abcdefghij")
    assert settings.secret_values() == ["abcdefghij", "abcdefgh"]
    assert Settings(_env_file=None, metrics_token="abc", secret_key="x" * 6).secret_values() == [
        "x" * 6
    ]


def test_secrets_are_not_shown(production: dict[str, str]) -> None:
    shown = repr(load())
    assert not [name for name in (*CREDENTIALS, "secret_key") if production[name.upper()] in shown]


def test_the_project_is_what_pyproject_says() -> None:
    project = load().project
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["title"]
    assert project["description"]


def test_a_release_brings_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = tmp_path / "version.txt"
    released.write_text("1.2.3\n")
    monkeypatch.setattr("app.settings.RELEASED", released)
    assert load().project["version"] == "1.2.3"
