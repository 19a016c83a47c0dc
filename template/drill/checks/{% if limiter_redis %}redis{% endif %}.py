"""Redis killed, and frozen."""

from drill.checks.backends import ABSENT, without
from drill.environment import Scene
from drill.guarantees import promise
from drill.redis import RedisServer


@promise("Without Redis nothing is generated, and the service comes back with it", ABSENT)
async def redis_killed(scene: Scene) -> str:
    return await without(scene, scene.backend(RedisServer).killed())


@promise("With a Redis that hangs nothing is generated, and the service comes back with it", ABSENT)
async def redis_frozen(scene: Scene) -> str:
    return await without(scene, scene.backend(RedisServer).frozen())
