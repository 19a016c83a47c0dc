"""The export of a user as the answer of a route."""

from typing import Any

from fastapi.responses import StreamingResponse
from sqlalchemy import Row

from gateway.accounts.user_export import MEDIA_TYPE, UserExport
from gateway.db.engine import Database


class JsonLines(StreamingResponse):
    """One JSON object a line."""

    media_type = MEDIA_TYPE


def json_lines(database: Database, user: Row[Any]) -> JsonLines:
    """The export of a user, as a file."""
    name = f'attachment; filename="{user.id}.jsonl"'
    lines = UserExport(database, user).lines()
    return JsonLines(lines, headers={"Content-Disposition": name, "Cache-Control": "no-store"})


# For the description: as the class has no media type, errors are described as JSON.
JSON_LINES: dict[int | str, dict[str, Any]] = {
    200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}
}
