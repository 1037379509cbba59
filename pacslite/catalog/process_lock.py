"""One writer at a time among the processes that share an SQLite catalog.

SQLite's own busy handler sleeps up to 100 ms between tries and serves nobody in turn; here waiting is short and fair.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacslite.errors import Busy, ConfigurationError

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.00005, 0.001
_CONTENDED_S = 0.1


class ProcessLock:
    """Two files beside the catalog: whoever waits for the lock holds the turn, so that the last owner cannot take it again before."""

    def __init__(self, catalog_file: Path) -> None:
        self._lock = _open(Path(f"{catalog_file}-lock"))
        self._turn = _open(Path(f"{catalog_file}-turn"))
        self._waited_at = -_CONTENDED_S

    @property
    def is_contended(self) -> bool:
        """Whether other processes had the lock when it was wanted a moment ago."""
        return time.monotonic() - self._waited_at < _CONTENDED_S

    @contextmanager
    def held(self, deadline: float) -> Iterator[None]:
        """Holds the lock; raises Busy when it cannot be had before the deadline (of time.monotonic)."""
        self.acquire(deadline)
        try:
            yield
        finally:
            self.release()

    def acquire(self, deadline: float) -> None:
        """Hold the lock until `release`; raises Busy."""
        self._acquire(self._turn, deadline)
        try:
            self._acquire(self._lock, deadline)
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def _acquire(self, descriptor: int, deadline: float) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._waited_at = now = time.monotonic()
                if now >= deadline:
                    raise Busy("the catalog is locked by another process") from None
                # The kernel waits for such a lock without a bound, or until a signal, which only the main thread gets.
                time.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE_S)
            else:
                return

    def release(self) -> None:
        """Give it to whoever waits."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give up the files."""
        os.close(self._lock)
        os.close(self._turn)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise ConfigurationError(f"the catalog's lock {path} cannot be opened: {error.strerror}") from error
