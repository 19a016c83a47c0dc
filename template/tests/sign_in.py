"""A browser in tests: it signs in by the form of the chosen log-in, and keeps its cookie."""

import re
from html import unescape

import httpx2

from app import wiring
from tests.support import Service, User

HIDDEN = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')


def form_of(user: User) -> dict[str, str]:
    """What a person enters in the form of the chosen log-in."""
    names = [field.name for field in wiring.auth.FIELDS]
    return {name: user.email if name == "email" else user.credential for name in names}


async def signed_in(service: Service, user: User) -> httpx2.AsyncClient:
    """A browser with a session of `user`, which sends the token of its pages along."""
    browser = service.client()
    answer = await browser.post("/auth/session", data=form_of(user))
    assert answer.status_code == 303, answer.text
    browser.headers["X-CSRF-Token"] = (await browser.get("/auth/session")).json()["csrf_token"]
    return browser


def fields_of(page: str) -> dict[str, str]:
    """The hidden fields of a page's first form."""
    first, _, _ = page.partition("</form>")
    return {name: unescape(value) for name, value in HIDDEN.findall(first)}


def token_of(browser: httpx2.AsyncClient) -> str:
    """The token in a browser's cookie."""
    return str(browser.cookies["session"])
