"""An SQLite file of the drill's own."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


class SqliteFile:
    """A file that another connection can lock, and that can be lost."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "drill.db"
        self.environment = {"DATABASE_URL": f"sqlite:///{self._path}"}

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold the write lock."""
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def moved(self) -> Iterator[None]:
        """Move the file away, as a deployment does that unpacks its folder anew."""
        away = self._path.with_suffix(".away")
        self._path.rename(away)
        try:
            yield
        finally:
            away.replace(self._path)

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """Put a copy in the place of the file."""
        copy = self._path.with_suffix(".copy")
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute("VACUUM INTO ?", [str(copy)])
        with self.moved():
            copy.rename(self._path)
            yield

    def close(self) -> None:
        """The file goes with its folder."""
