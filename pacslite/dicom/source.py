"""A data set on disk seen through a window, so that no value has to fit in memory.

`pread` and not `mmap`: pages of a map count as memory of the process, and a file cut while it is mapped kills it.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Callable
from functools import partial
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pacslite.dicom.limits import Limits
from pacslite.errors import DataSetTooLarge, OutOfSpace, TruncatedDataSet

# Length and position, in the order of `os.pread` after its descriptor.
ReadAt = Callable[[int, int], bytes]

_FIRST_WINDOW = 32 * 1024
_WINDOW = 128 * 1024
_CHUNK = 256 * 1024
# The room left on the disk is looked at again after so many bytes.
_CHECKED_BYTES = 16 * 1024 * 1024


class Source:
    """Random access to the bytes of a data set; `buffer` holds those from `base` on.

    All that has been passed is counted against `Limits.max_header_bytes`, but for the values `left` in the file.
    """

    __slots__ = ("_close", "_read_at", "base", "buffer", "left", "limits", "size")

    def __init__(self, read_at: ReadAt, size: int, limits: Limits, close: Callable[[], None] | None = None) -> None:
        self._read_at = read_at
        self._close = close
        self.limits = limits
        self.size = size
        self.left = 0
        self.base = 0
        self.buffer = read_at(_FIRST_WINDOW, 0)

    @classmethod
    def of_descriptor(cls, fd: int, limits: Limits) -> Source:
        """The file behind a descriptor, which it closes."""
        return cls(partial(os.pread, fd), os.fstat(fd).st_size, limits, partial(os.close, fd))

    @classmethod
    def open(cls, path: Path, limits: Limits) -> Source:
        """The file at `path`; close it by `with`."""
        return cls.of_descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC), limits)

    @classmethod
    def of_stream(cls, file: BinaryIO, limits: Limits) -> Source:
        """A seekable stream, which stays the caller's to close."""

        def read_at(length: int, position: int) -> bytes:
            file.seek(position)
            return file.read(length)

        return cls(read_at, file.seek(0, os.SEEK_END), limits)

    @classmethod
    def of_bytes(cls, content: bytes, limits: Limits) -> Source:
        """A whole file in memory."""
        return cls(lambda length, position: content[position : position + length], len(content), limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file if it is this object's; nothing happens the second time."""
        close, self._close = self._close, None
        if close:
            close()

    def load(self, position: int, need: int) -> None:
        """Have the `need` bytes from `position` on in the window, as far as the file has them."""
        base = self.base
        if base <= position and position + need <= base + len(self.buffer):
            return
        if position + need - self.left > self.limits.max_header_bytes + _FIRST_WINDOW:
            raise DataSetTooLarge(f"the header is longer than {self.limits.max_header_bytes} bytes")
        if base <= position and base + len(self.buffer) >= self.size:
            return  # the window reaches the end already
        data = self.read(position, max(need, _WINDOW))
        self.base, self.buffer = position, data

    def read(self, position: int, length: int) -> bytes:
        """Bytes of the file, fewer at its end; from the window when they are there."""
        at = position - self.base
        if at >= 0 and at + length <= len(self.buffer):
            return self.buffer[at : at + length]
        data = self._read_at(length, position)
        while len(data) < min(length, self.size - position):
            more = self._read_at(length - len(data), position + len(data))
            if not more:
                break
            data += more
        return data


def inflate(packed: Source, offset: int) -> Source:
    """The deflated data set from `offset` on (PS3.5 A.5) as a nameless file in `limits.scratch`."""
    limits = packed.limits
    with tempfile.TemporaryFile(dir=limits.scratch, buffering=0) as plain:
        _inflate_into(packed, offset, plain, limits.max_inflated_bytes)
        return Source.of_descriptor(os.dup(plain.fileno()), limits)


def _inflate_into(packed: Source, offset: int, plain: RawIOBase, bound: int) -> None:
    # Raw deflate, without the zlib header (PS3.5 A.5, RFC 1951); some writers add the header all the same.
    first = packed.read(offset, _CHUNK)
    zlib_header = len(first) > 1 and first[0] & 0x0F == 8 and int.from_bytes(first[:2], "big") % 31 == 0
    machine = zlib.decompressobj(zlib.MAX_WBITS if zlib_header else -zlib.MAX_WBITS)
    written = checked = 0
    pending = first
    offset += len(first)
    while not machine.eof:
        data = _step(machine, pending)
        written += len(data)
        if written > bound:
            raise DataSetTooLarge(f"the inflated data set is longer than {bound} bytes")
        if written - checked >= _CHECKED_BYTES:
            checked = written
            _check_room(plain, packed.limits.reserve_bytes)
        _write_all(plain, data)
        pending = machine.unconsumed_tail
        if not pending and not machine.eof:
            pending = packed.read(offset, _CHUNK)
            offset += len(pending)
            if not pending and not data:
                raise TruncatedDataSet("the deflated data set ends early")


def _check_room(plain: RawIOBase, reserve_bytes: int) -> None:
    found = os.fstatvfs(plain.fileno())
    if reserve_bytes and found.f_bavail * found.f_frsize < reserve_bytes:
        raise OutOfSpace("no room to inflate the data set")


def _write_all(plain: RawIOBase, data: bytes) -> None:
    """The file is unbuffered: one write may take less than all."""
    view = memoryview(data)
    while view:
        try:
            view = view[plain.write(view) :]
        except OSError as error:
            raise OutOfSpace(f"no room to inflate the data set: {error.strerror}") from error


def _step(machine: zlib._Decompress, data: bytes) -> bytes:
    try:
        return machine.decompress(data, _CHUNK)
    except zlib.error as error:
        raise TruncatedDataSet(f"the deflated data set cannot be inflated: {error}") from error
