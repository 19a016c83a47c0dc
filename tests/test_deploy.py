"""`scripts/deploy.py` of a project on each host: what runs after it, and what it says.

The hosts' programs are stand-ins that check what they get; the service is a server on this machine.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from combinations import HOSTS
from conftest import Render, as_repository, git
from loopback import Deployed, deployed
from stand_ins import HOST_KEY, MACHINE, TOKEN, State, install

pytestmark = pytest.mark.slow

every_host = pytest.mark.parametrize("host", HOSTS)
SETTINGS = {
    "railway": {"RAILWAY_SERVICE": "acme-chat"},
    "compose": {"DEPLOY_KNOWN_HOSTS": HOST_KEY},
}


@dataclass(frozen=True)
class Scene:
    """A project with releases, a host that runs one of them, and the address where it answers."""

    directory: Path
    state: State
    programs: Path
    service: Deployed
    variables: dict[str, str]

    def release(self, *versions: str) -> None:
        """Tag a commit each, as a release with an image."""
        releases = self.state.get("releases", {})
        for number, version in enumerate(versions, len(releases)):
            git(self.directory, "commit", "--allow-empty", "--quiet", "--message", version)
            git(self.directory, "tag", version)
            image = f"ghcr.io/acme-inc/acme-chat@sha256:{number:064x}\n"
            releases[version] = {"image": image}
        self.state.put("releases", releases)

    def fail(self, *faults: str) -> None:
        """Have these go wrong: `up v1.2.3` or `pull v1.2.3`."""
        self.state.put("faults", dict.fromkeys(faults, "FAILED"))

    def deploy(self, version: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Deploy to production as the workflow does."""
        summary = self.state.folder / "SUMMARY"
        summary.unlink(missing_ok=True)
        given = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "GITHUB_ACTIONS": "true",
            "GITHUB_STEP_SUMMARY": str(summary),
            "GH_TOKEN": "made-up",
            "VARIABLES": json.dumps(self.variables),
            "DEPLOY_CREDENTIAL": TOKEN,
            "SMOKE_CREDENTIAL": "made-up key",
            "SMOKE_WAIT_SECONDS": "0",
        }
        return subprocess.run(
            [sys.executable, "-m", "scripts.deploy", "production", version],
            cwd=self.directory,
            env=os.environ | given | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def summary(self) -> str:
        """What the last run shows on its page."""
        return (self.state.folder / "SUMMARY").read_text()

    @property
    def running(self) -> Any:
        """The version that runs."""
        return self.state.get("running")


@pytest.fixture
def scene(render: Render, tmp_path: Path, host: str) -> Iterator[Scene]:
    """Two releases, and an environment that is set up and runs nothing."""
    state = State(tmp_path / "state")
    machine = tmp_path / "machine"
    for folder in (state.folder, machine):
        folder.mkdir()
    (machine / ".env").write_text("SECRET_KEY=made-up\n")
    with deployed() as service:
        service.version = lambda: state.get("running")
        target = {"DEPLOY_TARGET": f"{MACHINE}{machine}"} if host == "compose" else {}
        scene = Scene(
            as_repository(render(host=host)),
            state,
            install(tmp_path / "bin", state.folder),
            service,
            {"SERVICE_URL": service.url, **SETTINGS[host], **target},
        )
        scene.release("v1.0.0", "v1.1.0")
        yield scene


@pytest.fixture
def running(scene: Scene) -> Scene:
    """The same with the first of them running."""
    done = scene.deploy("v1.0.0")
    assert done.returncode == 0, done.stdout + done.stderr
    return scene


@every_host
def test_a_release_is_deployed(running: Scene) -> None:
    done = running.deploy("v1.1.0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "production: v1.1.0 replaces v1.0.0." in done.stdout
    assert running.state.get("deployed") == ["v1.0.0", "v1.1.0"]
    assert running.running == "v1.1.0"
    assert running.summary.startswith("## production: v1.1.0 runs\n")
    assert "- It is v1.1.0." in running.summary


@every_host
def test_an_older_version_is_the_way_back(running: Scene) -> None:
    for version in ("v1.1.0", "v1.0.0"):
        assert running.deploy(version).returncode == 0
    assert running.running == "v1.0.0"


@every_host
def test_one_that_fails_the_smoke_test_is_rolled_back(running: Scene) -> None:
    running.service.broken.add("v1.1.0")
    done = running.deploy("v1.1.0")
    assert done.returncode == 1
    assert running.state.get("deployed") == ["v1.0.0", "v1.1.0", "v1.0.0"]
    assert running.running == "v1.0.0"
    assert "::error::production: v1.1.0 does not work. offline/echo answers 502" in done.stdout
    assert running.summary.startswith("## production: rolled back to v1.0.0\n")


@every_host
def test_after_one_that_does_not_start_the_one_before_runs(running: Scene, host: str) -> None:
    """Railway keeps the old one until the new one runs; a container makes room first."""
    running.fail("up v1.1.0")
    done = running.deploy("v1.1.0")
    assert done.returncode == 1
    assert running.running == "v1.0.0"
    kept = "v1.0.0 still runs" if host == "railway" else "rolled back to v1.0.0"
    assert running.summary.startswith(f"## production: {kept}\n")
    again = [] if host == "railway" else ["v1.0.0"]
    assert running.state.get("deployed") == ["v1.0.0", "v1.1.0", *again]


@every_host
def test_a_rollback_that_does_not_start_says_so_loudly(running: Scene) -> None:
    running.service.broken.add("v1.1.0")
    running.fail("up v1.0.0")
    done = running.deploy("v1.1.0")
    assert done.returncode == 2
    assert "::error::ROLLBACK FAILED, production IS DOWN OR BROKEN. Going back to" in done.stdout
    assert running.summary.startswith("## production: ROLLBACK FAILED\n")
    assert "v1.1.0 does not work: offline/echo answers 502" in running.summary


@every_host
def test_a_rollback_that_does_not_work_says_so_loudly(running: Scene) -> None:
    """What is wrong may be the database or the provider, and not the version."""
    running.service.broken |= {"v1.0.0", "v1.1.0"}
    done = running.deploy("v1.1.0")
    assert done.returncode == 2
    assert running.running == "v1.0.0"
    assert "Going back to v1.0.0 failed too: offline/echo answers 502" in running.summary


@every_host
def test_a_first_version_that_does_not_work_has_nothing_to_go_back_to(scene: Scene) -> None:
    scene.service.broken.add("v1.0.0")
    done = scene.deploy("v1.0.0")
    assert done.returncode == 2
    assert "There is no other version to go back to." in scene.summary


@every_host
def test_a_version_that_was_made_by_hand_is_not_taken_for_a_release(scene: Scene) -> None:
    by_hand = {"id": "d0", "status": "SUCCESS", "meta": {"message": "fix it quickly"}}
    scene.state.put("deployments", [by_hand])
    scene.state.put("container", "acme-chat-app")
    assert "v1.0.0 replaces nothing." in scene.deploy("v1.0.0").stdout


@every_host
def test_what_was_not_released_is_not_deployed(running: Scene) -> None:
    for version, reason in (("v9.9.9", "There is no release v9.9.9."), ("main", "is no version")):
        done = running.deploy(version)
        assert done.returncode == 1
        assert reason in done.stdout
        assert "nothing changed" in done.stdout
    assert running.state.get("deployed") == ["v1.0.0"]


@every_host
def test_an_environment_that_is_not_set_up_is_left_out(scene: Scene) -> None:
    scene.variables.clear()
    done = scene.deploy("v1.0.0", DEPLOY_CREDENTIAL="", SMOKE_CREDENTIAL="")
    assert done.returncode == 0
    assert "::notice::production is not set up, so nothing was deployed" in done.stdout
    assert scene.running is None


@every_host
def test_each_setting_that_is_missing_is_named(scene: Scene) -> None:
    names = list(scene.variables)
    for name in names:
        value = scene.variables.pop(name)
        done = scene.deploy("v1.0.0")
        assert done.returncode == 1
        assert f"not set: {name} (docs/release.md)" in done.stdout
        scene.variables[name] = value
    assert "not set: SMOKE_CREDENTIAL" in scene.deploy("v1.0.0", SMOKE_CREDENTIAL="").stdout
    assert scene.running is None


@every_host
def test_a_credential_that_is_refused_changes_nothing(running: Scene) -> None:
    done = running.deploy("v1.1.0", DEPLOY_CREDENTIAL="another")
    assert done.returncode == 1
    assert "was not deployed, and nothing changed" in done.stdout
    assert running.running == "v1.0.0"


@every_host
def test_no_credential_is_shown(running: Scene) -> None:
    running.service.broken.add("v1.1.0")
    done = running.deploy("v1.1.0")
    for credential in (TOKEN, "made-up key"):
        assert credential not in done.stdout + done.stderr + running.summary


@pytest.mark.parametrize("host", ["railway"])
def test_railway_is_asked_until_it_knows(running: Scene) -> None:
    """It answers before it has built anything."""
    script = """
import scripts.railway as host, itertools
host.POLL_SECONDS = 0
said = iter([[], *({"id": "d9", "status": status} for status in STATUSES)])
host._deployments = lambda: [answer] if (answer := next(said)) else []
host._wait_for("d9")
print(len(list(said)))
"""

    def ask(*statuses: str) -> subprocess.CompletedProcess[str]:
        code = script.replace("STATUSES", repr(statuses))
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=running.directory,
            capture_output=True,
            text=True,
            check=False,
        )

    assert ask("QUEUED", "BUILDING", "DEPLOYING", "SUCCESS", "more").stdout == "1\n"
    for status in ("FAILED", "CRASHED", "REMOVED", "SKIPPED"):
        assert f"Railway says {status} about deployment d9" in ask("BUILDING", status).stderr


@pytest.mark.parametrize("host", ["compose"])
def test_the_machine_keeps_its_settings(running: Scene) -> None:
    machine = Path(running.variables["DEPLOY_TARGET"].removeprefix(MACHINE))
    (machine / ".env").write_text("SECRET_KEY=made-up\nIMAGE=old\nPOSTGRES_PASSWORD=x")
    assert running.deploy("v1.1.0").returncode == 0
    image = running.state.get("releases")["v1.1.0"]["image"]
    expected = f"SECRET_KEY=made-up\nPOSTGRES_PASSWORD=x\nIMAGE={image}"
    assert (machine / ".env").read_text() == expected
    assert (machine / ".env").stat().st_mode & 0o777 == 0o600
    compose = (running.directory / "compose.yaml").read_text()
    assert (machine / "compose.yaml").read_text() == compose
    assert sorted(path.name for path in machine.iterdir()) == [".env", "compose.yaml"]


@pytest.mark.parametrize("host", ["compose"])
def test_an_image_that_cannot_be_pulled_changes_nothing(running: Scene) -> None:
    machine = Path(running.variables["DEPLOY_TARGET"].removeprefix(MACHINE))
    before = {path.name: path.read_text() for path in machine.iterdir()}
    running.fail("pull v1.1.0")
    done = running.deploy("v1.1.0")
    assert done.returncode == 1
    assert "no space left on device" in done.stdout
    assert running.summary.startswith("## production: v1.0.0 still runs\n")
    assert {path.name: path.read_text() for path in machine.iterdir()} == before
    assert running.state.get("deployed") == ["v1.0.0"]


@pytest.mark.parametrize("host", ["compose"])
@pytest.mark.parametrize(
    "target", ["deploy@machine.example.com", "ssh://deploy@machine.example.com", "https://x/y"]
)
def test_where_the_machine_is_has_to_be_said_in_full(scene: Scene, target: str) -> None:
    scene.variables["DEPLOY_TARGET"] = target
    done = scene.deploy("v1.0.0")
    assert done.returncode == 1
    assert "DEPLOY_TARGET has to look like ssh://user@machine/folder." in done.stdout
