"""An SQLite file of the drill's own."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


class SqliteFile:
    """A file that another connection can lock."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "drill.db"
        self.environment = {"DATABASE_URL": f"sqlite:///{self._path}"}

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold the write lock."""
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield

    def close(self) -> None:
        """The file goes with its folder."""
