"""The file of an SQLite database: its identity, and the process that may serve from it.

SQLite goes on with a file that was deleted, replaced or overwritten, and its commits there are
lost.
"""

import fcntl
import os
import sqlite3
import threading
from pathlib import Path
from typing import NamedTuple

from gateway.errors import StartError

# The further files in WAL mode: the log, and the index through which processes share it.
LOG, INDEX = "-wal", "-shm"
# Fields of the index (https://sqlite.org/walformat.html, 2.1): the log's salts, how much of the log
# a checkpoint has written to the file, and how much it intended to write.
HEADER_BYTES = 136
SALTS, DONE, BEGUN = slice(32, 40), slice(96, 100), slice(128, 132)
# SQLite's mode for a new file, before the umask.
MODE = 0o644

Identity = tuple[int, int]


class Content(NamedTuple):
    """The state of the file. Only a checkpoint changes it, and then `checkpoint` changes too."""

    checkpoint: bytes
    changed_at: int
    size: int


class SqliteFile:
    """A database's file, from its first connection until `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # SQLite resolves links before it names the log and the index.
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
        """Create the file if it is missing. Raises `StartError`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            said = f"The folder of {self.path} cannot be created: {error.strerror}."
            raise StartError(said) from error
        os.close(self._open())

    def lock(self) -> bool:
        """Lock the file itself; false while another process holds it, also under another name.

        Raises `StartError` if the file cannot be opened.
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
        """Record the identity of the file at the first connection.

        Opens one more connection, so that the log stays: SQLite removes it with the last one.
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
        """Raise `OSError` if the path now leads to another file than at the first connection."""
        if self._kept is not None and list(map(_identity, self._names)) != self._identities:
            raise OSError(f"{self.path} was deleted or replaced while the service had it open.")

    def require_unchanged(self) -> None:
        """As `require_same`; also raises `OSError` if the file was overwritten."""
        self.require_same()
        self._is_overwritten = self._is_overwritten or self._has_changed()
        if self._is_overwritten:
            raise OSError(f"{self.path} was overwritten while the service had it open.")

    def close(self) -> None:
        """Release the file. Only call it after all connections are closed.

        Closing a descriptor releases SQLite's own locks on the file for the whole process.
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
        """Whether something other than a checkpoint has changed the content."""
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
        """When a transaction last wrote, in seconds since 1970."""
        return os.stat(self._log).st_mtime

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, MODE)
        except OSError as error:
            said = f"{self.path} cannot be opened: {error.strerror}. Is DATABASE_URL right?"
            raise StartError(said) from error


def _is_at_rest(checkpoint: bytes) -> bool:
    """Whether no checkpoint is running or was interrupted."""
    return checkpoint[-8:-4] == checkpoint[-4:]


def _identity(path: str) -> Identity | None:
    """The device and inode of a file; None if there is no file."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
