"""Files that can be made again, kept within a bound: the one used longest ago goes first.

A name means its content for ever, so nothing here is ever stale. Names begin with the boot of the machine: files are not
synced, and one that a power cut left half-written has a name nobody asks for any more.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pacslite import metrics
from pacslite.storage.spool import storage_error

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_RENEWED_AFTER_S = 60


def boot_mark() -> str:
    """What changes when the machine starts anew; empty where the system does not say."""
    try:
        return _BOOT_ID.read_text().replace("-", "")[:12] + "-"
    except OSError:
        return ""


class _Turn:
    """Whose turn it is to make a file, and how many threads want it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanted = 0


class FileCache:
    """A directory of made files, shared by the processes of a host; each of them keeps the bound."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._boot = boot_mark()
        # Made since the directory was last looked through; the first file looks through it.
        self._made_bytes = max_bytes
        self._turns: dict[str, _Turn] = {}
        self._turns_lock = threading.Lock()
        self._sweeping = threading.Lock()
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)

    def open(self, name: str, make: Callable[[BinaryIO], None]) -> tuple[BinaryIO, int]:
        """The open file and its size; `make` writes it when it is not there, and may open another name for that."""
        path = self.directory / (self._boot + name)
        found = opened(path)
        self._count(found)
        if found is None:
            with self._turn(name):
                found = opened(path) or self._make(path, make)
        return found

    def find(self, name: str) -> tuple[BinaryIO, int] | None:
        """The open file and its size, when it was made before."""
        found = opened(self.directory / (self._boot + name))
        self._count(found)
        return found

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        """One thread makes a file, the others who want it wait; nobody waits for the maker of another."""
        with self._turns_lock:
            turn = self._turns.setdefault(name, _Turn())
            turn.wanted += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._turns_lock:
                turn.wanted -= 1
                if not turn.wanted:
                    del self._turns[name]

    def _count(self, found: object) -> None:
        metrics.CACHE_REQUESTS.add(self.directory.name, "miss" if found is None else "hit")

    def _make(self, path: Path, make: Callable[[BinaryIO], None]) -> tuple[BinaryIO, int]:
        unfinished = path.with_name(f".{os.urandom(8).hex()}")
        file = open(unfinished, "w+b", buffering=0)  # noqa: SIM115 - handed to the caller
        try:
            try:
                make(file)
                if not self._boot:
                    os.fsync(file.fileno())
                os.replace(unfinished, path)
            except OSError as error:
                raise storage_error("the cache cannot be written", error) from error
        except BaseException:
            file.close()
            unfinished.unlink(missing_ok=True)
            raise
        size = file.tell()
        self._made_bytes += size
        if self._made_bytes > self._max_bytes // 8:
            self._sweep()
        return file, size

    def _sweep(self) -> None:
        """Removes what is above the bound, oldest use first."""
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            self._made_bytes = 0
            with os.scandir(self.directory) as entries:
                known = [(stat.st_mtime, stat.st_size, entry.path) for entry in entries if (stat := _stat(entry)) is not None]
            total = sum(size for _, size, _ in known)
            for _, size, path in sorted(known):
                if total <= self._max_bytes:
                    break
                Path(path).unlink(missing_ok=True)
                total -= size
        finally:
            self._sweeping.release()


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat() if entry.is_file(follow_symlinks=False) else None
    except FileNotFoundError:
        return None  # another process has removed it


def opened(path: Path) -> tuple[BinaryIO, int] | None:
    """A kept file and its size, which counts as used now; None when there is none."""
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115 - handed to the caller
    except FileNotFoundError:
        return None
    stat = os.fstat(file.fileno())
    if time.time() - stat.st_mtime > _RENEWED_AFTER_S:
        os.utime(file.fileno())
    return file, stat.st_size
