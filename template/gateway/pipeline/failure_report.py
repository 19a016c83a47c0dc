"""Reports failed attempts to the operator: a log line, a metric, and the reason on the record.

The provider's text goes to the operator alone, without words of the request: providers repeat parts
of it, and content must not reach the logs.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gateway.db.tables import utc_now
from gateway.ledger.budget import Alert
from gateway.pipeline.generation import AttemptResult, Generation
from gateway.providers.base import Blame, Outcome, ProviderFailure
from gateway.telemetry import metrics
from gateway.telemetry.logging import log

MASK = "…"
ELLIPSES = ("..", "…")
# Shorter words reveal nothing of a request.
WORD = re.compile(r"\w{4,}")
MAX_REASON_CHARS = 500


class FailureReport:
    """Reports attempts. `redact` removes credentials from a text."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact

    def add(
        self, generation: Generation, result: AttemptResult, error: BaseException | None
    ) -> None:
        """Count the current attempt; log one that failed, and set its reason in `result`."""
        attempt = generation.current
        metrics.attempts.labels(attempt.model.id, metric_label(result, error)).inc()
        if error is None or result.outcome is Outcome.CANCELLED:
            return
        if isinstance(error, ProviderFailure):
            result.provider_status = error.status
            result.reason = self._reason(error, generation.call.body)
            if error.blame is Blame.ACCOUNT:
                result.alert = account_alert(attempt.model.provider, result)
        elif result.error is not None:
            result.reason = result.error.code
        state, cost_nano_usd = attempt.settlement(result)
        log(
            logging.WARNING,
            "An attempt failed",
            attempt=attempt.id,
            model=attempt.model.id,
            provider_status=result.provider_status,
            reason=result.reason,
            state=state,
            cost_nano_usd=cost_nano_usd,
        )

    def _reason(self, failure: ProviderFailure, body: Mapping[str, Any]) -> str:
        """The provider's text without the caller's words, or the adapter's text if it sent none."""
        text = f"{failure}: {failure.reason}" if failure.reason else str(failure)
        return self._redact(without_words_of(body, text))[:MAX_REASON_CHARS]


def metric_label(result: AttemptResult, error: BaseException | None) -> str:
    """The metric's label of a result: `ok`, the blame for a failure, or the outcome."""
    if error is None:
        return "ok"
    return error.blame.value if isinstance(error, ProviderFailure) else result.outcome.value


def account_alert(provider: str, result: AttemptResult) -> Alert:
    """The alert that the account at `provider` is out of credit or refused; once a day."""
    details = {"provider": provider, "status": result.provider_status, "reason": result.reason}
    return Alert(f"account:{provider}:{utc_now().date()}", "account", details)


def without_words_of(body: Any, text: str) -> str:
    """`text`, with each word that occurs in `body` replaced by a mark, in upper or lower case.

    At the end of `text` and beside an ellipsis, a part of such a word counts, too.
    """
    words = {word.casefold() for text in _texts(body) for word in WORD.findall(text)}
    all_words = "\n".join(words)

    def masked(found: re.Match[str]) -> str:
        word = found[0].casefold()
        is_given = word in words or (_may_be_cut(found) and word in all_words)
        return MASK if is_given else found[0]

    return WORD.sub(masked, text)


def _may_be_cut(found: re.Match[str]) -> bool:
    before, after = found.string[: found.start()], found.string[found.end() :]
    return not after or after.startswith(ELLIPSES) or before.endswith(ELLIPSES)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON document, and every name that a caller chose."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            yield found
        elif isinstance(found, Mapping):
            waiting.extend(found.values())
        elif isinstance(found, list | tuple):
            waiting.extend(each for each in found if not isinstance(each, int | float))
