"""A person in a real browser follows a link, chooses a password, and signs in with it."""

from playwright.async_api import Browser

from tests.fixtures.browser import PATIENCE_MS
from tests.fixtures.service import Run
from tests.support import Service

ADDRESS, NEW = "zoe@example.com", "correct horse battery staple"


async def test_a_person_follows_an_invitation_and_signs_in(
    service: Service, run: Run, chromium: Browser
) -> None:
    made = await run("links", "invite", "--email", ADDRESS, "--plan", "few")
    token = made.stdout.splitlines()[-1].partition("#")[2]
    page = await chromium.new_page()
    page.set_default_timeout(PATIENCE_MS)
    await page.goto(f"{service.url}/auth/link#{token}")
    await page.fill("#password", NEW)
    await page.fill("#again", NEW)
    # The script of the page has sent the token in a form.
    assert page.url == f"{service.url}/auth/link"
    account = page.locator("[autocomplete=username]")
    assert await account.input_value() == ADDRESS
    assert not await account.is_visible()
    await page.click("button")
    await page.wait_for_url(f"{service.url}/auth/sign-in")
    await page.fill("#email", ADDRESS)
    await page.fill("#password", NEW)
    await page.click("button")
    await page.wait_for_selector(f"text=Signed in as {ADDRESS}.")
    # A link works once.
    await page.goto(f"{service.url}/auth/link#{token}")
    await page.wait_for_selector("[role=alert]")
    assert "This link is not valid" in await page.inner_text("[role=alert]")
