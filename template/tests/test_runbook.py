"""docs/runbook.md and the service speak of the same errors and metrics."""

import re
from collections.abc import Iterator

from prometheus_client import Counter, Histogram

from gateway.errors import IdempotencyMismatch, ServiceError
from gateway.http.exception_handlers import FRAMEWORK_ERRORS
from gateway.http.header_limits import CODE, REFUSALS
from gateway.telemetry import metrics
from tests.support import ROOT

MISMATCH = IdempotencyMismatch.code
PAGE = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\d{3}) \| (`.+?) \|", re.MULTILINE)

METRIC = re.compile(r"^\| `(\w+)` \| `", re.MULTILINE)


def _errors(base: type[ServiceError]) -> Iterator[tuple[int, str]]:
    """Status and code of all that the service raises; those of tests are none."""
    yield base.status, base.code
    for error in base.__subclasses__():
        if error.__module__.startswith(("app.", "gateway.")):
            yield from _errors(error)


def test_every_error_is_explained_and_no_other() -> None:
    raised = {*_errors(ServiceError)} | {answer[:2] for answer in FRAMEWORK_ERRORS.values()}
    raised |= {(status, CODE) for status in REFUSALS}
    # OpenAI's routes answer these with its own status.
    raised |= {(400, code) for status, code in raised if status == 422 and code != MISMATCH}
    listed = [(status, code) for status, codes in ROW.findall(PAGE) for code in codes.split(", ")]
    assert sorted(listed) == sorted((str(status), f"`{code}`") for status, code in raised)


def test_every_metric_is_explained_and_no_other() -> None:
    _, _, counted = PAGE.partition("## What is counted")
    known = [metric for metric in vars(metrics).values() if isinstance(metric, Counter | Histogram)]
    names = [
        f"{described.name}{'_total' * isinstance(metric, Counter)}"
        for metric in known
        for described in metric.describe()
    ]
    assert sorted(METRIC.findall(counted)) == sorted(names)
