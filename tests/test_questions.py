"""Each question: its default, what is derived from it, and what it refuses, with the reason."""

import json
import re
import tomllib
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import yaml
from combinations import (
    AUTHS,
    COMBINATIONS,
    DATABASES,
    HOSTILE,
    HOSTS,
    LICENSES,
    LIMITERS,
    PROVIDERS,
    Combination,
)
from conftest import Render
from environments import distributions
from packaging.utils import canonicalize_name
from working_tree import ROOT, answers_of

QUESTIONS = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))

DEFAULTS = {
    "project_name": "Acme Chat",
    "project_slug": "acme-chat",
    "project_description": "An AI service that stays within its limits.",
    "author_name": "Acme Chat",
    "author_email": "maintainers@example.com",
    "github_owner": "your-github-name",
    "providers": ["openai"],
    "database": "sqlite",
    "limiter": "memory",
    "auth": "api_key",
    "host": "railway",
    "team": False,
    "license": "MIT",
}

SLUGS = {
    "Acme Chat": "acme-chat",
    "Über-Größe & Söhne": "ueber-groesse-soehne",
    "Crème Brûlée à la maçon": "creme-brulee-a-la-macon",
    "42 is the answer": "is-the-answer",
    "Class": "class-service",
    "FastAPI": "fastapi-service",
    "X": "ai-service",
    "日本語": "ai-service",
    "n" * 200: "n" * 40,
}

REFUSED: list[tuple[str, Any, str]] = [
    ("project_name", "", "A name is needed"),
    ("project_name", "   ", "A name is needed"),
    ("project_name", " Acme", "Remove the space before or after"),
    ("project_name", "Acme\nChat", "One line, no control characters"),
    ("project_name", "***", "at least one letter or digit"),
    ("project_name", "n" * 201, "At most 200 characters"),
    ("project_slug", "", "Use a-z, 0-9 and single hyphens"),
    ("project_slug", "Acme", "Use a-z, 0-9 and single hyphens"),
    ("project_slug", "acme chat", "Use a-z, 0-9 and single hyphens"),
    ("project_slug", "9lives", "Use a-z, 0-9 and single hyphens"),
    ("project_slug", "acme--chat", "Use a-z, 0-9 and single hyphens"),
    ("project_slug", "acme-chat\n", "Use a-z, 0-9 and single hyphens"),
    ("project_slug", "a" * 51, "At most 50 characters"),
    ("project_slug", "lambda", "Reserved in Python: add a word"),
    ("project_slug", "none", "Reserved in Python: add a word"),
    ("project_slug", "pydantic_settings", "Reserved in Python: add a word"),
    ("project_slug", "click", "Reserved in Python: add a word"),
    ("project_description", " ", "A sentence is needed"),
    ("project_description", "d" * 501, "At most 500 characters"),
    ("project_description", "bell\x07", "No control characters"),
    ("author_name", "", "A name is needed"),
    ("author_name", "Jane\tDoe", "One line, no control characters"),
    ("author_name", "n" * 201, "At most 200 characters"),
    ("author_email", "", "Use a form like jane@example.com"),
    ("author_email", "jane", "Use a form like jane@example.com"),
    ("author_email", "jane@localhost", "Use a form like jane@example.com"),
    ("author_email", "jane@example.com\n", "Use a form like jane@example.com"),
    ("author_email", "jane@example..com", "Use a form like jane@example.com"),
    ("author_email", "..@example.com", "Use a form like jane@example.com"),
    ("author_email", "jane.@example.com", "Use a form like jane@example.com"),
    ("author_email", "jane@exämple.com", "Use a form like jane@example.com"),
    ("author_email", f"{'j' * 250}@example.com", "At most 254 characters"),
    ("github_owner", "", "Use a GitHub user or organisation"),
    ("github_owner", "@acme", "Use a GitHub user or organisation"),
    ("github_owner", "https://github.com/acme", "Use a GitHub user or organisation"),
    ("github_owner", "acme--inc", "Use a GitHub user or organisation"),
    ("github_owner", "a" * 40, "Use a GitHub user or organisation"),
    ("providers", [], "Choose at least one"),
    ("providers", ["openai", "skynet"], "Invalid choice"),
    ("database", "mysql", "Invalid choice"),
    ("limiter", "file", "Invalid choice"),
    ("auth", "none", "Invalid choice"),
    ("host", "mainframe", "Invalid choice"),
    ("team", "maybe", "'maybe' is not in"),
    ("team", "", "not in"),
    ("team", 2, "2 is not in"),
    ("license", "WTFPL", "Invalid choice"),
]


def test_the_questions_and_their_order() -> None:
    asked = [
        name
        for name, question in QUESTIONS.items()
        if name[0] != "_" and question.get("when", True)
    ]
    assert asked == list(DEFAULTS)


def test_nothing_needs_trust() -> None:
    assert not {"_tasks", "_migrations", "_jinja_extensions"} & QUESTIONS.keys()


@pytest.mark.parametrize(
    ("question", "choices"),
    {
        "database": DATABASES,
        "limiter": LIMITERS,
        "auth": AUTHS,
        "host": HOSTS,
        "providers": PROVIDERS,
        "license": LICENSES,
    }.items(),
)
def test_the_combinations_know_every_choice(question: str, choices: tuple[str, ...]) -> None:
    assert set(QUESTIONS[question]["choices"].values()) == set(choices)


def test_database_and_limiter_meet_each_auth_and_each_host() -> None:
    met = {(row.database, row.limiter, row.auth) for row in COMBINATIONS}
    assert met == set(product(DATABASES, LIMITERS, AUTHS))
    met = {(row.database, row.limiter, row.host) for row in COMBINATIONS}
    assert met == set(product(DATABASES, LIMITERS, HOSTS))


@pytest.mark.parametrize(("one", "other"), list(combinations(vars(COMBINATIONS[0]), 2)))
def test_any_two_values_of_two_questions_meet(one: str, other: str) -> None:
    met = {(getattr(row, one), getattr(row, other)) for row in COMBINATIONS}
    assert met == set(product({first for first, _ in met}, {second for _, second in met}))


def test_both_kinds_of_team_are_rendered() -> None:
    assert {row.team for row in COMBINATIONS} == {False, True}


def test_defaults(render: Render) -> None:
    assert _answers(render()) == DEFAULTS


def test_defaults_from_what_copier_knows_about_the_user(
    render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = {"user_name": "Zoë", "user_email": "zoe@example.org", "github_user": "zoe"}
    _settings(tmp_path, monkeypatch, user)
    expected = {"author_name": "Zoë", "author_email": "zoe@example.org", "github_owner": "zoe"}
    assert _answers(render()) == DEFAULTS | expected


def test_defaults_from_the_user_settings_of_each_question(
    render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {
        "project_slug": "another",
        "project_description": "Another.",
        "author_name": "Jane",
        "author_email": "jane@example.com",
        "github_owner": "acme",
        "providers": ["replicate"],
        "database": "postgres",
        "limiter": "redis",
        "auth": "basic",
        "host": "compose",
        "team": True,
        "license": "proprietary",
    }
    _settings(tmp_path, monkeypatch, chosen)
    assert _answers(render()) == DEFAULTS | chosen


@pytest.mark.parametrize(("name", "slug"), SLUGS.items())
def test_slug_from_name(render: Render, name: str, slug: str) -> None:
    assert _answers(render(project_name=name))["project_slug"] == slug


@pytest.mark.parametrize("owner", ["a", "acme", "Acme-Inc", "a" * 39])
def test_owner_taken(render: Render, owner: str) -> None:
    assert _answers(render(github_owner=owner))["github_owner"] == owner


@pytest.mark.parametrize("email", ["o'brien@example.org", "j.d+x@xn--exmple-cua.com"])
def test_email_taken(render: Render, email: str) -> None:
    assert _answers(render(author_email=email))["author_email"] == email


@pytest.mark.parametrize(("question", "value", "reason"), REFUSED)
def test_refused_with_its_reason(render: Render, question: str, value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        render(**{question: value})


@pytest.mark.parametrize("question", DEFAULTS)
def test_a_terminal_of_80_columns_shows_all_of_a_question(question: str) -> None:
    """Its first line has a sign of three columns before it, and a choice has a mark of three."""
    asked = QUESTIONS[question]
    assert {line for line in asked["help"].splitlines() if len(line) > 77} == set()
    assert {choice for choice in asked.get("choices", {}) if len(choice) > 77} == set()


@pytest.mark.parametrize("question", DEFAULTS)
def test_a_terminal_of_80_columns_shows_all_of_an_error(question: str) -> None:
    """It has one line for an error, and cuts the rest off."""
    messages = re.findall(r"%\}([^{}%]+)\{%-", QUESTIONS[question].get("validator", ""))
    assert bool(messages) == ("validator" in QUESTIONS[question])
    for message in messages:
        shown = f"Validation error for question '{question}': {message.strip()}"
        assert len(shown) <= 80, shown


def test_a_question_that_is_not_asked_is_refused(render: Render) -> None:
    with pytest.raises(ValueError, match="databse"):
        render(databse="postgres")


@pytest.mark.parametrize("answers", HOSTILE.values(), ids=HOSTILE)
def test_hostile_answers_arrive_unharmed(render: Render, answers: dict[str, Any]) -> None:
    project = render(**answers)
    package = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert package["name"] == answers["project_slug"]
    assert package["description"].split() == answers["project_description"].split()
    assert package["authors"][0]["name"] == answers["author_name"]


def test_no_slug_shadows_a_dependency(trees: dict[Combination, Path]) -> None:
    reserved = {
        canonicalize_name(name) for name in yaml.safe_load(QUESTIONS["reserved_slugs"]["default"])
    }
    needed = {line for project in trees.values() for line in _requirements(project)}
    assert distributions(needed) <= reserved


def _answers(project: Path) -> dict[str, Any]:
    return {
        name: answer for name, answer in answers_of(project).items() if not name.startswith("_")
    }


def _settings(directory: Path, monkeypatch: pytest.MonkeyPatch, defaults: dict[str, Any]) -> None:
    path = directory / "settings.yml"
    path.write_text(json.dumps({"defaults": defaults}))
    monkeypatch.setenv("COPIER_SETTINGS_PATH", str(path))


def _requirements(project: Path) -> set[str]:
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    groups = [metadata["project"]["dependencies"], *metadata["dependency-groups"].values()]
    return {line for group in groups for line in group}
