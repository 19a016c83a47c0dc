"""The authorization code flow: what begins, what is checked, and what is refused."""

import base64
import time
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from gateway.accounts.identities import used_states
from gateway.accounts.sign_in import flow
from gateway.db.tables import sessions, utc_now
from tests.fixtures.oauth import follow, signed_in_with
from tests.fixtures.service import Start
from tests.oauth_stand_in import CLIENT_ID, CLIENT_SECRET, TOKEN, StandIn, query_of
from tests.support import Service, error_of

PROVIDERS = ("github", "google", "oidc")


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_person_signs_in_and_out_and_makes_a_key(
    oauth: Service, stand_in: StandIn, name: str
) -> None:
    browser, answer = await signed_in_with(oauth, name)
    assert (answer.status_code, answer.headers["Location"]) == (303, "../../auth/sign-in")
    me = (await browser.get("/v1/me")).json()
    expected = "octocat@example.com" if name == "github" else "jane@example.com"
    assert (me["email"], me["role"]) == (expected, "user")
    token = (await browser.get("/auth/session")).json()["csrf_token"]
    browser.headers["X-CSRF-Token"] = token
    made = (await browser.post("/v1/keys", json={"name": "laptop"})).json()
    program = oauth.client(Authorization=f"Bearer {made['secret']}")
    assert (await program.get("/v1/me")).json()["id"] == me["id"]
    assert (await browser.post("/auth/logout")).status_code == 204
    assert (await browser.get("/v1/me")).status_code == 401
    assert (await program.get("/v1/me")).status_code == 200


async def test_the_page_has_a_button_for_each_provider_that_is_set(oauth: Service) -> None:
    page = (await oauth.client().get("/auth/sign-in?next=/docs")).text
    for name in PROVIDERS:
        assert f'href="login/{name}?next=/docs"' in page
    assert "_blank" not in page


async def test_without_providers_there_is_no_button_and_no_sign_in(service: Service) -> None:
    assert "login/" not in (await service.client().get("/auth/sign-in")).text
    for path in ("/auth/login/github", "/auth/callback/github"):
        assert error_of(await service.client().get(path)) == (404, "not_found", None)


async def test_in_a_frame_a_provider_opens_in_a_tab_of_its_own(
    start: Start, clients: dict[str, Any]
) -> None:
    """Providers refuse to be shown in a frame."""
    framed = await start(**clients, framed_by="https://spaces.example.com")
    page = (await framed.client().get("/auth/sign-in")).text
    assert page.count('target="_blank" rel="noopener"') == len(PROVIDERS)


async def test_the_request_to_the_provider(oauth: Service, stand_in: StandIn) -> None:
    for name in PROVIDERS:
        await signed_in_with(oauth, name)
    github, google, oidc = stand_in.asked
    for each in stand_in.asked:
        assert each["response_type"] == "code"
        assert each["client_id"] == CLIENT_ID
        assert each["code_challenge_method"] == "S256"
        assert min(len(each["state"]), len(each["code_challenge"])) == 43
    assert github["redirect_uri"] == f"{oauth.url}/auth/callback/github"
    assert github["scope"] == "read:user user:email"
    assert google["scope"] == oidc["scope"] == "openid email"
    for one in ("state", "nonce", "code_challenge"):
        assert google[one] != oidc[one]


async def test_the_cookie_of_a_sign_in_is_sealed_and_short(oauth: Service) -> None:
    browser = oauth.client()
    begun = await browser.get("/auth/login/oidc")
    value, *rest = begun.headers["Set-Cookie"].split("; ")
    assert rest == ["Max-Age=600", "Path=/auth/", "HttpOnly", "SameSite=Lax"]
    opened = base64.urlsafe_b64decode(value.removeprefix("sign_in="))
    query = query_of(begun.headers["Location"])
    assert query["state"].encode() not in opened
    assert query["nonce"].encode() not in opened


async def test_public_url_names_the_service_to_providers(
    start: Start, clients: dict[str, Any], stand_in: StandIn
) -> None:
    service = await start(**clients, public_url="https://ai.example.com/")
    begun = await service.client().get("/auth/login/github")
    query = query_of(begun.headers["Location"])
    assert query["redirect_uri"] == "https://ai.example.com/auth/callback/github"


@pytest.mark.parametrize("given", ["/docs", "/"])
async def test_the_browser_goes_on_to_a_page_of_the_service(oauth: Service, given: str) -> None:
    browser = oauth.client()
    answer = await browser.get(await follow(oauth, browser, "github", next=given))
    assert answer.headers["Location"] == f"../..{given}"


@pytest.mark.parametrize("given", ["https://evil.example", "//evil.example", "/\\evil", "/docs?x"])
async def test_the_browser_is_sent_nowhere_else(oauth: Service, given: str) -> None:
    browser = oauth.client()
    answer = await browser.get(await follow(oauth, browser, "github", next=given))
    assert answer.headers["Location"] == "../../auth/sign-in"


def _refused(answer: httpx2.Response, status: int = 403) -> None:
    assert answer.status_code == status
    assert 'role="alert"' in answer.text
    assert "session=" not in str(answer.headers.get_list("Set-Cookie"))


async def test_an_answer_counts_once(oauth: Service) -> None:
    browser = oauth.client()
    address = await follow(oauth, browser, "oidc")
    cookie = str(browser.cookies["sign_in"])
    assert (await browser.get(address)).status_code == 303
    assert "sign_in" not in browser.cookies
    again = oauth.client(Cookie=f"sign_in={cookie}")
    _refused(await again.get(address))
    assert len(await oauth.rows(sessions)) == 1


async def test_an_answer_counts_only_in_the_browser_that_began(oauth: Service) -> None:
    """Else a person would be signed in to the account of another one who sends the address."""
    mine, other = oauth.client(), oauth.client()
    address = await follow(oauth, mine, "oidc")
    _refused(await other.get(address))
    await other.get("/auth/login/oidc")
    _refused(await other.get(address))
    assert await oauth.rows(sessions) == []


@pytest.mark.parametrize("change", ["state", "nothing", "provider", "cookie", "no cookie", "late"])
async def test_a_tampered_answer_is_refused(
    oauth: Service, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    browser = oauth.client()
    address = await follow(oauth, browser, "oidc")
    cookie = str(browser.cookies["sign_in"])
    if change == "state":
        address = address.replace("state=", "state=x")
    elif change == "nothing":
        address = address.partition("?")[0]
    elif change == "provider":
        address = address.replace("/oidc", "/google")
    elif change == "cookie":
        cookie = cookie[:40] + ("A" if cookie[40] != "A" else "B") + cookie[41:]
    elif change == "no cookie":
        cookie = ""
    else:
        later = time.time() + flow.LIFE_SECONDS
        monkeypatch.setattr("gateway.accounts.sign_in.flow.time.time", lambda: later)
    _refused(await oauth.client(Cookie=f"sign_in={cookie}").get(address))
    assert "/token" not in stand_in.requests


@pytest.mark.parametrize("cookie", ["x", "====", "ä", "YWJj", 3000 * "A", "%00"])
async def test_what_is_no_cookie(oauth: Service, cookie: str) -> None:
    headers = {b"Cookie": f"sign_in={cookie}".encode()}
    _refused(await oauth.client().get("/auth/callback/oidc?state=x&code=x", headers=headers))


async def test_a_refusal_at_the_provider_is_told_without_its_words(
    oauth: Service, stand_in: StandIn
) -> None:
    browser = oauth.client()
    address = await follow(oauth, browser, "oidc")
    address = address.replace("code=", "error=access_denied&error_description=<b>evil</b>&x=")
    answer = await browser.get(address)
    _refused(answer)
    assert "evil" not in answer.text
    assert 'href="../login/oidc?next=' in answer.text
    assert 'action="../session"' in answer.text


@pytest.mark.parametrize(
    ("status", "given"),
    [
        (200, {"error": "bad_verification_code"}),
        (400, {"error": "invalid_grant"}),
        (401, {"error": "invalid_client"}),
        (400, {}),
    ],
)
async def test_a_refused_code_is_no_sign_in(
    oauth: Service, stand_in: StandIn, status: int, given: Any
) -> None:
    stand_in.token_status, stand_in.token_answer = status, given
    _, answer = await signed_in_with(oauth, "github")
    _refused(answer)


@pytest.mark.parametrize(
    ("status", "given"),
    [(500, {}), (302, {}), (200, []), (200, {}), (200, {"access_token": 1}), (404, {})],
)
async def test_a_provider_that_fails_is_said_to(
    oauth: Service, stand_in: StandIn, status: int, given: Any
) -> None:
    stand_in.token_status, stand_in.token_answer = status, given
    _, answer = await signed_in_with(oauth, "github")
    _refused(answer, 502)


async def test_a_provider_that_cannot_be_reached_is_said_to(
    start: Start, clients: dict[str, Any], dead_provider: str
) -> None:
    service = await start(**clients | {"oauth_oidc_issuer": dead_provider})
    _refused(await service.client().get("/auth/login/oidc"), 502)


async def test_too_large_an_answer_is_none(oauth: Service, stand_in: StandIn) -> None:
    stand_in.token_answer = {"access_token": "x" * (1024 * 1024)}
    _, answer = await signed_in_with(oauth, "github")
    _refused(answer, 502)


async def test_used_states_are_forgotten_when_they_have_expired(oauth: Service) -> None:
    await signed_in_with(oauth, "github")
    expired = update(used_states).values(expires_at=utc_now())
    await oauth.write(expired)
    await signed_in_with(oauth, "github")
    assert len(await oauth.database.fetch(used_states.select())) == 1


async def test_nothing_of_a_sign_in_is_logged(oauth: Service, stand_in: StandIn) -> None:
    browser = oauth.client()
    address = await follow(oauth, browser, "oidc")
    query, sealed = query_of(address), str(browser.cookies["sign_in"])
    await browser.get(address)
    session = str(browser.cookies["session"])
    secret = (TOKEN, CLIENT_SECRET, query["code"] + '"', query["state"], sealed, session)
    for each in (*secret, "jane@example.com", stand_in.asked[0]["nonce"]):
        assert each not in oauth.log


async def test_a_sign_in_replaces_the_session_of_the_browser(oauth: Service) -> None:
    browser, _ = await signed_in_with(oauth, "github")
    before = str(browser.cookies["session"])
    await signed_in_with(oauth, "oidc", browser)
    assert (await browser.get("/v1/me")).json()["email"] == "jane@example.com"
    copy = oauth.client(Cookie=f"session={before}")
    assert (await copy.get("/v1/me")).status_code == 401


@pytest.mark.parametrize("step", ["login", "callback"])
async def test_an_address_has_a_few_sign_ins_a_minute(
    oauth: Service, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr("gateway.accounts.sign_in.throttle.FROM_ADDRESS", 1)
    browser = oauth.client(None, **{"X-Forwarded-For": "192.0.2.1"})
    address = await follow(oauth, browser, "github")
    if step == "callback":
        await browser.get(address)
        other = oauth.client(None, **{"X-Forwarded-For": "192.0.2.2"})
        address, browser.cookies = await follow(oauth, other, "github"), other.cookies
    asked = len(stand_in.requests)
    answer = await browser.get(address if step == "callback" else "/auth/login/github")
    _refused(answer, 429)
    assert int(answer.headers["Retry-After"]) > 0
    assert len(stand_in.requests) == asked
    another = oauth.client(None, **{"X-Forwarded-For": "192.0.2.3"})
    _, answer = await signed_in_with(oauth, "github", another)
    assert answer.status_code == 303
