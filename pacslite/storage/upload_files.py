"""The bytes of resumable uploads: files that grow over hours, each written by one writer at a time, whichever process that is in.

They lie in a directory of their own, where no sweep of the spool comes. Beside the bytes of `name` lies `name.lock`, which holds
the token of the present writer, and `name.<token>`, which the writer keeps locked as long as it lives and touches while bytes
come. So a writer that was killed holds up nobody, one whose client fell silent loses its place to the next who comes, and
whoever has lost its place writes nothing more: every write looks at the token, under the lock.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pacslite.errors import Gone, Locked, OutOfSpace, StorageError
from pacslite.storage.spool import storage_error

SILENT_S = 3.0
"""A writer to whom nothing has come for that long may be replaced."""
_TOUCHED_S, _PATIENCE_S, _ARRIVAL_S = 0.5, 0.5, 0.1
_FINISHING = b"finishing"


class UploadWriter:
    """The one who may write an upload; leave its `with` block to let others write."""

    def __init__(self, name: str, token: str, data: int, lock: int, alive: int, alive_path: str) -> None:
        self.name, self.token = name, token
        self._data, self._lock, self._alive, self._alive_path = data, lock, alive, alive_path
        self._touched_at = time.monotonic()

    def begin(self, offset: int) -> None:
        """Go on behind `offset` bytes: what came after them was never told and goes. Raises Gone when fewer are there."""
        with self._mine():
            if os.fstat(self._data).st_size < offset:
                raise Gone("The bytes of this upload are lost; begin it anew.")
            os.ftruncate(self._data, offset)
            os.lseek(self._data, offset, os.SEEK_SET)

    def write(self, piece: bytes) -> None:
        """Append bytes; raises Locked when another has taken over, OutOfSpace."""
        with self._mine():
            view = memoryview(piece)
            while view:
                view = view[os.write(self._data, view) :]
        if time.monotonic() - self._touched_at >= _TOUCHED_S:
            self._touched_at = time.monotonic()
            os.utime(self._alive)

    def sync(self) -> None:
        """Return when what was written is on stable storage."""
        try:
            os.fdatasync(self._data)
        except OSError as error:
            raise storage_error("the upload cannot be written", error) from error

    def finishing(self) -> None:
        """From here on silence is work: nobody takes over while this process lives. Raises Locked when another has."""
        with self._mine():
            os.pwrite(self._alive, _FINISHING, 0)

    def release(self) -> None:
        """Let others write."""
        if self._data >= 0:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if self._is_mine():
                os.ftruncate(self._lock, 0)
            with suppress(FileNotFoundError):
                os.unlink(self._alive_path)
            for fd in (self._data, self._alive, self._lock):
                os.close(fd)
            self._data = -1

    def _is_mine(self) -> bool:
        return os.pread(self._lock, 64, 0) == self.token.encode()

    @contextmanager
    def _mine(self) -> Iterator[None]:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if not self._is_mine():
                raise Locked("Another request writes this upload now.")
            yield
        except OSError as error:
            raise storage_error("the upload cannot be written", error) from error
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


class UploadFiles:
    """The directory of uploads; made when the first one begins."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, name: str) -> Path:
        """Where the bytes of an upload lie."""
        return self._directory / name

    def create(self, name: str) -> None:
        """An upload without bytes."""
        try:
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            os.close(os.open(self.path(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o640))
        except OSError as error:
            raise storage_error("the upload cannot be written", error) from error

    def claim(self, name: str, *, force: bool = False) -> UploadWriter:
        """Become the writer of an upload; raises Locked while another is at it (unless by force), Gone when it has no bytes here.

        Waits for a moment: one who has just told how far it is, is about to leave.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self._claim(name, force)
            except Locked:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_PATIENCE_S / 20)  # the other may be another process, and the kernel's wait for its lock has no bound

    def settle(self, name: str) -> None:
        """Waits for a moment while somebody writes an upload: who lost the connection is about to tell how far it came, and go.

        What was cut may not have begun yet either: another process takes it up, a little after this one was asked.
        """
        path, begun = os.fspath(self.path(name)), time.monotonic()
        deadline, is_known = begun + _PATIENCE_S, False
        while (now := time.monotonic()) < deadline:
            is_held = _is_held(path)
            if not is_held and (is_known or now - begun >= _ARRIVAL_S):
                return
            is_known = is_known or is_held
            time.sleep(_ARRIVAL_S / 10)

    def _claim(self, name: str, force: bool) -> UploadWriter:
        path = os.fspath(self.path(name))
        try:
            lock = os.open(path + ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
        except FileNotFoundError:
            raise Gone("The bytes of this upload are lost; begin it anew.") from None
        except OSError as error:
            raise storage_error("the upload cannot be written", error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self._claimed(name, path, lock, force)
        except FileNotFoundError:
            _remove(path + ".lock")
            os.close(lock)
            raise Gone("The bytes of this upload are lost; begin it anew.") from None
        except OSError as error:
            os.close(lock)
            raise storage_error("the upload cannot be written", error) from error
        except Locked:
            os.close(lock)
            raise

    def _claimed(self, name: str, path: str, lock: int, force: bool) -> UploadWriter:
        with ExitStack() as undo:
            data = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            undo.callback(os.close, data)
            holder = os.pread(lock, 64, 0).decode("ascii", "replace")
            if holder and not force and _is_active(f"{path}.{holder}"):
                raise Locked("Another request writes this upload now.")
            token = os.urandom(12).hex()
            alive = os.open(f"{path}.{token}", os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o640)
            undo.callback(os.close, alive)
            undo.callback(_remove, f"{path}.{token}")
            fcntl.flock(alive, fcntl.LOCK_EX)
            os.pwrite(lock, token.encode(), 0)  # fails on a full disk
            undo.pop_all()
        if holder:
            _remove(f"{path}.{holder}")
        fcntl.flock(lock, fcntl.LOCK_UN)
        return UploadWriter(name, token, data, lock, alive, f"{path}.{token}")

    def open(self, name: str) -> BinaryIO:
        """The bytes so far."""
        try:
            return self.path(name).open("rb", buffering=0)
        except FileNotFoundError:
            raise Gone("The bytes of this upload are lost; begin it anew.") from None

    def lend(self, name: str, target: Path) -> None:
        """A second name of the bytes, which whoever gets it may move or remove; where that cannot be, the only one."""
        try:
            os.link(self.path(name), target)
            os.utime(target)
        except FileNotFoundError:
            raise Gone("The bytes of this upload are lost; begin it anew.") from None
        except OSError:
            try:
                os.rename(self.path(name), target)
            except OSError as error:
                raise storage_error("the upload cannot be moved", error) from error

    def remove(self, name: str) -> int:
        """Remove an upload, whoever writes it; how many bytes that frees."""
        path, size = os.fspath(self.path(name)), 0
        try:
            writer: AbstractContextManager[object] = self.claim(name, force=True)
        except (Gone, OutOfSpace):
            self._dispossess(path)  # what makes room must not need any
            writer = nullcontext()
        with writer, suppress(FileNotFoundError):
            size = os.stat(path).st_size
            os.unlink(path)
        for left in (path + ".lock",) if isinstance(writer, UploadWriter) else self._directory.glob(f"{name}.*"):
            _remove(left)
        return size

    def _dispossess(self, path: str) -> None:
        """Whoever writes an upload loses its place, and nobody gets it."""
        with suppress(FileNotFoundError):
            lock = os.open(path + ".lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                os.ftruncate(lock, 0)
            finally:
                os.close(lock)

    def names(self, older_than_s: float) -> Iterator[str]:
        """The uploads whose bytes nobody has written for that long."""
        until = time.time() - older_than_s
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        if entry.stat(follow_symlinks=False).st_mtime < until:
                            yield entry.name.partition(".")[0]
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"the uploads cannot be read: {error.strerror}") from error


def _is_held(path: str) -> bool:
    """Whether an upload has a writer that is active."""
    try:
        lock = os.open(path + ".lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        holder = os.pread(lock, 64, 0).decode("ascii", "replace")
    finally:
        os.close(lock)
    return bool(holder) and _is_active(f"{path}.{holder}")


def _is_active(alive: str) -> bool:
    """Whether a writer lives and either got bytes a moment ago, or makes a file of what has come."""
    try:
        fd = os.open(alive, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, 16, 0) == _FINISHING or time.time() - os.fstat(fd).st_mtime < SILENT_S
    else:
        return False
    finally:
        os.close(fd)


def _remove(path: str | Path) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
