"""An SQLite file that somebody else writes to, or that is gone."""

from drill.checks.backends import ABSENT, without
from drill.environment import Scene
from drill.guarantees import promise
from drill.sqlite import SqliteFile


@promise("While the file is locked nothing is generated, and the service comes back after", ABSENT)
async def file_locked(scene: Scene) -> str:
    return await without(scene, scene.backend(SqliteFile).frozen())


@promise(
    "While the file is deleted nothing is generated, and the service comes back with it", ABSENT
)
async def file_moved(scene: Scene) -> str:
    return await without(scene, scene.backend(SqliteFile).moved())


@promise(
    "While another file is in its place nothing is generated, and the service comes back after",
    ABSENT,
)
async def file_replaced(scene: Scene) -> str:
    return await without(scene, scene.backend(SqliteFile).replaced())
