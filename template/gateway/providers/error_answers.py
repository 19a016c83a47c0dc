"""What a provider's error answer means: the party to blame, and whether the provider bills it.

Servers use many formats. `read_error` reads all known ones; an adapter's `ErrorTable` decides by
code, then by text, then by status.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.providers.base import Blame, blame_of

MAX_NAME_CHARS = 100
MAX_REASON_CHARS = 500
# The fields in which servers repeat the status in an error body.
STATUS_FIELDS = ("http_status_code", "status_code", "status", "code")
# The status of an error that is sent under status 200, by its type or code.
STATUS_OF_CODE = {
    "authentication_error": 401,
    "insufficient_quota": 429,
    "internal_error": 500,
    "internal_server_error": 500,
    "invalid_api_key": 401,
    "invalid_request_error": 400,
    "not_found_error": 404,
    "overloaded": 429,
    "overloaded_error": 503,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "server_error": 500,
    "service_unavailable": 503,
    "tokens": 429,
}
CONTEXT_LENGTH = "context_length_exceeded"
# Messages for a conversation that is too long, from servers without a code for it.
TOO_LONG = re.compile(
    r"maximum context length|context (?:window|size|length)|exceed_context_size"
    r"|max_new_tokens.? must be|too many (?:input )?tokens|prompt is too long"
    r"|too large for model with \d+ maximum",
    re.IGNORECASE,
)


class ErrorCase(NamedTuple):
    """The party to blame for an error.

    `billed` is False when the provider's terms say that it does not bill the error, None when that
    is unknown.
    """

    blame: Blame
    billed: bool | None = False


class ErrorAnswer(NamedTuple):
    """The content of an error body.

    `retry_after` is in seconds. `is_own` is true for a format that providers use; a proxy in
    between sends other ones.
    """

    reason: str | None = None
    codes: tuple[str, ...] = ()
    param: str | None = None
    status: int | None = None
    retry_after: float | None = None
    is_own: bool = False

    @property
    def code(self) -> str | None:
        """The code for the client. A conversation that is too long always gets OpenAI's code."""
        if CONTEXT_LENGTH in self.codes or (self.reason and TOO_LONG.search(self.reason)):
            return CONTEXT_LENGTH
        return self.codes[0] if self.codes else None


class ErrorTable(NamedTuple):
    """The error answers of one provider: the first match of codes, texts and statuses counts.

    `blame_of` decides for statuses that are not listed. A client error is not billed.
    """

    codes: Mapping[str, ErrorCase]
    texts: Sequence[tuple[re.Pattern[str], ErrorCase]]
    statuses: Mapping[int, ErrorCase]

    def case(self, status: int | None, answer: ErrorAnswer) -> ErrorCase:
        """The case of `answer` under HTTP `status`; None is an error in place of an answer."""
        for code in answer.codes:
            if code in self.codes:
                return self.codes[code]
        if answer.reason:
            for pattern, case in self.texts:
                if pattern.search(answer.reason):
                    return case
        return self._by_status(status, answer)

    def _by_status(self, status: int | None, answer: ErrorAnswer) -> ErrorCase:
        is_client_error = status is not None and 400 <= status < 500 and status != 408
        usual = ErrorCase(blame_of(status), False if is_client_error else None)
        case = self.statuses.get(status or 0, usual)
        # A proxy may send this error while the server behind it goes on to work, and to bill.
        uncertain = not is_client_error and not answer.is_own
        return case._replace(billed=None) if uncertain else case


def read_error(document: Any) -> ErrorAnswer:
    """Read an error body: OpenAI's, FastAPI's `detail`, a text, a list of texts, a problem."""
    if not isinstance(document, dict):
        return ErrorAnswer(_text(document))
    error = document.get("error") or document
    fields = error if isinstance(error, dict) else document
    reason = next((text for text in map(_text, _messages(document, error)) if text), None)
    names = (fields.get("code"), fields.get("type"), document.get("error_type"))
    codes = tuple(name for name in names if isinstance(name, str) and 0 < len(name) <= 100)
    return ErrorAnswer(
        reason,
        codes,
        _name(fields.get("param")),
        _status(fields, codes),
        seconds(document.get("retry_after")) or seconds(fields.get("retry_after")),
        is_own=reason is not None or bool(codes),
    )


def seconds(value: Any) -> float | None:
    """A pause in seconds, from a number or its text; None if `value` is not a positive number."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and found > 0 else None


def _messages(document: Mapping[str, Any], error: Any) -> list[Any]:
    if not isinstance(error, dict):
        return [error, document.get("message")]
    title, detail = error.get("title"), error.get("detail")
    if isinstance(title, str) and isinstance(detail, str):
        return [f"{title}: {detail}"]
    return [error.get("message"), detail, title, error.get("msg")]


def _text(given: Any) -> str | None:
    """A message as one text: servers also send lists of texts or of problems by field."""
    if isinstance(given, list):
        given = "; ".join(filter(None, map(_text, given[:10])))
    if isinstance(given, dict):
        place = _place(given.get("loc"))
        message = _text(given.get("msg") or given.get("message") or given.get("detail"))
        given = f"{place}: {message}" if place and message else message
    if not isinstance(given, str) or not given.strip():
        return None
    return " ".join(given[: 2 * MAX_REASON_CHARS].split())[:MAX_REASON_CHARS]


def _place(given: Any) -> str:
    return ".".join(map(str, given)) if isinstance(given, list | tuple) else ""


def _name(given: Any) -> str | None:
    """A parameter's name. A longer text, or another type, may hold content."""
    return given if isinstance(given, str) and 0 < len(given) <= MAX_NAME_CHARS else None


def _status(fields: Mapping[str, Any], codes: Sequence[str]) -> int | None:
    """The HTTP status in the body, as a number or by its code."""
    for name in STATUS_FIELDS:
        status = fields.get(name)
        if isinstance(status, str) and status.isascii() and status.isdecimal() and len(status) == 3:
            status = int(status)
        if isinstance(status, int) and not isinstance(status, bool) and 400 <= status <= 599:
            return status
    return next((STATUS_OF_CODE[code] for code in codes if code in STATUS_OF_CODE), None)
