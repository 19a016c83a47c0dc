"""Reads the forms of this service's own pages."""

from urllib.parse import parse_qsl

from fastapi import Request
from starlette.exceptions import HTTPException

from gateway.errors import InvalidRequest

FORM_TYPE = "application/x-www-form-urlencoded"
MAX_FORM_BYTES = 16 * 1024
MAX_FIELDS = 20


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises `InvalidRequest`; `HTTPException` 413 for a large one."""
    if not is_form(request):
        raise InvalidRequest(f"A form is needed: Content-Type: {FORM_TYPE}.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise HTTPException(413)
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise InvalidRequest("The form could not be read; send it in UTF-8.") from error
    return dict(pairs)


def is_form(request: Request) -> bool:
    """Whether the body of a request is a form."""
    given = request.headers.get("content-type", "").partition(";")[0]
    return given.strip().lower() == FORM_TYPE
