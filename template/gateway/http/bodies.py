"""Reads and validates the body of a generation's request, with limits on the work."""

import asyncio
import re
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from gateway.errors import InvalidRequest, ServiceError, UnsupportedParameter, shortened

# A body up to this size cannot have many parts.
SMALL_BYTES = 64 * 1024
# The texts, lists and objects of a body. Each takes the time and the memory of many bytes.
MAX_PARTS = 50_000
# Reporting an error takes much longer than finding it.
MAX_ERRORS = 100
TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
# The large bodies of one caller that are read at the same time.
AT_ONCE = 8
Body = TypeVar("Body", bound=BaseModel)


class LargeBodies:
    """Reads few large bodies of each caller at a time. The other ones wait in the network."""

    def __init__(self) -> None:
        # A caller's semaphore exists while it is in use.
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def read(self, request: Request, caller: str) -> bytes:
        """The body of a request. The wait for the semaphore counts against its time-out."""
        length = request.headers.get("content-length", "").lstrip("0")
        if length.isdecimal() and int(length) <= SMALL_BYTES:
            return await request.body()
        async with self._turns.setdefault(caller, asyncio.Semaphore(AT_ONCE)):
            return await request.body()


def parse(raw: bytes, schema: type[Body]) -> Body:
    """The body as `schema`.

    Raises `RequestValidationError`, `InvalidRequest` and `UnsupportedParameter`. FastAPI's own
    parsing takes twice the time.
    """
    _require_few_parts(raw)
    try:
        return schema.model_validate_json(raw)
    except ValidationError as error:
        raise _refusal(error, _decoded(raw), schema) from error


def parse_part(given: dict[str, Any], schema: type[Body], *path: str) -> Body:
    """The part of a body at `path` as `schema`. Raises as `parse`."""
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        raise _refusal(error, given, schema, *path) from error


def wrong_body(error: ValidationError, body: Any, *path: str) -> RequestValidationError:
    """`error` as FastAPI's error for a body that is wrong at `path`."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    errors = [{**e, "loc": ("body", *path, *e["loc"])} for e in found]
    return RequestValidationError(errors, body=body)


def _require_few_parts(raw: bytes) -> None:
    """Raise `InvalidRequest` for a body with more than `MAX_PARTS` parts."""
    if len(raw) <= SMALL_BYTES:
        return
    rest, texts = TEXT.subn(b"", raw)
    if texts + rest.count(b"[") + rest.count(b"{") > MAX_PARTS:
        raise InvalidRequest(
            f"The body has more than {MAX_PARTS} texts, lists and objects; send fewer of them."
        )


def _refusal(
    error: ValidationError, given: Any, schema: type[BaseModel], *path: str
) -> ServiceError | RequestValidationError:
    """The error for what was `given` at `path`; with too many errors, its first unknown name."""
    if error.error_count() <= MAX_ERRORS:
        body = given
        for name in reversed(path):
            body = {name: body}
        return wrong_body(error, body, *path)
    names = given if isinstance(given, dict) else {}
    unknown = next((name for name in names if name not in schema.model_fields), None)
    if unknown is None:
        return InvalidRequest(f"The body has more than {MAX_ERRORS} errors; see /docs.")
    place = shortened(".".join([*path, unknown]))
    return UnsupportedParameter(f"The parameter {place!r} is not supported.", param=place)


def _decoded(raw: bytes) -> Any:
    """The JSON document of a body; None if it is not JSON."""
    try:
        return from_json(raw)
    except ValueError:
        return None
