"""Limits in Redis, exact over every process and replica that shares it."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from app.batcher import Batcher
from app.errors import LimiterUnavailable, StartError
from app.settings import Settings
from app.state.base import MINUTE, Admission, Demand, Level, Memory

# Admits a demand as a whole, by Redis's own clock. KEYS: a bucket each. ARGV: its capacity and
# the units to take. A value is "level:microseconds". Answers {admitted, level, level, …}; doubles
# are exact here, as levels stay below 2^53 for capacities up to 150 million a minute.
ADMIT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local levels, admitted = {}, 1
for i, key in ipairs(KEYS) do
  local capacity, take = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local level, at = string.match(redis.call('GET', key) or '', '^(%d+):(%d+)$')
  level = level and math.max(0, level - math.max(0, now - at) * capacity) or 0
  levels[i] = level
  if level + take * MINUTE > capacity * MINUTE then admitted = 0 end
end
if admitted == 1 then
  for i, key in ipairs(KEYS) do
    local capacity, take = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    levels[i] = levels[i] + take * MINUTE
    local milliseconds = math.ceil(levels[i] / capacity / 1000) + 1
    redis.call('SET', key, string.format('%.0f:%.0f', levels[i], now), 'PX', milliseconds)
  end
end
return {admitted, unpack(levels)}
""".replace("MINUTE", str(MINUTE))
TIMEOUT_SECONDS = 0.5
CONNECTIONS = 16
# A demand may wait behind another that is timing out.
PATIENCE_SECONDS = 0.9


class RedisLimiter:
    """Levels in Redis. Demands that wait at the same time share one pipeline."""

    def __init__(self, url: str) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=TIMEOUT_SECONDS,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            # A connection that died with an earlier Redis is replaced once, without a pause.
            retry=Retry(NoBackoff(), 1),
            protocol=3,
        )
        self._redis = Redis.from_pool(pool)
        self._sha = ""
        self._batcher: Batcher[Demand, Admission] = Batcher(self._admit_all)

    async def admit(self, demand: Demand) -> Admission:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._batcher.submit(demand)
        except TimeoutError as error:
            raise _unavailable() from error

    async def remember(self, key: str, value: str, seconds: float) -> None:
        with _faults():
            await self._redis.set(f"memory:{key}", value, px=max(1, round(seconds * 1000)))

    async def recall(self, keys: Sequence[str]) -> Sequence[Memory | None]:
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.get(f"memory:{key}")
            pipeline.pttl(f"memory:{key}")
        with _faults():
            answers = await pipeline.execute()
        found = zip(answers[::2], answers[1::2], strict=True)
        return [Memory(v.decode(), left / 1000) if v and left > 0 else None for v, left in found]

    async def forget(self, *keys: str) -> None:
        with _faults():
            await self._redis.delete(*(f"memory:{key}" for key in keys))

    async def check(self) -> None:
        with _faults():
            await self._redis.ping()

    async def close(self) -> None:
        await self._redis.aclose()

    async def _admit_all(self, demands: list[Demand]) -> Sequence[Admission | Exception]:
        try:
            if not self._sha:
                self._sha = await self._redis.script_load(ADMIT)
            answers = await self._send(demands)
            lost = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if lost:  # Redis was restarted or flushed.
                self._sha = await self._redis.script_load(ADMIT)
                again = await self._send([demands[i] for i in lost])
                for i, answer in zip(lost, again, strict=True):
                    answers[i] = answer
        except (RedisError, OSError) as error:
            raise _unavailable() from error
        return [_admission(*pair) for pair in zip(demands, answers, strict=True)]

    async def _send(self, demands: list[Demand]) -> list[list[int] | Exception]:
        pipeline = self._redis.pipeline(transaction=False)
        for demand in demands:
            arguments = [n for bucket in demand.buckets for n in (bucket.capacity, bucket.take)]
            keys = [f"limit:{bucket.key}" for bucket in demand.buckets]
            pipeline.evalsha(self._sha, len(keys), *keys, *arguments)
        return await pipeline.execute(raise_on_error=False)


def _admission(demand: Demand, answer: list[int] | Exception) -> Admission | Exception:
    if isinstance(answer, Exception):
        return _unavailable()
    admitted, *levels = answer
    pairs = zip(demand.buckets, levels, strict=True)
    return Admission(bool(admitted), tuple(Level(bucket, level) for bucket, level in pairs))


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise _unavailable() from error


def _unavailable() -> LimiterUnavailable:
    return LimiterUnavailable(
        "Limits cannot be checked right now, so nothing is generated. Try again.", retry_after=1
    )


def open_limiter(settings: Settings) -> RedisLimiter:
    """The Redis of `REDIS_URL`. Raises `StartError` for an address that is wrong."""
    try:
        return RedisLimiter(settings.redis_url)
    except ValueError as error:
        raise StartError(
            "REDIS_URL is not set or not a Redis address; use redis://host:6379/0"
        ) from error
