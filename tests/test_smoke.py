"""`scripts/smoke.py` of a project: what it asks of a deployed service, and what it finds wrong."""

import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from conftest import BASE_ANSWERS, Render
from environments import environment_with
from loopback import COST, Deployed, deployed
from processes import clean_environment, kept_port
from projects import installed, requirements_of, serving
from servers import supabase_auth
from working_tree import render as render_into

CHAT, RECORD = "/v1/chat/completions", "/v1/predictions/pred_1"
ERROR = {"error": {"message": "Wrong key."}}
FAILURES: dict[str, tuple[str, int, Any, str]] = {
    "not up": ("/livez", 500, {}, "It is not up: /livez answers 500."),
    "not ready": ("/readyz", 503, {}, "It is not ready: /readyz answers 503."),
    "another version": (
        "/openapi.json", 200, {"info": {"version": "1.2.2"}},
        "It says that it is 1.2.2, and should be v1.2.3.",
    ),
    "no version": ("/openapi.json", 200, "<html>", "It says that it is None"),
    "refused": (CHAT, 401, ERROR, "offline/echo answers 401: Wrong key."),
    "not JSON": (CHAT, 502, "<html>", "answers 502: nothing that explains it"),
    "no text": (CHAT, 200, {"choices": [{"message": {"content": ""}}]}, "an empty text"),
    "no choice": (CHAT, 200, {"choices": []}, "an empty text"),
    "too dear": (RECORD, 200, {"cost_nano_usd": 10_000_001}, "0.010000001 USD, over the budget"),
    "no record": (RECORD, 404, {}, "record says 404"),
    "no cost": (RECORD, 200, {}, "not what it cost"),
    "a redirect": ("/readyz", 302, {}, "/readyz answers 302"),
}  # fmt: skip


@pytest.fixture
def service() -> Iterator[Deployed]:
    """A service that works."""
    with deployed() as service:
        yield service


@pytest.fixture(scope="module")
def project(render: Render) -> Path:
    """A project whose scripts are tried."""
    return render()


def smoke(
    project: Path, url: str, *options: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Try what is at an address, without waiting for it."""
    given = {"SMOKE_CREDENTIAL": "made-up credential", "SMOKE_WAIT_SECONDS": "0"} | settings
    return subprocess.run(
        [sys.executable, "-m", "scripts.smoke", url, *options],
        cwd=project,
        env=clean_environment() | given,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_says_what_holds(project: Path, service: Deployed) -> None:
    done = smoke(project, service.url, "--version", "v1.2.3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "It is up.", "It is ready.", "It is v1.2.3.", "offline/echo answers, for 0.000012345 USD.",
    ]  # fmt: skip
    assert COST == 12_345


def test_only_the_api_gets_the_credential(project: Path, service: Deployed) -> None:
    smoke(project, service.url, "--version", "v1.2.3")
    given = {path: credential for path, credential, _ in service.asked}
    key = "Bearer made-up credential"
    public = {"/livez": None, "/readyz": None, "/openapi.json": None}
    assert given == public | {CHAT: key, RECORD: key}


def test_a_user_and_a_password_are_taken_where_the_service_takes_them(
    render: Render, service: Deployed
) -> None:
    credential = "smoke@example.com:made-up"
    smoke(render(auth="basic"), service.url, SMOKE_CREDENTIAL=credential)
    given = {path: header for path, header, _ in service.asked}
    assert given[CHAT] == f"Basic {b64encode(credential.encode()).decode()}"


def test_model_and_budget_can_be_chosen(project: Path, service: Deployed) -> None:
    budget = {"SMOKE_MODEL": "openai/gpt-5-mini", "SMOKE_BUDGET_USD": "0.000012345"}
    assert smoke(project, service.url, **budget).returncode == 0
    assert service.asked[-2][2]["model"] == "openai/gpt-5-mini"
    dearer = smoke(project, service.url, **budget | {"SMOKE_BUDGET_USD": "0.000012344"})
    assert "openai/gpt-5-mini cost 0.000012345 USD, over the budget of" in dearer.stderr


@pytest.mark.parametrize(("path", "status", "body", "said"), FAILURES.values(), ids=FAILURES)
def test_it_says_what_does_not_hold(
    project: Path, service: Deployed, path: str, status: int, body: Any, said: str
) -> None:
    service.answers[path] = (status, body)
    done = smoke(project, service.url, "--version", "v1.2.3")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "/elsewhere" not in [path for path, _, _ in service.asked]


@pytest.mark.parametrize(
    ("url", "settings", "said"),
    [
        ("http://chat.example.com", {}, "is no https:// address"),
        ("chat.example.com", {}, "is no https:// address"),
        ("https://chat.example.com", {"SMOKE_CREDENTIAL": ""}, "SMOKE_CREDENTIAL is not set"),
        ("https://chat.example.com", {"SMOKE_BUDGET_USD": "a cent"}, "is no number of dollars"),
    ],
)
def test_it_refuses_what_cannot_be(
    project: Path, url: str, settings: dict[str, str], said: str
) -> None:
    done = smoke(project, url, **settings)
    assert done.returncode == 1
    assert said in done.stderr


def test_it_says_that_nothing_is_there(project: Path) -> None:
    with kept_port() as port:
        done = smoke(project, f"http://127.0.0.1:{port}")
    assert done.returncode == 1
    assert "/livez cannot be reached" in done.stderr


def test_it_waits_for_the_new_version(project: Path, service: Deployed) -> None:
    """The one before answers for a moment longer."""
    versions = iter([None, "v1.2.2"])
    service.version = lambda: next(versions, "v1.2.3")
    done = smoke(project, service.url, "--version", "v1.2.3", SMOKE_WAIT_SECONDS="60")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("auth", ["api_key", "basic", "jwt", "supabase"])
def test_it_finds_nothing_wrong_with_a_real_service(template: Path, auth: str) -> None:
    with TemporaryDirectory(prefix="smoke-") as scratch, ExitStack() as stack:
        directory = Path(scratch) / "project"
        render_into(template, directory, BASE_ANSWERS | {"auth": auth})
        (directory / "version.txt").write_text("7.8.9\n")
        python = environment_with(requirements_of(directory)) / "bin/python"
        project = stack.enter_context(installed(directory, python))
        if auth == "supabase":
            account = stack.enter_context(supabase_auth(directory, python, project.settings))
            project = replace(project, settings={**project.settings, **account.settings})
        service = stack.enter_context(serving(project, "--migrate"))
        if auth == "supabase":
            given = f"{account.email}:{account.password}"
        else:
            credential = project.create_user("smoke@example.com")
            given = f"smoke@example.com:{credential}" if auth != "api_key" else credential
        url = f"http://127.0.0.1:{service.port}"
        done = smoke(directory, url, "--version", "v7.8.9", SMOKE_CREDENTIAL=given)
    assert done.returncode == 0, done.stderr
    assert "It is v7.8.9." in done.stdout
