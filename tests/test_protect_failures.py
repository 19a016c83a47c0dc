"""scripts/protect.py of a project when something is wrong: it says what to do, and ends with 1."""

import json
from pathlib import Path

import pytest
from conftest import Render
from github_server import (
    ADMIN,
    READER,
    REPOSITORY,
    UPGRADE,
    WORKFLOW,
    Reply,
    Repository,
    problem,
)
from protection import applied, protect


@pytest.fixture(scope="module")
def project(render: Render) -> Path:
    """Render a project of a team. Tests only read it."""
    return render(team=True)


FAR_AWAY = "https://elsewhere.example/repos/acme/chat/rulesets?page=2"
NOT_GITHUB = "does not answer as GitHub does"
REPLY_TO_BRANCH = Reply(200, {"default_branch": "main"})

# The command, what GitHub answers first, and what is said.
FAILURES: dict[str, tuple[str, list[Reply], str]] = {
    "server broken": ("plan", [problem(500, "Oops")], "out of order (500)"),
    "gateway": ("check", [Reply(502, b"<html>Bad gateway</html>")], "out of order (502)"),
    "broken while writing": (
        "apply",
        [REPLY_TO_BRANCH, Reply(200, []), problem(500, "Oops")],
        "out of order (500)",
    ),
    "limit": ("plan", [Reply(429, {}, {"Retry-After": "90"})], "no more requests for 90 s"),
    "limit until": (
        "plan",
        [Reply(403, {}, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9999999999"})],
        "GitHub takes no more requests for ",
    ),
    "limit for a while": ("plan", [problem(429, "slow")], "no more requests for 60 s"),
    "refused": (
        "apply",
        [REPLY_TO_BRANCH, Reply(200, []), problem(422, "Invalid", errors=["No", {"code": "x"}])],
        'GitHub refuses main.json (422): Invalid; No; {"code": "x"}',
    ),
    "moved": ("plan", [Reply(301, {}, {"Location": FAR_AWAY})], "acme/chat has moved"),
    "teapot": ("plan", [problem(418, "short and stout")], "418: short and stout"),
    "no json": ("plan", [Reply(200, b"<html>Log in to the hotel</html>")], NOT_GITHUB),
    "nothing": ("plan", [Reply(200, b"")], NOT_GITHUB),
    "not utf-8": ("plan", [Reply(200, b"\xff\xfe")], NOT_GITHUB),
    "a list": ("plan", [Reply(200, [])], NOT_GITHUB),
    "no branch": ("plan", [Reply(200, {"default_branch": None})], NOT_GITHUB),
    "rulesets are none": ("plan", [REPLY_TO_BRANCH, Reply(200, {"a": 1})], NOT_GITHUB),
    "rulesets are texts": ("plan", [REPLY_TO_BRANCH, Reply(200, ["main"])], NOT_GITHUB),
    "rules are missing": (
        "plan",
        [REPLY_TO_BRANCH, Reply(200, [{"name": "main", "id": 7}]), Reply(200, {"id": 7})],
        NOT_GITHUB,
    ),
    "rules are texts": (
        "plan",
        [
            REPLY_TO_BRANCH,
            Reply(200, [{"name": "main", "id": 7}]),
            Reply(200, {"id": 7, "rules": ["deletion"]}),
        ],
        NOT_GITHUB,
    ),
    "conditions are texts": (
        "plan",
        [
            REPLY_TO_BRANCH,
            Reply(200, [{"name": "main", "id": 7}]),
            Reply(200, {"id": 7, "rules": [], "conditions": {"ref_name": "main"}}),
        ],
        NOT_GITHUB,
    ),
    "no type": (
        "check",
        [REPLY_TO_BRANCH, problem(403, "no"), Reply(200, [{"rule": "deletion"}])],
        NOT_GITHUB,
    ),
    "next page elsewhere": (
        "plan",
        [REPLY_TO_BRANCH, Reply(200, [], {"Link": f'<{FAR_AWAY}>; rel="next"'})],
        NOT_GITHUB,
    ),
    "other than written": (
        "apply",
        [
            REPLY_TO_BRANCH,
            Reply(200, []),
            Reply(201, {"id": 7, "target": "branch", "enforcement": "active", "rules": []}),
        ],
        "has something else all the same",
    ),
}


@pytest.mark.parametrize(("command", "replies", "said"), FAILURES.values(), ids=FAILURES)
def test_failure_says_what_to_do(
    project: Path, github: Repository, command: str, replies: list[Reply], said: str
) -> None:
    github.faults = [*replies]
    done = protect(project, github, command, "--wait", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert not github.faults
    assert not github.rulesets


def test_pages_without_end_end(project: Path, github: Repository) -> None:
    again = {"Link": f'<{github.url}/repos/{REPOSITORY}/rulesets>; rel="next"'}
    github.faults = [REPLY_TO_BRANCH, *[Reply(200, [], again)] * 100]
    done = protect(project, github, "plan")
    assert done.returncode == 1
    assert NOT_GITHUB in done.stderr


@pytest.mark.parametrize(
    "busy",
    [
        Reply(429, {}, {"Retry-After": "1"}),
        Reply(403, {}, {"Retry-After": "1"}),
        Reply(403, {}, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}),
        problem(503, "busy"),
    ],
    ids=["429", "403 and when", "403 and until when", "503"],
)
def test_waits_for_github(project: Path, github: Repository, busy: Reply) -> None:
    github.faults = [busy]
    done = protect(project, github, "plan")
    assert done.returncode == 0, done.stderr
    assert "trying again in 1 s" in done.stderr
    assert github.requests[0] == github.requests[1]


def test_waits_before_it_writes_again(project: Path, github: Repository) -> None:
    github.faults = [REPLY_TO_BRANCH, Reply(200, []), Reply(429, {}, {"Retry-After": "1"})]
    done = protect(project, github, "apply")
    assert done.returncode == 0, done.stderr
    assert len(github.rulesets) == 2


def test_all_pauses_together_are_bounded(project: Path, github: Repository) -> None:
    github.faults = [Reply(429, {}, {"Retry-After": "1"})] * 9
    done = protect(project, github, "plan", "--wait", "2")
    assert done.returncode == 1
    assert done.stderr.count("trying again in 1 s") == 2


def test_a_write_that_broke_is_not_repeated(project: Path, github: Repository) -> None:
    github.faults = [REPLY_TO_BRANCH, Reply(200, []), problem(500, "Oops")]
    assert protect(project, github, "apply").returncode == 1
    assert len(github.writes) == 1


def test_nobody_there(project: Path, github: Repository) -> None:
    done = protect(project, github, "--wait", "0", GITHUB_API_URL="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "127.0.0.1:9 was not reached: " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "token", "said"),
    [
        (("plan", "--repo", "acme/other"), ADMIN, "There is no acme/other, or this token"),
        (("plan",), "ghp_expired", "does not take this token (401)"),
        (("apply",), READER, "takes an administrator of acme/chat"),
        (("apply",), WORKFLOW, "(403: Resource not accessible by integration)"),
        (("apply",), "", "GH_TOKEN=$(gh auth token)"),
        (("plan",), "two words", "copy it"),
        (("plan",), "two\nlines", "copy it"),
        (("plan",), "ghp_ä", "copy it"),
        (("plan", "--repo", "chat"), ADMIN, "Which repository?"),
        (("plan", "--repo", "acme/chat/../other"), ADMIN, "Which repository?"),
        (("drop",), ADMIN, "invalid choice: 'drop'"),
        (("check", "--fast"), ADMIN, "unrecognized arguments: --fast"),
    ],
)
def test_refusal_says_what_to_do(
    project: Path, github: Repository, arguments: tuple[str, ...], token: str, said: str
) -> None:
    """With exit code 1: 2 is drift, and nothing else."""
    done = protect(project, github, *arguments, token=token)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert not github.rulesets


def test_a_private_repository_needs_a_plan(project: Path, github: Repository) -> None:
    github.is_private, github.has_plan = True, False
    done = protect(project, github, "check", "--json", token=WORKFLOW)
    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "unavailable"
    assert f"only under a paid plan ({UPGRADE})" in done.stderr
    assert protect(project, github, token="").returncode == 1


@pytest.mark.parametrize(
    "api", ["http://api.github.com", "api.github.com", "https://", "file:///x"]
)
def test_a_token_goes_nowhere_in_the_open(project: Path, github: Repository, api: str) -> None:
    done = protect(project, github, GITHUB_API_URL=api)
    assert done.returncode == 1
    assert "GITHUB_API_URL has to be https://" in done.stderr


def test_a_token_that_comes_back_is_not_shown(project: Path, github: Repository) -> None:
    """`protect` asserts that after each run; here it is in all that GitHub says."""
    github.faults = [problem(418, f"You said Bearer {ADMIN}")]
    assert "You said Bearer ***" in protect(project, github, "plan", "--json").stderr
    applied(project, github)
    github.named("main")["enforcement"] = ADMIN
    github.faults = [REPLY_TO_BRANCH, Reply(200, [{"name": "main", "id": 7}])]
    github.faults.append(Reply(200, {"id": 7, "rules": [{"type": ADMIN}]}))
    assert "- rules.***: true" in protect(project, github, "plan").stdout


@pytest.mark.parametrize(("name", "token"), [("GH_TOKEN", "a"), ("GITHUB_TOKEN", "b")])
def test_either_name_of_the_token_will_do(
    project: Path, github: Repository, name: str, token: str
) -> None:
    protect(project, github, token="", **{name: token})
    assert github.credentials == [f"Bearer {token}"]
