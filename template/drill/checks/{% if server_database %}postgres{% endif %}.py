"""PostgreSQL killed, frozen, and without room to write."""

from drill.checks.backends import ABSENT, without
from drill.environment import Environment
from drill.guarantees import guarantee
from drill.postgres import PostgresServer


@guarantee("Without PostgreSQL nothing is generated, and the service comes back with it", ABSENT)
async def postgres_killed(environment: Environment) -> str:
    return await without(environment, environment.backend(PostgresServer).killed())


@guarantee(
    "With a PostgreSQL that hangs nothing is generated, and the service comes back with it", ABSENT
)
async def postgres_frozen(environment: Environment) -> str:
    return await without(environment, environment.backend(PostgresServer).frozen())


@guarantee(
    "While PostgreSQL takes no writes nothing is generated, and the service comes back after",
    ABSENT,
)
async def postgres_read_only(environment: Environment) -> str:
    return await without(environment, environment.backend(PostgresServer).read_only())
