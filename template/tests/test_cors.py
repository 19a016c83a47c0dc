"""Browser applications of other origins: what they may send, and what they may read."""

import httpx2
import pytest

from gateway.http.cors import EXPOSED
from tests.fixtures.service import Start
from tests.support import Service, chat, error_of

CHAT = "/v1/chat/completions"
APP, OTHER = "https://app.example.com", "https://other.example.com"
ALLOW_ORIGIN = "access-control-allow-origin"


@pytest.fixture
async def service(start: Start) -> Service:
    """A service that names an origin."""
    return await start(cors_origins=f"{APP},http://localhost:5173", max_body_bytes=4096)


async def _preflight(service: Service, origin: str, path: str = CHAT) -> httpx2.Response:
    """What a browser asks before it sends a chat."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    }
    return await service.client().options(path, headers=headers)


def _is_readable(response: httpx2.Response, origin: str = APP) -> bool:
    """Whether scripts of an origin may read it, and its headers."""
    assert "access-control-allow-credentials" not in response.headers
    exposed = response.headers.get("access-control-expose-headers", "").encode() == EXPOSED
    return exposed and response.headers.get_list(ALLOW_ORIGIN) in ([origin], ["*"])


async def test_a_preflight_is_answered_before_a_credential_is_asked_for(service: Service) -> None:
    response = await _preflight(service, APP)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers[ALLOW_ORIGIN] == APP
    assert "POST" in response.headers["access-control-allow-methods"].split(", ")
    allowed = response.headers["access-control-allow-headers"]
    assert allowed == "authorization,content-type,x-stainless-lang"
    assert int(response.headers["access-control-max-age"]) > 0
    assert response.headers["vary"] == "Origin"
    assert response.headers["x-request-id"]
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("origin", [OTHER, "null", f"{APP}.evil.com", "http://app.example.com", ""])
async def test_other_origins_are_allowed_nothing(service: Service, origin: str) -> None:
    response = await _preflight(service, origin)
    assert ALLOW_ORIGIN not in response.headers
    user = await service.create_user()
    answered = await service.client(user, Origin=origin).get("/v1/models")
    assert ALLOW_ORIGIN not in answered.headers
    assert answered.headers["vary"] == "Origin"


async def test_an_answer_is_readable(service: Service) -> None:
    client = service.client(await service.create_user(), **_from(APP))
    answer = await client.post(CHAT, json=chat())
    assert (answer.status_code, _is_readable(answer)) == (200, True)
    exposed = {name.lower() for name in EXPOSED.decode().split(", ")}
    present = {name for name in answer.headers if name.startswith("x-")}
    assert present <= exposed
    assert {"x-request-id", "x-prediction-id", "x-served-model"} <= present


async def test_a_stream_is_readable(service: Service) -> None:
    client = service.client(await service.create_user(), **_from(APP))
    async with client.stream("POST", CHAT, json=chat(stream=True)) as answer:
        assert (answer.status_code, _is_readable(answer)) == (200, True)
        assert (await answer.aread()).endswith(b"[DONE]\n\n")


async def test_errors_are_readable(service: Service) -> None:
    user = await service.create_user(plan="one")
    client = service.client(user, **_from(APP))
    anonymous = service.client(None, **_from(APP))
    answers = [
        await anonymous.post(CHAT, json=chat()),
        await client.post(CHAT, json=chat("long " * 1000)),
        await client.post(CHAT, json={"model": 1}),
        await client.get("/nowhere"),
        await client.options(CHAT),  # no preflight, as it asks for no method
        await client.post(CHAT, json=chat()),
        await client.post(CHAT, json=chat()),
    ]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:2] + statuses[3:] == [401, 413, 404, 405, 200, 429]
    assert all(map(_is_readable, answers))
    assert "retry-after" in answers[-1].headers


async def test_a_crash_is_readable(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.app.state, "authenticator", None)
    answer = await service.client(None, **_from(APP)).get("/v1/me")
    assert error_of(answer) == (500, "internal_error", None)
    assert _is_readable(answer)


async def test_every_origin(start: Start) -> None:
    service = await start(cors_origins="*")
    assert _is_readable(await _preflight(service, OTHER), "*")
    client = service.client(await service.create_user(), **_from("null"))
    answer = await client.post(CHAT, json=chat())
    assert (answer.status_code, _is_readable(answer, "*")) == (200, True)


@pytest.mark.parametrize("origin", [APP, "null"])
async def test_by_default_nothing_is_added(start: Start, origin: str) -> None:
    service = await start()
    preflight = await _preflight(service, origin)
    assert error_of(preflight)[0] == 405
    client = service.client(await service.create_user(), Origin=origin)
    answers = [preflight, await client.get("/v1/models")]
    names = {name for answer in answers for name in answer.headers}
    assert not {name for name in names if name.startswith("access-control-") or name == "vary"}
    assert len(service.app.user_middleware) == 1


def _from(origin: str) -> dict[str, str]:
    """What a browser adds to a request across origins."""
    return {"Origin": origin, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
