"""The workflows that release and deploy, as act really runs them: release, image and deployment.

GitHub's side is played by stand-ins that check what they get: the actions of `tests/actions/`, and
the programs of `tests/stand_ins.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from act import Ran, act
from combinations import HOSTS
from conftest import Render, as_repository, git
from loopback import Deployed, deployed
from stand_ins import HOST_KEY, MACHINE, TOKEN, State, install

SECRETS = {
    "GITHUB_TOKEN": "made-up-token",
    "DEPLOY_CREDENTIAL": TOKEN,
    "SMOKE_CREDENTIAL": "made-up key",
}

every_host = pytest.mark.parametrize("host", HOSTS)
on_railway = pytest.mark.parametrize("host", ["railway"])


@dataclass(frozen=True)
class Scene:
    """A project on GitHub, its host, and the address where it answers."""

    directory: Path
    state: State
    programs: Path
    service: Deployed
    machine: Path
    variables: dict[str, str]

    def commit(self, message: str) -> None:
        """Put an empty commit on main."""
        git(self.directory, "commit", "--allow-empty", "--quiet", "--message", message)

    def run(self, workflow: str, *, secrets: dict[str, str] = SECRETS, **inputs: str) -> Ran:
        """Start a workflow by hand."""
        options = {"secret": secrets, "var": self.variables, "input": inputs}
        options["env"] = {"SMOKE_WAIT_SECONDS": "0"}
        return act(self.directory, "workflow_dispatch", workflow, path=[self.programs], **options)

    def release(self, version: str) -> None:
        """Have a version released, and running."""
        git(self.directory, "tag", version)
        releases = self.state.get("releases", {})
        image = f"ghcr.io/acme-inc/acme-chat@sha256:{len(releases):064x}"
        self.state.put("releases", releases | {version: {"image": f"{image}\n"}})
        message = f"{version} {git(self.directory, 'rev-parse', version).strip()}"
        self.state.put("deployments", [{"id": "d", "status": "SUCCESS", "meta": {"m": message}}])
        self.state.put("container", image)
        (self.machine / "compose.yaml").touch()
        self.state.put("running", version)

    @property
    def released(self) -> list[str]:
        """The releases on GitHub."""
        return list(self.state.get("releases", {}))


@pytest.fixture
def scene(render: Render, tmp_path: Path, host: str) -> Iterator[Scene]:
    """A fresh project with one commit, on GitHub and with a host that runs nothing yet."""
    directory = render(host=host)
    as_repository(directory)
    git(directory, "commit", "--amend", "--quiet", "--message", "feat: first commit")
    git(directory, "remote", "add", "origin", "https://github.com/Acme-Inc/acme-chat.git")
    state = State(tmp_path / "state")
    machine = tmp_path / "machine"
    for folder in (state.folder, machine):
        folder.mkdir()
    (machine / ".env").write_text("SECRET_KEY=made-up\n")
    state.put("repository", str(directory))
    settings = {
        "railway": {"RAILWAY_SERVICE": "acme-chat"},
        "compose": {"DEPLOY_TARGET": f"{MACHINE}{machine}", "DEPLOY_KNOWN_HOSTS": HOST_KEY},
    }
    with deployed() as service:
        service.version = lambda: state.get("running")
        programs = install(tmp_path / "bin", state.folder)
        variables = {"SERVICE_URL": service.url, **settings[host]}
        yield Scene(directory, state, programs, service, machine, variables)


@pytest.fixture
def running(scene: Scene) -> Scene:
    """The same after its first release, with a fix that waits for the next one."""
    scene.release("v0.1.0")
    scene.commit("fix: a leak")
    return scene


@pytest.mark.slow
@every_host
def test_a_release_is_one_click(running: Scene) -> None:
    ran = running.run("release.yml")
    assert ran.code == 0, ran.log
    everything = ("plan", "build and push", "publish", "staging", "production")
    assert ran.jobs == dict.fromkeys(everything, True)
    assert running.released == ["v0.1.0", "v0.1.1"]
    release = running.state.get("releases")["v0.1.1"]
    assert release["commit"] == git(running.directory, "rev-parse", "HEAD").strip()
    assert release["notes"].startswith("### Fixes\n\n- A leak\n\nImage: `ghcr.io/acme-inc/")
    # Once for each environment: act has the same settings for both.
    assert running.state.get("deployed") == ["v0.1.1", "v0.1.1"]
    assert running.state.get("running") == "v0.1.1"
    assert "## production: v0.1.1 runs" in ran.log


@pytest.mark.slow
@on_railway
def test_a_first_release_succeeds_before_anything_is_set_up(scene: Scene) -> None:
    scene.variables.clear()
    ran = scene.run("release.yml", secrets={"GITHUB_TOKEN": "made-up-token"})
    assert ran.code == 0, ran.log
    assert all(ran.jobs.values())
    assert scene.released == ["v0.1.0"]
    assert "::notice::production is not set up, so nothing was deployed" in ran.log


@pytest.mark.slow
@on_railway
def test_a_dry_run_only_says_what_would_be_released(scene: Scene) -> None:
    ran = scene.run("release.yml", dry_run="true")
    assert ran.code == 0, ran.log
    assert ran.jobs == {"plan": True}
    assert "## v0.1.0" in ran.log
    assert scene.released == []


@pytest.mark.slow
@on_railway
def test_nothing_to_release_is_no_failure(running: Scene) -> None:
    git(running.directory, "reset", "--quiet", "--hard", "v0.1.0")
    running.commit("docs: more")
    ran = running.run("release.yml")
    assert ran.code == 0, ran.log
    assert ran.jobs == {"plan": True}
    assert running.released == ["v0.1.0"]


@pytest.mark.slow
@on_railway
def test_only_main_is_released(scene: Scene) -> None:
    git(scene.directory, "checkout", "--quiet", "-b", "aside")
    scene.commit("feat: not on main")
    ran = scene.run("release.yml")
    assert ran.code != 0
    assert ran.jobs == {"plan": False}
    assert "Only main is released" in ran.log


@pytest.mark.slow
@every_host
def test_a_version_that_does_not_work_gets_no_further_than_staging(running: Scene) -> None:
    running.service.broken.add("v0.1.1")
    ran = running.run("release.yml")
    assert ran.code != 0
    assert not ran.jobs["staging"]
    assert "production" not in ran.jobs
    assert "## staging: rolled back to v0.1.0" in ran.log
    assert running.state.get("running") == "v0.1.0"


@pytest.mark.slow
@on_railway
def test_a_rollback_that_fails_says_so_loudly(running: Scene) -> None:
    running.service.broken |= {"v0.1.0", "v0.1.1"}
    ran = running.run("release.yml")
    assert ran.code != 0
    assert "::error::ROLLBACK FAILED, staging IS DOWN OR BROKEN." in ran.log
    assert "## staging: ROLLBACK FAILED" in ran.log


@pytest.mark.slow
@every_host
def test_the_way_back_is_one_click_too(running: Scene) -> None:
    running.release("v0.1.1")
    ran = running.run("deploy.yml", version="v0.1.0", skip_staging="true")
    assert ran.code == 0, ran.log
    assert ran.jobs == {"production": True}
    assert running.state.get("running") == "v0.1.0"
