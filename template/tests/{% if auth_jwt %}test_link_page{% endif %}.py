"""`/auth/link`: a person follows a link, enters a password, and signs in with it."""

import datetime as dt
import re
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from gateway.accounts.audit import command_line
from gateway.accounts.links import login_links
from gateway.accounts.logins import logins
from gateway.accounts.users import Users
from gateway.db.tables import utc_now
from tests.fixtures.jwt import Inbox, log_in
from tests.fixtures.service import Run
from tests.sign_in import fields_of
from tests.support import Service, error_of

NEW, OTHER = "correct horse battery staple", "another battery for the horse"
ADDRESS = "zoe@example.com"
# For password managers. The form does not send it.
USERNAME = f'<input type="text" autocomplete="username" value="{ADDRESS}" hidden readonly>'
DEAD = "This link is not valid"
FOREIGN: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
]


def twice(password: str) -> dict[str, str]:
    return {"password": password, "again": password}


async def follow(browser: httpx2.AsyncClient, link: str) -> httpx2.Response:
    """What a browser does with a link: the page's script sends what the address has after `#`."""
    address, _, fragment = link.partition("#")
    page = await browser.get("/" + address.split("/", 3)[3])
    assert page.status_code == 200
    assert fragment not in page.text
    return await browser.post("/auth/link", data={"link": fragment})


async def enter(
    browser: httpx2.AsyncClient, page: httpx2.Response, **fields: str
) -> httpx2.Response:
    """Send the form of a page."""
    assert page.status_code == 200, page.text
    return await browser.post("/auth/link", data={**fields_of(page.text), **fields})


async def signs_in(service: Service, email: str, password: str) -> bool:
    """Whether a person gets a session at the page that a link leads to."""
    form = {"email": email, "password": password}
    answer = await service.client().post("/auth/session", data=form)
    return answer.status_code == 303


def leads_to_sign_in(answer: httpx2.Response) -> bool:
    where = httpx2.URL("http://x/auth/link").join(answer.headers.get("Location", ""))
    return (answer.status_code, where.path) == (303, "/auth/sign-in")


def is_dead(answer: httpx2.Response) -> bool:
    """Whether a page says that a link is not valid, and has no form."""
    assert ADDRESS not in answer.text
    return answer.status_code == 422 and DEAD in answer.text and "<form" not in answer.text


@pytest.fixture
async def link(service: Service, run: Run) -> str:
    """The link of an invitation."""
    made = await run("links", "invite", "--email", ADDRESS, "--plan", "few")
    return str(made.stdout.splitlines()[-1])


async def test_an_invitation(service: Service, link: str) -> None:
    browser = service.client()
    page = await follow(browser, link)
    assert page.text.count('autocomplete="new-password"') == 2
    assert USERNAME in page.text
    answer = await enter(browser, page, **twice(NEW))
    assert leads_to_sign_in(answer)
    assert "Set-Cookie" not in answer.headers
    assert await signs_in(service, ADDRESS, NEW)
    # A second time, in both steps.
    assert is_dead(await follow(browser, link))
    assert is_dead(await browser.post("/auth/link", data={**fields_of(page.text), **twice(OTHER)}))
    assert not await signs_in(service, ADDRESS, OTHER)


async def test_a_new_password(service: Service, run: Run) -> None:
    user = await service.create_user(email=ADDRESS)
    link = (await run("links", "reset", "--email", ADDRESS)).stdout.splitlines()[-1]
    browser = service.client()
    page = await follow(browser, link)
    assert leads_to_sign_in(await enter(browser, page, **twice(NEW)))
    assert await signs_in(service, ADDRESS, NEW)
    assert not await signs_in(service, ADDRESS, user.credential)
    assert is_dead(await follow(browser, link))


async def test_a_verification(mailing: Service, inbox: Inbox) -> None:
    body = {"email": ADDRESS, "password": NEW}
    assert (await mailing.client().post("/auth/register", json=body)).status_code == 202
    link, browser = await inbox.link(), mailing.client()
    page = await follow(browser, link)
    assert page.text.count('autocomplete="current-password"') == 1
    assert USERNAME in page.text
    wrong = await enter(browser, page, password=OTHER)
    assert (wrong.status_code, "That did not match" in wrong.text) == (401, True)
    # A browser would ask for name and password itself, in a window of its own.
    assert "WWW-Authenticate" not in wrong.headers
    assert (await Users(mailing.database).find(ADDRESS)).must_verify_email
    assert leads_to_sign_in(await enter(browser, page, password=NEW))
    assert not (await Users(mailing.database).find(ADDRESS)).must_verify_email
    assert await signs_in(mailing, ADDRESS, NEW)
    assert is_dead(await follow(browser, link))


async def test_programs_that_follow_links_use_none(service: Service, link: str) -> None:
    browser = service.client()
    for method in ("GET", "HEAD"):
        for path in ("/auth/link", "/auth/link?" + link.partition("#")[2]):
            assert (await browser.request(method, path)).status_code == 200
    # Neither does the script of the page, which some of them run.
    for _ in range(2):
        page = await follow(browser, link)
    assert leads_to_sign_in(await enter(browser, page, **twice(NEW)))


async def test_no_log_in_is_left_over(service: Service, link: str) -> None:
    browser = service.client()
    await enter(browser, await follow(browser, link), **twice(NEW))
    assert (await log_in(service, ADDRESS, NEW)).status_code == 200
    ended = [row.ended_at is not None for row in await service.rows(logins)]
    assert ended == [True, False]


async def test_a_password_that_is_refused_leaves_the_link(service: Service, link: str) -> None:
    browser = service.client()
    page = await follow(browser, link)
    for fields, told in (
        (twice("short"), "12 to 256 characters"),
        (twice(""), "12 to 256 characters"),
        (twice(257 * "x"), "12 to 256 characters"),
        ({"password": NEW, "again": OTHER}, "The two passwords differ"),
        ({"password": NEW}, "The two passwords differ"),
    ):
        answer = await enter(browser, page, **fields)
        assert (answer.status_code, told in answer.text) == (422, True)
        assert fields_of(answer.text) == fields_of(page.text)
        assert USERNAME in answer.text
        assert NEW not in answer.text
    assert leads_to_sign_in(await enter(browser, page, **twice(NEW)))


async def test_an_expired_link(service: Service, link: str) -> None:
    browser = service.client()
    page = await follow(browser, link)
    early = utc_now() - dt.timedelta(minutes=1)
    await service.write(update(login_links).values(expires_at=early))
    assert is_dead(await follow(browser, link))
    assert DEAD in (await enter(browser, page, **twice(NEW))).text
    assert not await signs_in(service, ADDRESS, NEW)


async def test_a_link_of_a_disabled_user(service: Service, link: str) -> None:
    browser = service.client()
    user = await Users(service.database).find(ADDRESS)
    await Users(service.database).change(user.id, command_line(), disabled=True)
    answer = await browser.post("/auth/link", data={"link": link, **twice(NEW)})
    assert (answer.status_code, DEAD in answer.text) == (422, True)


@pytest.mark.parametrize(
    "change",
    [
        lambda link: link[:-2],
        lambda link: link + "x",
        lambda link: re.sub("=e", "=f", link),
        lambda _: "",
        lambda _: "é<script>alert(1)</script>",
        lambda _: "reset=e30.e30.e30",
    ],
    ids=["cut", "longer", "changed", "empty", "markup", "unsigned"],
)
async def test_a_wrong_link(service: Service, link: str, change: Any) -> None:
    for more in ({}, twice(NEW)):
        answer = await service.client().post("/auth/link", data={"link": change(link), **more})
        assert is_dead(answer)
        assert "<script" not in answer.text
    assert not await signs_in(service, ADDRESS, NEW)


async def test_a_credential_is_no_link(service: Service) -> None:
    user = await service.create_user()
    token = user.headers["Authorization"].partition(" ")[2]
    assert is_dead(await service.client().post("/auth/link", data={"link": token}))


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_another_sites_page_uses_no_link(
    service: Service, link: str, headers: dict[str, str]
) -> None:
    browser = service.client()
    page = await follow(browser, link)
    form = {**fields_of(page.text), **twice(NEW)}
    answer = await browser.post("/auth/link", data=form, headers=headers)
    assert error_of(answer) == (403, "forbidden", None)
    own = {"Origin": service.url, "Sec-Fetch-Site": "same-origin"}
    assert leads_to_sign_in(await browser.post("/auth/link", data=form, headers=own))


async def test_the_page_loads_nothing_and_is_kept_nowhere(service: Service, link: str) -> None:
    browser = service.client()
    first = await browser.get("/auth/link")
    second = await follow(browser, link)
    third = await enter(browser, second, **twice("short"))
    for page in (first, second, third):
        assert page.headers["Cache-Control"] == "no-store"
        # A fragment is in no header Referer; with no-referrer, the forms had no Origin.
        assert page.headers["Referrer-Policy"] == "same-origin"
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "form-action 'self'" in policy
        assert not re.search("https?:|src=|@import", page.text)
    (nonce,) = re.findall('<script nonce="([^"]+)"', first.text)
    assert f"script-src 'nonce-{nonce}'" in first.headers["Content-Security-Policy"]
    for page in (second, third):
        assert "script" not in page.text + page.headers["Content-Security-Policy"]
    # Neither the address nor the history keeps the token.
    assert "history.replaceState" in first.text


async def test_the_log_has_neither_links_nor_passwords(service: Service, link: str) -> None:
    browser = service.client()
    page = await follow(browser, link)
    await browser.get("/auth/link?" + link.partition("#")[2])
    await enter(browser, page, **twice("too short"))
    await enter(browser, page, **twice(NEW))
    await follow(browser, link)
    routes = [event["route"] for event in service.access_events()]
    assert routes == ["/auth/link"] * 7
    token = link.rpartition("=")[2]
    for secret in (token, token.rpartition(".")[2], NEW, "too short", ADDRESS):
        assert secret not in service.log


async def test_what_is_no_form(service: Service) -> None:
    answer = await service.client().post("/auth/link", json={"link": "x"})
    assert error_of(answer) == (422, "invalid_request", None)
