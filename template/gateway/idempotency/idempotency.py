"""`Idempotency-Key`: a repeated request gets the stored answer, and is paid once.

A key belongs to a user and a route, and is looked up before the limits: a replay uses none of them.
Of the requests with one key, over all processes, exactly one runs. For 24 hours, its state decides
the answer to the others:

- It runs: 409 `idempotency_in_flight`.
- It was answered: the stored answer. An answer is stored, encrypted, before its last byte is sent.
- It ended with an error, also in the middle of a stream: nothing is stored, the next request runs.
- Its answer is unknown, because a process died, the client left a stream or the record could not be
  read: 409 `outcome_unknown`. The request may have been paid, so it is not repeated. If the ledger
  shows that nothing was sent, the next request runs.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import from_json, to_json
from sqlalchemy import Row
from starlette.types import Message, Receive, Scope, Send

from gateway.errors import IdempotencyMismatch, OutcomeUnknown, ServiceError
from gateway.idempotency.sealing import Sealer
from gateway.idempotency.store import Claim, IdempotencyKey, IdempotencyStore, KeyState, in_flight
from gateway.telemetry.context import bind

MAX_BYTES = 2**20
# The headers that a replay repeats.
REPLAYED = {"cache-control", "content-type", "location", "x-prediction-id", "x-served-model"}
BROKE_OFF = "The first request with this Idempotency-Key broke off, and may have been carried out"
UNKNOWN = {
    KeyState.RUNNING: BROKE_OFF,
    KeyState.LOST: BROKE_OFF,
    KeyState.TOO_LARGE: f"The first answer was over {MAX_BYTES} bytes, which is too much to keep",
    KeyState.ERASED: "The first answer was erased",
    KeyState.ANSWERED: "The first answer cannot be read since the operator changed SECRET_KEY",
}
Work = Callable[[], Awaitable[Response]]


class Idempotency:
    """Answers each request once, and replays stored answers."""

    def __init__(self, store: IdempotencyStore, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    async def answer(self, key: IdempotencyKey, asked: Any, work: Work) -> Response:
        """The answer of `work` to the request `asked`, or the stored answer to an earlier one.

        Raises `IdempotencyInFlight`, `IdempotencyMismatch`, `OutcomeUnknown`,
        `DatabaseUnavailable`, and what `work` raises.
        """
        claim = await self.acquire(key, asked)
        if isinstance(claim, Response):
            return claim
        try:
            return _RecordedResponse(await work(), self, claim)
        except (ServiceError, RequestValidationError) as error:
            begun = isinstance(error, ServiceError) and error.begun
            await (self.mark_unknown(claim) if begun else self.release(claim))
            raise
        except BaseException:
            await self.mark_unknown(claim)
            raise

    async def acquire(self, key: IdempotencyKey, asked: Any) -> Claim | Response:
        """The claim of the first request with `key`, or the stored answer for a later request.

        Raises `IdempotencyInFlight`, `IdempotencyMismatch`, `OutcomeUnknown`,
        `DatabaseUnavailable`.
        """
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=vars).encode()).digest()
        claim = await self._store.acquire(key, self._sealer.seal(digest, *key, "request"))
        return claim if isinstance(claim, Claim) else self._replay(key, digest, claim)

    async def complete(
        self, claim: Claim, status: int, headers: Mapping[str, str], prediction_id: str, body: bytes
    ) -> None:
        """Store a complete answer for replays, unless it is over MAX_BYTES bytes."""
        if len(body) > MAX_BYTES:
            await self._store.mark_unknown(claim, KeyState.TOO_LARGE)
            return
        kept = {name: text for name, text in headers.items() if name in REPLAYED}
        whole = to_json([status, kept]) + b"\n" + body
        sealed = self._sealer.seal(whole, *claim.key, "answer")
        await self._store.complete(claim, sealed, prediction_id)

    async def release(self, claim: Claim) -> None:
        """Free the key after an error: the next request with it runs."""
        await self._store.release(claim)

    async def mark_unknown(self, claim: Claim) -> None:
        """Record that the answer is unknown: later requests get `outcome_unknown`."""
        await self._store.mark_unknown(claim, KeyState.LOST)

    def _replay(self, key: IdempotencyKey, digest: bytes, found: Row[Any]) -> Response:
        known = self._sealer.open(found.request, *key, "request")
        if known is None:
            raise _unknown(KeyState.ANSWERED)
        if known != digest:
            raise IdempotencyMismatch(
                "This Idempotency-Key came with another request before; use a new one.",
                param="idempotency-key",
            )
        if found.state == KeyState.RUNNING and not found.overdue:
            raise in_flight()
        whole = found.answer and self._sealer.open(found.answer, *key, "answer")
        if not whole:
            raise _unknown(KeyState(found.state))
        head, _, body = whole.partition(b"\n")
        status, headers = from_json(head)
        bind(prediction_id=found.prediction_id, replayed=True)
        return Response(body, status, {**headers, "Idempotent-Replayed": "true"})


class _RecordedResponse(Response):
    """Stores an answer while it is sent: complete, before its last byte leaves, or not at all."""

    def __init__(self, answer: Response, idempotency: Idempotency, claim: Claim) -> None:
        super().__init__()
        self._answer = answer
        self._idempotency = idempotency
        self._claim = claim
        self._body = bytearray()
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def record_and_send(message: Message) -> None:
            if message["type"] == "http.response.body":
                await self._record(message)
            await send(message)

        try:
            await self._answer(scope, receive, record_and_send)
        finally:
            if not self._ended:
                await self._idempotency.mark_unknown(self._claim)

    async def _record(self, message: Message) -> None:
        part = message.get("body", b"")
        if len(self._body) <= MAX_BYTES:
            self._body += part
        if message.get("more_body"):
            return
        self._ended = True
        if getattr(self._answer, "failed", False):  # The last event of a stream was an error.
            await self._idempotency.release(self._claim)
        else:
            answer, body = self._answer, bytes(self._body)
            prediction_id = answer.headers["x-prediction-id"]
            await self._idempotency.complete(
                self._claim, answer.status_code, answer.headers, prediction_id, body
            )


def _unknown(state: KeyState) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{UNKNOWN[state]}. Look at GET /v1/predictions; to ask again, use a new key.",
        param="idempotency-key",
        headers={"x-should-retry": "false"},
    )
