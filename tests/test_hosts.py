"""Each host's files are valid, pin what has to be pinned, and fit the image and the service."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from combinations import DATABASES, LIMITERS
from conftest import Render
from containers import Image, built, require_tools, run, running
from working_tree import ROOT

PAIRS = [(database, limiter) for database in DATABASES for limiter in LIMITERS]
SERVER_PAIRS = [(database, limiter) for database, limiter in PAIRS if database != "sqlite"]
PORT = 8000
# What production cannot start without. The folder that stands for a volume may lie on any disk.
ENVIRONMENT = {
    "SECRET_KEY": "an owner makes this with openssl rand",
    "OPENAI_API_KEY": "sk-not-a-real-key",
    "DATABASE_URL": "sqlite:////data/app.db",
    "ACCEPT_EPHEMERAL_DATABASE": "true",
}


def compose_of(project: Path) -> dict[str, Any]:
    """Read a project's Compose file."""
    document: dict[str, Any] = yaml.safe_load((project / "compose.yaml").read_text())
    return document


def railway_of(project: Path) -> dict[str, Any]:
    """Read how Railway deploys a project."""
    deploy: dict[str, Any] = json.loads((project / "railway.json").read_text())["deploy"]
    return deploy


def lint(tool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a linter that is installed beside this Python."""
    command = [Path(sys.executable).with_name(tool), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def seconds(duration: str) -> int:
    """Read a duration such as `30s`."""
    return int(duration.removesuffix("s"))


def valid_for_railway(file: Path) -> subprocess.CompletedProcess[str]:
    """Check a file against what Railway's documentation says about it."""
    return lint("check-jsonschema", "--schemafile", ROOT / "tests/schemas/railway.json", file)


@pytest.mark.parametrize(("database", "limiter"), PAIRS)
def test_compose_file_is_valid(render: Render, database: str, limiter: str) -> None:
    file = render(host="compose", database=database, limiter=limiter) / "compose.yaml"
    schema = lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)
    assert schema.returncode == 0, schema.stdout
    style = lint("yamllint", "--strict", file)
    assert style.returncode == 0, style.stdout


@pytest.mark.parametrize(("database", "limiter"), PAIRS)
def test_railway_file_is_valid(render: Render, database: str, limiter: str) -> None:
    project = render(host="railway", database=database, limiter=limiter)
    checked = valid_for_railway(project / "railway.json")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    "wrong",
    [{"drainSeconds": 30}, {"drainingSeconds": "30"}, {"healthcheckPath": "readyz"}],
    ids=["unknown key", "number as text", "path without a slash"],
)
def test_schema_refuses(render: Render, tmp_path: Path, wrong: dict[str, Any]) -> None:
    document = json.loads((render(host="railway") / "railway.json").read_text())
    document["deploy"] |= wrong
    (tmp_path / "railway.json").write_text(json.dumps(document))
    assert valid_for_railway(tmp_path / "railway.json").returncode == 1


@pytest.mark.parametrize("database", DATABASES)
def test_dockerfile_is_clean(render: Render, database: str) -> None:
    checked = lint("hadolint", render(database=database) / "Dockerfile")
    assert checked.returncode == 0, checked.stdout


def test_dockerfile_is_the_same_on_every_host(render: Render) -> None:
    on_railway, on_compose = (render(host=host) / "Dockerfile" for host in ("railway", "compose"))
    assert on_railway.read_text() == on_compose.read_text()


@pytest.mark.parametrize(("database", "limiter"), PAIRS)
def test_railway_pins_one_replica(render: Render, database: str, limiter: str) -> None:
    deploy = railway_of(render(host="railway", database=database, limiter=limiter))
    many = database != "sqlite" and limiter != "memory"
    assert deploy.get("numReplicas") == (None if many else 1)
    assert many or deploy["overlapSeconds"] == 0


@pytest.mark.parametrize("limiter", LIMITERS)
def test_railway_never_starts_sqlite_without_its_volume(render: Render, limiter: str) -> None:
    deploy = railway_of(render(host="railway", database="sqlite", limiter=limiter))
    assert deploy["requiredMountPath"] == "/data"
    # A volume is not mounted yet when a pre-deploy command runs.
    assert "preDeployCommand" not in deploy
    assert "--migrate" in deploy["startCommand"]


@pytest.mark.parametrize(("database", "limiter"), SERVER_PAIRS)
def test_railway_migrates_a_server_before_it_deploys(
    render: Render, database: str, limiter: str
) -> None:
    deploy = railway_of(render(host="railway", database=database, limiter=limiter))
    assert deploy["preDeployCommand"] == ["python -m app migrate"]
    assert "startCommand" not in deploy
    assert "requiredMountPath" not in deploy


def test_railway_does_not_wait_for_a_process_that_waits_for_its_predecessor(render: Render) -> None:
    # Without a volume, Railway stops the old process only once the new one is healthy; with the
    # limiter in memory, the new one is healthy only once the old one has stopped.
    for database, limiter in PAIRS:
        deploy = railway_of(render(host="railway", database=database, limiter=limiter))
        waits = (database, limiter) in SERVER_PAIRS and limiter == "memory"
        assert deploy.get("healthcheckPath") == (None if waits else "/readyz")
        assert deploy["restartPolicyType"] == "ON_FAILURE"


@pytest.mark.parametrize(("database", "limiter"), PAIRS)
def test_compose_runs_what_was_chosen(render: Render, database: str, limiter: str) -> None:
    compose = compose_of(render(host="compose", database=database, limiter=limiter))
    chosen = {name for name in (database, limiter) if name in ("postgres", "redis")}
    app = compose["services"]["app"]
    assert set(compose["services"]) == {"app", *chosen}
    assert set(app.get("depends_on", {})) == chosen
    assert set(compose.get("volumes", ())) == chosen | ({"data"} if database == "sqlite" else set())
    many = database != "sqlite" and limiter != "memory"
    assert app.get("deploy") == (None if many else {"replicas": 1})
    assert ("REDIS_URL" in app["environment"]) == (limiter == "redis")


@pytest.mark.parametrize(("database", "limiter"), PAIRS)
def test_compose_publishes_one_port(render: Render, database: str, limiter: str) -> None:
    services = compose_of(render(host="compose", database=database, limiter=limiter))["services"]
    app = services["app"]
    assert app["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert all("ports" not in service for name, service in services.items() if name != "app")
    assert app["environment"]["PORT"] == str(PORT)
    assert f":{PORT}/readyz" in app["healthcheck"]["test"][-1]


@pytest.mark.parametrize(("database", "limiter"), PAIRS)
def test_compose_has_no_default_password(render: Render, database: str, limiter: str) -> None:
    project = render(host="compose", database=database, limiter=limiter)
    substituted = set(re.findall(r"\$\{[^}]*\}", (project / "compose.yaml").read_text()))
    secrets = substituted - {"${IMAGE:-}"}
    assert all(":?" in variable for variable in secrets)
    assert bool(secrets) == (database == "postgres")


def test_compose_builds_unless_an_image_is_named(render: Render) -> None:
    app = compose_of(render(host="compose"))["services"]["app"]
    assert app["image"] == "${IMAGE:-}"
    assert app["build"] == "."


def test_hosts_wait_longer_than_the_service_takes_to_stop(render: Render) -> None:
    project = render(host="compose")
    (own,) = re.findall(
        r"^GRACE_SECONDS = (\d+)$", (project / "gateway/http/server.py").read_text(), re.MULTILINE
    )
    assert int(own) < seconds(compose_of(project)["services"]["app"]["stop_grace_period"])
    assert int(own) < railway_of(render(host="railway"))["drainingSeconds"]


def serves_and_stops(
    image: Image, scratch: Path, command: list[str], *, user: str, owner: int, grace: int
) -> None:
    """Start a command with a volume of `owner`, ask what hosts ask, and stop it as they do."""
    volume = scratch / f"volume-of-{owner}"
    volume.mkdir(mode=0o755)
    os.chown(volume, owner, owner)
    log = scratch / "log"
    with running(image, command, ENVIRONMENT, log=log, user=user, volume=volume) as service:
        assert service.get("/livez") == service.get("/readyz") == 200
        status = service.status()
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"1000"}
        assert status["Groups"] in ("", "1000")
        assert int(status["CapEff"], 16) == 0
        assert service.stop(grace) == 0, log.read_text()
    assert (volume / "app.db").stat().st_uid == 1000


def _with_a_strict_umask(project: Path) -> Path:
    """Make a project look as on the machine of an owner who shares no file."""
    for path in project.rglob("*"):
        path.chmod(path.stat().st_mode & ~0o077)
    return project


SHOW_VERSION = "from app.settings import load; print(load().project['version'])"


@pytest.mark.slow(minutes=1)
def test_image_serves_unprivileged_and_stops_in_time(render: Render, tmp_path: Path) -> None:
    require_tools()
    compose = compose_of(render(host="compose"))["services"]["app"]
    railway = railway_of(render(host="railway"))
    project = _with_a_strict_umask(render())
    # As a release writes it, beside what is committed.
    (project / "version.txt").write_text("7.8.9\n")
    with built(project, tmp_path) as image:
        assert run(image, ["python", "-c", SHOW_VERSION], ENVIRONMENT).stdout == "7.8.9\n"
        serves_and_stops(
            image,
            tmp_path,
            compose["command"],
            user=image.config["User"],
            # A new volume of Docker's takes over the owner of the image's folder.
            owner=(image.root / "data").stat().st_uid,
            grace=seconds(compose["stop_grace_period"]),
        )
        serves_and_stops(
            image,
            tmp_path,
            shlex.split(railway["startCommand"]),
            # A volume of Railway's belongs to root, which RAILWAY_RUN_UID=0 makes of the command.
            user="0:0",
            owner=0,
            grace=railway["drainingSeconds"],
        )


@pytest.mark.product
@pytest.mark.slow(minutes=1)
def test_image_holds_the_drivers_of_servers(render: Render, tmp_path: Path) -> None:
    require_tools()
    nobody_listens = {
        "DATABASE_URL": "postgresql://app:password@127.0.0.1:1/app",
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }
    project = render(database="postgres", limiter="redis", auth="basic")
    with built(project, tmp_path) as image:
        command = ["python", "-m", "app", "doctor", "--json"]
        examined = run(image, command, ENVIRONMENT | nobody_listens)
    assert examined.returncode == 1, examined.stderr
    verdicts = {found["check"]: found["verdict"] for found in json.loads(examined.stdout)}
    assert verdicts["environment"] == verdicts["policy"] == "ok"
    assert verdicts["database"] == verdicts["limiter"] == "problem"
