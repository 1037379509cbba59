"""The two digests of an instance's file: SHA-256 of all its bytes, and BLAKE3 of its data set without the file meta before it.

Two senders write different file meta around the same data set; the second digest tells that it is the same. It is made
for every instance and shown to nobody, so it is the fastest one that nobody can forge (a third of SHA-256's time).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import BinaryIO

from blake3 import blake3

# Preamble, DICM and the group length element of the file meta (PS3.10 7.1): what tells where the data set begins.
HEAD_BYTES = 144
_READ_BYTES = 1024 * 1024


def data_set_offset(head: bytes | memoryview) -> int | None:
    """Where the data set begins in a Part 10 file, by its first 144 bytes; None when they do not say (PS3.10 7.1)."""
    if len(head) < HEAD_BYTES or head[128:132] != b"DICM" or head[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        return None
    return HEAD_BYTES + int.from_bytes(head[140:144], "little")


class Digests:
    """Both digests of bytes that pass by; `begin` with the first 144 bytes (or all, when there are fewer), then `update`."""

    __slots__ = ("_data_set", "_skip", "_whole", "size_bytes")

    def __init__(self) -> None:
        self.size_bytes = 0
        self._whole = hashlib.sha256()
        self._data_set = blake3()
        self._skip: int | None = None  # bytes still before the data set; None: no digest of it

    def begin(self, head: bytes | memoryview) -> None:
        """Look at the first bytes, without counting them in."""
        self._skip = data_set_offset(head)

    def update(self, piece: bytes | memoryview) -> None:
        """Count bytes in."""
        self.size_bytes += len(piece)
        self._whole.update(piece)
        if self._skip == 0:
            self._data_set.update(piece)
        elif self._skip is not None:
            before = min(self._skip, len(piece))
            self._skip -= before
            self._data_set.update(memoryview(piece)[before:])

    def copy(self) -> Digests:
        """The digests so far, which go on by themselves."""
        copied = Digests()
        copied.size_bytes, copied._skip = self.size_bytes, self._skip
        copied._whole, copied._data_set = self._whole.copy(), self._data_set.copy()
        return copied

    @property
    def sha256(self) -> str:
        """Of all bytes."""
        return self._whole.hexdigest()

    @property
    def data_set_digest(self) -> str | None:
        """Of what follows group 0002; None when the file does not state the length of its file meta, or ends within it."""
        return self._data_set.hexdigest() if self._skip == 0 else None


def data_set_digest(stream: BinaryIO) -> str:
    """The digest of a data set that the stream gives from here to its end."""
    digest = blake3()
    while piece := stream.read(_READ_BYTES):
        digest.update(piece)
    return digest.hexdigest()


def digests_of(stream: BinaryIO, also: Callable[[bytes], object] | None = None) -> Digests:
    """The digests of what the stream gives; each piece is given to `also` too."""
    digests = Digests()
    piece = stream.read(_READ_BYTES)
    digests.begin(piece[:HEAD_BYTES])
    while piece:
        digests.update(piece)
        if also is not None:
            also(piece)
        piece = stream.read(_READ_BYTES)
    return digests
