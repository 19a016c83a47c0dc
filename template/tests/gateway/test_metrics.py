"""`/metrics`: its counters, its credential, and labels without users."""

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.settings import Settings
from tests.fixtures.service import Start
from tests.support import Service, User, chat, error_of, eventually, unique

CHAT = "/v1/chat/completions"
TOKEN = "m3trics-0123456789-abcdefghijklmnopq"
# What only a test may do in production, where this service has such a switch.
PRODUCTION = {
    "environment": "production",
    **{name: True for name in Settings.model_fields if name.startswith("accept_")},
}


async def test_requests_are_counted_by_route_and_status(
    service: Service, client: httpx2.AsyncClient
) -> None:
    counted = {"method": "GET", "route": "/v1/predictions/{prediction_id}", "status": "404"}
    before = await _value(service, "http_requests_total", **counted)
    for _ in range(3):
        await client.get("/v1/predictions/none")
    assert await _value(service, "http_requests_total", **counted) == before + 3


async def test_unknown_addresses_share_one_label(service: Service) -> None:
    path = "/" + unique("path")
    await service.client().patch(path)

    async def counted() -> str:
        text = (await service.client().get("/metrics")).text
        return text if 'method="ANY",route="unmatched"' in text else ""

    # A request is counted when its answer is out.
    assert path not in await eventually(counted)


async def test_generations_are_counted_with_tokens_and_cost(
    service: Service, client: httpx2.AsyncClient
) -> None:
    names = {
        "generations_total": {"outcome": "ok"},
        "generation_seconds_count": {},
        "tokens_total": {"direction": "input"},
        "cost_nano_usd_total": {},
    }
    before = await _values(service, names)
    await client.post(CHAT, json=chat())
    prediction = await service.prediction()
    after = await _values(service, names)
    grown = [new - old for new, old in zip(after, before, strict=True)]
    assert grown == [1, 1, prediction.input_tokens, prediction.cost_nano_usd]
    assert prediction.cost_nano_usd > 0


async def test_labels_contain_no_users(service: Service) -> None:
    canary = unique("canary")
    user = await service.create_user(email=f"{canary}@example.com")
    client = service.client(user, **{"X-Request-ID": canary})
    await client.post(CHAT, json=chat(canary))
    await client.post(CHAT, json=chat(model=canary))
    await client.get(f"/v1/predictions/{canary}")
    text = (await service.client().get("/metrics")).text
    assert canary not in text
    assert user.id not in text
    families = list(text_string_to_metric_families(text))
    labels = {label for f in families for sample in f.samples for label in sample.labels}
    known = {"method", "route", "status", "model", "outcome", "direction", "limit", "kind", "le"}
    known.add("result")
    own = {"generation", "implementation", "major", "minor", "patchlevel", "version"}  # Python's
    assert labels <= known | own


async def test_production_hides_them_without_a_token(start: Start) -> None:
    service = await start(**PRODUCTION)
    for given in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer x"}):
        response = await service.client().get("/metrics", headers=given)
        assert error_of(response) == (404, "not_found", None)


@pytest.mark.parametrize("environment", [PRODUCTION, {}], ids=["production", "test"])
async def test_a_token_opens_them(start: Start, environment: dict[str, object]) -> None:
    service = await start(**environment, metrics_token=TOKEN)
    unknown = await service.client().get("/unknown")
    for wrong in ("", "Bearer", f"Bearer {TOKEN}x", TOKEN, f"Bearer {TOKEN[:-1]}", "Bearer ü"):
        headers = {b"Authorization": wrong.encode()}
        response = await service.client().get("/metrics", headers=headers)
        assert error_of(response) == (404, "not_found", None)
        assert response.json() == unknown.json()
    for scheme in ("Bearer", "bearer"):
        right = await service.client(Authorization=f"{scheme} {TOKEN}").get("/metrics")
        assert right.status_code == 200
        assert right.headers["Content-Type"].startswith("text/plain")
        assert "http_requests_total" in right.text


async def test_a_users_credential_is_no_token(start: Start) -> None:
    service = await start(metrics_token=TOKEN)
    user: User = await service.create_user()
    assert (await service.client(user).get("/metrics")).status_code == 404


async def _value(service: Service, name: str, **labels: str) -> float:
    """The value of a counter, zero before its first event."""
    text = (await service.client().get("/metrics")).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return 0.0


async def _values(service: Service, names: dict[str, dict[str, str]]) -> list[float]:
    return [
        await _value(service, name, model="offline/echo", **labels)
        for name, labels in names.items()
    ]
