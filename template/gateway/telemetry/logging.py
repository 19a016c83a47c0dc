"""Logs: one JSON object a line on standard output; in development, readable lines.

All logs go through the standard library's logging, so that those of uvicorn and other libraries
have the same format, and the same redactor, as the service's own.
"""

import datetime as dt
import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any

from gateway.json_text import encode
from gateway.telemetry.context import bound_fields
from gateway.telemetry.redaction import make_redactor

logger = logging.getLogger("app")

# Libraries that log each connection, or requests that the service logs itself.
QUIET = {"uvicorn.access": logging.CRITICAL, "alembic": logging.WARNING}
# Fields of a record that no format prints, so that logging need not collect them.
UNUSED = ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks")


def configure(secrets: Iterable[str], level: str, *, for_people: bool) -> None:
    """Set up all logging of this process. `secrets` are redacted.

    The format is JSON; with `for_people`, readable lines.
    """
    redact = make_redactor(secrets)
    formatter = TextFormatter if for_people else JsonFormatter
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter(redact))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(capture=True)
    for name in UNUSED:
        setattr(logging, name, False)
    logging._srcfile = None  # Likewise the line of code, which is the slowest to find.
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(least)


def log(level: int, message: str, *, error: BaseException | None = None, **fields: Any) -> None:
    """Log an event with `fields`, and the traceback of `error`."""
    logger.log(level, message, extra={"fields": fields}, exc_info=error)


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `logger`, `message`, the fields of the request, and those of the event."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **bound_fields(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return encode({name: self._clean(value) for name, value in event.items()}).decode()

    def _clean(self, value: Any) -> Any:
        """`value` with its texts redacted. Done before encoding, as escapes change a text."""
        if isinstance(value, dict):
            return {self._clean(name): self._clean(part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(part) for part in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self._redact(str(value))


class TextFormatter(JsonFormatter):
    """The same events as readable lines."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {**bound_fields(), **getattr(record, "fields", {})}
        time = dt.datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        text = f"{time} {record.levelname:<8}{record.getMessage()}"
        text += "".join(f"  {name}={value}" for name, value in fields.items())
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return self._redact(text)
