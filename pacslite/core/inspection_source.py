"""A file that is looked into: its size, its two ends, and any part of it, never all of it at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from pacslite.errors import RefusedContent

HEAD_BYTES = 64 * 1024
# An end record of a ZIP with the longest comment (APPNOTE 4.3.16), and what stands before it in ZIP64.
TAIL_BYTES = 65_557 + 76
_PIECE_BYTES = 1024 * 1024
MOST_AT_ONCE = 16 * 1024 * 1024


class Source:
    """Reads of an open file. What is read beyond the end is missing, as in files."""

    __slots__ = ("_file", "head", "size", "tail")

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self.head = self.at(0, HEAD_BYTES)
        self.tail = self.at(max(0, self.size - TAIL_BYTES), TAIL_BYTES)

    @property
    def file(self) -> BinaryIO:
        """The open file, for readers of the standard library."""
        return self._file

    def at(self, offset: int, length: int) -> bytes:
        """A part of the file; at most 16 MiB."""
        if offset >= self.size or offset < 0:
            return b""
        self._file.seek(offset)
        return self._file.read(min(length, MOST_AT_ONCE, self.size - offset))

    def exactly(self, offset: int, length: int) -> bytes:
        """A part of the file that has to be there."""
        found = self.at(offset, length)
        if len(found) != length:
            raise RefusedContent("the file is cut off")
        return found

    def pieces(self, start: int = 0, overlap: int = 0) -> Iterator[bytes]:
        """The file from `start` on; each piece begins with the last `overlap` bytes of the one before."""
        kept = b""
        while start < self.size:
            piece = self.at(start, _PIECE_BYTES)
            if not piece:
                return
            start += len(piece)
            yield kept + piece if kept else piece
            kept = piece[-overlap:] if overlap else b""
