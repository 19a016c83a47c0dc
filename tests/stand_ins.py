"""Stand-ins for the programs of GitHub and of the hosts: they keep state and check what they get.

Each is a file in a folder for `PATH` that calls this module with its name; the state is a folder,
which the test reads. A stand-in that gets what the real program would not take fails and says so.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    """Make a release, whose tag appears in the repository, or show the image of one."""
    expect(os.environ.get("GH_TOKEN"), "gh has no token")
    expect(arguments[0] == "release", arguments)
    releases = state.get("releases", {})
    if arguments[1] == "download":
        version, *options = arguments[2:]
        expect(options == ["--pattern", "image.txt", "--output", "-"], options)
        expect(version in releases, f"release not found: {version}")
        sys.stdout.write(releases[version]["image"])
        return
    verb, version, asset, *options = arguments[1:]
    _, commit, *rest = options
    expect(verb == "create" and VERSION.fullmatch(version), arguments)
    expect(version not in releases, f"there is a release {version}")
    expect(options[0] == "--target" and re.fullmatch(r"[0-9a-f]{40}", commit), options)
    expect(rest == ["--title", version, "--notes-file", "-"], rest)
    expect(Path(asset).name == "image.txt", asset)
    release = {"commit": commit, "notes": sys.stdin.read(), "image": Path(asset).read_text()}
    state.put("releases", releases | {version: release})
    subprocess.run(["git", "tag", version, commit], cwd=state.get("repository"), check=True)


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
