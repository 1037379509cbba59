"""Syncs of files and of whole file systems, and what a sync keeps besides bytes."""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_WHOLE, _WRITE = ctypes.c_int64(0), ctypes.c_uint(2)  # SYNC_FILE_RANGE_WRITE
_MOUNTS = Path("/proc/self/mountinfo")
_DEVICES, _EXT4 = Path("/sys/dev/block"), Path("/sys/fs/ext4")
_ESCAPED = re.compile(r"\\([0-7]{3})")
# Their logs keep the order of changes, so what was renamed before a sync stays with it.
_NAMES_FOLLOW = frozenset({"ext3", "ext4", "xfs", "btrfs"})


def sync_file_system(descriptor: int) -> None:
    """Everything that was written to the file system of an open file is on stable storage when this returns; raises OSError.

    syncfs(2), which tells of failed writes since Linux 5.8.
    """
    if _LIBC.syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def begin_writing(descriptor: int) -> None:
    """Have the bytes of an open file written out from now on; whether they were, a sync tells (sync_file_range(2), Linux)."""
    start = getattr(_LIBC, "sync_file_range", None)
    if start is not None:
        start(descriptor, _WHOLE, _WHOLE, _WRITE)


def names_follow_files(directory: str) -> bool:
    """Whether the sync of a file makes the name durable that it was given before, in a directory made for it."""
    return _file_system(directory) in _NAMES_FOLLOW


def _file_system(directory: str) -> str:
    """What kind of file system a directory lies on, "" when that is not known (Linux, proc(5))."""
    found, longest = "", -1
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    directory = os.path.realpath(directory)
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        point = _ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), before.split(" ")[4]).rstrip("/") + "/"
        if len(point) >= longest and f"{directory}/".startswith(point):  # of several mounted there the last is seen
            found, longest = after.split(" ")[0], len(point)
    return found


def is_unlogged(directory: str) -> bool:
    """Whether it lies on an ext4 that does not log its changes (made without a journal), or one that does not tell."""
    if _file_system(directory) not in ("ext3", "ext4"):
        return False
    device = os.stat(directory).st_dev
    name = (_DEVICES / f"{os.major(device)}:{os.minor(device)}").resolve().name
    try:
        return (_EXT4 / name / "journal_task").read_text(encoding="ascii").strip() == "<none>"
    except OSError:
        return True


class Sync:
    """A sync that is done once: whoever asks again learns how it ended, since a system tells of a failed write only once."""

    __slots__ = ("_error", "_lock", "_work")

    def __init__(self, work: Callable[[], None]) -> None:
        self._work: Callable[[], None] | None = work
        self._error: OSError | None = None
        self._lock = threading.Lock()

    def run(self) -> None:
        """Return when it is done; raises the OSError it met."""
        with self._lock:
            work, self._work = self._work, None  # what it holds open is not to wait for the collector of cycles
            if work is not None:
                try:
                    work()
                except OSError as error:
                    self._error = error
        if self._error is not None:
            raise self._error
