"""`/openapi.json` describes every route: what it takes, what it answers and how to log in."""

from functools import cache
from typing import Any

import pytest

from app.main import create_app
from app.settings import Settings

CHAT, PREDICTIONS = "/v1/chat/completions", "/v1/predictions"
GENERATIONS = (CHAT, "/v1/responses", "/v1/embeddings", PREDICTIONS)


@cache
def _describe() -> dict[str, Any]:
    """Made once: it takes longer than a test."""
    return create_app(Settings(_env_file=None)).openapi()


@pytest.fixture
def document(clean_environment: None, restored_logging: None) -> dict[str, Any]:
    """The API's description."""
    return _describe()


def _json_of(described: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = described["content"]["application/json"]["schema"]
    return schema


@pytest.mark.parametrize("path", GENERATIONS)
def test_a_generation_has_its_body_and_its_key(document: dict[str, Any], path: str) -> None:
    operation = document["paths"][path]["post"]
    name = _json_of(operation["requestBody"])["$ref"].rpartition("/")[2]
    assert "model" in document["components"]["schemas"][name]["required"]
    parameters = {each["name"]: each["in"] for each in operation["parameters"]}
    assert parameters["Idempotency-Key"] == "header"


def test_answers_have_schemas(document: dict[str, Any]) -> None:
    for path, status in zip(GENERATIONS, ("200", "200", "200", "201"), strict=True):
        answer = document["paths"][path]["post"]["responses"][status]
        assert _json_of(answer)["$ref"].startswith("#/components/schemas/"), path
    chat = document["paths"][CHAT]["post"]["responses"]["200"]
    assert "text/event-stream" in chat["content"]
    completion = document["components"]["schemas"]["ChatCompletion"]
    assert {"id", "object", "choices", "usage"} <= completion["properties"].keys()
    assert "prefer" in {
        each["name"] for each in document["paths"][PREDICTIONS]["post"]["parameters"]
    }


def test_all_routes_but_those_for_monitors_need_a_login(document: dict[str, Any]) -> None:
    (scheme,) = document["components"]["securitySchemes"]
    # Of the log-in's own routes, some are for those who are logged in.
    rest = {path: found for path, found in document["paths"].items() if "/auth/" not in path}
    for path, operations in rest.items():
        for operation in operations.values():
            wanted: Any = [{scheme: []}] if path.startswith("/v1/") else None
            assert operation.get("security") == wanted, path


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(_references(document)) <= known


def _references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [each for value in part.values() for each in _references(value)]
    return [each for value in part for each in _references(value)] if isinstance(part, list) else []
