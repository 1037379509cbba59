"""SQLite's write-ahead log, synced by whoever has committed, after the lock of the writers is given back.

SQLite itself would sync inside of the lock (`synchronous = FULL`), and every other process would wait for the disk with it.
With NORMAL it writes the commit and leaves the sync to the next checkpoint; here the log is synced before anybody learns of
the commit, while the next writer is at work already. One sync serves all commits before it, those of other processes too.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from pacslite.durability import sync_directory


class WriteAheadLog:
    """The log beside a database; to be used while a connection that has written to it is open."""

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database}-wal")
        self._mutex = threading.Lock()
        self._descriptor = -1

    def sync(self) -> None:
        """All commits until now are durable when this returns; raises OSError."""
        try:
            descriptor = self._current()
        except FileNotFoundError:
            return  # no log: everything is in the database, which the last connection has synced
        os.fdatasync(descriptor)

    def _current(self) -> int:
        with self._mutex:
            # The last connection of all takes the log away; the next one makes another.
            if self._descriptor < 0 or not os.fstat(self._descriptor).st_nlink:
                fresh = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
                self._close()
                self._descriptor = fresh
                sync_directory(self._path.parent)
            return self._descriptor

    def close(self) -> None:
        """Give up the file."""
        with self._mutex:
            self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
