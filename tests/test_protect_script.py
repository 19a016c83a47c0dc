"""scripts/protect.py of a project: what it makes of GitHub, what it tells, and what that takes."""

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from conftest import Render
from github_server import READER, REPOSITORY, WORKFLOW, Repository
from protection import applied, lines_of, protect, rulesets_of

Rule = dict[str, Any]
Ruleset = dict[str, Any]


@pytest.fixture(scope="module")
def project(render: Render) -> Path:
    """Render a project of a team. Tests only read it."""
    return render(team=True)


@pytest.fixture
def protected(project: Path, github: Repository) -> Repository:
    return applied(project, github)


# From nothing to protected


def test_plan_shows_all_of_it_and_changes_nothing(project: Path, github: Repository) -> None:
    done = protect(project, github)
    assert done.returncode == 0
    assert {"main (branch): not on GitHub", "tags (tag): not on GitHub"} <= {
        *done.stdout.splitlines()
    }
    shown = lines_of(done.stdout)
    for ruleset in rulesets_of(project).values():
        for rule in ruleset["rules"]:
            assert f"+ rules.{rule['type']}: true" in shown
            for name in rule.get("parameters", {}):
                assert any(line.startswith(f"+ rules.{rule['type']}.{name}: ") for line in shown)
    assert all(line.startswith("+ ") for line in shown)
    assert not github.writes


def test_apply_makes_it_so_and_then_there_is_nothing_to_plan(
    project: Path, github: Repository
) -> None:
    done = protect(project, github, "apply")
    assert done.returncode == 0, done.stderr
    assert {each["name"]: each for each in github.rulesets.values()} == rulesets_of(project)

    again = protect(project, github, "plan")
    assert (again.returncode, lines_of(again.stdout)) == (0, [])
    github.requests.clear()
    assert protect(project, github, "apply").returncode == 0
    assert not github.writes
    assert protect(project, github, "check").returncode == 0


def test_rulesets_of_others_are_left_alone(project: Path, protected: Repository) -> None:
    own = deepcopy(protected.named("tags")) | {"name": "own"}
    protected.rulesets[99] = deepcopy(own)
    protected.inherited.append(_of_the_organisation(protected.named("main")))
    assert protect(project, protected, "apply").returncode == 0
    assert protect(project, protected, "check").returncode == 0
    assert protected.rulesets[99] == own
    assert not protected.writes


# Drift


def rule(ruleset: Ruleset, kind: str) -> Rule:
    found: Rule
    (found,) = (each for each in ruleset["rules"] if each["type"] == kind)
    return found


def parameters(kind: str, **changed: Any) -> Callable[[Ruleset], object]:
    return lambda ruleset: rule(ruleset, kind)["parameters"].update(changed)


def without(kind: str) -> Callable[[Ruleset], object]:
    return lambda ruleset: ruleset.update(
        rules=[each for each in ruleset["rules"] if each["type"] != kind]
    )


EVERYBODY = {"actor_id": 5, "actor_type": "RepositoryRole", "bypass_mode": "always"}
OTHER_CHECK = [{"context": "ci", "integration_id": 15368}]
NEVER: dict[str, Any] = {"ref_name": {"include": [], "exclude": []}}

# The ruleset that somebody changes, what is done to it, and the lines that tell of it.
DRIFTS: dict[str, tuple[str, Callable[[Ruleset], object], list[str]]] = {
    "no approval": (
        "main",
        parameters("pull_request", required_approving_review_count=0),
        [
            "- rules.pull_request.required_approving_review_count: 0",
            "+ rules.pull_request.required_approving_review_count: 1",
        ],
    ),
    "any check": (
        "main",
        parameters("required_status_checks", required_status_checks=OTHER_CHECK),
        [
            f"- rules.required_status_checks.required_status_checks: {json.dumps(OTHER_CHECK)}",
            "+ rules.required_status_checks.required_status_checks: "
            '[{"context": "ci-pass", "integration_id": 15368}]',
        ],
    ),
    "rule gone": ("main", without("non_fast_forward"), ["+ rules.non_fast_forward: true"]),
    "rule added": (
        "main",
        lambda ruleset: ruleset["rules"].append({"type": "required_signatures"}),
        ["- rules.required_signatures: true"],
    ),
    "disabled": (
        "main",
        lambda ruleset: ruleset.update(enforcement="disabled"),
        ['- enforcement: "disabled"', '+ enforcement: "active"'],
    ),
    "elsewhere": (
        "main",
        lambda ruleset: ruleset.update(conditions=NEVER),
        [
            "- conditions.ref_name.include: []",
            '+ conditions.ref_name.include: ["~DEFAULT_BRANCH"]',
        ],
    ),
    "bypass": (
        "main",
        lambda ruleset: ruleset.update(bypass_actors=[EVERYBODY]),
        [f"- bypass_actors: {json.dumps([EVERYBODY])}", "+ bypass_actors: []"],
    ),
    "tags move": ("tags", without("update"), ["+ rules.update: true"]),
}


@pytest.mark.parametrize(("name", "change", "lines"), DRIFTS.values(), ids=DRIFTS)
def test_drift_is_told_and_repaired(
    project: Path,
    protected: Repository,
    name: str,
    change: Callable[[Ruleset], object],
    lines: list[str],
) -> None:
    change(protected.named(name))
    checked, planned = (protect(project, protected, command) for command in ("check", "plan"))
    assert (checked.returncode, planned.returncode) == (2, 0)
    assert lines_of(checked.stdout) == lines_of(planned.stdout) == lines
    assert not protected.writes

    assert protect(project, protected, "apply").returncode == 0
    assert len(protected.writes) == 1
    assert protected.named(name) == rulesets_of(project)[name]
    assert protect(project, protected, "check").returncode == 0


def test_a_ruleset_that_is_gone_is_made_anew(project: Path, protected: Repository) -> None:
    protected.rulesets = {
        number: each for number, each in protected.rulesets.items() if each["name"] != "tags"
    }
    assert protect(project, protected, "check").returncode == 2
    assert protect(project, protected, "apply").returncode == 0
    assert [request.partition(" ")[0] for request in protected.writes] == ["POST"]


def test_order_means_nothing(project: Path, github: Repository, tmp_path: Path) -> None:
    """The stand-in turns the order of rules round, and adds parameters of its own."""
    clone = Path(shutil.copytree(project, tmp_path / "clone"))
    tags = rulesets_of(clone)["tags"]
    tags["conditions"]["ref_name"]["include"].append("refs/tags/r*")
    (clone / ".github/rulesets/tags.json").write_text(json.dumps(tags))
    applied(clone, github)
    github.named("tags")["conditions"]["ref_name"]["include"].reverse()
    assert protect(clone, github, "check").returncode == 0


# Without the rights of an administrator


@pytest.mark.parametrize("token", [READER, WORKFLOW, ""])
def test_check_takes_no_rights(project: Path, protected: Repository, token: str) -> None:
    equal = protect(project, protected, "check", token=token)
    assert equal.returncode == 0, equal.stderr
    assert "Only administrators see on GitHub" in equal.stderr
    assert f"GET /repos/{REPOSITORY}/rules/branches/main?per_page=100" in protected.requests

    without("update")(protected.named("tags"))
    parameters("pull_request", dismiss_stale_reviews_on_push=False)(protected.named("main"))
    drift = protect(project, protected, "check", token=token)
    assert drift.returncode == 2
    assert lines_of(drift.stdout) == [
        "- rules.pull_request.dismiss_stale_reviews_on_push: false",
        "+ rules.pull_request.dismiss_stale_reviews_on_push: true",
        "+ rules.update: true",
    ]


def test_check_does_with_what_holds_where_rulesets_are_hidden(
    project: Path, protected: Repository
) -> None:
    protected.hides_rulesets = True
    equal = protect(project, protected, "check", token=WORKFLOW)
    assert equal.returncode == 0, equal.stderr
    assert "only what holds for main is compared" in equal.stderr
    assert "tags (tag): this token may not see it" in equal.stdout

    parameters("pull_request", required_approving_review_count=0)(protected.named("main"))
    without("deletion")(protected.named("main"))
    drift = protect(project, protected, "check", token=WORKFLOW)
    assert drift.returncode == 2
    assert lines_of(drift.stdout) == [
        "+ rules.deletion: true",
        "- rules.pull_request.required_approving_review_count: 0",
        "+ rules.pull_request.required_approving_review_count: 1",
    ]


def test_what_an_organisation_demands_counts_too(project: Path, protected: Repository) -> None:
    """It may be stricter or laxer beside ours; where ours are hidden, it may stand in for them."""
    protected.hides_rulesets = True
    laxer = _of_the_organisation(protected.named("main"))
    parameters("pull_request", required_approving_review_count=0)(laxer)
    protected.inherited = [laxer]
    assert protect(project, protected, "check", token=READER).returncode == 0
    protected.rulesets.clear()
    assert protect(project, protected, "check", token=READER).returncode == 2
    protected.inherited = [_of_the_organisation(rulesets_of(project)["main"])]
    assert protect(project, protected, "check", token=READER).returncode == 0


def test_rulesets_that_do_not_hold_are_drift(
    project: Path, protected: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protected, "_enforced", lambda _: [])
    drift = protect(project, protected, "check")
    assert drift.returncode == 2
    assert "+ rules.required_linear_history: true" in lines_of(drift.stdout)


def test_pages_are_all_read(project: Path, protected: Repository) -> None:
    for number in range(3):
        other = deepcopy(protected.named("tags")) | {"name": f"own {number}"}
        protected.rulesets = {number: other} | protected.rulesets
    protected.page_size = 1
    assert protect(project, protected, "check").returncode == 0
    assert any("page=5" in request for request in protected.requests)
    assert any("rules/branches/main" in x and "page=5" in x for x in protected.requests)


def _of_the_organisation(ruleset: Ruleset) -> Ruleset:
    """Give an organisation the same rules for all of its repositories."""
    owner = {"id": 1, "source_type": "Organization", "source": "acme"}
    return deepcopy(ruleset) | owner
