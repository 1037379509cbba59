"""ZIP files as they are sent: entries stored as they are, so that size and place of everything are known beforehand.

Any range of the file can be made without the bytes before it. Checksums follow the data (APPNOTE 4.3.9); what is larger than
the old format allows is ZIP64.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END_64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")
_MOST_32, _MOST_16 = 0xFFFFFFFF, 0xFFFF
# Sizes and checksum come after the data; names are UTF-8.
_FLAGS = 0x0808
_STORED, _VERSION, _VERSION_64, _MADE_BY_UNIX = 0, 20, 45, 3 << 8
# The same archive has the same bytes at any time: 1980-01-01, the first day of the format.
_TIME, _DATE = 0, 0x21
_READABLE_FILE = 0o100644 << 16

Read = Callable[[int, int, int], Iterator[bytes]]
"""Pieces of the data of an entry: its number, offset and length."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Name and size of one file."""

    name: str
    size: int

    @property
    def is_large(self) -> bool:
        """Whether its size needs ZIP64."""
        return self.size >= _MOST_32


class ZipStream:
    """The bytes of an archive by place. `read` gives the data of entries; `checksums` holds what is known of them."""

    def __init__(self, entries: Sequence[Entry], read: Read, checksums: dict[int, int]) -> None:
        self._entries, self._read = entries, read
        self.checksums = checksums
        self._starts = list(accumulate((len(_local(e)) + e.size + _descriptor_bytes(e) for e in entries), initial=0))
        central = sum(_central_bytes(e, start) for e, start in zip(entries, self._starts, strict=False))
        self._is_large = len(entries) >= _MOST_16 or self._starts[-1] >= _MOST_32 or central >= _MOST_32
        self.length = self._starts[-1] + central + (_END_64.size + _LOCATOR.size if self._is_large else 0) + _END.size

    def part(self, offset: int, length: int) -> Iterator[bytes]:
        """A range of the archive."""
        end = offset + length
        number = bisect_right(self._starts, offset) - 1
        while number < len(self._entries) and self._starts[number] < end:
            yield from self._entry(number, offset - self._starts[number], end - self._starts[number])
            number += 1
        if end > self._starts[-1]:
            start = self._starts[-1]
            yield from _cut(self._directory(), start, offset, end)

    def _entry(self, number: int, begin: int, end: int) -> Iterator[bytes]:
        """What lies between `begin` and `end`, counted from the beginning of the entry."""
        entry = self._entries[number]
        head = _local(entry)
        data_end = len(head) + entry.size
        yield from _cut(head, 0, begin, end)
        first, last = max(begin - len(head), 0), min(end - len(head), entry.size)
        if first < last:
            is_whole, checksum = last - first == entry.size, 0
            for piece in self._read(number, first, last - first):
                if is_whole:
                    checksum = zlib.crc32(piece, checksum)
                yield piece
            if is_whole:
                self.checksums[number] = checksum
        if end > data_end:
            yield from _cut(self._descriptor(number), data_end, begin, end)

    def checksum(self, number: int) -> int:
        """CRC-32 of an entry; reads it when that is not known yet."""
        known = self.checksums.get(number)
        if known is None:
            known = 0
            for piece in self._read(number, 0, self._entries[number].size):
                known = zlib.crc32(piece, known)
            self.checksums[number] = known
        return known

    def _descriptor(self, number: int) -> bytes:
        entry = self._entries[number]
        size = "Q" if entry.is_large else "I"
        return struct.pack(f"<4sI{size}{size}", b"PK\x07\x08", self.checksum(number), entry.size, entry.size)

    def _directory(self) -> bytes:
        records = [_central(e, start, self.checksum(n)) for n, (e, start) in enumerate(zip(self._entries, self._starts, strict=False))]
        central, start, count = b"".join(records), self._starts[-1], len(self._entries)
        end_64 = b""
        if self._is_large:
            end_64 = _END_64.pack(b"PK\x06\x06", 44, _MADE_BY_UNIX | _VERSION_64, _VERSION_64, 0, 0, count, count, len(central), start)
            end_64 += _LOCATOR.pack(b"PK\x06\x07", 0, start + len(central), 1)
        shown, size, offset = min(count, _MOST_16), min(len(central), _MOST_32), min(start, _MOST_32)
        return central + end_64 + _END.pack(b"PK\x05\x06", 0, 0, shown, shown, size, offset, 0)


def _cut(data: bytes, start: int, begin: int, end: int) -> Iterator[bytes]:
    """The part of `data`, which lies at `start`, between `begin` and `end`."""
    piece = data[max(begin - start, 0) : max(end - start, 0)]
    if piece:
        yield piece


def _local(entry: Entry) -> bytes:
    name = entry.name.encode("utf-8")
    extra = struct.pack("<HHQQ", 1, 16, 0, 0) if entry.is_large else b""
    version, size = (_VERSION_64, _MOST_32) if entry.is_large else (_VERSION, 0)
    return _LOCAL.pack(b"PK\x03\x04", version, _FLAGS, _STORED, _TIME, _DATE, 0, size, size, len(name), len(extra)) + name + extra


def _descriptor_bytes(entry: Entry) -> int:
    return 24 if entry.is_large else 16


def _central_bytes(entry: Entry, start: int) -> int:
    return _CENTRAL.size + len(entry.name.encode("utf-8")) + len(_extra(entry, start))


def _extra(entry: Entry, start: int) -> bytes:
    numbers = [entry.size, entry.size] if entry.is_large else []
    if start >= _MOST_32:
        numbers.append(start)
    return struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""


def _central(entry: Entry, start: int, checksum: int) -> bytes:
    name, extra = entry.name.encode("utf-8"), _extra(entry, start)
    version, size, offset = _VERSION_64 if extra else _VERSION, min(entry.size, _MOST_32), min(start, _MOST_32)
    about = (_MADE_BY_UNIX | version, version, _FLAGS, _STORED, _TIME, _DATE, checksum, size, size, len(name), len(extra))
    return _CENTRAL.pack(b"PK\x01\x02", *about, 0, 0, 0, _READABLE_FILE, offset) + name + extra
