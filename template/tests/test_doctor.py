"""`python -m app doctor`: each fault is found and named, with what to do."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app import wiring
from app.cli import doctor
from app.cli.main import app
from app.cli.placeholders import placeholders
from app.settings import Settings
from gateway.db import lines
from gateway.db.engine import Database
from gateway.doctor import NO_ANSWER
from gateway.errors import LimiterUnavailable
from tests.fixtures.service import Run
from tests.support import CHECKED, CREDENTIALS, SECRET_KEY, environment

CHECKS = [
    "environment",
    "replicas",
    "policy",
    "database",
    "migrations",
    "limiter",
    "limits are kept",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project whose owner has entered all names."""
    folder = tmp_path / "checkout"
    (folder / ".github").mkdir(parents=True)
    (folder / ".github/CODEOWNERS").write_text("# Such as @acme\n* @jane\n", encoding="utf-8")
    (folder / "LICENSE").write_text("Copyright (c) 2026 Jane Doe\n", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
async def chosen(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, checkout: Path) -> None:
    """The environment of a service in which everything is right."""
    monkeypatch.setattr(doctor, "ROOT", checkout)
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)


async def _examine(*options: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code, and each check's verdict and advice."""
    result = await asyncio.to_thread(CliRunner().invoke, app, ["doctor", "--json", *options])
    findings = json.loads(result.stdout)
    return result.exit_code, {f["check"]: (f["verdict"], f["advice"]) for f in findings}


async def test_all_is_well() -> None:
    code, findings = await _examine()
    assert code == 0
    assert list(findings) == CHECKS
    verdict, version = findings.pop("policy")
    assert verdict == "ok"
    assert re.fullmatch("version [0-9a-f]{12}", version)
    assert set(findings.values()) == {("ok", "")}


async def test_a_person_reads_a_line_for_each_check() -> None:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["doctor"])
    lines = [line.partition(":")[0] for line in result.stdout.splitlines()]
    assert lines == [f"✓ {check}" for check in CHECKS]


async def test_a_wrong_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "eighty")
    code, findings = await _examine()
    assert code == 1
    ((verdict, advice),) = findings.values()
    assert verdict == "problem"
    assert advice.startswith("PORT: ")


async def test_a_dead_database(monkeypatch: pytest.MonkeyPatch, dead_database_url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", dead_database_url)
    code, findings = await _examine()
    assert code == 1
    verdict, advice = findings["database"]
    assert verdict == "problem"
    assert advice.startswith(("is DATABASE_URL right, and does what it names", "there is no file"))


async def test_what_does_not_answer_in_time_is_told(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another session may lock what a check needs."""

    async def wait(*_: object) -> None:
        await asyncio.sleep(60)

    database = _database_class()
    for name in ("check", "fetch"):
        monkeypatch.setattr(database, name, wait)
    code, findings = await _examine()
    assert code == 1
    for name in ("database", "migrations"):
        assert findings[name] == ("problem", NO_ANSWER)


async def test_missing_migrations(monkeypatch: pytest.MonkeyPatch, empty_database_url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    code, findings = await _examine()
    assert code == 1
    assert findings["database"] == ("ok", "")
    assert findings["migrations"] == ("problem", "run: python -m app migrate")


async def test_migrations_that_are_not_in_two_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stray = tmp_path / lines.BEFORE / "notes.py"
    stray.parent.mkdir(parents=True)
    stray.write_text('revision = "notes"\n', encoding="utf-8")
    monkeypatch.setattr(lines, "PROJECT", tmp_path)
    code, findings = await _examine()
    assert code == 1
    verdict, advice = findings["migrations"]
    assert (verdict, "scripts.move_migrations" in advice) == ("problem", True)


async def test_a_wrong_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "nonsense")
    code, findings = await _examine()
    assert code == 1
    verdict, advice = findings["addresses"]
    assert (verdict, "DATABASE_URL" in advice) == ("problem", True)


async def test_a_limiter_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        async def weakness(self) -> None:
            """It has none."""

        async def check(self) -> None:
            raise LimiterUnavailable("It is gone.")

        async def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(wiring.limiter, "open_limiter", lambda *_: Gone())
    code, findings = await _examine()
    assert code == 1
    assert findings["limiter"][0] == "problem"


async def test_a_broken_policy_file(policy_dir: Path) -> None:
    (policy_dir / "plans.toml").unlink()
    code, findings = await _examine()
    assert code == 1
    assert findings["policy"][0] == "problem"
    assert findings["policy"][1].startswith("plans.toml cannot be read")
    assert findings["database"] == ("ok", "")


async def test_missing_keys_are_a_warning_and_old_prices_too(
    monkeypatch: pytest.MonkeyPatch, policy_dir: Path
) -> None:
    for name in Settings.model_fields:  # an own server in place of a provider may need no key
        if name in CREDENTIALS or name.endswith("_base_url"):
            monkeypatch.delenv(name.upper())
    models = policy_dir / "models.toml"
    text = models.read_text("utf-8").replace(CHECKED, "prices_checked = 2020-01-01", 1)
    models.write_text(text, encoding="utf-8")
    code, findings = await _examine()
    assert code == 0
    keys = [advice for check, (_, advice) in findings.items() if check.startswith("key of ")]
    assert len(keys) == len(CREDENTIALS)
    assert all(any(name.upper() in advice for advice in keys) for name in CREDENTIALS)
    (old,) = [name for name in findings if name.startswith("price of ")]
    assert findings[old][0] == "warning"
    assert "2020-01-01" in findings[old][1]


async def test_what_is_stopped_and_a_plan_that_is_gone_are_warnings(
    run: Run, policy_dir: Path
) -> None:
    await run("stop", "model:offline/echo", "--reason", "too many refusals")
    await run("users", "create", "--email", "jane@example.com", "--plan", "few")
    await run("users", "create", "--email", "joe@example.com", "--plan", "many")
    await run("teams", "create", "--name", "Acme", "--plan", "shared")
    plans = policy_dir / "plans.toml"
    lines = plans.read_text("utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(("many ", "shared "))]
    plans.write_text("\n".join(kept), encoding="utf-8")
    code, findings = await _examine()
    assert code == 0
    verdict, advice = findings["model:offline/echo is stopped"]
    assert (verdict, advice.partition(";")[0]) == ("warning", "too many refusals")
    assert advice.endswith("python -m app start model:offline/echo")
    gone = [name for name in findings if name.startswith("plan ")]
    assert gone == ["plan many", "plan shared"]
    assert {findings[name][0] for name in gone} == {"warning"}
    assert findings["plan shared"][1].endswith("python -m app teams set-plan")
    await run("users", "disable", "--email", "joe@example.com")
    assert "plan many" not in (await _examine())[1]


async def test_a_code_owner_that_nobody_entered_is_a_warning(checkout: Path) -> None:
    (checkout / ".github/CODEOWNERS").write_text("* @your-github-name\n", encoding="utf-8")
    code, findings = await _examine()
    assert code == 0
    verdict, advice = findings[".github/CODEOWNERS"]
    assert (verdict, "@your-github-name" in advice) == ("warning", True)


@pytest.mark.parametrize(
    ("author", "line", "is_named"),
    [
        ({"name": 'Acme "\'s"', "email": "maintainers@example.com"}, '2026 Acme "\'s"', True),
        ({"name": 'Acme "\'s"', "email": "maintainers@example.com"}, "2026 Jane Doe", False),
        ({"name": 'Acme "\'s"', "email": "jane@example.com"}, '2026 Acme "\'s"', False),
        ({"name": "Jane Doe", "email": "maintainers@example.com"}, "2026 Jane Doe", False),
    ],
)
async def test_a_licence_of_the_project_itself_is_a_warning(
    checkout: Path, author: dict[str, str], line: str, is_named: bool
) -> None:
    """Not where a company has the service's name: it has an e-mail address, too."""
    (checkout / "LICENSE").write_text(f"   Copyright {line}\n", encoding="utf-8")
    project = {"title": 'Acme "\'s"', "authors": [author]}
    assert [file for file, _ in placeholders(checkout, project)] == ["LICENSE"] * is_named


async def test_an_image_has_no_placeholders(tmp_path: Path) -> None:
    author = {"name": "Acme", "email": "maintainers@example.com"}
    assert not list(placeholders(tmp_path, {"title": "Acme", "authors": [author]}))


@pytest.fixture
def production(monkeypatch: pytest.MonkeyPatch) -> None:
    """What production refuses by itself is not what these tests are about."""
    for name in Settings.model_fields:
        if name.startswith("accept_"):
            monkeypatch.setenv(name.upper(), "true")


@pytest.mark.usefixtures("production")
async def test_production_is_looked_at_more_strictly() -> None:
    _, findings = await _examine("--production")
    assert findings["separate keys"] == findings["replicas"] == ("ok", "")
    assert findings["budget"][0] == "warning"
    assert "monthly_budget_usd" in findings["budget"][1]
    assert "durability" in findings


async def test_production_needs_a_strong_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "weak")
    code, findings = await _examine("--production")
    assert code == 1
    assert findings["environment"][1].startswith("SECRET_KEY is weak")
    assert (await _examine())[0] == 0


@pytest.mark.usefixtures("production")
async def test_keys_that_are_the_same_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_TOKEN", SECRET_KEY)
    code, findings = await _examine("--production")
    assert code == 1
    verdict, advice = findings["separate keys"]
    assert verdict == "problem"
    assert advice.startswith("SECRET_KEY and METRICS_TOKEN are the same")
    assert SECRET_KEY not in advice


@pytest.mark.usefixtures("production")
@pytest.mark.parametrize(
    ("options", "allowed"),
    [((), wiring.MANY_PROCESSES), (("--production",), wiring.MANY_IN_PRODUCTION)],
)
async def test_more_processes_than_count_exactly(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], allowed: bool
) -> None:
    """As the start refuses them."""
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    code, findings = await _examine(*options)
    assert findings["replicas"][0] == ("ok" if allowed else "problem")
    assert code == 1 or allowed


@pytest.mark.usefixtures("production")
async def test_commits_that_could_be_lost_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def weakness(_: Database) -> str:
        return "set it to on"

    monkeypatch.setattr(_database_class(), "weakness", weakness)
    code, findings = await _examine("--production")
    assert code == 1
    assert findings["durability"] == ("problem", "set it to on")
    assert "durability" not in (await _examine())[1]


def _database_class() -> type[Database]:
    (own,) = Database.__subclasses__()
    return own
