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
from collections.abc import Mapping
from typing import Any

from fastapi import Response
from pydantic_core import from_json, to_json
from sqlalchemy import Row
from starlette.types import Message

from gateway.errors import IdempotencyMismatch, OutcomeUnknown
from gateway.idempotency.sealing import Sealer
from gateway.idempotency.store import Claim, IdempotencyKey, IdempotencyStore, KeyState, in_flight
from gateway.pipeline.generation import Generation
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


class Replay(Exception):
    """Not an error: ends a route with the stored `response` to an earlier request."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class Idempotency:
    """Lets each request run once, and replays stored answers."""

    def __init__(self, store: IdempotencyStore, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    async def acquire(self, key: IdempotencyKey, asked: Any) -> Claim:
        """The claim of the first request with `key`.

        Raises `Replay` for a later request with a stored answer, `IdempotencyInFlight`,
        `IdempotencyMismatch`, `OutcomeUnknown`, `DatabaseUnavailable`.
        """
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=vars).encode()).digest()
        claim = await self._store.acquire(key, self._sealer.seal(digest, *key, "request"))
        if isinstance(claim, Claim):
            return claim
        raise Replay(self._replay(key, digest, claim))

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


class RecordedAnswer:
    """Processes each message of an answer before the middleware sends it.

    Adds the headers of the newest generation of an owner's route. With a `claim`, stores the
    answer before its last message is sent: complete, or not at all. `failed` is true for a stream
    that ends with an error.
    """

    def __init__(self, idempotency: Idempotency, claim: Claim | None) -> None:
        self.failed = False
        self._idempotency = idempotency
        self._claim = claim
        self._generation: Generation | None = None
        self._status = 0
        self._headers: Mapping[str, str] = {}
        self._body = bytearray()

    def on_begin(self, generation: Generation) -> None:
        """Set the newest generation."""
        self._generation = generation

    async def process(self, message: Message) -> Message:
        """The message to send."""
        if message["type"] == "http.response.start":
            return self._start(message)
        if self._claim is not None and message["type"] == "http.response.body":
            if len(self._body) <= MAX_BYTES:
                self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._store(self._claim)
        return message

    async def end(self) -> None:
        """Mark the outcome as unknown, unless the answer is complete. Idempotent."""
        claim, self._claim = self._claim, None
        if claim is not None:
            await self._idempotency.mark_unknown(claim)

    def _start(self, message: Message) -> Message:
        given = {name.lower(): value for name, value in message["headers"]}
        own = self._generation.headers if self._generation else {}
        every = {name.lower().encode(): text.encode() for name, text in own.items()} | given
        self._status = message["status"]
        self._headers = {name.decode(): text.decode("latin-1") for name, text in every.items()}
        more = [(name, text) for name, text in every.items() if name not in given]
        return {**message, "headers": [*message["headers"], *more]}

    async def _store(self, claim: Claim) -> None:
        prediction_id = self._headers.get("x-prediction-id")
        if self._status == 500:  # A crash.
            await self.end()
            return
        self._claim = None
        if self._status >= 400 or self.failed or prediction_id is None:
            await self._idempotency.release(claim)
        else:
            body = bytes(self._body)
            await self._idempotency.complete(
                claim, self._status, self._headers, prediction_id, body
            )


def _unknown(state: KeyState) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{UNKNOWN[state]}. Look at GET /v1/predictions; to ask again, use a new key.",
        param="idempotency-key",
    )
