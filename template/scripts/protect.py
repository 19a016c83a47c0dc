"""Compare the files in .github/rulesets with what GitHub has, and make GitHub follow them.

    python3 scripts/protect.py plan     what would change; nothing does
    python3 scripts/protect.py apply    makes it so; takes the token of an administrator
    python3 scripts/protect.py check    tells drift; any token will do that may read

The token is read from GH_TOKEN or GITHUB_TOKEN, the repository from --repo, GITHUB_REPOSITORY or
git's remote `origin`, the server from GITHUB_API_URL. What a file sets is compared; what GitHub
adds to a rule of its own accord is not. Rulesets that no file names are left alone.

Exit codes: 0, done or equal; 1, it could not be done, and why is said; 2, `check` found drift.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

# A script that is run by its path finds its folder, and not the package that this is.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.github import GitHub, GitHubError, Patience, UnavailableError
from scripts.protection import apply, check, plan
from scripts.rulesets import Comparison, RulesetError, read_files

PROJECT = Path(__file__).resolve().parents[1]
LOOPBACK = ("127.0.0.1", "::1", "localhost")
WAIT_SECONDS = 60

MAKE_IT_SO = "GH_TOKEN=$(gh auth token) python3 scripts/protect.py apply"
NO_REPOSITORY = "Which repository? Add --repo OWNER/NAME, or: git remote add origin URL"
NO_CREDENTIAL = f"Changing rules takes a token: {MAKE_IT_SO}"
BROKEN_CREDENTIAL = "GH_TOKEN or GITHUB_TOKEN holds what no token does, such as a blank: copy it."
BAD_API = "GITHUB_API_URL has to be https://…, as a token is sent there: https://api.github.com"

ENDINGS = {
    "plan": f"Nothing was changed. Make it so: {MAKE_IT_SO}",
    "check": "GitHub has something else than the files. See: python3 scripts/protect.py plan",
}
COMMANDS = {"plan": plan, "apply": apply, "check": check}


class Parser(argparse.ArgumentParser):
    """One that leaves exit code 2 to drift."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.format_usage()}{message}\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="protect.py", description="Protect the main branch and release tags.")
    parser.add_argument("command", nargs="?", choices=COMMANDS, default="plan")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="instead of git's remote")
    parser.add_argument("--json", action="store_true", help="print one JSON value, for programs")
    wait = "the most that is waited for GitHub, in all"
    parser.add_argument("--wait", metavar="SECONDS", type=int, default=WAIT_SECONDS, help=wait)
    return parser.parse_args(arguments)


def repository_name(option: str | None) -> str:
    """Find out which repository is meant."""
    given = option or os.environ.get("GITHUB_REPOSITORY") or remote()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", given, re.ASCII):
        raise GitHubError(NO_REPOSITORY)
    return given


def remote() -> str:
    """Read the repository from git's remote, whose address may have a password in it."""
    command = ("git", "remote", "get-url", "origin")
    try:
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    address = done.stdout.strip().removesuffix("/").removesuffix(".git")
    found = re.search(r"[:/]([^:/]+/[^:/]+)$", address)
    return found[1] if found else ""


def token_of(command: str) -> str:
    token = os.environ.get("GH_TOKEN") or os.environ.get("GITHUB_TOKEN") or ""
    if not re.fullmatch(r"[\w.~+/=-]*", token, re.ASCII):
        raise GitHubError(BROKEN_CREDENTIAL)
    if command == "apply" and not token:
        raise GitHubError(NO_CREDENTIAL)
    return token


def api_url() -> str:
    api = (os.environ.get("GITHUB_API_URL") or "https://api.github.com").rstrip("/")
    address = urlsplit(api)
    if not address.hostname or (address.scheme != "https" and address.hostname not in LOOPBACK):
        raise GitHubError(BAD_API)
    return api


def report(options: argparse.Namespace, repository: str, comparisons: list[Comparison]) -> int:
    """Print the result; return the exit code."""
    drift = any(comparison.differences for comparison in comparisons)
    status = "equal" if not drift else "applied" if options.command == "apply" else "drift"
    lines = [repository, *(line for each in comparisons for line in each.lines())]
    lines += [ENDINGS[options.command]] if status == "drift" else []
    rulesets = [comparison.as_json() for comparison in comparisons]
    result = {"repository": repository, "status": status, "rulesets": rulesets}
    say(options, "\n".join(lines), result)
    return 2 if drift and options.command == "check" else 0


def say(options: argparse.Namespace, text: str, result: dict[str, Any]) -> None:
    """Print a text for a person, and with --json a value for a program."""
    failed = "error" in result
    print(hide(text), file=sys.stderr if options.json or failed else sys.stdout)
    if options.json:
        print(hide(json.dumps(result)))


def hide(text: str) -> str:
    """Take the token out of a text, as a server's answer could contain it."""
    for token in (os.environ.get("GH_TOKEN"), os.environ.get("GITHUB_TOKEN")):
        text = text.replace(token, "***") if token else text
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    options = parse(arguments)
    try:
        repository, token = repository_name(options.repo), token_of(options.command)
        github = GitHub(api_url(), repository, token, Patience(options.wait))
        comparisons = COMMANDS[options.command](github, read_files(PROJECT / ".github/rulesets"))
        return report(options, repository, comparisons)
    except (GitHubError, RulesetError) as error:
        status = "unavailable" if isinstance(error, UnavailableError) else "error"
        say(options, str(error), {"status": status, "error": str(error)})
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
