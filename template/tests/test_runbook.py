"""docs/runbook.md and the service speak of the same errors."""

import re
from collections.abc import Iterator

from app.errors import ServiceError
from app.handlers import FRAMEWORK_ERRORS
from tests.support import ROOT

PAGE = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\d{3}) \| (`.+?) \|", re.MULTILINE)


def _errors(base: type[ServiceError]) -> Iterator[tuple[int, str]]:
    """Status and code of all that the service raises; those of tests are none."""
    yield base.status, base.code
    for error in base.__subclasses__():
        if error.__module__.startswith("app."):
            yield from _errors(error)


def test_every_error_is_explained_and_no_other() -> None:
    raised = {*_errors(ServiceError)} | {answer[:2] for answer in FRAMEWORK_ERRORS.values()}
    told = [(status, code) for status, codes in ROW.findall(PAGE) for code in codes.split(", ")]
    assert sorted(told) == sorted((str(status), f"`{code}`") for status, code in raised)
