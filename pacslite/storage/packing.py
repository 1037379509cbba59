"""Blobs packed where they lie: gzip in blocks, so that a range is unpacked without what lies before it.

A packed blob is a gzip file (RFC 1952) that every gunzip reads: a member for each block of the original bytes, then an empty
member whose extra field says how long those are. Its key is that of the original with `keys.PACKED` behind it, so that
the key alone tells how to read it.
"""

from __future__ import annotations

import io
import struct
import threading
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO, cast

from pacslite.errors import BlobDamaged
from pacslite.storage.blob_store import BlobStore

ENCODING = "gzip"
"""What the catalog calls it."""

_BLOCK_BYTES = 1024 * 1024
_MOST_BLOCKS = 4096  # their lengths fit into one extra field (65,535 bytes)
_LEVEL = 6
_GZIP = 31  # zlib's name for a gzip member
# The last member: header with an extra field; size of the original, of a block, lengths of the members, their number; end.
_HEADER = struct.Struct("<4sIBBHccH")
_FACTS = struct.Struct("<QQ")
_COUNT = struct.Struct("<I")
_END = b"\x03\x00" + bytes(8)
_TAIL_BYTES = _HEADER.size + _FACTS.size + 4 * _MOST_BLOCKS + _COUNT.size + len(_END)
_KEPT_INDEXES = 64


@dataclass(frozen=True, slots=True)
class PackedIndex:
    """Where the blocks of a packed blob begin; one offset more than there are blocks."""

    size_bytes: int
    block_bytes: int
    offsets: tuple[int, ...]


def pack(source: BinaryIO, size_bytes: int, write: Callable[[bytes], object]) -> None:
    """Pack the bytes of a stream; memory is bounded by one block, which is 1 MiB up to 4 GiB."""
    block_bytes = _BLOCK_BYTES
    while block_bytes * _MOST_BLOCKS < size_bytes:
        block_bytes *= 2
    lengths, total = array("I"), 0
    while block := source.read(block_bytes):
        while len(block) < block_bytes and (more := source.read(block_bytes - len(block))):
            block += more
        total += len(block)
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        packed = packer.compress(block) + packer.flush()
        lengths.append(len(packed))
        write(packed)
    if total != size_bytes:
        raise BlobDamaged(f"{total} bytes instead of {size_bytes}")
    data = _FACTS.pack(size_bytes, block_bytes) + struct.pack(f"<{len(lengths)}I", *lengths) + _COUNT.pack(len(lengths))
    write(_HEADER.pack(b"\x1f\x8b\x08\x04", 0, 0, 255, len(data) + 4, b"P", b"L", len(data)) + data + _END)


def index_of(store: BlobStore, key: str) -> PackedIndex:
    """The index of a packed blob; raises BlobMissing, BlobDamaged."""
    known = _INDEXES.get((store.name, key))
    if known is None:
        size = store.size(key)
        with store.open(key, max(0, size - _TAIL_BYTES)) as stream:
            known = _parse(stream.read(), size)
        _INDEXES.keep((store.name, key), known)
    return known


def _parse(tail: bytes, size: int) -> PackedIndex:
    try:
        (count,) = _COUNT.unpack_from(tail, len(tail) - len(_END) - _COUNT.size)
        begin = len(tail) - len(_END) - _COUNT.size - 4 * count - _FACTS.size
        if (
            count > _MOST_BLOCKS
            or begin < _HEADER.size
            or not tail.endswith(_END)
            or tail[begin - _HEADER.size :][:4] != b"\x1f\x8b\x08\x04"
        ):
            raise BlobDamaged("the packed bytes have no index")
        size_bytes, block_bytes = _FACTS.unpack_from(tail, begin)
        lengths = struct.unpack_from(f"<{count}I", tail, begin + _FACTS.size)
    except struct.error:
        raise BlobDamaged("the packed bytes have no index") from None
    offsets = tuple(accumulate(lengths, initial=0))
    if block_bytes < 1 or -(-size_bytes // block_bytes) != count or offsets[-1] != size - (len(tail) - begin + _HEADER.size):
        raise BlobDamaged("the index of the packed bytes is not theirs")
    return PackedIndex(size_bytes, block_bytes, offsets)


def open_packed(store: BlobStore, key: str, offset: int = 0, length: int | None = None) -> BinaryIO:
    """The original bytes, or a range of them, as a stream that cannot seek; raises BlobMissing, BlobDamaged."""
    index = index_of(store, key)
    begin = min(offset, index.size_bytes)
    end = index.size_bytes if length is None else min(index.size_bytes, begin + max(0, length))
    if begin == end:
        return io.BytesIO()
    return cast(BinaryIO, io.BufferedReader(_Unpacked(store, key, index, begin, end), 64 * 1024))


class _Unpacked(io.RawIOBase):
    """A range of the original bytes, unpacked block by block."""

    def __init__(self, store: BlobStore, key: str, index: PackedIndex, begin: int, end: int) -> None:
        super().__init__()
        self._index, self._key = index, key
        first, last = begin // index.block_bytes, (end - 1) // index.block_bytes
        self._lengths = [index.offsets[n + 1] - index.offsets[n] for n in range(first, last + 1)]
        self._skip, self._left = begin - first * index.block_bytes, end - begin
        self._block = memoryview(b"")
        self._packed = store.open(key, index.offsets[first], index.offsets[last + 1] - index.offsets[first])
        self._lengths.reverse()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._left:
            return 0
        if not self._block:
            self._block = memoryview(self._next())[self._skip :]
            self._skip = 0
        taken = min(len(buffer), len(self._block), self._left)
        buffer[:taken] = self._block[:taken]
        self._block = self._block[taken:]
        self._left -= taken
        return taken

    def _next(self) -> bytes:
        length = self._lengths.pop()
        packed = b""
        while len(packed) < length and (more := self._packed.read(length - len(packed))):
            packed += more
        # A block that says it is longer than blocks are must not fill the memory.
        unpacker = zlib.decompressobj(_GZIP)
        try:
            block = unpacker.decompress(packed, self._index.block_bytes + 1)
        except zlib.error as error:
            raise BlobDamaged(f"{self._key}: the packed bytes are damaged: {error}") from None
        if not unpacker.eof or not block or len(block) > self._index.block_bytes:
            raise BlobDamaged(f"{self._key}: the packed bytes are damaged")
        return block

    def close(self) -> None:
        if not self.closed:
            self._packed.close()
        super().close()


class _Indexes:
    """The indexes last used: a key never means other bytes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], PackedIndex] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: tuple[str, str]) -> PackedIndex | None:
        with self._lock:
            found = self._kept.get(name)
            if found is not None:
                self._kept.move_to_end(name)
            return found

    def keep(self, name: tuple[str, str], index: PackedIndex) -> None:
        with self._lock:
            self._kept[name] = index
            while len(self._kept) > _KEPT_INDEXES:
                self._kept.popitem(last=False)


_INDEXES = _Indexes()
