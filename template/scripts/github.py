"""One repository in GitHub's REST API: requests and their pauses, lists, and what errors mean."""

import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

ANSWER_SECONDS = 30
# How long GitHub wants to be left alone when it does not say.
LIMITED_SECONDS = 60
MOST_PAGES = 50

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
holds a token with access.""",
    422: "GitHub refuses {what} (422): {detail}",
    429: "GitHub takes no more requests for {pause} s. Try again then, or with --wait {pause}",
    500: "GitHub is out of order ({status}). Try again later: https://www.githubstatus.com",
}
UNEXPECTED = "GitHub answers {what} with {status}: {detail}"
NEEDS_A_PLAN = """\
GitHub protects a private repository only under a paid plan ({detail}). Change the plan of \
{repository}'s owner, or make it public."""
NO_JSON = "{host} does not answer as GitHub does. Check GITHUB_API_URL."

Object = dict[str, Any]


class GitHubError(Exception):
    """Why GitHub did not do it, and what to do about it."""


class HiddenError(GitHubError):
    """The token may not do this."""


class UnavailableError(GitHubError):
    """GitHub has no rulesets for this repository."""


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
        texts = [content.get("message", ""), *(errors if isinstance(errors, list) else [])]
        return "; ".join(part if isinstance(part, str) else json.dumps(part) for part in texts)

    @property
    def is_limit(self) -> bool:
        is_used_up = self.headers.get("X-RateLimit-Remaining") == "0"
        is_limited = "Retry-After" in self.headers or is_used_up
        return self.status == 429 or (self.status == 403 and is_limited)

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
        print(f"GitHub is busy: trying again in {pause} s.", file=sys.stderr)
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
        """Name the default branch: without access to the repository, this fails first."""
        name = self.object("GET", "").get("default_branch")
        if not isinstance(name, str):
            raise self.no_github()
        return name

    def object(self, method: str, path: str, file: Mapping[str, Any] | None = None) -> Object:
        """Read an object, or write a file and return what GitHub made of it."""
        content = self._ask(method, self._url(path), file).json()
        if not isinstance(content, dict):
            raise self.no_github()
        return content

    def objects(self, path: str) -> list[Object]:
        """Read a list to its end."""
        items: list[Object] = []
        url = self._url(f"{path}?per_page=100")
        for _ in range(MOST_PAGES):
            answer = self._ask("GET", url)
            items += self._page(answer)
            following = re.search(r'<([^>]+)>; *rel="next"', answer.headers.get("Link", ""))
            if not following:
                return items
            url = following[1]
        raise self.no_github()

    def no_github(self) -> GitHubError:
        """Word that what answers is something else."""
        return GitHubError(NO_JSON.format(host=urlsplit(self._api).netloc))

    def _page(self, answer: Answer) -> list[Object]:
        content = answer.json()
        if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
            raise self.no_github()
        return content

    def _ask(self, method: str, url: str, file: Mapping[str, Any] | None = None) -> Answer:
        """Send a request, again after a pause where that may help; raise GitHubError if not."""
        if not url.startswith(f"{self._api}/"):
            raise self.no_github()
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

    def _send(self, method: str, url: str, file: Mapping[str, Any] | None) -> Answer:
        body = None if file is None else json.dumps(file).encode()
        request = Request(url, body, self._headers, method=method)  # noqa: S310 - https, see protect.py
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

    def _problem(self, answer: Answer, what: str, file: Mapping[str, Any] | None) -> GitHubError:
        """Say what an answer means for the user of this script."""
        values = {
            "detail": answer.detail,
            "host": urlsplit(self._api).netloc,
            "pause": answer.pause,
            "repository": self.repository,
            "status": answer.status,
            "what": f"{file['name']}.json" if file else what,
        }
        if answer.status == 403 and answer.detail.startswith("Upgrade to "):
            return UnavailableError(NEEDS_A_PLAN.format(**values))
        status = 429 if answer.is_limit else min(answer.status, 500)
        # GitHub answers 404 to a token that may read and not write.
        status = 403 if status == 404 and file else status
        kind = HiddenError if status in (403, 404) else GitHubError
        return kind(PROBLEMS.get(status, UNEXPECTED).format(**values))

    def _url(self, path: str) -> str:
        return f"{self._api}/repos/{self.repository}{path}"
