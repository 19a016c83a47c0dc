"""Browser sessions: how they start, what they may do, how they end."""

import datetime as dt
import re
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from app import wiring
from gateway.accounts import sessions as table
from gateway.accounts.audit import command_line
from gateway.accounts.principals import Role
from gateway.accounts.sessions import digest
from gateway.accounts.users import Users
from gateway.db.tables import audit, sessions, utc_now
from gateway.http.cookies import CookieRules, csrf_token
from tests.fixtures.service import Start
from tests.sign_in import fields_of, form_of, signed_in, token_of
from tests.support import Service, User, chat, error_of

INVALID = (401, "invalid_credentials", None)
FORBIDDEN = (403, "forbidden", None)
FOREIGN: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
]


@pytest.fixture
async def browser(service: Service, user: User) -> httpx2.AsyncClient:
    """A browser in which `user` signed in."""
    return await signed_in(service, user)


async def test_a_browser_signs_in_and_works_without_a_credential(
    service: Service, user: User, browser: httpx2.AsyncClient
) -> None:
    assert (await browser.get("/v1/me")).json()["id"] == user.id
    answer = await browser.post("/v1/chat/completions", json=chat())
    assert answer.status_code == 200
    assert (await service.prediction()).user_id == user.id
    shown = await browser.get("/auth/session")
    assert shown.json()["user_id"] == user.id
    assert shown.headers["Cache-Control"] == "no-store"


async def test_the_cookie_is_hidden_from_scripts_and_from_other_sites(
    service: Service, user: User
) -> None:
    answer = await service.client().post("/auth/session", data=form_of(user))
    value, *rest = answer.headers["Set-Cookie"].split("; ")
    assert re.fullmatch(r"session=[\w-]{43}", value)
    assert rest == [rest[0], "Path=/", "HttpOnly", "SameSite=Lax"]
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (CookieRules(is_secure=True, is_framed=False), "Secure; SameSite=Lax"),
        (CookieRules(is_secure=False, is_framed=True), "Secure; SameSite=None; Partitioned"),
        (CookieRules(is_secure=True, is_framed=True), "Secure; SameSite=None; Partitioned"),
    ],
)
def test_the_cookie_in_production_and_in_frames(rules: CookieRules, expected: str) -> None:
    cookie = rules.cookie("session", "x", 60)
    assert cookie == f"session=x; Max-Age=60; Path=/; HttpOnly; {expected}"


async def test_pages_may_be_framed_by_the_sites_of_the_setting_alone(start: Start) -> None:
    service = await start(framed_by="https://spaces.example.com")
    for path in ("/", "/docs", "/auth/sign-in"):
        policy = (await service.client().get(path)).headers["Content-Security-Policy"]
        assert "frame-ancestors 'self' https://spaces.example.com" in policy
    user = await service.create_user()
    answer = await service.client().post("/auth/session", data=form_of(user))
    assert answer.headers["Set-Cookie"].endswith("Secure; SameSite=None; Partitioned")


async def test_only_a_hash_of_the_token_is_stored_and_nothing_is_logged(
    service: Service, browser: httpx2.AsyncClient
) -> None:
    (row,) = await service.rows(sessions)
    token = token_of(browser)
    assert row.token_hash == digest(token)
    assert token not in str(row) + service.log + str(await service.rows(audit))
    assert csrf_token(token) not in service.log


async def test_a_session_is_audited(service: Service, browser: httpx2.AsyncClient) -> None:
    (row,) = await service.rows(sessions)
    await browser.post("/auth/logout")
    entries = [each for each in await service.rows(audit) if each.target == f"session:{row.id}"]
    assert [(each.action, each.actor_id) for each in entries] == [
        ("create", row.user_id),
        ("end", row.user_id),
    ]
    assert all(each.request_id for each in entries)


async def test_a_wrong_credential_is_told_on_the_page(service: Service, user: User) -> None:
    browser = service.client()
    for wrong in ("", "wrong", "<script>", "\0", user.credential[:-1], 5_000 * "x"):
        answer = await browser.post("/auth/session", data=dict.fromkeys(form_of(user), wrong))
        assert answer.status_code == 401
        assert "That did not match" in answer.text
        # A browser would ask for name and password itself, in a window of its own.
        assert "WWW-Authenticate" not in answer.headers
        assert "Set-Cookie" not in answer.headers
        assert "<script" not in answer.text
    assert await service.rows(sessions) == []


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_another_sites_page_neither_signs_in_nor_out(
    service: Service, user: User, browser: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    """Else it would put its own session, and what is entered in it, into a user's browser."""
    other = service.client()
    answer = await other.post("/auth/session", data=form_of(user), headers=headers)
    assert error_of(answer) == FORBIDDEN
    assert error_of(await browser.post("/auth/logout", headers=headers)) == FORBIDDEN
    assert len(await service.rows(sessions)) == 1


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_another_sites_page_changes_nothing_with_the_cookie(
    service: Service, browser: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    requests: list[tuple[str, str, Any]] = [
        ("POST", "/v1/chat/completions", chat()),
        ("DELETE", "/v1/predictions/pred_x", None),
        ("PUT", "/v1/predictions/pred_x/feedback", {"rating": "up"}),
    ]
    for method, path, body in requests:
        answer = await browser.request(method, path, json=body, headers=headers)
        assert error_of(answer) == FORBIDDEN
    assert await service.rows_count() == 0
    assert (await browser.get("/v1/me", headers=headers)).status_code == 200


async def test_also_a_page_of_a_shared_origin_does_not_use_the_cookie(start: Start) -> None:
    service = await start(cors_origins="https://app.example.com")
    browser = await signed_in(service, await service.create_user())
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://app.example.com"}
    answer = await browser.post("/v1/chat/completions", json=chat(), headers=headers)
    assert error_of(answer) == FORBIDDEN
    assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_a_change_needs_the_token_of_this_session(
    service: Service, user: User, browser: httpx2.AsyncClient
) -> None:
    other = await signed_in(service, user)
    right = browser.headers.pop("X-CSRF-Token")
    wrong = ("", "x", "ä".encode(), right[:-1], right + " x", other.headers["X-CSRF-Token"])
    for given in wrong:
        headers: Any = {b"X-CSRF-Token": given if isinstance(given, bytes) else given.encode()}
        answer = await browser.post("/v1/chat/completions", json=chat(), headers=headers)
        assert error_of(answer) == FORBIDDEN
        assert error_of(await browser.post("/auth/logout", headers=headers)) == FORBIDDEN
    assert await service.rows_count() == 0
    headers = {"X-CSRF-Token": right}
    answer = await browser.post("/v1/chat/completions", json=chat(), headers=headers)
    assert answer.status_code == 200


async def test_a_copied_cookie_is_worth_nothing_after_the_log_out(
    service: Service, browser: httpx2.AsyncClient
) -> None:
    copy = service.client(Cookie=f"session={token_of(browser)}")
    assert (await copy.get("/v1/me")).status_code == 200
    answer = await browser.post("/auth/logout")
    assert answer.status_code == 204
    assert answer.headers["Set-Cookie"].startswith("session=; Max-Age=0;")
    for each in (browser, copy):
        assert error_of(await each.get("/v1/me")) == INVALID
        assert error_of(await each.get("/auth/session")) == INVALID
    assert (await copy.post("/auth/logout")).status_code == 204
    assert await service.rows(sessions) == []


async def test_a_log_out_can_end_every_session_of_the_user(
    service: Service, user: User, browser: httpx2.AsyncClient
) -> None:
    second = await signed_in(service, user)
    other = await signed_in(service, await service.create_user())
    assert (await browser.post("/auth/logout", json={"all": True})).status_code == 204
    for each in (browser, second):
        assert error_of(await each.get("/v1/me")) == INVALID
    assert (await other.get("/v1/me")).status_code == 200


async def test_one_log_out_leaves_the_other_browsers(
    service: Service, user: User, browser: httpx2.AsyncClient
) -> None:
    second = await signed_in(service, user)
    await browser.post("/auth/logout", json={"all": False})
    assert (await second.get("/v1/me")).status_code == 200


@pytest.mark.parametrize("body", [b"{", b'{"all": 1}', b'{"user_id": "usr_x"}', b"[]", b"\xff"])
async def test_what_is_no_log_out(
    service: Service, browser: httpx2.AsyncClient, body: bytes
) -> None:
    answer = await browser.post("/auth/logout", content=body)
    assert error_of(answer) == (422, "invalid_request", None)
    assert len(await service.rows(sessions)) == 1


@pytest.mark.parametrize(
    "cookie",
    ["session=", "session=x", "session=ä", "sessions={}", "session={}x", "session=%00", "; ; ="],
)
async def test_a_tampered_cookie_is_none(
    service: Service, browser: httpx2.AsyncClient, cookie: str
) -> None:
    tampered = cookie.format(token_of(browser)).encode()
    answer = await service.client().get("/v1/me", headers={b"Cookie": tampered})
    assert error_of(answer) == INVALID
    assert answer.headers["WWW-Authenticate"]


async def test_an_expired_session_is_none_and_is_removed(
    service: Service, user: User, browser: httpx2.AsyncClient
) -> None:
    await service.write(update(sessions).values(expires_at=utc_now() - dt.timedelta(seconds=1)))
    assert error_of(await browser.get("/v1/me")) == INVALID
    await signed_in(service, user)
    assert len(await service.rows(sessions)) == 1


async def test_a_session_lasts_for_two_weeks(service: Service, browser: httpx2.AsyncClient) -> None:
    (row,) = await service.rows(sessions)
    assert row.expires_at - row.created_at == dt.timedelta(days=14)


async def test_the_sessions_of_a_user_are_bounded(
    service: Service, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "MAX_PER_USER", 2)
    first, *rest = [await signed_in(service, user) for _ in range(3)]
    assert error_of(await first.get("/v1/me")) == INVALID
    for each in rest:
        assert (await each.get("/v1/me")).status_code == 200


async def test_a_disabled_user_is_out_at_once_and_enabling_brings_no_session_back(
    service: Service, user: User, browser: httpx2.AsyncClient
) -> None:
    for disabled in (True, False):
        await Users(service.database).change(user.id, command_line(), disabled=disabled)
        assert error_of(await browser.get("/v1/me")) == INVALID
    assert await service.rows(sessions) == []


async def test_role_and_plan_are_those_of_the_moment(
    service: Service, user: User, browser: httpx2.AsyncClient
) -> None:
    await Users(service.database).change(user.id, command_line(), role=Role.AUDITOR)
    assert (await browser.get("/v1/admin/users")).status_code == 200
    assert error_of(await browser.post("/v1/chat/completions", json=chat())) == FORBIDDEN


async def test_a_credential_in_the_header_comes_before_the_cookie(
    service: Service, browser: httpx2.AsyncClient
) -> None:
    other = await service.create_user()
    assert (await browser.get("/v1/me", headers=other.headers)).json()["id"] == other.id
    wrong = {"Authorization": "Bearer wrong"}
    assert error_of(await browser.get("/v1/me", headers=wrong)) == INVALID


async def test_signing_in_again_ends_the_session_before(
    service: Service, browser: httpx2.AsyncClient
) -> None:
    before, other = token_of(browser), await service.create_user()
    assert (await browser.post("/auth/session", data=form_of(other))).status_code == 303
    assert token_of(browser) != before
    assert (await browser.get("/v1/me")).json()["id"] == other.id
    copy = service.client(Cookie=f"session={before}")
    assert error_of(await copy.get("/v1/me")) == INVALID


@pytest.mark.parametrize(
    ("given", "expected"),
    [("/", "../"), ("/docs", "../docs"), ("/auth/sign-in", "../auth/sign-in")],
)
async def test_the_browser_goes_to_a_page_of_the_service(
    service: Service, user: User, given: str, expected: str
) -> None:
    page = (await service.client().get("/auth/sign-in", params={"next": given})).text
    assert fields_of(page)["next"] == given
    answer = await service.client().post("/auth/session", data=form_of(user) | {"next": given})
    assert answer.headers["Location"] == expected


@pytest.mark.parametrize(
    "given",
    [
        *("https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example"),
        *("javascript:alert(1)", "/docs@evil.example", "/docs?x=//evil.example", "/%2f/evil", " /"),
        *("/docs/../..//evil.example", "/\t/evil.example", "docs", "", "/\r\nX-Y: z", "'\"><b>"),
    ],
)
async def test_the_browser_is_sent_nowhere_else(service: Service, user: User, given: str) -> None:
    page = (await service.client().get("/auth/sign-in", params={"next": given})).text
    assert fields_of(page)["next"] == "/auth/sign-in"
    answer = await service.client().post("/auth/session", data=form_of(user) | {"next": given})
    assert answer.headers["Location"] == "../auth/sign-in"
    assert "evil" not in str(answer.headers) + page


async def test_the_page_signs_in_and_out_without_a_script(service: Service, user: User) -> None:
    browser = service.client()
    page = await browser.get("/auth/sign-in")
    for field in wiring.auth.FIELDS:
        assert f'name="{field.name}"' in page.text
    await browser.post("/auth/session", data=fields_of(page.text) | form_of(user))
    page = await browser.get("/auth/sign-in")
    assert f"Signed in as {user.email}." in page.text
    # As a browser sends a form: it knows no header.
    answer = await browser.post("/auth/logout", data=fields_of(page.text))
    assert (answer.status_code, answer.headers["Location"]) == (303, "../auth/sign-in")
    assert "Sign in</button>" in (await browser.get("/auth/sign-in")).text


async def test_the_page_can_end_every_session(
    service: Service, user: User, browser: httpx2.AsyncClient
) -> None:
    second = await signed_in(service, user)
    page = (await browser.get("/auth/sign-in")).text
    fields = fields_of(page) | {"all": "true"}
    assert '<input type="hidden" name="all" value="true">' in page
    del browser.headers["X-CSRF-Token"]
    assert error_of(await browser.post("/auth/logout", data={"all": "true"})) == FORBIDDEN
    assert (await browser.post("/auth/logout", data=fields)).status_code == 303
    assert error_of(await second.get("/v1/me")) == INVALID


async def test_the_page_loads_nothing_and_runs_nothing(
    service: Service, browser: httpx2.AsyncClient
) -> None:
    for each in (browser, service.client()):
        page = await each.get("/auth/sign-in")
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "form-action 'self'" in policy
        assert "unsafe" not in policy
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["Referrer-Policy"] == "same-origin"
        assert not re.findall(r"(?i)//|<script|<img|<link|@import|url\(|src=|\son\w+=", page.text)


async def test_names_on_the_page_are_text(service: Service) -> None:
    service.settings.project.update(title="<script>alert(1)</script>")
    user = await service.create_user(email="<b>'\"&@example.com")
    browser = await signed_in(service, user)
    page = (await browser.get("/auth/sign-in")).text
    assert "<script" not in page
    assert "Signed in as &lt;b&gt;&#x27;&quot;&amp;@example.com." in page


async def test_forms_are_bounded(service: Service) -> None:
    browser = service.client()
    large = await browser.post("/auth/session", data={"x": 20_000 * "x"})
    assert error_of(large) == (413, "body_too_large", None)
    many = await browser.post("/auth/session", data={str(n): "" for n in range(100)})
    assert error_of(many) == (422, "invalid_request", None)
    for content_type in ("application/json", "multipart/form-data; boundary=x", ""):
        headers = {"Content-Type": content_type}
        answer = await browser.post("/auth/session", content=b"{}", headers=headers)
        assert error_of(answer) == (422, "invalid_request", None)


async def test_a_sign_in_that_is_under_way_ends_with_the_others(
    service: Service, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a stolen password that is tried all the time outlives its change, by a session."""
    method = service.app.state.authenticator.method
    sign_in = method.sign_in

    async def late(fields: Any, address: str) -> Any:
        principal = await sign_in(fields, address)
        await service.engine.sessions.end_all(user.id, command_line())
        return principal

    monkeypatch.setattr(method, "sign_in", late)
    answer = await service.client().post("/auth/session", data=form_of(user))
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers
    assert await service.rows(sessions) == []
