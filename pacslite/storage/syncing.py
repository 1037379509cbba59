"""Syncs of files and directories that go on while their owner does something else.

A sync of the disk is mostly waiting: while a large instance's file is being written out, its header is read; while its
directories are, its rows are written. The order of durability stays what `FilesystemStore` says: whoever needs a sync
to be done waits for it. Where several threads store at once the waits overlap by themselves, and handing a sync to yet
another thread would only cost; then the owner does it at once.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

_THREADS = 2
_LIBC = ctypes.CDLL(None, use_errno=True)
_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")
# Their logs keep the order of changes: with a new file that is synced its name is durable, and a rename happens whole or not at all.
_LOGGING_FILE_SYSTEMS = frozenset({"ext3", "ext4", "xfs", "btrfs"})


def sync_file_system(descriptor: int) -> None:
    """Everything that was written to the file system of an open file is on stable storage when this returns; raises OSError.

    syncfs(2), which tells of failed writes since Linux 5.8.
    """
    if _LIBC.syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def names_follow_files(directory: str) -> bool:
    """Whether the sync of a new file makes its name durable too, and a rename is whole after any failure (Linux, proc(5))."""
    found, longest = "", -1
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    directory = os.path.realpath(directory)
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        point = _ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), before.split(" ")[4]).rstrip("/") + "/"
        if len(point) >= longest and f"{directory}/".startswith(point):  # of several mounted there the last is seen
            found, longest = after.split(" ")[0], len(point)
    return found in _LOGGING_FILE_SYSTEMS


class Sync:
    """One sync, done or under way."""

    __slots__ = ("_done", "_error", "_work")

    def __init__(self, work: Callable[[], None]) -> None:
        self._work: Callable[[], None] | None = work
        self._error: OSError | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def run(self) -> None:
        """Do it."""
        work, self._work = self._work, None  # what it holds open is not to wait for the collector of cycles
        assert work is not None
        try:
            work()
        except OSError as error:
            self._error = error
        finally:
            del work
            self._done.release()

    def wait(self) -> None:
        """Return when it is done; raises the OSError it met. May be called again."""
        with self._done:
            pass
        if self._error is not None:
            raise self._error


class Syncer:
    """Two threads that sync; they start with the first sync, in the process that asks for it."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Sync] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = self._busy = 0

    def start(self, sync: Sync) -> Sync:
        """Begin a sync; it is done when this returns if the threads have others to do."""
        with self._lock:
            if self._busy >= _THREADS:
                free = False
            else:
                free = True
                self._busy += 1
                if self._started < self._busy:
                    self._start_thread()
        if free:
            self._queue.put(sync)
        else:
            sync.run()
        return sync

    def _start_thread(self) -> None:
        self._started += 1
        # Daemons: nothing that was acknowledged hangs on a sync that is still under way.
        threading.Thread(target=self._run, name=f"sync-{self._started}", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._queue.get().run()
            with self._lock:
                self._busy -= 1
