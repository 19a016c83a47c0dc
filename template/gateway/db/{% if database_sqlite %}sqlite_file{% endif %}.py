"""The file of an SQLite database: which one it is, and which process may serve from it.

SQLite goes on with a file that was deleted, replaced or overwritten, and what it commits there is
lost.
"""

import fcntl
import os
import sqlite3
import threading
from pathlib import Path
from typing import NamedTuple

from gateway.errors import StartError

# What lies beside the file in WAL mode: the log, and the index by which processes share it.
LOG, INDEX = "-wal", "-shm"
# Places in the index (https://sqlite.org/walformat.html, 2.1): which log it is, how much of it a
# checkpoint has written to the file, and how much it was about to write.
HEADER_BYTES = 136
SALTS, DONE, BEGUN = slice(32, 40), slice(96, 100), slice(128, 132)
# SQLite's own for a new file; the umask takes away from it.
MODE = 0o644

Identity = tuple[int, int]


class Content(NamedTuple):
    """The content of the file, which only a checkpoint changes: then `checkpoint` changes too."""

    checkpoint: bytes
    changed_at: int
    size: int


class SqliteFile:
    """A database's file, from when it is first opened until it is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # SQLite follows links before it names what lies beside the file.
        real = path.resolve()
        self._log, self._index_path = f"{real}{LOG}", f"{real}{INDEX}"
        self._opening = threading.Lock()
        self._kept: sqlite3.Connection | None = None
        self._names = (str(path), self._log, self._index_path)
        self._identities: list[Identity | None] = []
        self._content: Content | None = None
        self._is_overwritten = False
        self._locked: int | None = None
        self._index: int | None = None

    def create(self) -> None:
        """Make the file where there is none. Raises `StartError`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            said = f"The folder of {self.path} cannot be made: {error.strerror}."
            raise StartError(said) from error
        os.close(self._open())

    def lock(self) -> bool:
        """Lock the file itself, by whatever name it was found; false while another process has it.

        Raises `StartError`.
        """
        if self._locked is None:
            self._locked = self._open()
        try:
            fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        status = os.fstat(self._locked)
        if (status.st_dev, status.st_ino) == _identity(str(self.path)):
            return True
        os.close(self._locked)  # It was replaced meanwhile.
        self._locked = None
        return False

    def opened(self) -> None:
        """Remember which file it is, when it is connected to for the first time.

        A connection of its own keeps the files in place: SQLite removes the log with the last one.
        """
        with self._opening:
            if self._kept is None:
                self._kept = self._keep()
                self._identities = list(map(_identity, self._names))
                if self._identities[-1] is not None:
                    self._index = os.open(self._index_path, os.O_RDONLY | os.O_CLOEXEC)
                    if not _is_at_rest(self._checkpoint()):  # An earlier process was killed.
                        self._kept.execute("PRAGMA wal_checkpoint").fetchall()

    def require_same(self) -> None:
        """Raise `OSError` when what is opened by its name now is not what was opened first."""
        if self._kept is not None and list(map(_identity, self._names)) != self._identities:
            raise OSError(f"{self.path} was deleted or replaced while the service had it open.")

    def require_unchanged(self) -> None:
        """As `require_same`; raise `OSError` also when the file was overwritten."""
        self.require_same()
        self._is_overwritten = self._is_overwritten or self._has_changed()
        if self._is_overwritten:
            raise OSError(f"{self.path} was overwritten while the service had it open.")

    def close(self) -> None:
        """Let go of the file, when all connections are closed.

        Not earlier: to close a file takes SQLite's own locks on it from the whole process.
        """
        if self._kept is not None:
            self._kept.close()
        for descriptor in (self._index, self._locked):
            if descriptor is not None:
                os.close(descriptor)
        self._kept = self._index = self._locked = None

    def _keep(self) -> sqlite3.Connection:
        kept = sqlite3.connect(self.path, check_same_thread=False)
        try:
            kept.execute("PRAGMA schema_version").fetchall()
        except sqlite3.Error as error:
            kept.close()
            raise OSError(f"{self.path} cannot be read: {error}") from error
        return kept

    def _has_changed(self) -> bool:
        """Whether something else than a checkpoint has changed the content."""
        if self._index is None:
            return False
        before = self._checkpoint()
        status = os.stat(self.path)
        if before != self._checkpoint() or not _is_at_rest(before):
            return False
        last, self._content = self._content, Content(before, status.st_mtime_ns, status.st_size)
        return last is not None and last.checkpoint == before and last != self._content

    def _checkpoint(self) -> bytes:
        assert self._index is not None, "a file in WAL mode"
        header = os.pread(self._index, HEADER_BYTES, 0)
        return header[SALTS] + header[DONE] + header[BEGUN]

    def log_written_at(self) -> float:
        """When a transaction last wrote, as a time since 1970."""
        return os.stat(self._log).st_mtime

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, MODE)
        except OSError as error:
            said = f"{self.path} cannot be opened: {error.strerror}. Is DATABASE_URL right?"
            raise StartError(said) from error


def _is_at_rest(checkpoint: bytes) -> bool:
    """Whether no checkpoint writes to the file, or was interrupted."""
    return checkpoint[-8:-4] == checkpoint[-4:]


def _identity(path: str) -> Identity | None:
    """What two files never have in common; None where there is no file."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
