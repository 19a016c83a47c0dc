"""A stand-in for GitHub on this machine: one repository, its rulesets, and its ways to say no."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from github_schemas import CREATE, ENFORCED, LIST, UPDATE, complaints
from loopback import http_server

REPOSITORY = "acme/chat"
# Who may administer the repository, who may read it, a workflow of it, and somebody else.
ADMIN, READER, WORKFLOW, STRANGER = (
    f"ghp_{who}0123456789" for who in ("admin", "reader", "workflow", "stranger")
)
REFUSED_TO_WRITE = {
    READER: (404, "Not Found"),
    WORKFLOW: (403, "Resource not accessible by integration"),
}
UPGRADE = "Upgrade to GitHub Pro or make this repository public to enable this feature."
# What may be set of a repository, and to what.
SETTINGS = {
    "squash_merge_commit_title": {"PR_TITLE", "COMMIT_OR_PR_TITLE"},
    "squash_merge_commit_message": {"PR_BODY", "COMMIT_MESSAGES", "BLANK"},
}
# What GitHub adds to a rule when it is not set.
ADDED: dict[str, dict[str, Any]] = {"pull_request": {"required_reviewers": []}}

Json = Any


@dataclass(frozen=True)
class Reply:
    """A status, a body and headers beside the usual ones."""

    status: int
    body: Json = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def problem(status: int, message: str, **more: Json) -> Reply:
    """Say no as GitHub does."""
    return Reply(status, {"message": message, **more})


@dataclass
class Repository:
    """What the stand-in knows, and what it was asked."""

    url: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    rulesets: dict[int, dict[str, Json]] = field(default_factory=dict)
    # Rulesets of the organisation, which hold here as well.
    inherited: list[dict[str, Json]] = field(default_factory=list)
    is_private: bool = False
    has_plan: bool = True
    hides_rulesets: bool = False
    page_size: int = 100
    # Answers that come first, each once, whatever is asked.
    faults: list[Reply] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    # Each value of the header Authorization.
    credentials: list[str | None] = field(default_factory=list)

    @property
    def writes(self) -> list[str]:
        return [request for request in self.requests if not request.startswith("GET ")]

    def named(self, name: str) -> dict[str, Json]:
        """Find a ruleset."""
        (found,) = (ruleset for ruleset in self.rulesets.values() if ruleset["name"] == name)
        return found

    def answer(self, method: str, target: str, credential: str | None, body: bytes) -> Reply:
        self.requests.append(f"{method} {target}")
        self.credentials.append(credential)
        if self.faults:
            return self.faults.pop(0)
        token = (credential or "").removeprefix("Bearer ")
        if token and token not in (ADMIN, READER, WORKFLOW, STRANGER):
            return problem(401, "Bad credentials")
        address = urlsplit(target)
        base = f"/repos/{REPOSITORY}"
        known = address.path == base or address.path.startswith(f"{base}/")
        if not known or (self.is_private and token in ("", STRANGER)):
            return problem(404, "Not Found")
        return self._route(method, address.path.removeprefix(base), address.query, token, body)

    def _route(self, method: str, path: str, query: str, token: str, body: bytes) -> Reply:
        if (method, path) == ("GET", ""):
            return Reply(200, {"full_name": REPOSITORY, "default_branch": "main"})
        if (method, path) == ("GET", "/codeowners/errors"):
            return Reply(200, {"errors": []})
        if (method, path) == ("PATCH", ""):
            return self._set(token, json.loads(body))
        if self.is_private and not self.has_plan:
            return problem(403, UPGRADE)
        if path.startswith("/rules/branches/"):
            return self._page(path, query, self._enforced(path.rpartition("/")[2]), ENFORCED)
        if method == "GET" and self.hides_rulesets and token != ADMIN:
            return problem(403, "Resource not accessible by integration")
        if (method, path) == ("GET", "/rulesets"):
            return self._page(path, query, self._listed(), LIST)
        number = int(path.removeprefix("/rulesets/")) if path != "/rulesets" else None
        if method == "GET":
            return Reply(200, self._shown(number or 0, token))
        if token != ADMIN:
            return problem(*REFUSED_TO_WRITE.get(token, (404, "Not Found")))
        return self._write(number, body)

    def _set(self, token: str, settings: dict[str, str]) -> Reply:
        if token != ADMIN:
            return problem(*REFUSED_TO_WRITE.get(token, (404, "Not Found")))
        if any(value not in SETTINGS.get(name, ()) for name, value in settings.items()):
            return problem(422, "Validation Failed", errors=[settings])
        self.settings |= settings
        return Reply(200, {"full_name": REPOSITORY, **self.settings})

    def _write(self, number: int | None, body: bytes) -> Reply:
        ruleset = json.loads(body)
        wrong = complaints(CREATE if number is None else UPDATE, "requestBody", ruleset)
        if wrong:
            return problem(422, "Invalid request.", errors=wrong)
        if number is None and ruleset["name"] in [x["name"] for x in self.rulesets.values()]:
            return problem(422, "Validation Failed", errors=["Name must be unique"])
        key = number or len(self.rulesets) + 7
        self.rulesets[key] = self.rulesets.get(key, {}) | ruleset
        return Reply(200 if number else 201, self._shown(key, ADMIN))

    def _listed(self) -> list[dict[str, Json]]:
        """Sum the rulesets up: a list tells nothing of rules and conditions."""
        own = [self._shown(number, READER) for number in self.rulesets]
        told = ("id", "name", "target", "source_type", "source", "enforcement")
        return [{key: each[key] for key in told} for each in [*own, *self.inherited]]

    def _shown(self, number: int, token: str) -> dict[str, Json]:
        """Show a ruleset as GitHub does: in an order of its own, with what it adds."""
        ruleset = self.rulesets[number]
        shown = ruleset | {"id": number, "source_type": "Repository", "source": REPOSITORY}
        shown |= {"rules": [_completed(rule) for rule in reversed(ruleset["rules"])]}
        if token != ADMIN:
            shown.pop("bypass_actors", None)
        assert not complaints(CREATE, "response", shown)
        return shown

    def _enforced(self, branch: str) -> list[dict[str, Json]]:
        """List the rules that hold for a branch, of whichever ruleset they are."""
        own = [self._shown(number, READER) for number in self.rulesets]
        return [
            rule
            | {"ruleset_source_type": each["source_type"], "ruleset_source": each["source"]}
            | {"ruleset_id": each["id"]}
            for each in [*self.inherited, *own]
            if each["enforcement"] == "active" and _covers(each, branch)
            for rule in each["rules"]
        ]

    def _page(self, path: str, query: str, items: list[dict[str, Json]], operation: str) -> Reply:
        """Answer one page of a list, and where the next one is."""
        assert not complaints(operation, "response", items)
        options = {name: values[0] for name, values in parse_qs(query).items()}
        size = min(self.page_size, int(options.get("per_page", 30)))
        number = int(options.get("page", 1))
        rest = "&".join(f"{name}={value}" for name, value in options.items() if name != "page")
        page = f"{self.url}/repos/{REPOSITORY}{path}?{rest}&page="
        link = f'<{page}{number + 1}>; rel="next", <{page}99>; rel="last"'
        is_last = len(items) <= number * size
        shown = items[(number - 1) * size : number * size]
        return Reply(200, shown, {} if is_last else {"Link": link})


def _completed(rule: dict[str, Json]) -> dict[str, Json]:
    added = ADDED.get(rule["type"])
    return rule | {"parameters": added | rule["parameters"]} if added else rule


def _covers(ruleset: dict[str, Json], branch: str) -> bool:
    names = ruleset["conditions"]["ref_name"]
    this = {f"refs/heads/{branch}", *(["~DEFAULT_BRANCH"] if branch == "main" else [])}
    return bool(this & set(names["include"])) and not this & set(names["exclude"])


@contextmanager
def serving() -> Iterator[Repository]:
    """Answer on a free port until the end."""
    repository = Repository()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            credential = self.headers.get("Authorization")
            body = self.rfile.read(length)
            reply = repository.answer(self.command, self.path, credential, body)
            self.send_response(reply.status)
            for name, value in (reply.headers | {"Content-Length": len(reply.content)}).items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(reply.content)

        do_PATCH = do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_: object) -> None:
            """Say nothing: `requests` has it."""

    with http_server(Handler) as repository.url:
        yield repository
