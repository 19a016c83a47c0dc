"""Schemathesis calls every operation of a running service, as user, auditor and administrator.

No answer is a 500, has a status or a content type that is not declared, or has a body that does not
match its schema. The examples are the same in every run.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from combinations import AUTHS, SERVICES, Combination
from conftest import Render
from environments import environment_with
from processes import clean_environment, run
from projects import Project, installed, requirements_of, serving
from proofs import DEFAULT
from servers import add_plan, admit
from working_tree import ROOT

pytestmark = pytest.mark.slow(minutes=2)

CLIENTS = ROOT / "tests/clients"
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_schema_conformance", "response_headers_conformance"),
)
ROLES = ("user", "auditor", "admin")
# A stop ends all generation: its route is called last, and for itself.
STOP = "/v1/admin/stop"
EXAMPLES = 10
SECONDS = 600
CHOSEN = dict.fromkeys(AUTHS, ("admin",)) | {"api_key": ROLES}
# What a log-in has a part in: all else is the same, and called with keys.
OF_LOG_INS = "^/(auth|v1/(me|keys|team)|v1/admin/(users|audit))"


def _service(auth: str) -> Combination:
    """The smallest service with this log-in."""
    wanted = (auth, "sqlite", "memory")
    return next(one for one in SERVICES if (one.auth, one.database, one.limiter) == wanted)


@pytest.fixture(scope="module")
def combination(request: pytest.FixtureRequest) -> Combination:
    return _service(request.param)


@pytest.fixture(scope="module")
def project(render: Render, combination: Combination) -> Iterator[Project]:
    """A project with its tables and plans that limit next to nothing."""
    directory = render(**combination.answers)
    python = environment_with(requirements_of(directory)) / "bin/python"
    with installed(directory, python) as project:
        add_plan(project, "tested", 10_000_000)
        project.run("app", "migrate")
        yield project


@pytest.fixture(scope="module")
def url(project: Project) -> Iterator[str]:
    with serving(project) as service:
        yield f"http://127.0.0.1:{service.port}"


@pytest.mark.parametrize(
    ("combination", "role"),
    [
        pytest.param(auth, role, id=f"{auth}-{role}")
        for auth, roles in CHOSEN.items()
        for role in roles
    ],
    indirect=["combination"],
)
def test_every_answer_is_as_it_is_described(
    combination: Combination, project: Project, url: str, role: str, tmp_path: Path
) -> None:
    """In the role, as the owner of a team."""
    email = f"{role}@example.com"
    header = admit(project, email, "tested", role)["Authorization"]
    team = project.run("app", "teams", "create", "--name", "Acme", "--plan", "team").strip()
    project.run("app", "teams", "add", team, "--email", email, "--role", "owner")
    if combination.auth != DEFAULT[2]:
        _call(url, header, tmp_path, f"--include-path-regex={OF_LOG_INS}")
    else:
        _call(url, header, tmp_path, f"--exclude-path={STOP}")
        _call(url, header, tmp_path, f"--include-path={STOP}")


def _call(url: str, header: str, directory: Path, *options: str) -> None:
    """Call the operations with this header. Raises `ProcessError` with what Schemathesis found."""
    pins = (CLIENTS / "schemathesis.txt").read_text(encoding="utf-8").splitlines()
    command: list[str | Path] = [
        *(environment_with(pins) / "bin/st", "run", f"{url}/openapi.json"),
        *("--header", f"Authorization: {header}", "--checks", ",".join(CHECKS)),
        *("--max-examples", str(EXAMPLES), "--seed", "1", "--generation-deterministic"),
        *("--continue-on-failure", "--warnings", "off"),
        *("--request-timeout", "30", "--no-color", *options),
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "schema_hooks", "PYTHONPATH": str(CLIENTS)}
    run(command, directory, clean_environment() | hooks, SECONDS)
