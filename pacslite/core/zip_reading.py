"""ZIP files as they come from anywhere: their directory read once, within bounds, and believed only where the entries agree.

Readers differ in what they make of a ZIP whose directory and entries contradict each other; here it is refused. APPNOTE is
PKWARE's ".ZIP File Format Specification", version 6.3.10.
"""

from __future__ import annotations

import bz2
import lzma
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from pacslite.core.inspection_source import MOST_AT_ONCE, Source
from pacslite.errors import RefusedContent

STORED, DEFLATED, BZIP2, LZMA = 0, 8, 12, 14
METHODS = frozenset({STORED, DEFLATED, BZIP2, LZMA})
_LOCAL = struct.Struct("<4s2xHH4xIIIHH")
_CENTRAL = struct.Struct("<4sH2xHH4xIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END_64 = struct.Struct("<4sQ4xIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")
_ENCRYPTED, _DESCRIPTOR, _PATCHED, _STRONG, _UTF_8 = 0x0001, 0x0008, 0x0020, 0x0040, 0x0800
_MOST_32, _MOST_16 = 0xFFFFFFFF, 0xFFFF
_UNIX_HOSTS = frozenset({3, 19})
_PIECE_BYTES = 256 * 1024
_LZMA_HEAD = 9
_MOST_DICTIONARY = 32 * 1024 * 1024
_DRIVE = re.compile(r"[A-Za-z]:")
MOST_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One entry: its name, where its data begin, how long they are packed and unpacked; `problem` says why it is not read."""

    name: str
    method: int
    crc: int
    packed: int
    size: int
    start: int
    is_directory: bool
    problem: str = ""

    @property
    def ratio(self) -> float:
        """How many bytes come out of one."""
        return self.size / max(1, self.packed)


def count_of(source: Source) -> int:
    """How many entries a ZIP says it has; raises RefusedContent."""
    return _end_record(source)[0]


def read_directory(source: Source, most: int = MOST_ENTRIES) -> list[ZipEntry]:
    """The entries of a ZIP that is the whole file; raises RefusedContent for one that contradicts itself."""
    count, size, offset = _end_record(source)
    if count > most:
        raise RefusedContent(f"the archive has {count} entries, more than the {most} that are taken")
    if size > MOST_AT_ONCE:
        raise RefusedContent(f"the directory of the archive is longer than {MOST_AT_ONCE} bytes")
    data = source.exactly(offset, size)
    found, at = [], 0
    for _ in range(count):
        central, at = _central(data, at)
        found.append(central)
    if at != len(data):
        raise _broken("its directory is longer than its entries")
    entries = [_entry(source, central) for central in found]
    _check_places(found, entries, offset)
    return entries


def _broken(why: str) -> RefusedContent:
    return RefusedContent(f"the archive is broken: {why}")


def _end_record(source: Source) -> tuple[int, int, int]:
    """How many entries there are, how long the directory is, and where it begins."""
    base, at = source.size - len(source.tail), len(source.tail)
    while True:
        at = source.tail.rfind(b"PK\x05\x06", 0, at)
        if at < 0:
            raise _broken("it has no end record, or is cut off")
        record = source.tail[at : at + _END.size]
        if len(record) == _END.size and at + _END.size + int.from_bytes(record[20:22], "little") == len(source.tail):
            break
    _, disk, first_disk, here, count, size, offset, _ = _END.unpack(record)
    place = base + at
    if at >= _LOCATOR.size and source.tail[at - _LOCATOR.size : at].startswith(b"PK\x06\x07"):
        place, here, count, size, offset, disk, first_disk = _end_record_64(source, base + at - _LOCATOR.size)
    if disk or first_disk or here != count:
        raise _broken("it is one of several parts")
    if offset + size != place:
        raise _broken("its directory is not where its end record says")
    return count, size, offset


def _end_record_64(source: Source, at: int) -> tuple[int, int, int, int, int, int, int]:
    _, _, place, disks = _LOCATOR.unpack(source.exactly(at, _LOCATOR.size))
    record = source.exactly(place, _END_64.size)
    signature, length, disk, first_disk, here, count, size, offset = _END_64.unpack(record)
    if signature != b"PK\x06\x06" or place + 12 + length != at or disks > 1:
        raise _broken("its ZIP64 end record is not where it has to be")
    return place, here, count, size, offset, disk, first_disk


@dataclass(frozen=True, slots=True)
class _Central:
    name: bytes
    host: int
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    attributes: int
    unicode_name: str


def _central(data: bytes, at: int) -> tuple[_Central, int]:
    if at + _CENTRAL.size > len(data):
        raise _broken("its directory is cut off")
    found = _CENTRAL.unpack_from(data, at)
    signature, made_by, flags, method, crc, packed, size, name_length, extra_length, comment_length, _, _, attributes, offset = found
    if signature != b"PK\x01\x02":
        raise _broken("its directory has something else than entries in it")
    at += _CENTRAL.size
    name, extra = data[at : at + name_length], data[at + name_length : at + name_length + extra_length]
    at += name_length + extra_length + comment_length
    if at > len(data):
        raise _broken("its directory is cut off")
    size, packed, offset = _large(extra, size, packed, offset)
    entry = _Central(name, made_by >> 8, flags, method, crc, packed, size, offset, attributes, _unicode_name(extra, name))
    return entry, at


def _extras(extra: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        yield tag, extra[at + 4 : at + 4 + length]
        at += 4 + length


def _large(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The values that do not fit into 32 bits, in this order (APPNOTE 4.5.3)."""
    if _MOST_32 not in (size, packed, offset):
        return size, packed, offset
    data = next((data for tag, data in _extras(extra) if tag == 1), b"")
    values, at = [size, packed, offset], 0
    for number, value in enumerate(values):
        if value == _MOST_32:
            if at + 8 > len(data):
                raise _broken("a ZIP64 size is missing")
            values[number] = int.from_bytes(data[at : at + 8], "little")
            at += 8
    return values[0], values[1], values[2]


def _unicode_name(extra: bytes, name: bytes) -> str:
    """The name of an Info-ZIP Unicode Path field that belongs to this very name (APPNOTE 4.6.9)."""
    for tag, data in _extras(extra):
        if tag == 0x7075 and len(data) > 5 and data[0] == 1 and int.from_bytes(data[1:5], "little") == zlib.crc32(name):
            return data[5:].decode("utf-8", "replace")
    return ""


def _name(central: _Central) -> str:
    """The name as its writer meant it: many write UTF-8 without saying so; the rest is the code page of the first PCs."""
    if central.unicode_name:
        return central.unicode_name
    try:
        return central.name.decode("utf-8")
    except UnicodeDecodeError:
        return central.name.decode("utf-8", "replace") if central.flags & _UTF_8 else central.name.decode("cp437")


def _entry(source: Source, central: _Central) -> ZipEntry:
    """The entry, once its own header has said the same as the directory."""
    header = source.exactly(central.offset, _LOCAL.size)
    signature, flags, method, crc, packed, size, name_length, extra_length = _LOCAL.unpack(header)
    start = central.offset + _LOCAL.size + name_length + extra_length
    if signature != b"PK\x03\x04":
        raise _broken("an entry is not where its directory says")
    if method != central.method or source.at(central.offset + _LOCAL.size, name_length) != central.name:
        raise _broken("an entry has another name or method than in its directory")
    if not flags & _DESCRIPTOR and not flags & _ENCRYPTED:
        size, packed, _ = _large(source.at(start - extra_length, extra_length), size, packed, 0)
        if (crc, packed, size) != (central.crc, central.packed, central.size):
            raise _broken("an entry has another size than in its directory")
    name = _name(central)
    is_directory = name.endswith(("/", "\\"))
    problem = _problem(central, flags | central.flags, name)
    if not problem and central.method == STORED and central.packed != central.size:
        raise _broken("an entry that is not packed has two sizes")
    return ZipEntry(name, central.method, central.crc, central.packed, central.size, start, is_directory, problem)


def _problem(central: _Central, flags: int, name: str) -> str:
    if flags & (_ENCRYPTED | _STRONG) or central.method == 99:
        return "the entry is encrypted"
    if flags & _PATCHED or central.method not in METHODS:
        return f"the entry is packed by a method that is not read here ({central.method})"
    mode = central.attributes >> 16 if central.host in _UNIX_HOSTS else 0
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "the entry is a link or a device"
    return path_problem(name)


def path_problem(name: str) -> str:
    """Why a name in an archive is none of a place within it; empty when it is."""
    parts = name.replace("\\", "/").split("/")
    if "\0" in name:
        return "the name has NUL in it"
    if (not parts[0] and len(parts) > 1) or _DRIVE.match(name):
        return "the name is that of an absolute place"
    if ".." in (part.rstrip(" ") for part in parts):
        return "the name leads out of the archive"
    return ""


def _check_places(found: list[_Central], entries: list[ZipEntry], end: int) -> None:
    """Refuses entries that share bytes (a bomb of overlapping files unpacks the same bytes thousands of times)."""
    places = sorted((central.offset, entry.start + entry.packed) for central, entry in zip(found, entries, strict=True))
    for (_, last), (first, _) in pairwise([*places, (end, end)]):
        if last > first:
            raise _broken("its entries overlap")


class _Decompressor(Protocol):
    """What the decompressors of the standard library have in common."""

    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Inflate:
    """zlib's decompressor in the form of the others: it keeps what it has not taken yet."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(-15)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def unpacked(source: Source, entry: ZipEntry) -> Iterator[bytes]:
    """The bytes of an entry in pieces, never more than it says to have; raises RefusedContent when they are others."""
    crc = size = 0
    try:
        for piece in _pieces(source, entry):
            size += len(piece)
            if size > entry.size:
                raise RefusedContent("the entry unpacks to more than it says")
            crc = zlib.crc32(piece, crc)
            yield piece
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        raise RefusedContent("the entry cannot be unpacked: it is broken") from error
    if size != entry.size or crc != entry.crc:
        raise RefusedContent("the entry is broken: its length or its checksum is another")


def _pieces(source: Source, entry: ZipEntry) -> Iterator[bytes]:
    start, left = entry.start, entry.packed
    decompressor: _Decompressor | None = None
    if entry.method == LZMA:
        decompressor = _lzma(source, entry)
        start, left = start + _LZMA_HEAD, left - _LZMA_HEAD
    elif entry.method != STORED:
        decompressor = _Inflate() if entry.method == DEFLATED else bz2.BZ2Decompressor()
    while left > 0:
        piece = source.exactly(start, min(left, _PIECE_BYTES))
        start, left = start + len(piece), left - len(piece)
        if decompressor is None:
            yield piece
            continue
        yield from _out(decompressor, piece)
        if decompressor.eof:
            return


def _out(decompressor: _Decompressor, piece: bytes) -> Iterator[bytes]:
    """All that comes out of one piece, a bounded part at a time."""
    out = decompressor.decompress(piece, _PIECE_BYTES)
    while out:
        yield out
        out = b"" if decompressor.eof else decompressor.decompress(b"", _PIECE_BYTES)


def _lzma(source: Source, entry: ZipEntry) -> lzma.LZMADecompressor:
    """LZMA as in APPNOTE 5.8.8: version, length of the properties, properties. The dictionary's size is memory: bounded."""
    head = source.exactly(entry.start, _LZMA_HEAD)
    if int.from_bytes(head[2:4], "little") != 5:
        raise RefusedContent("the entry cannot be unpacked: it is broken")
    lclppb, dictionary = head[4], int.from_bytes(head[5:9], "little")
    if lclppb >= 225 or dictionary > _MOST_DICTIONARY:
        raise RefusedContent("the entry needs too much memory to unpack")
    pb, rest = divmod(lclppb, 45)
    lp, lc = divmod(rest, 9)
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": max(dictionary, 4096), "lc": lc, "lp": lp, "pb": pb}]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)


def content(source: Source, entry: ZipEntry, most: int) -> bytes:
    """The beginning of an entry."""
    found = b""
    for piece in unpacked(source, entry):
        found += piece
        if len(found) >= most:
            break
    return found[:most]
