"""A circuit per provider and model, shared by all processes that share the limiter.

Closed: calls pass. Open: calls are refused until the pause is over. Half open: one call in all
processes, the probe, tests the provider; the first byte of its answer closes the circuit. Each
opening in a row doubles the pause. It is at least as long as the provider's `Retry-After`, and at
most the model's `max_cooldown_seconds`.

Only failures of the provider count. A time-out after the first byte of an answer does not count:
the caller may read slowly, or ask for more than fits into the deadline.

The limiter stores the shared state: "open" for the pause, the number of openings in a row ("trips")
for longer, and the slot of the probe. A circuit with trips that is not open is half open.
"""

import asyncio
import datetime as dt
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from pydantic_core import from_json, to_json

from gateway.batcher import Batcher
from gateway.circuit_breaker.window import (
    CircuitPhase,
    CircuitState,
    CircuitStatus,
    FailureWindow,
    Permit,
    is_provider_fault,
)
from gateway.db.tables import utc_now
from gateway.errors import LimiterUnavailable, ProviderCoolingDown
from gateway.ids import new_id
from gateway.policy import Model
from gateway.providers.base import BUSY, ProviderFailure, Quota
from gateway.rate_limits.base import AcquireRequest, Limiter, Slot, StoredValue

FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 300.0
# Openings within this time of each other belong to one outage.
TRIPS_SECONDS = 600.0
# For this long a process assumes that a closed circuit stays closed: it saves most round trips.
BELIEVED_SECONDS = 0.1
# Then another call may probe: an answer may take long, and the probing process may have died.
PROBE_SECONDS = 10.0
QUOTA_SECONDS, QUOTA_SHARED_SECONDS = 60.0, 1.0
KINDS = ("open", "trips")
NO_ANSWER = ProviderFailure("no answer in time")


class _Shared(NamedTuple):
    """The state of a circuit that all processes share."""

    opened: StoredValue | None
    trips: StoredValue | None


class CircuitBreaker:
    """Refuses calls to providers that fail. `clock` returns seconds.

    Only `acquire`, `reset` and `states` raise `LimiterUnavailable`: the other methods record
    results in this process alone while the limiter is unavailable.
    """

    def __init__(self, limiter: Limiter, clock: Callable[[], float] = time.monotonic) -> None:
        self._limiter = limiter
        self._clock = clock
        self._states: defaultdict[str, CircuitState] = defaultdict(CircuitState)
        # Calls that read at the same time share a round trip.
        self._reader: Batcher[str, _Shared] = Batcher(self._read)

    async def acquire(self, model: Model) -> Permit:
        """A permit for a call. Give it to exactly one of the methods below when the call ends.

        Raises `ProviderCoolingDown` while the circuit is open or another call probes, and
        `LimiterUnavailable`.
        """
        state, now = self._states[model.id], self._clock()
        self._refuse_open(model)
        if now < state.closed_until or not await self._is_half_open(model):
            return Permit(model, now)
        return await self._probe(model)

    async def record_success(self, permit: Permit) -> None:
        """Record the first byte of an answer. Closes the circuit."""
        state, now = self._states[permit.model.id], self._clock()
        state.answered_at = now
        state.window.count(permit.exchange, now, failed=False)
        if permit.probe is not None:
            # Close before the slot is free: the next call that gets the slot finds it closed.
            with suppress(LimiterUnavailable):
                await self._limiter.delete(_key("trips", permit.model))
        await self.release(permit)

    async def record_failure(self, permit: Permit, failure: ProviderFailure) -> None:
        """Record a failed call. Only failures of the provider change the circuit."""
        state, now = self._states[permit.model.id], self._clock()
        if not is_provider_fault(failure) or (failure.status is None and permit.exchange.answered):
            return await self.release(permit)
        retry_after = (failure.retry_after or 0.0) if failure.status in BUSY else 0.0
        probes = _is_probing(permit, now)
        if not probes and permit.at <= state.tripped_at:
            # The call began before the circuit opened: part of the same outage.
            return await self._open(permit.model, retry_after, trip=False)
        if permit.exchange.answered:
            state.window.add(now, failed=True)  # The provider cut its answer.
        else:
            state.window.count(permit.exchange, now, failed=True)
        if retry_after or probes or state.window.is_alarming:
            state.tripped_at = now
            await self._open(permit.model, retry_after, trip=True)
        return await self.release(permit)

    async def record_timeout(self, permit: Permit) -> None:
        """Record a call without an answer in time: a failure, unless other calls were answered."""
        if self._states[permit.model.id].answered_at >= permit.at:
            await self.release(permit)
        else:
            await self.record_failure(permit, NO_ANSWER)

    async def reset(self, models: Iterable[Model]) -> None:
        """Close the circuits of `models`. Raises `LimiterUnavailable`."""
        for model in models:
            await self._limiter.delete(*(_key(kind, model) for kind in KINDS))
            self._states[model.id] = CircuitState(tripped_at=self._clock())

    async def release(self, permit: Permit) -> None:
        """Give back a permit whose call says nothing about the provider. Frees the probe's slot."""
        if permit.probe is not None:
            with suppress(LimiterUnavailable):
                await self._limiter.release(AcquireRequest((), (permit.probe,)))

    async def record_quota(self, model: Model, quota: Quota | None, age: float = 0.0) -> None:
        """Share what is left of the provider's limits, as it said `age` seconds ago.

        Opens the circuit until the limits are reset, if nothing is left.
        """
        if quota is None or age >= max(QUOTA_SECONDS, quota.reset_seconds):
            return
        state, now = self._states[model.id], self._clock()
        reset_seconds = min(quota.reset_seconds - age, model.max_cooldown_seconds)
        if quota.reset_seconds or now >= state.quota_shared_at + QUOTA_SHARED_SECONDS:
            state.quota_shared_at = now
            value = to_json([quota.remaining_requests, quota.remaining_tokens]).decode()
            seconds = max(QUOTA_SECONDS, reset_seconds)
            with suppress(LimiterUnavailable):
                await self._limiter.set(_key("quota", model), value, seconds)
        # The provider would refuse calls until then.
        await self._open(model, reset_seconds, trip=False)

    async def states(self, models: Iterable[Model]) -> list[CircuitStatus]:
        """The circuits of `models`. Raises `LimiterUnavailable`."""
        models = list(models)
        keys = [_key(kind, model) for model in models for kind in (*KINDS, "quota")]
        found = await self._limiter.get(keys) if keys else ()
        return [
            self._status(model, _Shared(*found[3 * i : 3 * i + 2]), found[3 * i + 2])
            for i, model in enumerate(models)
        ]

    async def is_any_ready(self, models: Iterable[Model]) -> bool:
        """Whether a call of one of `models` could pass. Raises `LimiterUnavailable`."""
        circuits = await self.states(models)
        return not circuits or any(circuit.state != "open" for circuit in circuits)

    def _status(self, model: Model, shared: _Shared, quota: StoredValue | None) -> CircuitStatus:
        shared_seconds = shared.opened.seconds if shared.opened else 0.0
        seconds = max(shared_seconds, self._states[model.id].open_until - self._clock())
        remaining = from_json(quota.value) if quota else (None, None)
        phase: CircuitPhase = "open" if seconds > 0 else "half_open" if shared.trips else "closed"
        until = utc_now() + dt.timedelta(seconds=seconds) if seconds > 0 else None
        return CircuitStatus(model.provider, model.id, phase, until, *remaining)

    async def _probe(self, model: Model) -> Permit:
        """The permit of the probe, or a plain permit if the circuit was closed meanwhile."""
        slot = Slot(_key("probe", model), 1, new_id("probe"), PROBE_SECONDS)
        permit = Permit(model, self._clock(), slot)
        try:
            admission = await self._limiter.acquire(AcquireRequest((), (slot,)))
            if not admission.admitted:
                raise _cooling_down(model, FIRST_PAUSE_SECONDS)
            # The previous probe may have opened or closed the circuit since the first read.
            if await self._is_half_open(model):
                return permit
        except (Exception, asyncio.CancelledError):
            await self.release(permit)
            raise
        await self.release(permit)
        return replace(permit, probe=None)

    async def _is_half_open(self, model: Model) -> bool:
        """Read the shared state. Raises `ProviderCoolingDown` if the circuit is open."""
        shared, state = await self._reader.submit(_circuit_name(model)), self._states[model.id]
        if shared.opened is not None:
            state.window = FailureWindow()
            state.open_until = max(state.open_until, self._clock() + shared.opened.seconds)
        self._refuse_open(model)
        if shared.trips is None:
            state.closed_until = self._clock() + BELIEVED_SECONDS
        return shared.trips is not None

    async def _open(self, model: Model, retry_after: float, *, trip: bool) -> None:
        """Open the circuit, or extend its pause, in seconds. A `trip` counts as an opening."""
        state, retry_after = self._states[model.id], min(retry_after, model.max_cooldown_seconds)
        least = max(retry_after, FIRST_PAUSE_SECONDS) if trip else retry_after
        if least <= 0:
            return
        if trip:
            state.window = FailureWindow()
        state.closed_until = 0.0
        state.open_until = max(state.open_until, self._clock() + least)
        with suppress(LimiterUnavailable):
            await self._share_open(model, state, least, trip=trip)

    async def _share_open(
        self, model: Model, state: CircuitState, least: float, *, trip: bool
    ) -> None:
        shared = await self._reader.submit(_circuit_name(model))
        trips = int(shared.trips.value) if shared.trips else 0
        if trip:
            # Already open: part of the same outage, not a new trip.
            trips = max(1, trips) if shared.opened else trips + 1
            pause = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(trips - 1, 16))
            least = max(least, min(pause, model.max_cooldown_seconds))
        least = max(least, shared.opened.seconds if shared.opened else 0.0)
        state.open_until = max(state.open_until, self._clock() + least)
        await self._limiter.set(_key("open", model), "open", least)
        if trips:
            await self._limiter.set(_key("trips", model), str(trips), least + TRIPS_SECONDS)

    async def _read(self, keys: list[str]) -> Sequence[_Shared]:
        wanted = list(dict.fromkeys(keys))
        found = await self._limiter.get([f"{kind}:{key}" for key in wanted for kind in KINDS])
        pairs = zip(found[::2], found[1::2], strict=True)
        shared = {key: _Shared(*pair) for key, pair in zip(wanted, pairs, strict=True)}
        return [shared[key] for key in keys]

    def _refuse_open(self, model: Model) -> None:
        left = self._states[model.id].open_until - self._clock()
        if left > 0:
            raise _cooling_down(model, left)


def _is_probing(permit: Permit, now: float) -> bool:
    """Whether a call is the probe still: not answered, and within its time."""
    is_over = permit.exchange.answered or now >= permit.at + PROBE_SECONDS
    return permit.probe is not None and not is_over


def _cooling_down(model: Model, seconds: float) -> ProviderCoolingDown:
    return ProviderCoolingDown(f"{model.provider} is busy; try again later.", retry_after=seconds)


def _key(kind: str, model: Model) -> str:
    return f"{kind}:{_circuit_name(model)}"


def _circuit_name(model: Model) -> str:
    return f"{model.provider}:{model.id}"
