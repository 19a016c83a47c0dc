"""An SQLite file that another program writes to, or that is gone."""

from drill.checks.backends import ABSENT, without
from drill.environment import Environment
from drill.guarantees import guarantee
from drill.sqlite import SqliteFile


@guarantee(
    "While the file is locked nothing is generated, and the service comes back after", ABSENT
)
async def file_locked(environment: Environment) -> str:
    return await without(environment, environment.backend(SqliteFile).frozen())


@guarantee(
    "While the file is deleted nothing is generated, and the service comes back with it", ABSENT
)
async def file_moved(environment: Environment) -> str:
    return await without(environment, environment.backend(SqliteFile).moved())


@guarantee(
    "While another file is in its place nothing is generated, and the service comes back after",
    ABSENT,
)
async def file_replaced(environment: Environment) -> str:
    return await without(environment, environment.backend(SqliteFile).replaced())
