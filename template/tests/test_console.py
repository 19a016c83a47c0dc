"""`GET /`: a page that says what this is, and loads nothing."""

import html
import re

import httpx2
import pytest

from app.errors import LimiterUnavailable
from tests.support import Service

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

    monkeypatch.setattr(service.app.state.limiter, "check", gone)
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
