"""Syncs of files and directories that go on while their owner does something else.

A sync of the disk is mostly waiting: while one instance's file is being written out, its header is read; while its
directories are, its rows are written. The order of durability stays what `FilesystemStore` says: whoever needs a sync
to be done waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

_THREADS = 8


class Sync:
    """One sync under way."""

    __slots__ = ("_done", "_error", "_work")

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: OSError | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def run(self) -> None:
        """Do it, in a thread of the syncer."""
        try:
            self._work()
        except OSError as error:
            self._error = error
        finally:
            self._done.release()

    def wait(self) -> None:
        """Return when it is done; raises the OSError it met. May be called again."""
        self._done.acquire()
        self._done.release()
        if self._error is not None:
            raise self._error


class Syncer:
    """A few threads that sync; they start with the first sync, in the process that asks for it."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Sync] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0
        self._lock = threading.Lock()

    def start(self, work: Callable[[], None]) -> Sync:
        """Begin a sync."""
        sync = Sync(work)
        if not self._idle.acquire(blocking=False):
            self._start_thread()
        self._queue.put(sync)
        return sync

    def _start_thread(self) -> None:
        with self._lock:
            if self._started >= _THREADS:
                return
            self._started += 1
        # Daemons: nothing that was acknowledged hangs on a sync that is still under way.
        threading.Thread(target=self._run, name=f"sync-{self._started}", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._queue.get().run()
            self._idle.release()
