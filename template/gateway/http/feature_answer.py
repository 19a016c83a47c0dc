"""The answer of an owner's route: adds its generation's headers, and stores it for replays."""

from collections.abc import Mapping

from starlette.types import Message

from gateway.idempotency.idempotency import MAX_BYTES, Idempotency
from gateway.idempotency.store import Claim
from gateway.pipeline.generation import Generation


class FeatureAnswer:
    """Processes each message of an answer before the middleware sends it."""

    def __init__(self, idempotency: Idempotency) -> None:
        self._idempotency = idempotency
        self._claim: Claim | None = None
        self._generation: Generation | None = None
        self._status = 0
        self._headers: Mapping[str, str] = {}
        self._body = bytearray()

    def on_begin(self, generation: Generation) -> None:
        """Set the newest generation, whose headers the answer gets."""
        self._generation = generation

    def keep_for(self, claim: Claim) -> None:
        """Store the answer for requests with the same `Idempotency-Key`."""
        self._claim = claim

    async def process(self, message: Message) -> Message:
        """The message to send. The answer is stored before its last message is sent."""
        if message["type"] == "http.response.start":
            return self._start(message)
        if self._claim is not None and message["type"] == "http.response.body":
            if len(self._body) <= MAX_BYTES:
                self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._store(self._claim)
        return message

    async def end(self) -> None:
        """Mark the outcome as unknown if the answer broke off."""
        if self._claim is not None:
            await self._idempotency.mark_unknown(self._claim)

    def _start(self, message: Message) -> Message:
        given = {name.lower(): value for name, value in message["headers"]}
        own = self._generation.headers if self._generation else {}
        more = {
            name.lower().encode(): text.encode()
            for name, text in own.items()
            if name.lower().encode() not in given
        }
        self._status = message["status"]
        self._headers = {
            name.decode(): text.decode("latin-1") for name, text in {**given, **more}.items()
        }
        return {**message, "headers": [*message["headers"], *more.items()]}

    async def _store(self, claim: Claim) -> None:
        self._claim = None
        if self._status == 500:  # A crash: the outcome is unknown.
            await self._idempotency.mark_unknown(claim)
        elif self._status >= 400 or self._generation is None:
            await self._idempotency.release(claim)
        else:
            await self._idempotency.complete(
                claim, self._status, self._headers, self._generation.id, bytes(self._body)
            )
