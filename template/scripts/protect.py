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
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

PROJECT = Path(__file__).resolve().parents[1]
LOOPBACK = ("127.0.0.1", "::1", "localhost")
ANSWER_SECONDS = 30
WAIT_SECONDS = 60
# How long GitHub wants to be left alone when it does not say.
LIMITED_SECONDS = 60
MOST_PAGES = 50

MAKE_IT_SO = "GH_TOKEN=$(gh auth token) python3 scripts/protect.py apply"
# What GitHub's statuses mean here, and what to do about them.
MOVED = "{repository} has moved: give its new name with --repo, or git remote set-url origin URL"
PROBLEMS = {
    0: "{host} was not reached: {detail}. Check the network and GITHUB_API_URL.",
    301: MOVED,
    307: MOVED,
    308: MOVED,
    401: "GitHub does not take this token (401). Log in anew: gh auth login",
    403: """\
GitHub does not let this token do that ({status}: {detail}). Changing rules takes an administrator \
of {repository}, and of a fine-grained token "Administration: write"; reading them takes access.""",
    404: """\
There is no {repository}, or this token does not see it (404). Check the name, and that GH_TOKEN \
holds the token of somebody with access.""",
    422: "GitHub refuses {what} (422): {detail}",
    429: "GitHub takes no more requests for {pause} s. Try again then, or with --wait {pause}",
    500: "GitHub is out of order ({status}). Try again later: https://www.githubstatus.com",
}
UNEXPECTED = "GitHub answers {what} with {status}: {detail}"
NEEDS_A_PLAN = """\
GitHub protects a private repository only under a paid plan ({detail}). Change the plan of \
{repository}'s owner, or make it public."""
NO_JSON = "{host} does not answer as GitHub does. Check GITHUB_API_URL."
NO_REPOSITORY = "Which repository? Add --repo OWNER/NAME, or: git remote add origin URL"
NO_CREDENTIAL = f"Changing rules takes a token: {MAKE_IT_SO}"
BROKEN_CREDENTIAL = "GH_TOKEN or GITHUB_TOKEN holds what no token does, such as a blank: copy it."
BAD_API = "GITHUB_API_URL has to be https://…, as a token is sent there: https://api.github.com"
KEPT = "GitHub took {name}.json, but has something else all the same:\n{lines}"
BYPASS_HIDDEN = "GitHub tells administrators only who may bypass a ruleset: not compared."
RULESETS_HIDDEN = "This token may not read rulesets: only what holds for {branch} is compared."

ENDINGS = {
    "plan": f"Nothing was changed. Make it so: {MAKE_IT_SO}",
    "check": "GitHub has something else than the files. See: python3 scripts/protect.py plan",
}
STATES = {
    "equal": "as its file says",
    "missing": "not on GitHub",
    "different": "GitHub has something else",
    "applied": "now as its file says",
    "unseen": "this token may not see it",
}

Ruleset = dict[str, Any]
# Each setting by its path, such as "rules.pull_request.required_approving_review_count".
Settings = dict[str, Any]


class ProtectError(Exception):
    """Why it could not be done, and what to do about it."""

    status = "error"


class HiddenError(ProtectError):
    """The token may not do this."""


class UnavailableError(ProtectError):
    """GitHub has no rulesets for this repository."""

    status = "unavailable"


def note(text: str) -> None:
    """Say what goes on, apart from the result."""
    print(text, file=sys.stderr)


# A file, and how GitHub differs from it


@dataclass(frozen=True)
class Difference:
    """A setting in the file and on GitHub; None where there is none."""

    setting: str
    file: Any
    github: Any

    def lines(self) -> Iterator[str]:
        for sign, value in (("-", self.github), ("+", self.file)):
            if value is not None:
                yield f"  {sign} {self.setting}: {json.dumps(value)}"


@dataclass(frozen=True)
class Comparison:
    """A ruleset's file beside GitHub's ruleset of that name, which has an `id`."""

    file: Ruleset
    state: str
    differences: Sequence[Difference] = ()
    id: int | None = None

    def lines(self) -> Iterator[str]:
        yield f"{self.file['name']} ({self.file['target']}): {STATES[self.state]}"
        for difference in self.differences:
            yield from difference.lines()

    def as_json(self) -> dict[str, Any]:
        identity = {key: self.file[key] for key in ("name", "target")}
        return identity | {"state": self.state, "differences": [*map(vars, self.differences)]}


def read_files(folder: Path) -> list[Ruleset]:
    """Read the rulesets; raise ProtectError for one that cannot be compared."""
    files = [read_file(path) for path in sorted(folder.glob("*.json"))]
    if not files:
        raise ProtectError("There is no ruleset in .github/rulesets: restore them from git.")
    return files


def read_file(path: Path) -> Ruleset:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProtectError(f"{path.name} cannot be read: {error}") from error
    named = isinstance(content, dict) and content.get("name") == path.stem
    if not (named and is_ruleset(content) and content.keys() >= {"target", "enforcement"}):
        raise ProtectError(
            f'{path.name} needs "name": "{path.stem}", a target, an enforcement and rules.'
        )
    return dict(content)


def is_ruleset(content: Any) -> bool:
    """Tell whether rules and conditions have the form in which they are compared."""
    if not isinstance(content, dict) or not isinstance(content.get("rules"), list):
        return False
    conditions = content.get("conditions") or {}
    names = conditions.get("ref_name") or {} if isinstance(conditions, dict) else None
    return isinstance(names, dict) and all(map(is_rule, content["rules"]))


def is_rule(content: Any) -> bool:
    parameters = content.get("parameters") or {} if isinstance(content, dict) else None
    return isinstance(parameters, dict) and isinstance(content.get("type"), str)


def settings_of(ruleset: Ruleset) -> Settings:
    """Name each setting by its path; the order of a list means nothing."""
    plain = ("target", "enforcement", "bypass_actors")
    settings = {name: in_order(ruleset[name]) for name in plain if name in ruleset}
    names = (ruleset.get("conditions") or {}).get("ref_name") or {}
    settings |= {f"conditions.ref_name.{key}": in_order(value) for key, value in names.items()}
    for rule in ruleset["rules"]:
        settings |= settings_of_rule(rule)
    return settings


def settings_of_rule(rule: Mapping[str, Any]) -> Settings:
    name = f"rules.{rule['type']}"
    parameters = (rule.get("parameters") or {}).items()
    return {name: True} | {f"{name}.{key}": in_order(value) for key, value in parameters}


def in_order(value: Any) -> Any:
    return sorted(value, key=json.dumps) if isinstance(value, list) else value


def differences(file: Settings, github: Settings) -> list[Difference]:
    """Compare each setting of the file, and which rules there are."""
    extra = [name for name in github if re.fullmatch(r"rules\.\w+", name) and name not in file]
    return [
        Difference(name, file.get(name), github.get(name))
        for name in [*file, *extra]
        if file.get(name) != github.get(name)
    ]


def compare(file: Ruleset, found: Ruleset | None) -> Comparison:
    wanted = settings_of(file)
    if found is None:
        return Comparison(file, "missing", differences(wanted, {}))
    if "bypass_actors" not in found and "bypass_actors" in wanted:
        del wanted["bypass_actors"]
        note(BYPASS_HIDDEN)
    others = differences(wanted, settings_of(found))
    return Comparison(file, "different" if others else "equal", others, found["id"])


def compare_enforced(file: Ruleset, enforced: Sequence[Settings]) -> Comparison:
    """Compare the file's rules with those that hold for a branch, whichever ruleset they are of."""
    rules = [settings_of_rule(rule) for rule in file["rules"]]
    others = [difference for rule in rules for difference in closest(rule, enforced)]
    return Comparison(file, "different" if others else "equal", others)


def closest(rule: Settings, enforced: Sequence[Settings]) -> list[Difference]:
    """Compare a rule with the one of its kind that differs least."""
    same_kind = [differences(rule, other) for other in enforced if next(iter(rule)) in other]
    return min(same_kind, key=len, default=differences(rule, {}))


# GitHub


@dataclass(frozen=True)
class Answer:
    """What came back; with status 0 it is the reason why nothing did."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        """Return the content, or None if it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def detail(self) -> str:
        """What GitHub says about an error, in one line."""
        content = self.json()
        if not isinstance(content, dict):
            return " ".join(self.body[:200].decode(errors="replace").split())
        errors = content.get("errors")
        told = [content.get("message", ""), *(errors if isinstance(errors, list) else [])]
        return "; ".join(part if isinstance(part, str) else json.dumps(part) for part in told)

    @property
    def is_limit(self) -> bool:
        told = "Retry-After" in self.headers or self.headers.get("X-RateLimit-Remaining") == "0"
        return self.status == 429 or (self.status == 403 and told)

    @property
    def pause(self) -> int:
        """The seconds after which GitHub takes requests again."""
        after, reset = (self.headers.get(name, "") for name in ("Retry-After", "X-RateLimit-Reset"))
        if after.isdecimal():
            return max(1, int(after))
        return max(1, int(reset) - int(time.time())) if reset.isdecimal() else LIMITED_SECONDS


class Patience:
    """How long to wait for GitHub, all pauses together."""

    def __init__(self, seconds: int) -> None:
        self._left = seconds
        self._growing = 1

    def wait(self, seconds: int | None = None) -> bool:
        """Wait so long, or a while that grows; tell whether that was within bounds."""
        pause = seconds or self._growing
        if pause > self._left:
            return False
        self._left -= pause
        self._growing *= 2
        note(f"GitHub is busy: trying again in {pause} s.")
        time.sleep(pause)
        return True


class NoRedirect(HTTPRedirectHandler):
    """Follow no redirect: the token would go along to wherever it leads."""

    def redirect_request(self, *_: Any) -> None:
        return None


class GitHub:
    """One repository in GitHub's REST API."""

    def __init__(self, api: str, repository: str, token: str, patience: Patience) -> None:
        self.repository = repository
        self._api = api
        self._patience = patience
        self._open = build_opener(NoRedirect).open
        self._headers = {
            "Accept": "application/vnd.github+json",
            "Content-Type": "application/json",
            "User-Agent": "protect.py",
            "X-GitHub-Api-Version": "2022-11-28",
        } | ({"Authorization": f"Bearer {token}"} if token else {})

    def branch(self) -> str:
        """Name the default branch: whoever may not see the repository learns it here."""
        content = self._content(self._ask("GET", self._url("")))
        if not isinstance(content, dict) or not isinstance(content.get("default_branch"), str):
            raise self._no_github()
        return str(content["default_branch"])

    def rulesets(self, names: Collection[str]) -> dict[str, Ruleset]:
        """Read the repository's own rulesets of these names."""
        listed = self._pages(self._url("/rulesets?per_page=100"))
        own = [each for each in listed if each.get("source_type", "Repository") == "Repository"]
        ids = {each.get("name"): each.get("id") for each in own}
        paths = {name: f"/rulesets/{ids[name]}" for name in names if name in ids}
        return {name: self._ruleset("GET", path) for name, path in paths.items()}

    def enforced(self, branch: str) -> list[Settings]:
        """Read the rules that hold for a branch: all who may read the repository may do so."""
        rules = self._pages(self._url(f"/rules/branches/{quote(branch, safe='')}?per_page=100"))
        if not all(map(is_rule, rules)):
            raise self._no_github()
        return [*map(settings_of_rule, rules)]

    def write(self, file: Ruleset, number: int | None) -> Ruleset:
        """Create a ruleset, or replace the one of that number; return what GitHub made of it."""
        if number is None:
            return self._ruleset("POST", "/rulesets", file)
        return self._ruleset("PUT", f"/rulesets/{number}", file)

    def _ruleset(self, method: str, path: str, file: Ruleset | None = None) -> Ruleset:
        content = self._content(self._ask(method, self._url(path), file))
        if not is_ruleset(content) or not isinstance(content.get("id"), int):
            raise self._no_github()
        return dict(content)

    def _pages(self, url: str) -> list[dict[str, Any]]:
        """Read a list to its end."""
        items: list[dict[str, Any]] = []
        for _ in range(MOST_PAGES):
            answer = self._ask("GET", url)
            items += self._objects(answer)
            following = re.search(r'<([^>]+)>; *rel="next"', answer.headers.get("Link", ""))
            if not following:
                return items
            url = following[1]
        raise self._no_github()

    def _objects(self, answer: Answer) -> list[dict[str, Any]]:
        content = self._content(answer)
        if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
            raise self._no_github()
        return content

    def _content(self, answer: Answer) -> Any:
        content = answer.json()
        if content is None:
            raise self._no_github()
        return content

    def _ask(self, method: str, url: str, file: Ruleset | None = None) -> Answer:
        """Send a request, again after a pause where that may help; raise ProtectError if not."""
        if not url.startswith(f"{self._api}/"):
            raise self._no_github()
        answer = self._send(method, url, file)
        while self._is_worth_another(method, answer):
            answer = self._send(method, url, file)
        if not 200 <= answer.status < 300:
            raise self._problem(answer, f"{method} {urlsplit(url).path}", file)
        return answer

    def _is_worth_another(self, method: str, answer: Answer) -> bool:
        """Wait, if that may help; a write that broke may have been done, and is not repeated."""
        if answer.is_limit:
            return self._patience.wait(answer.pause)
        broken = answer.status == 0 or answer.status >= 500
        return method == "GET" and broken and self._patience.wait()

    def _send(self, method: str, url: str, file: Ruleset | None) -> Answer:
        body = None if file is None else json.dumps(file).encode()
        request = Request(url, body, self._headers, method=method)  # noqa: S310 - https, see `api_url`
        try:
            try:
                response = self._open(request, timeout=ANSWER_SECONDS)
            except HTTPError as error:
                response = error  # an answer too
            with response:
                return Answer(response.status, response.headers, response.read())
        except (OSError, HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            return Answer(0, Message(), reason.encode())

    def _problem(self, answer: Answer, what: str, file: Ruleset | None) -> ProtectError:
        """Word what an answer means for whoever runs this."""
        told = {
            "detail": answer.detail,
            "host": urlsplit(self._api).netloc,
            "pause": answer.pause,
            "repository": self.repository,
            "status": answer.status,
            "what": f"{file['name']}.json" if file else what,
        }
        if answer.status == 403 and answer.detail.startswith("Upgrade to "):
            return UnavailableError(NEEDS_A_PLAN.format(**told))
        status = 429 if answer.is_limit else min(answer.status, 500)
        # Those who may read and not write are told that nothing is there.
        status = 403 if status == 404 and file else status
        kind = HiddenError if status in (403, 404) else ProtectError
        return kind(PROBLEMS.get(status, UNEXPECTED).format(**told))

    def _url(self, path: str) -> str:
        return f"{self._api}/repos/{self.repository}{path}"

    def _no_github(self) -> ProtectError:
        return ProtectError(NO_JSON.format(host=urlsplit(self._api).netloc))


# The commands


def plan(github: GitHub, files: Sequence[Ruleset]) -> list[Comparison]:
    """Compare each file with GitHub's ruleset of that name."""
    github.branch()  # a repository that is not there is named as such
    return compare_all(github, files)


def compare_all(github: GitHub, files: Sequence[Ruleset]) -> list[Comparison]:
    found = github.rulesets([file["name"] for file in files])
    return [compare(file, found.get(file["name"])) for file in files]


def apply(github: GitHub, files: Sequence[Ruleset]) -> list[Comparison]:
    """Write what differs, and return what differed."""
    return [
        each if each.state == "equal" else make_so(github, each) for each in plan(github, files)
    ]


def make_so(github: GitHub, comparison: Comparison) -> Comparison:
    """Write a ruleset; raise ProtectError if GitHub made something else of it."""
    left = compare(comparison.file, github.write(comparison.file, comparison.id))
    if left.differences:
        lines = "\n".join(left.lines())
        raise ProtectError(KEPT.format(name=comparison.file["name"], lines=lines))
    return replace(comparison, state="applied")


def check(github: GitHub, files: Sequence[Ruleset]) -> list[Comparison]:
    """Compare the rulesets, and if they are as in the files, what holds for the branch."""
    branch = github.branch()
    try:
        comparisons = compare_all(github, files)
    except HiddenError:
        note(RULESETS_HIDDEN.format(branch=branch))
        comparisons = [Comparison(file, "unseen") for file in files]
    if any(comparison.differences for comparison in comparisons):
        return comparisons
    enforced = github.enforced(branch)
    return [
        compare_enforced(each.file, enforced) if each.file["target"] == "branch" else each
        for each in comparisons
    ]


COMMANDS = {"plan": plan, "apply": apply, "check": check}


# The command line


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
        raise ProtectError(NO_REPOSITORY)
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
        raise ProtectError(BROKEN_CREDENTIAL)
    if command == "apply" and not token:
        raise ProtectError(NO_CREDENTIAL)
    return token


def api_url() -> str:
    api = (os.environ.get("GITHUB_API_URL") or "https://api.github.com").rstrip("/")
    address = urlsplit(api)
    if not address.hostname or (address.scheme != "https" and address.hostname not in LOOPBACK):
        raise ProtectError(BAD_API)
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
    except ProtectError as error:
        say(options, str(error), {"status": error.status, "error": str(error)})
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
