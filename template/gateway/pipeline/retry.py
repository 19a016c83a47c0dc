"""Whether a failed attempt is retried, and after which pause.

Pauses grow exponentially and are drawn between zero and their full length ("full jitter"), so that
calls that failed together do not return together. A retry budget for the process limits the load of
retries in an outage: while most attempts succeed it is not used up; when most fail, one in ten is
retried.
"""

import random
from collections.abc import Callable

from gateway.policy import Model
from gateway.providers.base import Deadline, ProviderFailure, is_retryable

# In tenths of a retry: each first attempt adds one, each retry costs ten.
DEPOSIT, COST, MAX = 1, 10, 100


class Retries:
    """The retry budget of this process. `draw` returns a random number between its arguments."""

    def __init__(self, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._draw = draw
        self._balance = MAX

    def first(self) -> None:
        """Count a first attempt."""
        self._balance = min(MAX, self._balance + DEPOSIT)

    def pause(
        self,
        model: Model,
        number: int,
        failure: ProviderFailure,
        deadline: Deadline,
        remote_id: str | None = None,
    ) -> float | None:
        """Seconds to wait before attempt `number` + 1; None if there should be none.

        The pause is at least the provider's `Retry-After`, and ends before the deadline. Work that
        may run at the provider, which has a `remote_id`, is not started again.
        """
        if number >= model.attempts or remote_id is not None or not is_retryable(failure):
            return None
        asked = failure.retry_after or 0.0
        pause = asked + self._draw(0.0, model.base_delay_seconds * 2 ** (number - 1))
        if pause >= deadline.remaining or self._balance < COST:
            return None
        self._balance -= COST
        return pause
