"""`models.toml` and `plans.toml`: all errors in them are reported before the start."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from app.main import create_app, lifespan
from app.parts import open_parts
from app.settings import Settings
from gateway import policy
from gateway.errors import StartError
from gateway.policy import Cap, Kind, Policy
from gateway.prices import Price, Tier
from gateway.providers.http import open_session
from gateway.providers.offline import OfflineProvider
from gateway.startup_checks import check
from tests.fake_provider import FakeProvider
from tests.fixtures.service import Start
from tests.support import MODELS_TOML, ROOT, chat

CHAT = {
    "provider": '"offline"',
    "name": '"echo"',
    "kind": '"chat"',
    "input_usd_per_million_tokens": "0.25",
    "output_usd_per_million_tokens": "2.00",
    "max_input_tokens": "2000",
    "max_output_tokens": "64",
    "prices_checked": "2026-11-01",
}
PER_SECOND = {
    "input_usd_per_million_tokens": "",
    "output_usd_per_million_tokens": "",
    "usd_per_second": "0.1",
    "max_seconds": "60",
}
PER_OUTPUT = {
    "kind": '"task"',
    "input_usd_per_million_tokens": "",
    "output_usd_per_million_tokens": "",
    "usd_per_output": "0.003",
    "max_outputs": "4",
}
LINE = "input_usd_per_million_tokens = 1, output_usd_per_million_tokens = 1"
PLANS = "[plans.free]\nrequests_per_minute = 20\n"


def _model(**changes: str) -> str:
    """A model in TOML. An empty value removes a line."""
    lines = [f"{key} = {value}" for key, value in {**CHAT, **changes}.items() if value]
    return "\n".join(['[models."mine"]', *lines, ""])


def _load(directory: Path, models: str | None = None, plans: str | None = PLANS) -> Policy:
    for name, text in (("models", _model() if models is None else models), ("plans", plans)):
        if text is not None:
            (directory / f"{name}.toml").write_text(text, encoding="utf-8")
    return policy.load(directory)


def _problems(directory: Path, models: str | None = None, plans: str | None = PLANS) -> str:
    with pytest.raises(StartError) as problem:
        _load(directory, models, plans)
    return str(problem.value)


def test_a_model_as_it_is_declared(tmp_path: Path) -> None:
    model = _load(tmp_path).model("mine")
    assert (model.id, model.provider, model.name, model.kind) == ("mine", "offline", "echo", "chat")
    assert model.price == Price(250_000_000, 2_000_000_000)


def test_a_price_list_as_it_is_declared(tmp_path: Path) -> None:
    lines = {
        "cached_input_usd_per_million_tokens": "0.10",
        "cache_write_usd_per_million_tokens": "2.50",
    }
    tiers = """\
[[models."mine".tiers]]
above_input_tokens = 272_000
input_usd_per_million_tokens = 4
output_usd_per_million_tokens = 15
cached_input_usd_per_million_tokens = 0.20
[[models."mine".tiers]]
above_input_tokens = 500_000
input_usd_per_million_tokens = 5
output_usd_per_million_tokens = 20
"""
    assert _load(tmp_path, _model(**lines) + tiers).model("mine").price == Price(
        250_000_000,
        2_000_000_000,
        cached_input=100_000_000,
        cache_write=2_500_000_000,
        tiers=(
            Tier(272_000, 4_000_000_000, 15_000_000_000, 200_000_000),
            Tier(500_000, 5_000_000_000, 20_000_000_000),
        ),
    )


def test_a_price_per_output_as_it_is_declared(tmp_path: Path) -> None:
    assert _load(tmp_path, _model(**PER_OUTPUT)).model("mine").price == Price(per_output=3_000_000)


def test_prices_are_exact(tmp_path: Path) -> None:
    price = _load(tmp_path, _model(input_usd_per_million_tokens="0.123456789")).model("mine").price
    assert price.input == 123_456_789


async def test_the_projects_own_files_are_right() -> None:
    settings = Settings(_env_file=None, policy_dir=ROOT)
    async with open_session() as session:
        rules, _ = open_parts(settings, session)
    assert rules.models
    assert rules.plans["free"].requests_per_minute > 0
    assert "offline/echo" in rules.models


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input_usd_per_million_tokens": ""}, "add input_usd_per_million_tokens"),
        ({"output_usd_per_million_tokens": ""}, "add output_usd_per_million_tokens"),
        ({"max_input_tokens": ""}, "add max_input_tokens"),
        ({"max_output_tokens": ""}, "add max_output_tokens"),
        ({"usd_per_second": "0.1"}, "add max_seconds"),
        ({"usd_per_second": "0.1", "max_seconds": "60"}, "by tokens or by usd_per_second"),
        ({**PER_SECOND, "cached_input_usd_per_million_tokens": "0"}, "by tokens or by usd_per_"),
        ({**PER_SECOND, "cache_write_usd_per_million_tokens": "1"}, "by tokens or by usd_per_"),
        ({**PER_SECOND, "tiers": f"[{{above_input_tokens = 1, {LINE}}}]"}, "by tokens or by usd_"),
        ({**PER_OUTPUT, "usd_per_second": "0.1", "max_seconds": "60"}, "or by usd_per_output"),
        ({**PER_OUTPUT, "input_usd_per_million_tokens": "1"}, "or by usd_per_output"),
        ({**PER_OUTPUT, "max_outputs": ""}, "add max_outputs"),
        ({**PER_OUTPUT, "max_outputs": "0"}, "max_outputs: "),
        ({**PER_OUTPUT, "kind": '"chat"'}, "usd_per_output is for models of kind task"),
        ({"max_outputs": "4"}, "max_outputs and outputs_parameter need usd_per_output"),
        ({"outputs_parameter": '"n"'}, "max_outputs and outputs_parameter need usd_per_output"),
        ({"max_request_tokens": "9"}, "max_request_tokens is for models of kind embedding"),
        ({"cache_write_usd_per_million_tokens": "-1"}, "cache_write_usd_per_million_tokens: "),
        ({"tiers": f"[{{{LINE}}}]"}, "tiers.0.above_input_tokens: Field required"),
        ({"tiers": f"[{{above_input_tokens = 0, {LINE}}}]"}, "tiers.0.above_input_tokens: "),
        ({"tiers": f"[{{above_input_tokens = 1, {LINE}, second = 1}}]"}, "second: no such name"),
        (
            {"tiers": "[{above_input_tokens = 1, output_usd_per_million_tokens = 1}]"},
            "the cost of a tier is unknown; add input_usd_per_million_tokens",
        ),
        (
            {"tiers": "[{above_input_tokens = 1, input_usd_per_million_tokens = 1}]"},
            "the cost of a tier is unknown; add output_usd_per_million_tokens",
        ),
        (
            {"tiers": f"[{{above_input_tokens = 2, {LINE}}}, {{above_input_tokens = 1, {LINE}}}]"},
            "each above_input_tokens must be greater than the one before",
        ),
        (
            {"tiers": f"[{{above_input_tokens = 2, {LINE}}}, {{above_input_tokens = 2, {LINE}}}]"},
            "each above_input_tokens must be greater than the one before",
        ),
        ({"kind": '"task"', "input_usd_per_million_tokens": ""}, "input_usd_per_million_tokens"),
        ({"prices_checked": ""}, "prices_checked: Field required"),
        ({"provider": ""}, "provider: Field required"),
        ({"name": '""'}, "name: "),
        ({"kind": '"poem"'}, "kind: "),
        ({"input_usd_per_million_tokens": "-1"}, "input_usd_per_million_tokens: "),
        ({"input_usd_per_million_tokens": "0.0000000001"}, "input_usd_per_million_tokens: "),
        ({"input_usd_per_million_tokens": "nan"}, "input_usd_per_million_tokens: "),
        ({"max_output_tokens": "0"}, "max_output_tokens: "),
        ({"max_outptu_tokens": "5"}, "max_outptu_tokens: no such name; did you mean max_output_"),
        ({"input_usd_per_million_tokens": "1000000001"}, "less than or equal to 1000000000"),
        ({"max_output_tokens": "100000001"}, "max_output_tokens: "),
        ({"max_input_tokens": str(2**31)}, "max_input_tokens: "),
        ({**PER_SECOND, "max_seconds": "604801"}, "max_seconds: "),
        ({**PER_OUTPUT, "max_outputs": "1000001"}, "max_outputs: "),
        ({"prices_checked": "0"}, "prices_checked: must be a day such as 2030-01-31"),
        ({"prices_checked": "2030-01-01T00:00:00"}, "prices_checked: must be a day"),
    ],
    ids=str,
)
def test_a_wrong_model_is_named(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    (line,) = _problems(tmp_path, _model(**changes)).splitlines()
    assert line.startswith("models.toml, mine")
    assert words in line


@pytest.mark.parametrize(
    ("plans", "words"),
    [
        ("", "plans.toml, plans: Field required"),
        ("plans = 1", "plans.toml, plans: "),
        ("[plans.free]", "plans.toml, free.requests_per_minute: Field required"),
        ("[plans.free]\nrequests_per_minute = 0", "plans.toml, free.requests_per_minute: "),
        ('[plans.free]\nrequests_per_minute = "x"', "plans.toml, free.requests_per_minute: "),
        (PLANS + "daily_budget_us = 1", "plans.toml, free.daily_budget_us: no such name; did you "),
        (PLANS + "alert_percent = [1]", "plans.toml, free.alert_percent: no such name"),
        (PLANS + "[service]\nalert_percent = 80", "plans.toml, service.alert_percent: Input "),
        (PLANS + "[servic]", "plans.toml, servic: no such name; did you mean service?"),
        ("[plans.free", "plans.toml is not valid TOML: "),
        (PLANS + PLANS, "plans.toml is not valid TOML: "),
        (PLANS + "daily_budget_usd = 1000000001", "plans.toml, free.daily_budget_usd: "),
        (f"[plans.free]\nrequests_per_minute = {10**8 + 1}", "plans.toml, free.requests_per_"),
        (f"[plans.{'x' * 101}]\nrequests_per_minute = 1", "plans.toml, x"),
        ('[plans.""]\nrequests_per_minute = 1', "plans.toml, .[key]: a plan's name"),
        ('[plans."a\\u0000b"]\nrequests_per_minute = 1', "plans.toml, 'a\\x00b'.[key]: a plan's"),
        ("\x00", "plans.toml is not valid TOML: "),
    ],
)
def test_wrong_plans_are_named(tmp_path: Path, plans: str, words: str) -> None:
    (line,) = _problems(tmp_path, plans=plans).splitlines()
    assert line.startswith(words)


@pytest.mark.parametrize(
    "name", ["", " ", "x" * 201, "modèle", "a\\nb", "a\\u0000", "x ", "\\u20ac"]
)
def test_a_model_has_a_name_that_headers_and_columns_take(tmp_path: Path, name: str) -> None:
    (problem,) = _problems(tmp_path, _model().replace("mine", name)).splitlines()
    assert ".[key]: a model's name has 1 to 200 characters of ASCII" in problem


@pytest.mark.parametrize("name", ["x" * 200, "a b/c:d-e?f#g%h'i~{}"])
async def test_any_name_that_starts_is_served(start: Start, policy_dir: Path, name: str) -> None:
    models = MODELS_TOML.replace("offline/echo", name)
    (policy_dir / "models.toml").write_text(models, encoding="utf-8")
    service = await start()
    client = service.client(await service.create_user())
    response = await client.post("/v1/chat/completions", json=chat(model=name))
    assert response.status_code == 200
    assert response.headers["x-served-model"] == name
    assert (await service.prediction()).model == name
    found = await client.get(f"/v1/models/{quote(name)}")
    assert found.json()["id"] == name


@pytest.mark.parametrize(
    "changes",
    [
        {"input_usd_per_million_tokens": "20000000", "max_input_tokens": "100000"},
        {"output_usd_per_million_tokens": "1000000000"},
        {"kind": '"embedding"', "input_usd_per_million_tokens": "9999"},
    ],
    ids=str,
)
def test_a_price_beyond_what_is_counted_is_named(tmp_path: Path, changes: dict[str, str]) -> None:
    changes = {"max_input_tokens": "100000", "provider": '"offline"', **changes}
    rules = _load(tmp_path, _model(**changes))
    with pytest.raises(StartError, match=r"^models\.toml, mine: one call could cost [0-9]+"):
        check(rules, {"offline": OfflineProvider()}, production=False)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    _load(tmp_path)
    (tmp_path / "models.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(StartError, match=r"^models\.toml is not valid TOML"):
        policy.load(tmp_path)


def test_a_missing_file_is_named_with_its_place(tmp_path: Path) -> None:
    problems = _problems(tmp_path, plans=None)
    assert problems == f"plans.toml cannot be read; it must be in {tmp_path}"


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    models = _model(kind='"poem"', name='""')
    lines = _problems(tmp_path, models, plans="[plans.free]").splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "models.toml, mine.name",
        "models.toml, mine.kind",
        "plans.toml, free.requests_per_minute",
    ]


@pytest.mark.parametrize("fallback", ["mine", "nobody", "vectors"])
def test_a_fallback_is_another_model_of_the_same_kind(tmp_path: Path, fallback: str) -> None:
    vectors = _model(kind='"embedding"').replace("mine", "vectors")
    problems = _problems(tmp_path, _model(fallbacks=f'["{fallback}"]') + vectors)
    assert problems.startswith(f"models.toml, mine: the fallback {fallback} must be another chat")


def test_budgets_are_caps_in_nano_dollars(tmp_path: Path) -> None:
    rules = _load(
        tmp_path,
        plans="[service]\ndaily_budget_usd = 20\n[plans.free]\nrequests_per_minute = 20\n"
        "monthly_budget_usd = 0.000000001\ntotal_daily_budget_usd = 1\n",
    )
    assert rules.caps("usr_1", "free") == (
        Cap("service", 20_000_000_000, None),
        Cap("plan:free", 1_000_000_000, None),
        Cap("user:usr_1", None, 1),
    )


@pytest.mark.parametrize(
    ("changes", "plans"),
    [
        ({"output_usd_per_million_tokens": "3"}, ""),
        ({"cached_input_usd_per_million_tokens": "0.1"}, ""),
        ({"cache_write_usd_per_million_tokens": "0.1"}, ""),
        ({"tiers": f"[{{above_input_tokens = 1, {LINE}}}]"}, ""),
        ({**PER_OUTPUT, "max_outputs": "5"}, ""),
        ({**PER_OUTPUT, "outputs_parameter": '"n"'}, ""),
        ({"kind": '"embedding"', "max_request_tokens": "5"}, ""),
        ({"overhead_tokens": "17"}, ""),
        ({"max_input_tokens": "2001"}, ""),
        ({"max_output_tokens": "65"}, ""),
        ({"max_seconds": "60"}, ""),
        ({"tokens_per_image": "100"}, ""),
        ({"attempts": "1"}, ""),
        ({"provider": '"openai"'}, ""),
        ({"name": '"echo-pro"'}, ""),
        ({"kind": '"embedding"'}, ""),
        ({}, "daily_budget_usd = 1\n"),
        ({}, "[service]\nmonthly_budget_usd = 1\n"),
    ],
    ids=str,
)
def test_the_version_changes_with_what_is_refused_and_billed(
    tmp_path: Path, changes: dict[str, str], plans: str
) -> None:
    version = _load(tmp_path).version
    assert _load(tmp_path, _model(**changes), PLANS + plans).version != version


def test_the_version_stays_when_prices_were_checked(tmp_path: Path) -> None:
    version = _load(tmp_path).version
    checked = _model(prices_checked="2026-11-02", base_delay_seconds="1")
    assert _load(tmp_path, checked).version == version


def test_an_unknown_provider_is_named(tmp_path: Path) -> None:
    rules = _load(tmp_path, _model(provider='"acme"'))
    with pytest.raises(StartError, match="mine: acme is no provider of this service; it has off"):
        check(rules, {"offline": OfflineProvider()}, production=False)


class TimedProvider(OfflineProvider):
    """A provider that reports seconds of compute."""

    billed_by_time: frozenset[Kind] = frozenset({"embedding"})


@pytest.mark.parametrize(
    ("provider", "kind", "price", "unit"),
    [
        (OfflineProvider, "chat", PER_SECOND, "tokens, not seconds"),
        (OfflineProvider, "embedding", PER_SECOND, "tokens, not seconds"),
        (TimedProvider, "embedding", {}, "seconds, not tokens"),
    ],
)
def test_a_price_for_a_unit_that_the_provider_does_not_report_is_an_error(
    tmp_path: Path, provider: type[OfflineProvider], kind: Kind, price: dict[str, str], unit: str
) -> None:
    rules = _load(tmp_path, _model(kind=f'"{kind}"', **price))
    with pytest.raises(
        StartError, match=f"mine: offline counts {unit}, of a model of kind {kind};"
    ):
        check(rules, {"offline": provider()}, production=False)


def test_a_price_per_output_needs_a_provider_that_counts_them(tmp_path: Path) -> None:
    rules, scripted = _load(tmp_path, _model(**PER_OUTPUT)), FakeProvider()
    with pytest.raises(StartError, match="mine: offline counts no number of outputs, of a model"):
        check(rules, {"offline": scripted}, production=False)
    scripted.counted = frozenset({"task"})
    check(rules, {"offline": scripted}, production=False)


def test_a_time_that_the_provider_cannot_keep_to_is_named(tmp_path: Path) -> None:
    rules, scripted = _load(tmp_path, _model(**{**PER_SECOND, "max_seconds": "4"})), FakeProvider()
    scripted.billed_by_time, scripted.least_seconds = frozenset({"chat"}), 4
    check(rules, {"offline": scripted}, production=False)
    scripted.least_seconds = 5
    with pytest.raises(StartError, match="mine: max_seconds must be 5 at least, as offline ends"):
        check(rules, {"offline": scripted}, production=False)


@pytest.mark.usefixtures("restored_logging")
async def test_a_wrong_file_stops_the_start(settings: dict[str, Any], policy_dir: Path) -> None:
    (policy_dir / "models.toml").write_text(_model(kind='"poem"'), encoding="utf-8")
    app = create_app(Settings(_env_file=None, **settings))
    with pytest.raises(StartError, match=r"^models\.toml, mine\.kind: "):
        async with lifespan(app):
            pytest.fail("it started")
