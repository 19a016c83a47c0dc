"""`GET /`: a page that says what this is, and loads nothing."""

import html
import re

import httpx2
import pytest

from gateway.errors import LimiterUnavailable
from tests.support import Service, error_of

NONCE = re.compile(r"style-src 'nonce-([\w-]{20,})'")


async def _page(service: Service) -> httpx2.Response:
    response = await service.client().get("/")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/html")
    return response


async def test_it_names_the_service_and_its_documentation(service: Service) -> None:
    page = (await _page(service)).text
    assert f"<h1>{html.escape(service.settings.project['title'])}</h1>" in page
    client = service.client()
    for path in re.findall(r'href="([^"]+)"', page):
        assert (await client.get(f"/{path}")).status_code == 200


async def test_names_are_text_and_never_markup(service: Service) -> None:
    service.settings.project.update(
        title="<script>alert(1)</script>", description="\"quoted\" & 'so' $nonce {{ x }}"
    )
    page = (await _page(service)).text
    assert "<h1>&lt;script&gt;alert(1)&lt;/script&gt;</h1>" in page
    assert "<title>&lt;script&gt;" in page
    assert "&quot;quoted&quot; &amp; &#x27;so&#x27; $nonce {{ x }}" in page
    assert "<script" not in page


async def test_it_says_whether_it_is_ready(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 'class="ready">ready<' in (await _page(service)).text

    async def gone() -> None:
        raise LimiterUnavailable("secret-host is gone")

    monkeypatch.setattr(service.engine.limiter, "check", gone)
    page = (await _page(service)).text
    assert 'class="waiting">not ready' in page
    assert "secret-host" not in page


async def test_its_policy_admits_its_own_style_alone(service: Service) -> None:
    first, second = await _page(service), await _page(service)
    policy = first.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    nonces = [NONCE.search(page.headers["Content-Security-Policy"]) for page in (first, second)]
    assert nonces[0]
    assert nonces[1]
    assert nonces[0][1] != nonces[1][1]
    assert f'<style nonce="{nonces[0][1]}">' in first.text


async def test_nothing_comes_from_elsewhere(service: Service) -> None:
    page = (await _page(service)).text
    assert not re.findall(r"(?i)//|<script|<img|<link|@import|url\(|src=|\son\w+=", page)


async def test_the_documentation_loads_its_parts_from_the_service(service: Service) -> None:
    client = service.client()
    page = (await client.get("/docs")).text
    assert "//" not in page
    parts = re.findall(r'(?:src|href|url)(?:=|: )"([^"]+)"', page)
    assert len(parts) == 3
    sizes = {part: len((await client.get(f"/{part}")).content) for part in parts}
    assert all(size > 5_000 for size in sizes.values()), sizes
    styles = (await client.get("/docs/swagger-ui.css")).text
    assert not re.findall(r"@import|url\((?!['\"]?(?:data:|#))", styles)


async def test_a_browser_keeps_the_documentation_to_this_service(service: Service) -> None:
    """What its scripts might load from elsewhere, now or in a later version, is refused."""
    response = await service.client().get("/docs")
    policy = dict(
        directive.strip().split(" ", 1)
        for directive in response.headers["Content-Security-Policy"].split(";")
    )
    nonce = policy.pop("script-src").removeprefix("'nonce-").removesuffix("'")
    assert response.text.count(f'<script nonce="{nonce}"') == response.text.count("<script") == 2
    allowed = {source for sources in policy.values() for source in sources.split()}
    assert policy["default-src"] == "'none'"
    assert allowed == {"'none'", "'self'", "'unsafe-inline'", "data:"}
    assert "'unsafe-inline'" not in policy["default-src"] + policy["connect-src"]
    # An online checker of Swagger UI would receive the description's address.
    assert "validatorUrl: null" in response.text


async def test_names_in_the_documentation_are_text(service: Service) -> None:
    service.settings.project.update(title="</title><script>alert(1)</script>")
    page = (await service.client().get("/docs")).text
    assert "<script>" not in page


async def test_other_parts_of_the_package_are_not_served(service: Service) -> None:
    for path in ("/redoc", "/docs/redoc.standalone.js", "/docs/../routes.py", "/docs/favicon.png"):
        assert error_of(await service.client().get(path)) == (404, "not_found", None)
