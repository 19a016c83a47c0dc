"""Deploy a released version to an environment, try it, and go back if it does not work.

    python -m scripts.deploy production v1.2.3

The environment's settings are explained in docs/release.md. Where none is set, nothing is deployed,
and the run says so.

Exit codes: 0, it runs, or nothing is set up; 1, it does not, and the version before it does, or
nothing was changed; 2, it does not, and neither does the version before it: a person has to look.
"""

import os
import sys

from scripts import host, smoke, workflow
from scripts.base import HostError, Release
from scripts.smoke import SmokeError

SECRETS = ("DEPLOY_CREDENTIAL", "SMOKE_CREDENTIAL")
SETTINGS = ("SERVICE_URL", *host.SETTINGS)


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 1
    environment, version = arguments
    missing = [name for name in (*SECRETS, *SETTINGS) if not _is_set(name)]
    if len(missing) == len(SECRETS) + len(SETTINGS):
        workflow.notice(f"{environment} is not set up, so nothing was deployed: docs/release.md.")
        workflow.summary(f"## {environment}: not set up, {version} was not deployed")
        return 0
    if missing:
        return _refuse(environment, version, f"not set: {', '.join(missing)} (docs/release.md)")
    try:
        wanted, before = host.find(version), host.current()
    except HostError as error:
        return _refuse(environment, version, str(error))
    return replace(environment, wanted, before)


def replace(environment: str, wanted: Release, before: Release | None) -> int:
    """Put a release in the place of the one before it, or that one back."""
    print(f"{environment}: {wanted.version} replaces {before.version if before else 'nothing'}.")
    try:
        host.deploy(wanted)
        held = _try(wanted)
    except (HostError, SmokeError) as error:
        workflow.error(f"{environment}: {wanted.version} does not work. {error}")
        return go_back(environment, wanted, before, str(error))
    lines = "\n".join(f"- {line}" for line in held)
    workflow.summary(f"## {environment}: {wanted.version} runs\n\n{lines}")
    return 0


def go_back(environment: str, wanted: Release, before: Release | None, reason: str) -> int:
    """See to it that the release from before runs, and say how that went."""
    failed = f"{wanted.version} does not work: {reason}"
    if before is None or before == wanted:
        return _alarm(environment, failed, "There is no other version to go back to.")
    if _still_runs(before):
        workflow.summary(f"## {environment}: {before.version} still runs\n\n{failed}")
        return 1
    try:
        host.deploy(before)
        _try(before)
    except (HostError, SmokeError) as error:
        return _alarm(environment, failed, f"Going back to {before.version} failed too: {error}")
    workflow.summary(f"## {environment}: rolled back to {before.version}\n\n{failed}")
    return 1


def _try(release: Release) -> list[str]:
    return smoke.check(smoke.settings(workflow.variable("SERVICE_URL"), release.version))


def _still_runs(release: Release) -> bool:
    """Whether what failed never took the place of the release."""
    try:
        return host.current() == release and bool(_try(release))
    except (HostError, SmokeError):
        return False


def _is_set(name: str) -> bool:
    return bool(os.environ.get(name) if name in SECRETS else workflow.variable(name))


def _refuse(environment: str, version: str, reason: str) -> int:
    workflow.error(f"{environment}: {version} was not deployed, and nothing changed: {reason}")
    workflow.summary(f"## {environment}: {version} was not deployed\n\n{reason}")
    return 1


def _alarm(environment: str, failed: str, reason: str) -> int:
    workflow.error(f"ROLLBACK FAILED, {environment} IS DOWN OR BROKEN. {reason}")
    workflow.summary(f"## {environment}: ROLLBACK FAILED\n\n**{reason}**\n\n{failed}")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
