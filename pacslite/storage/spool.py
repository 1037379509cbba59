"""Bytes that are not accepted yet: received into plain files, hashed on the way, moved by `BlobStore.put`.

A crash leaves at worst a file here. Nothing but age tells a dead file from a live one: every write renews the file's
time, a silent network peer is cut off after `network_timeout_s`, and ingest takes seconds, so a file untouched for
hours has no owner. (A lock per file would cost the hot path two system calls and keep a descriptor open.)
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pacslite.errors import OutOfSpace, StorageError, TooLarge
from pacslite.storage.digests import HEAD_BYTES, Digests

# Small pieces are gathered up to this size: one system call and two hash updates per 64 KiB, not per PDV.
_GATHER_BYTES = 64 * 1024
# The room left is looked at for every file, and again after so many bytes.
_CHECKED_BYTES = 16 * 1024 * 1024
_COPIED_BYTES = 1024 * 1024
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

DEFAULT_MAX_AGE_S = 6 * 3600
# A thousand small files a second need not ask each for the room on the disk; large ones ask while they grow.
_FRESH_S = 0.05


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A finished spool file: whole, hashed, closed, not yet on stable storage.

    `data_set_digest` is the digest of what follows group 0002, or None when the file does not begin with a preamble
    and a file meta that states its length. `content` is all its bytes when they are few, so that nobody has to read them
    again.
    """

    location: str
    size_bytes: int
    sha256: str
    data_set_digest: str | None
    content: bytes | None = None

    @property
    def path(self) -> Path:
        """Where it lies."""
        return Path(self.location)

    def discard(self) -> None:
        """Remove the file if it is still in the spool."""
        _unlink(self.location)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return  # taken by a store, or swept
    except OSError as error:
        raise storage_error("the spool file cannot be removed", error) from error


def storage_error(what: str, error: OSError) -> StorageError:
    """The StorageError (OutOfSpace when that is the cause) for an error of the system; names no path."""
    cls = OutOfSpace if error.errno in _NO_SPACE else StorageError
    return cls(f"{what}: {os.strerror(error.errno) if error.errno else error}")


class SpoolWriter:
    """Writes one spool file and hashes what passes; leaving its `with` block unfinished removes the file."""

    __slots__ = ("_begun", "_checked", "_digests", "_fd", "_max_bytes", "_pending", "_spool", "location", "size_bytes")

    def __init__(self, location: str, max_bytes: int | None = None, spool: Spool | None = None) -> None:
        self.location = location
        self._spool = spool
        self._checked = 0
        self.size_bytes = 0
        self._max_bytes = max_bytes
        self._pending = bytearray()
        self._digests = Digests()
        self._begun = False
        try:
            self._fd = os.open(location, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise storage_error("the spool cannot be written", error) from error

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return Path(self.location)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes (a view must be of single bytes); raises TooLarge past the bound and OutOfSpace."""
        length = len(data)
        self.size_bytes += length
        if self._max_bytes is not None and self.size_bytes > self._max_bytes:
            raise TooLarge(f"more than {self._max_bytes} bytes")
        if self._spool is not None and self.size_bytes - self._checked >= _CHECKED_BYTES:
            self._checked = self.size_bytes
            self._spool.check_space()
        if length >= _GATHER_BYTES:
            self._flush(data)
            return length
        self._pending += data
        if len(self._pending) >= _GATHER_BYTES:
            self._flush()
        return length

    def _flush(self, data: bytes | bytearray | memoryview = b"") -> None:
        pieces = [memoryview(piece) for piece in (self._pending, data) if len(piece)]
        if not self._begun:
            self._begun = True
            self._digests.begin(b"".join(piece[:HEAD_BYTES] for piece in pieces)[:HEAD_BYTES])
        for piece in pieces:
            self._digests.update(piece)
        self._write_all(pieces)
        self._pending = bytearray()

    def _write_all(self, pieces: list[memoryview]) -> None:
        try:
            while pieces:
                written = os.writev(self._fd, pieces)
                while pieces and written >= len(pieces[0]):
                    written -= len(pieces.pop(0))
                if pieces and written:
                    pieces[0] = pieces[0][written:]
        except OSError as error:
            raise storage_error("the spool cannot be written", error) from error

    def finish(self) -> SpoolFile:
        """Close the file and hand it over."""
        content = bytes(self._pending) if not self._begun else None
        if self._pending or not self._begun:
            self._flush()
        self._close()
        return SpoolFile(self.location, self.size_bytes, self._digests.sha256, self._digests.data_set_digest, content)

    def abort(self) -> None:
        """Remove the file; nothing happens after `finish`."""
        if self._fd >= 0:
            self._close()
            _unlink(self.location)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        try:
            os.close(fd)
        except OSError as error:  # NFS and quotas tell of a failed write here
            _unlink(self.location)
            raise storage_error("the spool cannot be written", error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.abort()


class Spool:
    """A directory of spool files, shared by all processes of a host."""

    def __init__(self, directory: Path, reserve_bytes: int = 0) -> None:
        self.directory = directory
        self._prefix = os.fspath(directory) + "/"
        self._reserve_bytes = reserve_bytes
        self._had_room_at = -_FRESH_S
        try:
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(f"the spool directory {directory} cannot be made", error) from error

    def create(self, suffix: str = "", max_bytes: int | None = None) -> SpoolWriter:
        """A writer of a new spool file; raises OutOfSpace when only the reserve is left, then or later."""
        if time.monotonic() - self._had_room_at >= _FRESH_S:
            self.check_space()
        return SpoolWriter(f"{self._prefix}{os.urandom(12).hex()}{suffix}", max_bytes, self)

    def copy(self, stream: BinaryIO, suffix: str = "") -> SpoolFile:
        """What a stream gives, as a spool file; raises what `create` and the writer raise."""
        with self.create(suffix) as writer:
            while piece := stream.read(_COPIED_BYTES):
                writer.write(piece)
            return writer.finish()

    def check_space(self, wanted_bytes: int = 0) -> None:
        """Raises OutOfSpace unless so many bytes fit beside the reserve."""
        if not self._reserve_bytes:
            return
        try:
            found = os.statvfs(self._prefix)
        except OSError as error:
            raise storage_error("the spool cannot be read", error) from error
        if found.f_bavail * found.f_frsize - wanted_bytes < self._reserve_bytes:
            raise OutOfSpace("the disk of the spool has no room left but its reserve")
        self._had_room_at = time.monotonic()

    def sweep(self, older_than_s: float = DEFAULT_MAX_AGE_S) -> int:
        """Remove files that nobody has written to for that long; how many."""
        return self.clear(older_than_s)[0]

    def clear(self, older_than_s: float) -> tuple[int, int]:
        """The same, and how many bytes they were."""
        limit, removed, freed = time.time() - older_than_s, 0, 0
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    size = _remove_older(entry, limit)
                    if size is not None:
                        removed, freed = removed + 1, freed + size
        except OSError as error:
            raise storage_error("the spool cannot be read", error) from error
        return removed, freed


def _remove_older(entry: os.DirEntry[str], limit: float) -> int | None:
    """The size of the file that was removed."""
    try:
        if not entry.is_file(follow_symlinks=False):
            return None
        found = entry.stat(follow_symlinks=False)
        if found.st_mtime >= limit:
            return None
        os.unlink(entry.path)
    except FileNotFoundError:
        return None  # accepted or discarded meanwhile
    return found.st_size
