"""GitHub's own description of its rulesets: what a request may say, and what an answer does."""

import json
from functools import cache
from typing import Any

from openapi_schema_validator import OAS30Validator
from working_tree import ROOT

DESCRIPTION = json.loads((ROOT / "tests/schemas/rulesets.openapi.json").read_text(encoding="utf-8"))
CREATE = "POST /repos/{owner}/{repo}/rulesets"
UPDATE = "PUT /repos/{owner}/{repo}/rulesets/{ruleset_id}"
LIST = "GET /repos/{owner}/{repo}/rulesets"
ENFORCED = "GET /repos/{owner}/{repo}/rules/branches/{branch}"


def strict(schema: Any) -> Any:
    """Refuse unknown keys, which GitHub passes over: a misspelt one would protect nothing."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if schema.get("type") == "object" else {}
    is_object = closed and "properties" in schema
    return {key: strict(part) for key, part in schema.items()} | (closed if is_object else {})


def complaints(operation: str, kind: str, body: object) -> list[str]:
    """Say what is wrong with the `requestBody` or the `response` of an operation."""
    errors = validator(operation, kind).iter_errors(body)
    return [f"{error.json_path}: {error.message}" for error in errors]


@cache
def validator(operation: str, kind: str) -> OAS30Validator:
    description = strict(DESCRIPTION) if kind == "requestBody" else DESCRIPTION
    schema = description["operations"][operation][kind]
    return OAS30Validator(schema | {"components": description["components"]})
