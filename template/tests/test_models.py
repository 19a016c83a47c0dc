"""`GET /v1/models`, in OpenAI's wire format."""

import datetime as dt

import httpx2
import pytest

from tests.support import CHECKED, POLICY, Service, error_of


async def test_list(client: httpx2.AsyncClient) -> None:
    answer = (await client.get("/v1/models")).json()
    models = {model["id"]: model for model in answer["data"]}
    day = dt.date.fromisoformat(CHECKED.rpartition(" ")[2])
    checked = dt.datetime.combine(day, dt.time(), dt.UTC)
    assert answer["object"] == "list"
    assert models["offline/echo"] == {
        "id": "offline/echo",
        "object": "model",
        "created": int(checked.timestamp()),
        "owned_by": "offline",
    }
    assert list(models) == list(POLICY)


async def test_one(client: httpx2.AsyncClient) -> None:
    answer = (await client.get("/v1/models/offline/echo")).json()
    assert answer["id"] == "offline/echo"


@pytest.mark.parametrize("name", ["offline/none", "offline", "offline/echo/x"])
async def test_unknown(client: httpx2.AsyncClient, name: str) -> None:
    assert error_of(await client.get(f"/v1/models/{name}")) == (404, "model_not_found", "model")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/offline/echo"])
async def test_strangers_learn_nothing(service: Service, path: str) -> None:
    assert error_of(await service.client().get(path)) == (401, "invalid_credentials", None)
