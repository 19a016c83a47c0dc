"""What protects a project's main branch, as files: rulesets, owners, forms, pages."""

import fnmatch
import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Render
from github_schemas import CREATE, UPDATE, complaints
from protection import complaint_of, rulesets_of

ALONE, TEAM = False, True
OWNER = "acme"
TAGS = {"v0.2.0": True, "v1.2.3": True, "v1.2.3-rc.1": True, "1.2.3": False, "latest": False}

each_kind = pytest.mark.parametrize("team", [ALONE, TEAM], ids=["alone", "team"])


@pytest.fixture(scope="module")
def projects(render: Render) -> dict[bool, Path]:
    """Render a project for one person and one for a team. Tests only read them."""
    return {team: render(team=team, github_owner=OWNER) for team in (ALONE, TEAM)}


# Rulesets


@each_kind
def test_rulesets_are_what_github_takes(projects: dict[bool, Path], team: bool) -> None:
    rulesets = rulesets_of(projects[team])
    assert list(rulesets) == ["main", "tags"]
    for ruleset in rulesets.values():
        assert not complaints(CREATE, "requestBody", ruleset)
        assert not complaints(UPDATE, "requestBody", ruleset)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("enforcment",), "active"),
        (("enforcement",), "on"),
        (("conditions", "ref_names"), {"include": []}),
        (("conditions", "ref_name", "includes"), []),
        (("rules", 3, "type"), "pull_requests"),
        (("rules", 3, "parameter"), {}),
        (("rules", 3, "parameters", "required_approvals"), 1),
        (("rules", 3, "parameters", "required_approving_review_count"), "1"),
        (("rules", 3, "parameters", "allowed_merge_methods"), ["fast-forward"]),
        (("rules", 4, "parameters", "required_status_checks", 0, "app_id"), 1),
    ],
    ids=str,
)
def test_a_typo_is_found(
    projects: dict[bool, Path], path: tuple[str | int, ...], value: Any
) -> None:
    ruleset: Any = deepcopy(rulesets_of(projects[TEAM])["main"])
    part = ruleset
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    assert complaints(CREATE, "requestBody", ruleset)


@each_kind
def test_main_takes_reviewed_and_checked_changes_only(
    projects: dict[bool, Path], team: bool
) -> None:
    main = rulesets_of(projects[team])["main"]
    assert (main["target"], main["enforcement"], main["bypass_actors"]) == ("branch", "active", [])
    assert main["conditions"] == {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}}
    rules = {rule["type"]: rule.get("parameters") for rule in main["rules"]}
    assert rules.keys() == {
        *("deletion", "non_fast_forward", "required_linear_history"),
        *("pull_request", "required_status_checks"),
    }
    assert rules["pull_request"] == {
        "allowed_merge_methods": ["squash"],
        "dismiss_stale_reviews_on_push": team,
        "require_code_owner_review": team,
        "require_last_push_approval": team,
        "required_approving_review_count": int(team),
        "required_review_thread_resolution": team,
    }
    assert rules["required_status_checks"]["strict_required_status_checks_policy"] is True


@each_kind
def test_release_tags_stay_where_they_are(projects: dict[bool, Path], team: bool) -> None:
    tags = rulesets_of(projects[team])["tags"]
    assert (tags["target"], tags["enforcement"], tags["bypass_actors"]) == ("tag", "active", [])
    assert {rule["type"] for rule in tags["rules"]} == {"deletion", "non_fast_forward", "update"}
    patterns = tags["conditions"]["ref_name"]["include"]
    for tag, protected in TAGS.items():
        matched = any(fnmatch.fnmatchcase(f"refs/tags/{tag}", pattern) for pattern in patterns)
        assert matched == protected, tag


# Owners, forms, editors


@each_kind
def test_every_file_has_an_owner(projects: dict[bool, Path], team: bool) -> None:
    text = (projects[team] / ".github/CODEOWNERS").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines == [f"* @{OWNER}"]
    assert ("has to approve" in text) == team
    assert "@acme/reviewers" in text


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ("vendor.github-issue-forms", "bug.yml"),
        ("vendor.github-issue-forms", "feature.yml"),
        ("vendor.github-issue-config", "config.yml"),
    ],
)
def test_issue_forms_are_valid(projects: dict[bool, Path], schema: str, name: str) -> None:
    form = projects[ALONE] / ".github/ISSUE_TEMPLATE" / name
    assert complaint_of("check-jsonschema", "--builtin-schema", schema, form) == ""
    assert complaint_of("yamllint", "--strict", form) == ""


def test_fields_of_a_form_have_names_of_their_own(projects: dict[bool, Path]) -> None:
    """GitHub refuses a form with a name twice, which the schema does not see."""
    for path in (projects[ALONE] / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"):
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))["body"]
        asked = [field for field in fields if field["type"] != "markdown"]
        for key in ([x["id"] for x in asked], [x["attributes"]["label"] for x in asked]):
            assert len(set(key)) == len(key)


def test_the_editor_uses_what_the_project_installs(projects: dict[bool, Path]) -> None:
    folder = projects[ALONE] / ".vscode"
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    extensions = json.loads((folder / "extensions.json").read_text(encoding="utf-8"))
    assert settings["python.defaultInterpreterPath"] == "${workspaceFolder}/.venv/bin/python"
    assert settings["[python]"]["editor.defaultFormatter"] in extensions["recommendations"]
    assert settings["[python]"]["editor.rulers"] == [100]


@each_kind
def test_links_and_verbs_of_the_pages_exist(projects: dict[bool, Path], team: bool) -> None:
    project = projects[team]
    verbs = re.findall(r"^([a-z]+):", (project / "Makefile").read_text(encoding="utf-8"), re.M)
    for page in (project / "CONTRIBUTING.md", project / "README.md"):
        text = page.read_text(encoding="utf-8")
        assert not [
            link
            for link in re.findall(r"\]\((?!https?://)([^)#]+)", text)
            if not (page.parent / link).exists()
        ]
        assert {*re.findall(r"(?:^ *|`)make ([a-z]+)", text, re.M)} <= {*verbs}
