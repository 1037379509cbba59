"""Results that take long to make, kept as files within a bound and made once, whoever asks at the same time on this host.

The file in the making carries a lock of the kernel, which goes with its maker. Others who want it wait for the lock, or read
what is there already; when the maker has died they make it themselves, which gives the same bytes. A name means its content for
ever. Files are not synced: names begin with the boot of the machine, so none survives a power cut half-written.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from pacslite import metrics
from pacslite.core.file_cache import boot_mark, opened
from pacslite.errors import Busy, PacsliteError
from pacslite.storage.spool import storage_error

Pieces = Callable[[], Iterator[bytes]]

_PIECE_BYTES = 512 * 1024
_LOOK_AGAIN_S = 0.02
_ABANDONED_AFTER_S = 3600
_MAKERS = 8
_UNFINISHED = ".part"
_log = logging.getLogger(__name__)


class _Making:
    """A result that a thread of this process makes."""

    def __init__(self) -> None:
        self.grown = threading.Condition()
        self.error: BaseException | None = None


class ResultCache:
    """A directory of results, shared by the processes of a host; each of them keeps the bound."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._boot = boot_mark()
        # Made since the directory was last looked through; the first result looks through it.
        self._made_bytes = max_bytes
        self._sweeping = threading.Lock()
        self._makers = threading.BoundedSemaphore(_MAKERS)
        self._making: dict[Path, _Making] = {}
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)

    def open(self, name: str, make: Pieces) -> tuple[BinaryIO, int]:
        """The whole result as an open file, and its size; whoever comes first makes it, the others wait."""
        path, result = self._path(name), "hit"
        while True:
            found = opened(path)
            if found is not None:
                self._count(result)
                return found
            result = "joined"  # another makes it, or has just made it
            part = self._locked(path, wait=True)
            if part is not None:
                self._count("miss")
                return self._made(part, path, make, lambda: None)

    def follow(self, name: str, make: Pieces) -> Iterator[bytes]:
        """The bytes of a result while it is made, by a thread that goes on at its own pace; raises what `make` raises."""
        path, at = self._path(name), 0
        while True:
            found = opened(path)
            if found is not None:
                self._count("joined" if at else "hit")
                with found[0] as file:
                    yield from _rest(file, at)
                return
            making = self._begin(path, make)
            if making is not None:
                self._count("miss")
            making = making or self._making.get(path)
            with suppress(FileNotFoundError), open(_part_of(path), "rb", buffering=0) as part:
                at = yield from _grown(part, making, at)
            if making is not None and making.error is not None:
                raise making.error

    def _count(self, result: str) -> None:
        metrics.CACHE_REQUESTS.add(self.directory.name, result)

    def _path(self, name: str) -> Path:
        return self.directory / (self._boot + name)

    def _begin(self, path: Path, make: Pieces) -> _Making | None:
        """Have a thread make the result; None when somebody does already."""
        part = self._locked(path, wait=False)
        if part is None:
            return None
        if not self._makers.acquire(blocking=False):
            part.close()
            raise Busy("Too many large instances are being transcoded.")
        making = self._making[path] = _Making()
        try:
            threading.Thread(target=self._make_apart, args=(making, part, path, make), name="transcoding", daemon=True).start()
        except RuntimeError:  # the system has no thread left
            del self._making[path]
            self._makers.release()
            part.close()
            raise Busy("Too much is under way at once.") from None
        return making

    def _make_apart(self, making: _Making, part: BinaryIO, path: Path, make: Pieces) -> None:
        def tell() -> None:
            with making.grown:
                making.grown.notify_all()

        try:
            self._made(part, path, make, tell)[0].close()
        except PacsliteError as error:
            making.error = error
        except Exception as error:  # noqa: BLE001 - those who wait for it are told
            making.error = error
            _log.error("a result could not be made", exc_info=True, extra={"action": "transcode", "outcome": "failed"})
        finally:
            self._making.pop(path, None)
            self._makers.release()
            tell()

    def _locked(self, path: Path, wait: bool) -> BinaryIO | None:
        """The unfinished file, empty and ours to write; None when the result is there, or another has it and we do not wait."""
        part_path = _part_of(path)
        while True:
            try:
                part = open(part_path, "a+b", buffering=0)  # noqa: SIM115 - handed to the caller
            except OSError as error:
                raise storage_error("the cache cannot be written", error) from error
            try:
                fcntl.flock(part, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                part.close()
                return None
            if _is_at(part, part_path) and not path.exists():
                part.truncate(0)
                return part
            # Its maker was faster: it has its own name now, and what we opened may be a new, empty one.
            if _is_at(part, part_path):
                part_path.unlink(missing_ok=True)
            part.close()
            if path.exists():
                return None

    def _made(self, part: BinaryIO, path: Path, make: Pieces, tell: Callable[[], None]) -> tuple[BinaryIO, int]:
        """The result, made into the file; its lock goes when nobody holds the file open as its maker."""
        size = 0
        try:
            for piece in make():
                try:
                    part.write(piece)
                except OSError as error:
                    raise storage_error("the cache cannot be written", error) from error
                size += len(piece)
                tell()
            os.replace(_part_of(path), path)
        except BaseException:
            _part_of(path).unlink(missing_ok=True)
            part.close()
            raise
        fcntl.flock(part, fcntl.LOCK_UN)
        self._made_bytes += size
        if self._made_bytes > self._max_bytes // 8:
            self._sweep()
        return part, size

    def _sweep(self) -> None:
        """Removes what is above the bound, oldest use first, and what a dead maker has left."""
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            self._made_bytes = 0
            known = []
            for path in self.directory.iterdir():
                with suppress(FileNotFoundError):
                    stat = path.stat()
                    if not path.name.endswith(_UNFINISHED):
                        known.append((stat.st_mtime, stat.st_size, path))
                    elif time.time() - stat.st_mtime > _ABANDONED_AFTER_S:
                        path.unlink(missing_ok=True)
            total = sum(size for _, size, _ in known)
            for _, size, path in sorted(known):
                if total <= self._max_bytes:
                    break
                path.unlink(missing_ok=True)
                total -= size
        finally:
            self._sweeping.release()


def _grown(part: BinaryIO, making: _Making | None, at: int) -> Generator[bytes, None, int]:
    """What stands in an unfinished file from `at` on, until nobody makes it any more; gives how far that was."""
    part.seek(at)
    while True:
        over = not _is_locked(part)
        piece = part.read(_PIECE_BYTES)
        if piece:
            at += len(piece)
            yield piece
        elif over:
            return at
        elif making is not None:
            with making.grown:
                making.grown.wait(_LOOK_AGAIN_S)
        else:
            time.sleep(_LOOK_AGAIN_S)  # another process makes it; that a file has grown, no lock tells


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + _UNFINISHED)


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _is_locked(file: BinaryIO) -> bool:
    """Whether the maker of a file is at it; asked with a lock of our own, which goes at once."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _rest(file: BinaryIO, at: int) -> Iterator[bytes]:
    file.seek(at)
    while piece := file.read(_PIECE_BYTES):
        yield piece
