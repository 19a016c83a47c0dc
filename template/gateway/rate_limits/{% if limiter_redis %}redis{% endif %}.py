"""The limiter in Redis, exact over all processes and replicas that share it."""

import hashlib
import re
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from gateway.addresses import AddressError, explained, parse
from gateway.batcher import Batcher
from gateway.config import GatewayConfig
from gateway.db.engine import Database
from gateway.errors import LimiterUnavailable
from gateway.ids import new_id
from gateway.patience import within
from gateway.rate_limits.base import (
    MINUTE,
    AcquireRequest,
    Admission,
    Bucket,
    BucketStatus,
    Slot,
    SlotStatus,
    StoredValue,
)

# Both scripts use the clock of Redis, in microseconds. KEYS: the buckets, then the slots. ARGV:
# how many buckets, capacity and units of each; of each slot capacity, holder and microseconds.
# A bucket is kept as "level:microseconds", a slot as its holders in order of their leases' ends.
# Doubles are exact here, as levels stay below 2^53 for capacities up to 150 million a minute.
COMMON = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local buckets = tonumber(ARGV[1])
local function bucket(i)
  return tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1]) * MINUTE
end
local function level_of(i, capacity)
  local level, at = string.match(redis.call('GET', KEYS[i]) or '', '^(%d+):(%d+)$')
  return level and math.max(0, level - math.max(0, now - at) * capacity) or 0
end
local function keep(i, level, capacity)
  local milliseconds = math.ceil(level / capacity / 1000) + 1
  redis.call('SET', KEYS[i], string.format('%.0f:%.0f', level, now), 'PX', milliseconds)
end
local function slot(i)
  local at = 2 + 2 * buckets + 3 * (i - buckets - 1)
  return tonumber(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2])
end
"""
# Answers {admitted, level of each bucket, taken places and microseconds to wait of each slot}.
ADMIT = """
local answer, admitted = {1}, true
for i = 1, buckets do
  local capacity, take = bucket(i)
  answer[1 + i] = level_of(i, capacity)
  admitted = admitted and answer[1 + i] + take <= capacity * MINUTE
end
for i = buckets + 1, #KEYS do
  local capacity, holder = slot(i)
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', string.format('%.0f', now))
  local taken, wait = redis.call('ZCARD', KEYS[i]), 0
  if taken >= capacity and not redis.call('ZSCORE', KEYS[i], holder) then
    local rank = taken - capacity
    wait = tonumber(redis.call('ZRANGE', KEYS[i], rank, rank, 'WITHSCORES')[2]) - now
    admitted = false
  end
  answer[#answer + 1] = taken
  answer[#answer + 1] = wait
end
if not admitted then
  answer[1] = 0
  return answer
end
for i = 1, buckets do
  local capacity, take = bucket(i)
  answer[1 + i] = answer[1 + i] + take
  keep(i, answer[1 + i], capacity)
end
for i = buckets + 1, #KEYS do
  local _, holder, microseconds = slot(i)
  local new = redis.call('ZADD', KEYS[i], string.format('%.0f', now + microseconds), holder)
  local milliseconds = math.ceil(microseconds / 1000)
  redis.call('PEXPIRE', KEYS[i], math.max(milliseconds, redis.call('PTTL', KEYS[i])))
  answer[2 * i - buckets] = answer[2 * i - buckets] + new
end
return answer
"""
# Slots come first: a Redis with full memory refuses a script whose first write is SET.
SETTLE = """
for i = buckets + 1, #KEYS do
  local _, holder = slot(i)
  redis.call('ZREM', KEYS[i], holder)
end
for i = 1, buckets do
  local capacity, take = bucket(i)
  keep(i, math.max(0, level_of(i, capacity) - take), capacity)
end
return {1}
"""
ADMIT, SETTLE = ((COMMON + script).replace("MINUTE", str(MINUTE)) for script in (ADMIT, SETTLE))
DIGESTS = {
    script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    for script in (ADMIT, SETTLE)
}
EXAMPLE = "redis://user:password@host:6379/0"
# The options that an address may set, by its scheme. Time-outs, retries and the protocol are fixed.
OPTIONS = {"redis": {"db", "client_name", "username", "password"}}
OPTIONS["unix"] = OPTIONS["redis"]
OPTIONS["rediss"] = OPTIONS["redis"] | {
    f"ssl_{name}"
    for name in (
        *("ca_certs", "ca_path", "cert_reqs", "certfile"),
        *("check_hostname", "ciphers", "keyfile", "password"),
    )
}
# A script uses keys of a user and of the service: a Redis cluster keeps keys with the same text in
# braces on one node.
TOGETHER = "{limits}"
# For connecting and the answer: without Redis, a request fails within a second.
PATIENCE_SECONDS = 0.9
CONNECTIONS = 16
# The only policy for full memory that refuses writes: the others drop keys.
KEEPS = "noeviction"
# A capacity that checks never reach.
CHECKS = 1_000_000

Result = TypeVar("Result")


class Operation(NamedTuple):
    """A script and its request."""

    script: str
    request: AcquireRequest


class RedisLimiter:
    """Levels, slots and values in Redis. Operations that wait at the same time share a pipeline."""

    def __init__(self, url: str) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            # The client's time-outs would also end answers that were not read yet: see `_asked`.
            timeout=None,
            socket_timeout=None,
            socket_connect_timeout=None,
            # No retries: units must not be given back twice. The pool replaces dead connections
            # before it uses them.
            retry=Retry(NoBackoff(), 0),
            protocol=3,
        )
        pool.connection_class(**pool.connection_kwargs)  # Raises for a wrong option.
        self._redis = Redis.from_pool(pool)
        self._batcher: Batcher[Operation, Admission] = Batcher(
            self._run, outage=LimiterUnavailable, abandoned=self._abandoned
        )

    async def acquire(self, request: AcquireRequest) -> Admission:
        return await self._batcher.submit(Operation(ADMIT, request))

    async def release(self, request: AcquireRequest) -> None:
        await self._batcher.submit(Operation(SETTLE, request))

    async def set(self, key: str, value: str, seconds: float) -> None:
        milliseconds = max(1, round(seconds * 1000))
        await _asked(self._redis.set(_memory(key), value, px=milliseconds))

    async def get(self, keys: Sequence[str]) -> Sequence[StoredValue | None]:
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.get(_memory(key))
            pipeline.pttl(_memory(key))
        answers = await _asked(pipeline.execute())
        found = zip(answers[::2], answers[1::2], strict=True)
        return [
            StoredValue(v.decode(), left / 1000) if v and left > 0 else None for v, left in found
        ]

    async def delete(self, *keys: str) -> None:
        await _asked(self._redis.delete(*map(_memory, keys)))

    async def check(self) -> None:
        # As for a generation: a server may answer reads and refuse writes.
        bucket, slot = Bucket("requests", "check", CHECKS), Slot("check", CHECKS, new_id("chk"), 1)
        request = AcquireRequest((bucket,), (slot,))
        await self.acquire(request)
        await self.release(request)

    async def weakness(self) -> str | None:
        try:
            info = await _asked(self._redis.info("memory"))
        except LimiterUnavailable as error:
            if isinstance(error.__cause__, ResponseError):
                return None  # This user of Redis may not read it.
            raise
        policy = info.get("maxmemory_policy", KEEPS)
        if policy == KEEPS:
            return None
        return (
            f"Redis has the maxmemory-policy {policy}: when its memory is full it forgets limits, "
            f"without an error. Set maxmemory-policy to {KEEPS}."
        )

    async def close(self) -> None:
        await self._batcher.drain()
        with suppress(LimiterUnavailable):
            await _asked(self._redis.aclose())

    def _abandoned(self, operation: Operation, admission: Admission) -> None:
        """Give back what was taken for a caller that was cancelled meanwhile."""
        if operation.script is ADMIT and admission.admitted:
            done = self._batcher.enqueue(Operation(SETTLE, operation.request))
            done.add_done_callback(lambda _: done.exception())  # then the lease ends it

    async def _run(self, operations: list[Operation]) -> Sequence[Admission | Exception]:
        answers = await _asked(self._answers(operations))
        return [
            _result(operation, answer)
            for operation, answer in zip(operations, answers, strict=True)
        ]

    async def _answers(self, operations: list[Operation]) -> list[list[int] | Exception]:
        answers = await self._send(operations)
        lost = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if lost:  # Redis is new, was restarted or flushed.
            for script in DIGESTS:
                await self._redis.script_load(script)
            again = await self._send([operations[i] for i in lost])
            for i, answer in zip(lost, again, strict=True):
                answers[i] = answer
        if any(isinstance(answer, ReadOnlyError) for answer in answers):
            # After a failover the address names another server; open connections would stay.
            await self._redis.connection_pool.disconnect(inuse_connections=False)
        return answers

    async def _send(self, operations: list[Operation]) -> list[list[int] | Exception]:
        pipeline = self._redis.pipeline(transaction=False)
        for script, (buckets, slots) in operations:
            keys = [f"{TOGETHER}:limit:{bucket.key}" for bucket in buckets]
            keys += [f"{TOGETHER}:slot:{slot.key}" for slot in slots]
            units = [n for bucket in buckets for n in (bucket.capacity, bucket.take)]
            places = [x for s in slots for x in (s.capacity, s.holder, round(s.seconds * 1e6))]
            pipeline.evalsha(DIGESTS[script], len(keys), *keys, len(buckets), *units, *places)
        return await pipeline.execute(raise_on_error=False)


def _result(operation: Operation, answer: list[int] | Exception) -> Admission | Exception:
    if isinstance(answer, Exception):
        error = _unavailable()
        error.__cause__ = answer
        return error
    buckets, slots = operation.request
    if operation.script is SETTLE:
        return Admission(admitted=True, buckets=())
    admitted, *numbers = answer
    levels, places = numbers[: len(buckets)], numbers[len(buckets) :]
    pairs = zip(slots, places[::2], places[1::2], strict=True)
    return Admission(
        bool(admitted),
        tuple(map(BucketStatus, buckets, levels)),
        tuple(SlotStatus(slot, taken, wait / 1e6) for slot, taken, wait in pairs),
    )


def _memory(key: str) -> str:
    return f"{TOGETHER}:memory:{key}"


async def _asked(question: Awaitable[Result]) -> Result:
    """The answer of Redis. Raises `LimiterUnavailable` if there is none in time."""
    try:
        return await within(question, PATIENCE_SECONDS)
    except (RedisError, OSError) as error:
        raise _unavailable() from error


def _unavailable() -> LimiterUnavailable:
    return LimiterUnavailable("Limits cannot be checked right now. Try again.", retry_after=1)


def open_limiter(config: GatewayConfig, _: Database) -> RedisLimiter:
    """The limiter of `REDIS_URL`. Raises `StartError` for a wrong address."""
    return open_at(config.redis_url)


def open_at(url: str) -> RedisLimiter:
    """The limiter of an address. Raises `StartError` for a wrong one."""
    with explained("REDIS_URL", EXAMPLE):
        address = parse(url)
        if address.scheme not in OPTIONS:
            raise AddressError("it is not the address of a Redis")
        address.require_options(OPTIONS[address.scheme])
        if address.scheme != "unix":
            address.require_server()
            if not re.fullmatch("[0-9]{0,9}", address.path):
                raise AddressError("its database is not a number")
        elif address.host or not address.path:
            raise AddressError("it does not name a socket: after unix: come three slashes")
        try:
            return RedisLimiter(str(address))
        except (RedisError, ValueError) as error:
            raise AddressError("one of its options has a wrong value") from error
