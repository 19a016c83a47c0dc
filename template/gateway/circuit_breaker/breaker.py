"""A circuit per provider and model, shared by all processes that share the limiter.

Closed: calls pass. Open: none passes until the pause is over. Then it is half open: one call over
all processes, the probe, finds out whether the provider is back, with the first byte of its answer.
Pauses grow from one opening to the next, and are as long as the provider asked for at least, up to
the model's `max_cooldown_seconds`.

A failure counts only if it is the provider's: what follows the first byte of an answer depends on
the caller, too, who may read slowly or ask for more than fits into the deadline.

What is shared is remembered by the limiter: that it is open, for the pause; the number of its
openings, for longer, so that it is half open where only this is left; and the slot of the probe.
"""

import asyncio
import datetime as dt
import time
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
    counts,
)
from gateway.db.tables import utc_now
from gateway.errors import LimiterUnavailable, ProviderCoolingDown
from gateway.ids import new_id
from gateway.policy import Model
from gateway.providers.base import BUSY, ProviderFailure, Quota
from gateway.rate_limits.base import AcquireRequest, Limiter, Slot, StoredValue

FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 300.0
# Openings count as those of one outage when no more than this lies between them.
TRIPS_SECONDS = 600.0
# A process may learn this late that another one opened the circuit: most calls need no round trip.
BELIEVED_SECONDS = 0.1
# After this, the next call may probe: an answer may take long, and a process may die.
PROBE_SECONDS = 10.0
QUOTA_SECONDS, QUOTA_SHARED_SECONDS = 60.0, 1.0
KINDS = ("open", "trips")
NO_ANSWER = ProviderFailure("no answer in time")


class _Shared(NamedTuple):
    """What all processes know of a circuit."""

    opened: StoredValue | None
    trips: StoredValue | None


class CircuitBreaker:
    """Lets calls pass while their provider is well. Only `acquire` and `states` need the limiter:
    what is learnt while it is gone stays in this process.
    """

    def __init__(self, limiter: Limiter, clock: Callable[[], float] = time.monotonic) -> None:
        self._limiter = limiter
        self._clock = clock
        self._known: dict[str, CircuitState] = {}
        # Calls that want to know at the same time share a round trip.
        self._reader: Batcher[str, _Shared] = Batcher(self._read)

    async def acquire(self, model: Model) -> Permit:
        """Permission for a call.

        Raises `ProviderCoolingDown` while the circuit is open, or another call probes.
        """
        known, now = self._of(model), self._clock()
        self._refuse_open(model)
        if now < known.closed_until or not await self._is_half_open(model):
            return Permit(model, now)
        return await self._probe(model)

    async def record_success(self, permit: Permit) -> None:
        """The provider began to answer: the circuit closes."""
        known, now = self._of(permit.model), self._clock()
        known.answered_at = now
        known.window.count(permit.exchange, now, failed=False)
        if permit.probe is not None:
            # In this order: who gets the slot next finds it closed.
            with suppress(LimiterUnavailable):
                await self._limiter.delete(_key("trips", permit.model))
        await self.release(permit)

    async def record_failure(self, permit: Permit, failure: ProviderFailure) -> None:
        """The call failed; what is not the provider's fault changes nothing."""
        known, now = self._of(permit.model), self._clock()
        if not counts(failure) or (failure.status is None and permit.exchange.answered):
            return await self.release(permit)
        told = (failure.retry_after or 0.0) if failure.status in BUSY else 0.0
        probes = _is_probing(permit, now)
        if not probes and permit.at <= known.tripped_at:
            # It began before the circuit opened, and says no more than others did.
            return await self._open(permit.model, told, trip=False)
        if permit.exchange.answered:
            known.window.add(now, failed=True)  # An answer that the provider broke off itself.
        else:
            known.window.count(permit.exchange, now, failed=True)
        if told or probes or known.window.is_alarming:
            known.tripped_at = now
            await self._open(permit.model, told, trip=True)
        return await self.release(permit)

    async def record_timeout(self, permit: Permit) -> None:
        """There was no answer in time: a failure, unless the provider answered others meanwhile."""
        if self._of(permit.model).answered_at >= permit.at:
            await self.release(permit)
        else:
            await self.record_failure(permit, NO_ANSWER)

    async def reset(self, models: Iterable[Model]) -> None:
        """Close the circuits of `models`, whatever opened them. Raises `LimiterUnavailable`."""
        for model in models:
            await self._limiter.delete(*(_key(kind, model) for kind in KINDS))
            self._known[model.id] = CircuitState(tripped_at=self._clock())

    async def release(self, permit: Permit) -> None:
        """The call ended without a word on its provider: somebody else may probe."""
        if permit.probe is not None:
            with suppress(LimiterUnavailable):
                await self._limiter.release(AcquireRequest((), (permit.probe,)))

    async def record_quota(self, model: Model, quota: Quota | None, age: float = 0.0) -> None:
        """The provider told `age` seconds ago what is left of its limits: share it, and heed it."""
        if quota is None or age >= max(QUOTA_SECONDS, quota.reset_seconds):
            return
        known, now = self._of(model), self._clock()
        reset_seconds = min(quota.reset_seconds - age, model.max_cooldown_seconds)
        if quota.reset_seconds or now >= known.quota_shared_at + QUOTA_SHARED_SECONDS:
            known.quota_shared_at = now
            value = to_json([quota.remaining_requests, quota.remaining_tokens]).decode()
            seconds = max(QUOTA_SECONDS, reset_seconds)
            with suppress(LimiterUnavailable):
                await self._limiter.set(_key("quota", model), value, seconds)
        # The provider will refuse calls for so long: open before it has to.
        await self._open(model, reset_seconds, trip=False)

    async def states(self, models: Iterable[Model]) -> list[CircuitStatus]:
        """The circuits of `models`. Raises `LimiterUnavailable`."""
        models = list(models)
        keys = [_key(kind, model) for model in models for kind in (*KINDS, "quota")]
        found = await self._limiter.get(keys) if keys else ()
        return [
            self._state(model, _Shared(*found[3 * i : 3 * i + 2]), found[3 * i + 2])
            for i, model in enumerate(models)
        ]

    async def is_any_ready(self, models: Iterable[Model]) -> bool:
        """Whether a provider may be called. Raises `LimiterUnavailable`."""
        circuits = await self.states(models)
        return not circuits or any(circuit.state != "open" for circuit in circuits)

    def _state(self, model: Model, shared: _Shared, quota: StoredValue | None) -> CircuitStatus:
        told = shared.opened.seconds if shared.opened else 0.0
        seconds = max(told, self._of(model).open_until - self._clock())
        remaining = from_json(quota.value) if quota else (None, None)
        state: CircuitPhase = "open" if seconds > 0 else "half_open" if shared.trips else "closed"
        until = utc_now() + dt.timedelta(seconds=seconds) if seconds > 0 else None
        return CircuitStatus(model.provider, model.id, state, until, *remaining)

    async def _probe(self, model: Model) -> Permit:
        """The only probe, or a plain pass if the circuit was closed meanwhile."""
        slot = Slot(_key("probe", model), 1, new_id("probe"), PROBE_SECONDS)
        permit = Permit(model, self._clock(), slot)
        try:
            admission = await self._limiter.acquire(AcquireRequest((), (slot,)))
            if not admission.admitted:
                raise _cooling(model, FIRST_PAUSE_SECONDS)
            # The probe before this one may have opened or closed it since the first look.
            if await self._is_half_open(model):
                return permit
        except (Exception, asyncio.CancelledError):
            await self.release(permit)
            raise
        await self.release(permit)
        return replace(permit, probe=None)

    async def _is_half_open(self, model: Model) -> bool:
        """Look at what is shared: closed, or half open. Raises when it is open."""
        shared, known = await self._reader.submit(_name(model)), self._of(model)
        if shared.opened is not None:
            known.window = FailureWindow()
            known.open_until = max(known.open_until, self._clock() + shared.opened.seconds)
        self._refuse_open(model)
        if shared.trips is None:
            known.closed_until = self._clock() + BELIEVED_SECONDS
        return shared.trips is not None

    async def _open(self, model: Model, told: float, *, trip: bool) -> None:
        """Open the circuit, or keep it open for longer. A `trip` is one more opening."""
        known, told = self._of(model), min(told, model.max_cooldown_seconds)
        least = max(told, FIRST_PAUSE_SECONDS) if trip else told
        if least <= 0:
            return
        if trip:
            known.window = FailureWindow()
        # This process sees it at once.
        known.closed_until = 0.0
        known.open_until = max(known.open_until, self._clock() + least)
        with suppress(LimiterUnavailable):
            await self._share_open(model, known, least, trip=trip)

    async def _share_open(
        self, model: Model, known: CircuitState, least: float, *, trip: bool
    ) -> None:
        shared = await self._reader.submit(_name(model))
        trips = int(shared.trips.value) if shared.trips else 0
        if trip:
            # Who finds it open already saw the same outage.
            trips = max(1, trips) if shared.opened else trips + 1
            least = max(least, min(_pause(trips), model.max_cooldown_seconds))
        least = max(least, shared.opened.seconds if shared.opened else 0.0)
        known.open_until = max(known.open_until, self._clock() + least)
        await self._limiter.set(_key("open", model), "open", least)
        if trips:
            await self._limiter.set(_key("trips", model), str(trips), least + TRIPS_SECONDS)

    async def _read(self, keys: list[str]) -> Sequence[_Shared]:
        wanted = list(dict.fromkeys(keys))
        found = await self._limiter.get([f"{kind}:{key}" for key in wanted for kind in KINDS])
        pairs = zip(found[::2], found[1::2], strict=True)
        shared = {key: _Shared(*pair) for key, pair in zip(wanted, pairs, strict=True)}
        return [shared[key] for key in keys]

    def _of(self, model: Model) -> CircuitState:
        known = self._known.get(model.id)
        if known is None:
            known = self._known[model.id] = CircuitState()
        return known

    def _refuse_open(self, model: Model) -> None:
        left = self._of(model).open_until - self._clock()
        if left > 0:
            raise _cooling(model, left)


def _is_probing(permit: Permit, now: float) -> bool:
    """Whether a call still is the probe: not once it was answered, nor after its time."""
    is_over = permit.exchange.answered or now >= permit.at + PROBE_SECONDS
    return permit.probe is not None and not is_over


def _pause(trips: int) -> float:
    return min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(trips - 1, 16))


def _cooling(model: Model, seconds: float) -> ProviderCoolingDown:
    return ProviderCoolingDown(f"{model.provider} is busy; try again later.", retry_after=seconds)


def _key(kind: str, model: Model) -> str:
    return f"{kind}:{_name(model)}"


def _name(model: Model) -> str:
    return f"{model.provider}:{model.id}"
