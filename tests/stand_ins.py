"""Stand-ins for the programs of GitHub and of the hosts: they keep state and check what they get.

Each is a file in a folder for `PATH` that calls this module with its name; the state is a folder,
which the test reads. A stand-in that gets what the real program would not take fails and says so.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

PROGRAMS = ("docker", "gh", "npx", "ssh")
WRAPPER = """#!/bin/sh
STATE={state} exec {python} {module} {program} "$@"
"""
VERSION = re.compile(r"v\d+\.\d+\.\d+")
IMAGE = re.compile(r"ghcr\.io/acme-inc/acme-chat@sha256:[0-9a-f]{64}")
TOKEN = "made-up credential"
CREDENTIALS = {"DEPLOY_CREDENTIAL", "SMOKE_CREDENTIAL", "GH_TOKEN"}
MACHINE = "ssh://deploy@machine.example.com:2222"
HOST_KEY = "[machine.example.com]:2222 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAImadeup"
LABEL = '{{.Config.Image}} {{index .Config.Labels "org.opencontainers.image.version"}}'


class State:
    """What GitHub and the host remember, one JSON file each, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str, default: Any = None) -> Any:
        """Read what was kept under a name."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else default

    def put(self, name: str, value: Any) -> None:
        """Keep something."""
        (self.folder / f"{name}.json").write_text(json.dumps(value))

    def add(self, name: str, value: Any) -> None:
        """Put something at the end of a list."""
        self.put(name, [*self.get(name, []), value])

    @property
    def fault(self) -> dict[str, str]:
        """What shall go wrong: a reason by a program's verb and a version."""
        found: dict[str, str] = self.get("faults", {})
        return found


def install(folder: Path, state: Path) -> Path:
    """Write the stand-ins into a folder for `PATH`, and return it."""
    folder.mkdir()
    for program in PROGRAMS:
        path = folder / program
        path.write_text(
            WRAPPER.format(state=state, python=sys.executable, module=__file__, program=program)
        )
        path.chmod(0o755)
    (folder / "python3").symlink_to(sys.executable)
    return folder


def expect(condition: object, complaint: object) -> None:
    """Fail as a program does that gets what it does not take."""
    if not condition:
        sys.exit(f"stand-in: {complaint}")


def gh(state: State, arguments: list[str]) -> None:
    """Stand in for GitHub's command line, as a workflow has it or as somebody who has logged in."""
    verbs = {
        ("release", "create"): _create_release,
        ("release", "download"): _download,
        ("auth", "token"): _print_token,
        ("repo", "create"): _create_repository,
        ("workflow", "run"): _start_workflow,
    }
    if arguments[0] == "api":
        _call_api(state, arguments[1:])
        return
    expect(tuple(arguments[:2]) in verbs, arguments)
    verbs[arguments[0], arguments[1]](state, arguments[2:])


def _create_release(state: State, arguments: list[str]) -> None:
    """Make a release, whose tag appears in the repository."""
    expect(os.environ.get("GH_TOKEN"), "gh has no token")
    releases = state.get("releases", {})
    version, asset, *options = arguments
    _, commit, *rest = options
    expect(VERSION.fullmatch(version), arguments)
    expect(version not in releases, f"there is a release {version}")
    expect(options[0] == "--target" and re.fullmatch(r"[0-9a-f]{40}", commit), options)
    expect(rest == ["--title", version, "--notes-file", "-"], rest)
    expect(Path(asset).name == "image.txt", asset)
    release = {"commit": commit, "notes": sys.stdin.read(), "image": Path(asset).read_text()}
    state.put("releases", releases | {version: release})
    subprocess.run(["git", "tag", version, commit], cwd=state.get("repository"), check=True)


def _download(state: State, arguments: list[str]) -> None:
    """Show the image of a release."""
    expect(os.environ.get("GH_TOKEN"), "gh has no token")
    releases = state.get("releases", {})
    version, *options = arguments
    expect(options == ["--pattern", "image.txt", "--output", "-"], options)
    expect(version in releases, f"release not found: {version}")
    sys.stdout.write(releases[version]["image"])


def _print_token(state: State, arguments: list[str]) -> None:
    expect(not arguments, arguments)
    print(state.get("token"))


def _create_repository(state: State, arguments: list[str]) -> None:
    """Make an empty repository, and push the branch that is checked out to it."""
    name, *options = arguments
    expect(options == ["--private", "--source", ".", "--push"], options)
    hosted = str(state.folder / "hosted.git")
    branch = _git("symbolic-ref", "--short", "HEAD")
    _git("init", "--bare", "--quiet", f"--initial-branch={branch}", hosted)
    _git("remote", "add", "origin", f"https://github.com/{name}.git")
    _git("push", "--quiet", hosted, branch)
    state.put("repository", hosted)


def _start_workflow(state: State, arguments: list[str]) -> None:
    """Note which workflow of the default branch is to run."""
    (name,) = arguments
    text = _git("-C", state.get("repository"), "show", f"HEAD:.github/workflows/{name}")
    expect("workflow_dispatch:" in text, f"{name} has no workflow_dispatch trigger")
    state.add("started", name)


def _call_api(state: State, arguments: list[str]) -> None:
    """Ask the stand-in for GitHub's API, and print what it answers or a part of that."""
    parser = argparse.ArgumentParser(prog="gh api", allow_abbrev=False)
    parser.add_argument("--method", default="GET")
    parser.add_argument("--field", action="append", default=[])
    parser.add_argument("--jq", default=".")
    parser.add_argument("path")
    given = parser.parse_args(arguments)
    origin = _git("remote", "get-url", "origin").removesuffix(".git").split("/")
    path = given.path.replace("{owner}", origin[-2]).replace("{repo}", origin[-1])
    fields = dict(field.split("=", 1) for field in given.field)
    request = Request(  # noqa: S310 - of the test's own
        f"{os.environ['GITHUB_API_URL']}/{path}",
        json.dumps(fields).encode() if fields else None,
        {"Authorization": f"Bearer {state.get('token')}"},
        method=given.method,
    )
    with urlopen(request, timeout=10) as response:  # noqa: S310 - of the test's own
        answer = json.load(response)
    print(json.dumps(answer[given.jq[1:]] if given.jq != "." else answer))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def npx(state: State, arguments: list[str]) -> None:
    """Stand in for Railway's command line: upload what lies here, list what was deployed."""
    yes, package, *command = arguments
    expect(yes == "--yes" and re.fullmatch(r"@railway/cli@\d+\.\d+\.\d+", package), arguments)
    expect(os.environ.get("RAILWAY_TOKEN") == TOKEN, "Unauthorized")
    expect(not CREDENTIALS & set(os.environ), "a credential that is not Railway's")
    expect(command[-2:] == ["--service", "acme-chat"], command)
    deployments = state.get("deployments", [])
    if command[:-2] == ["deployment", "list", "--json"]:
        print(json.dumps(deployments, indent=2))
        return
    *options, message = command[:-2]
    expect(options == ["up", "--detach", "--json", "--message"], command)
    version, _ = message.split(" ")
    uploaded = {path.name for path in Path().iterdir()}
    expect({"Dockerfile", "railway.json", "version.txt"} <= uploaded, uploaded)
    expect(".git" not in uploaded, "the history was uploaded")
    expect(Path("version.txt").read_text().strip() == version.removeprefix("v"), "other version")
    status = state.fault.get(f"up {version}", "SUCCESS")
    new = {"id": f"d{len(deployments)}", "status": status, "meta": {"message": message}}
    state.put("deployments", [new, *deployments])
    state.add("deployed", version)
    if status == "SUCCESS":
        state.put("running", version)
    print("Indexing...", file=sys.stderr)
    print(json.dumps({"deploymentId": new["id"], "logsUrl": "https://railway.example.com"}))


def ssh(state: State, arguments: list[str]) -> None:
    """Run the command here, if the machine was to prove who it is and the key is kept safe."""
    *options, machine, command = arguments
    expect(machine == MACHINE, machine)
    given = dict(zip(options[::2], options[1::2], strict=True))
    set_ = dict(value.split("=", 1) for flag, value in _pairs(options) if flag == "-o")
    expect(set_["StrictHostKeyChecking"] == "yes" and set_["BatchMode"] == "yes", set_)
    expect(Path(set_["UserKnownHostsFile"]).read_text().strip() == HOST_KEY, "host key unknown")
    key = Path(given["-i"])
    expect(key.stat().st_mode & 0o777 == 0o600, "the key is readable by others")
    expect(key.read_text().strip() == TOKEN, "Permission denied (publickey)")
    expect(not CREDENTIALS & set(os.environ), "a credential that ssh does not need")
    sys.exit(subprocess.run(["sh", "-c", command], check=False).returncode)


def docker(state: State, arguments: list[str]) -> None:
    """Pull a released image, start the one that `.env` names, tell which one that was."""
    images = {release["image"].strip(): version for version, release in _releases(state)}
    if arguments[:2] == ["pull", "--quiet"]:
        (image,) = arguments[2:]
        expect(image in images, f"manifest unknown: {image}")
        expect(f"pull {images[image]}" not in state.fault, "no space left on device")
        state.add("pulled", image)
    elif arguments == ["compose", "ps", "--all", "--quiet", "app"]:
        print(*filter(None, [state.get("container") and "c0ffee"]))
    elif arguments == ["inspect", "--format", LABEL, "c0ffee"]:
        image = state.get("container")
        print(image, images.get(image, ""))
    else:
        expected = ["compose", "up", "--detach", "--wait", "--wait-timeout", "300"]
        expect(arguments == expected, arguments)
        _start(state, images)


def _start(state: State, images: dict[str, str]) -> None:
    (image,) = re.findall(r"^IMAGE=(.*)$", Path(".env").read_text(), re.MULTILINE)
    expect("image: ${IMAGE:-}" in Path("compose.yaml").read_text(), "the image is not used")
    expect(image in state.get("pulled", []), f"{image} would have to be built")
    version = images[image]
    state.put("container", image)
    state.add("deployed", version)
    # An unhealthy container has taken the place of the old one all the same.
    state.put("running", version if f"up {version}" not in state.fault else None)
    expect(f"up {version}" not in state.fault, "container acme-chat-app-1 is unhealthy")


def _releases(state: State) -> list[tuple[str, dict[str, str]]]:
    return list(state.get("releases", {}).items())


def _pairs(options: list[str]) -> list[tuple[str, str]]:
    return list(zip(options[::2], options[1::2], strict=True))


if __name__ == "__main__":
    {"docker": docker, "gh": gh, "npx": npx, "ssh": ssh}[sys.argv[1]](
        State(Path(os.environ["STATE"])), sys.argv[2:]
    )
