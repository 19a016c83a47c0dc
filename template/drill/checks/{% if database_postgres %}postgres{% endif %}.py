"""PostgreSQL killed, frozen, and without room to write."""

from drill.checks.backends import ABSENT, without
from drill.environment import Scene
from drill.guarantees import promise
from drill.postgres import PostgresServer


@promise("Without PostgreSQL nothing is generated, and the service comes back with it", ABSENT)
async def postgres_killed(scene: Scene) -> str:
    return await without(scene, scene.backend(PostgresServer).killed())


@promise(
    "With a PostgreSQL that hangs nothing is generated, and the service comes back with it", ABSENT
)
async def postgres_frozen(scene: Scene) -> str:
    return await without(scene, scene.backend(PostgresServer).frozen())


@promise(
    "While PostgreSQL takes no writes nothing is generated, and the service comes back after",
    ABSENT,
)
async def postgres_read_only(scene: Scene) -> str:
    return await without(scene, scene.backend(PostgresServer).read_only())
