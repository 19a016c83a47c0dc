"""Redis killed, and frozen."""

from drill.checks.backends import ABSENT, without
from drill.environment import Environment
from drill.guarantees import guarantee
from drill.redis import RedisServer


@guarantee("Without Redis nothing is generated, and the service comes back with it", ABSENT)
async def redis_killed(environment: Environment) -> str:
    return await without(environment, environment.backend(RedisServer).killed())


@guarantee(
    "With a Redis that hangs nothing is generated, and the service comes back with it", ABSENT
)
async def redis_frozen(environment: Environment) -> str:
    return await without(environment, environment.backend(RedisServer).frozen())
