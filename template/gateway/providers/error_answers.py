"""What a provider's error answer means: whose fault it is, and whether the provider bills it.

Servers put the same facts in many forms. `read_error` reads all forms that are known; the
`ErrorTable` of an adapter decides by code, by text, then by status.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.providers.base import Blame, blame_of

MAX_NAME_CHARS = 100
MAX_REASON_CHARS = 500
# Where servers put a status into an error body.
STATUS_FIELDS = ("http_status_code", "status_code", "status", "code")
# Types and codes that say which status an error has when it comes under status 200.
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
# How servers that have no code for it say that a conversation is too long.
TOO_LONG = re.compile(
    r"maximum context length|context (?:window|size|length)|exceed_context_size"
    r"|max_new_tokens.? must be|too many (?:input )?tokens|prompt is too long"
    r"|too large for model with \d+ maximum",
    re.IGNORECASE,
)


class ErrorCase(NamedTuple):
    """Whose fault an error is. `billed` is False when the provider's terms say that it does not
    bill the error, None when that is unknown.
    """

    blame: Blame
    billed: bool | None = False


class ErrorAnswer(NamedTuple):
    """What an error body says. `is_own` tells that it has a form that providers use, and was not
    written by a proxy in between. `retry_after` is in seconds.
    """

    reason: str | None = None
    codes: tuple[str, ...] = ()
    param: str | None = None
    status: int | None = None
    retry_after: float | None = None
    is_own: bool = False

    @property
    def code(self) -> str | None:
        """The code that clients know: a conversation that is too long always has OpenAI's."""
        if CONTEXT_LENGTH in self.codes or (self.reason and TOO_LONG.search(self.reason)):
            return CONTEXT_LENGTH
        return self.codes[0] if self.codes else None


class ErrorTable(NamedTuple):
    """What the error answers of one provider mean, the first match of codes, texts, statuses.

    Statuses that are not listed are blamed as `blame_of` says. A client error is not billed.
    """

    codes: Mapping[str, ErrorCase]
    texts: Sequence[tuple[re.Pattern[str], ErrorCase]]
    statuses: Mapping[int, ErrorCase]

    def case(self, status: int | None, answer: ErrorAnswer) -> ErrorCase:
        """What `answer` under `status` means."""
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
        # A proxy in between may answer for a server that goes on to work, and to bill.
        uncertain = not is_client_error and not answer.is_own
        return case._replace(billed=None) if uncertain else case


def read_error(document: Any) -> ErrorAnswer:
    """Read an error body: OpenAI's, FastAPI's `detail`, a text, a list of texts, a problem."""
    if not isinstance(document, dict):
        return ErrorAnswer(_text(document))
    error = document.get("error") or document
    fields = error if isinstance(error, dict) else document
    told = next((text for text in map(_text, _messages(document, error)) if text), None)
    names = (fields.get("code"), fields.get("type"), document.get("error_type"))
    codes = tuple(name for name in names if isinstance(name, str) and 0 < len(name) <= 100)
    return ErrorAnswer(
        told,
        codes,
        _name(fields.get("param")),
        _status(fields, codes),
        seconds(document.get("retry_after")) or seconds(fields.get("retry_after")),
        is_own=told is not None or bool(codes),
    )


def seconds(value: Any) -> float | None:
    """A pause in seconds, given as a number or as its text; None for what is none."""
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


def _text(told: Any) -> str | None:
    """A message as one text: servers also send lists of texts or of problems by field."""
    if isinstance(told, list):
        told = "; ".join(filter(None, map(_text, told[:10])))
    if isinstance(told, dict):
        place = ".".join(str(step) for step in told.get("loc") or ())
        message = _text(told.get("msg") or told.get("message") or told.get("detail"))
        told = f"{place}: {message}" if place and message else message
    if not isinstance(told, str) or not told.strip():
        return None
    return " ".join(told[: 2 * MAX_REASON_CHARS].split())[:MAX_REASON_CHARS]


def _name(told: Any) -> str | None:
    """A parameter's name; what a provider says instead may be of any form, or hold content."""
    return told if isinstance(told, str) and 0 < len(told) <= MAX_NAME_CHARS else None


def _status(fields: Mapping[str, Any], codes: Sequence[str]) -> int | None:
    """The HTTP status that the body states, in digits or by its code."""
    for name in STATUS_FIELDS:
        told = fields.get(name)
        if isinstance(told, str) and told.isascii() and told.isdecimal() and len(told) == 3:
            told = int(told)
        if isinstance(told, int) and not isinstance(told, bool) and 400 <= told <= 599:
            return told
    return next((STATUS_OF_CODE[code] for code in codes if code in STATUS_OF_CODE), None)
