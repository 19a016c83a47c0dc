"""A person in a real browser signs in at a real OpenID Connect provider, both on this machine."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.async_api import Browser

from gateway.db.tables import sessions
from tests.fixtures.browser import PATIENCE_MS
from tests.fixtures.service import Start
from tests.sign_in import form_of
from tests.support import serving


@pytest.fixture
def issuer() -> Iterator[str]:
    """The address of a provider that knows Jane, whose address is verified, and Eve."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the provider's own use of its library
        from oidc_provider_mock import (  # type: ignore[import-untyped] # noqa: PLC0415
            User,
            run_server_in_thread,
        )

        users = [
            User(sub="jane", claims={"email": "jane@example.com", "email_verified": True}),
            User(sub="eve", claims={"email": "jane@example.com", "email_verified": False}),
        ]
        with run_server_in_thread(require_nonce=True, user_claims=users) as server:
            yield f"http://localhost:{server.server_port}"


async def test_a_person_signs_in_and_out_with_an_openid_connect_provider(
    start: Start, chromium: Browser, issuer: str
) -> None:
    service = await start(
        oauth_oidc_issuer=issuer,
        oauth_oidc_client_id="acme",
        oauth_oidc_client_secret="secret",
        oauth_allowed="example.com",
    )
    page = await chromium.new_page()
    page.set_default_timeout(PATIENCE_MS)
    await page.goto(f"{service.url}/")
    await page.click("text=Sign in or out")
    await page.click("a.button")
    # The provider's own page, at another origin.
    assert page.url.startswith(f"{issuer}/oauth2/authorize?")
    await page.click("button[value=eve]")
    await page.wait_for_selector("[role=alert]")
    assert "verified" in await page.inner_text("[role=alert]")
    await page.click("a.button")
    await page.click("button[value=jane]")
    await page.wait_for_selector("text=Signed in as jane@example.com.")
    assert page.url == f"{service.url}/auth/sign-in"
    answer = await page.goto(f"{service.url}/v1/me")
    assert answer is not None
    assert (await answer.json())["email"] == "jane@example.com"
    await page.goto(f"{service.url}/auth/sign-in")
    # Scripts see no cookie, and nothing is stored.
    assert await page.evaluate("document.cookie + localStorage.length") == "0"
    await page.click("text=Sign out >> nth=0")
    await page.wait_for_selector("a.button")
    answer = await page.goto(f"{service.url}/v1/me")
    assert answer is not None
    assert answer.status == 401
    assert await service.rows(sessions) == []


async def test_a_person_signs_in_in_the_frame_of_another_site(
    start: Start, chromium: Browser
) -> None:
    framing = FastAPI(openapi_url=None)
    shown: dict[str, Any] = {}

    @framing.get("/")
    async def frame() -> HTMLResponse:
        return HTMLResponse(f'<iframe src="{shown["url"]}/auth/sign-in"></iframe>')

    async with serving(framing) as url:
        other_site = url.replace("127.0.0.1", "localhost")
        service = await start(framed_by=other_site)
        shown["url"] = service.url
        user = await service.create_user()
        page = await chromium.new_page()
        page.set_default_timeout(PATIENCE_MS)
        await page.goto(other_site)
        inner = page.frame_locator("iframe")
        for name, value in form_of(user).items():
            await inner.locator(f"#{name}").fill(value)
        await inner.locator("text=Sign in >> visible=true").last.click()
        await inner.locator(f"text=Signed in as {user.email}.").wait_for()
        # Outside of that frame, this browser has no session.
        await page.goto(f"{service.url}/auth/sign-in")
        assert await page.locator("text=Signed in as").count() == 0
