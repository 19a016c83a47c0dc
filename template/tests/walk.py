"""Every operation of the application, and requests that fit their declarations."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import httpx2
from fastapi import FastAPI
from starlette.routing import Route

from gateway.accounts.audit import command_line
from gateway.accounts.principals import Role, TeamRole
from gateway.accounts.teams import Teams
from gateway.http.exception_handlers import all_routes
from tests.support import Service, User

PARAMETER = re.compile(r"\{(\w+)\}")
# Ids of the right form that no row has, and the name of a model.
UNKNOWN = {
    "prediction_id": "pred_" + 32 * "0",
    "key_id": "key_" + 32 * "0",
    "user_id": "usr_" + 32 * "0",
    "team_id": "team_" + 32 * "0",
    "invitation_id": "inv_" + 32 * "0",
    "name": "offline/echo",
}
# Values of fields that are not free text.
VALUES = {"model": "offline/echo", "plan": "narrow", "target": "model:none"}

FORMATS = {"date": "2030-01-31", "date-time": "2030-01-31T12:00:00Z"}


class Operation(NamedTuple):
    """A method of a path; `body` is the schema of its JSON body, if it has one."""

    method: str
    path: str
    body: Mapping[str, Any] | None
    definitions: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def parameters(self) -> list[str]:
        """The names in the path."""
        return PARAMETER.findall(self.path)

    @property
    def fields(self) -> Mapping[str, Any]:
        """The schemas of the body's fields, by name."""
        fields: Mapping[str, Any] = self._resolved(self.body or {}).get("properties", {})
        return fields

    def url(self, ids: Mapping[str, str] | None = None) -> str:
        """The path with `ids`, and unknown ids for the rest."""
        known = UNKNOWN | dict(ids or {})
        return PARAMETER.sub(lambda match: known[match[1]], self.path)

    def example(self, text: str = "word") -> Any:
        """A body with the fields that are needed, and `text` as its texts; None without a body."""
        return None if self.body is None else self.value(self.body, text)

    def value(self, schema: Mapping[str, Any], text: str = "word", name: str = "") -> Any:
        """A value that `schema` allows."""
        schema = self._resolved(schema)
        if name in VALUES:
            return VALUES[name]
        if "const" in schema:
            return schema["const"]
        if schema.get("format") in FORMATS:
            return FORMATS[schema["format"]]
        if "enum" in schema:
            return schema["enum"][0]
        if schema.get("type") == "object" and "properties" in schema:
            return {
                each: self.value(schema["properties"][each], text, each)
                for each in schema["properties"]
                if each in VALUES or each in schema.get("required", ())
            }
        if schema.get("type") == "array":
            return [self.value(schema.get("items", {"type": "string"}), text)]
        long = text * (1 + schema.get("minLength", 0) // len(text))
        simple = {
            "string": f"{text}@example.com" if name == "email" else long,
            "integer": schema.get("minimum", 1),
            "number": schema.get("minimum", 1),
            "boolean": False,
            "object": {"prompt": text},
        }
        return simple.get(schema.get("type", "string"))

    async def call(
        self, client: httpx2.AsyncClient, body: Any = None, ids: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """The answer to a request with `ids`, and unknown ids for the rest."""
        given = {} if body is None else {"json": body}
        return await client.request(self.method, self.url(ids), **given)

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """`schema` without references; of several forms the first that is not null."""
        while "$ref" in schema or "anyOf" in schema or "oneOf" in schema:
            if "$ref" in schema:
                schema = self.definitions[schema["$ref"].rpartition("/")[2]]
            else:
                forms = schema.get("anyOf") or schema["oneOf"]
                schema = next(form for form in forms if form.get("type") != "null")
        return schema


async def create_owner(service: Service, role: Role = Role.USER, email: str = "") -> User:
    """A new user who owns a team of their own: the most routes work for an administrator."""
    user = await service.create_user(email=email, role=role)
    teams = Teams(service.database)
    team = await teams.create("Acme", "shared", command_line())
    await teams.add(team.id, user.id, TeamRole.OWNER, command_line())
    return user


_descriptions: list[dict[str, Any]] = []


def operations(app: FastAPI) -> list[Operation]:
    """Every operation of `app`, also those that its description leaves out."""
    if not _descriptions:  # Each application has the same one, and it takes half a second.
        _descriptions.append(app.openapi())
    return sorted(_operations(app, _descriptions[0]), key=str)


def _operations(app: FastAPI, described: Mapping[str, Any]) -> Iterator[Operation]:
    """The operations of `app`. A HEAD is that of the GET."""
    definitions = described["components"]["schemas"]
    for route in all_routes(app.routes):
        assert isinstance(route, Route)
        for method in sorted((route.methods or set()) - {"HEAD"}):
            operation = described["paths"].get(route.path_format, {}).get(method.lower(), {})
            content = operation.get("requestBody", {}).get("content", {})
            schema = content.get("application/json", {}).get("schema")
            yield Operation(method, route.path_format, schema, definitions)
