"""When a failed attempt is worth another one, and after which pause.

Pauses grow exponentially and are drawn from nothing to their full length, so that those who failed
together do not come back together. A budget over the whole process keeps an outage from being
multiplied: while most attempts succeed there is always some of it, and when most fail, one in ten
is tried again.
"""

import random
from collections.abc import Callable

from gateway.policy import Model
from gateway.providers.base import Deadline, ProviderFailure, is_retryable

# In tenths of a retry: every first attempt pays one.
DEPOSIT, COST, MAX = 1, 10, 100


class Retries:
    """Allows retries while the budget of this process lasts."""

    def __init__(self, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._draw = draw
        self._balance = MAX

    def first(self) -> None:
        """A first attempt was made."""
        self._balance = min(MAX, self._balance + DEPOSIT)

    def pause(
        self,
        model: Model,
        number: int,
        failure: ProviderFailure,
        deadline: Deadline,
        remote_id: str | None = None,
    ) -> float | None:
        """Seconds to wait before attempt `number` + 1, or None when there should be none.

        It is as long as the provider asked for at least, and ends before the deadline. Work that
        may go on at the provider, which has a `remote_id`, is not begun a second time.
        """
        if number >= model.attempts or remote_id is not None or not is_retryable(failure):
            return None
        told = failure.retry_after or 0.0
        pause = told + self._draw(0.0, model.base_delay_seconds * 2 ** (number - 1))
        if pause >= deadline.remaining or self._balance < COST:
            return None
        self._balance -= COST
        return pause
