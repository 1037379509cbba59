"""Pictures, by their structure alone: nothing is decoded, so a few bytes that stand for gigapixels cost nothing.

Each reader walks its format from the first byte to where the picture ends, and refuses one that is cut off, that has no
size, or whose parts do not fit together. What follows the end is for `inspection_foreign` to judge.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from pacslite.core import file_kinds as kinds
from pacslite.core.file_kinds import Kind
from pacslite.core.inspection_boxes import picture_sizes
from pacslite.core.inspection_source import Source
from pacslite.errors import RefusedContent

MOST_FRAMES = 10_000
_MOST_PARTS = 200_000
_MOST_SEGMENTS = 20_000
_MOST_RUBBISH = 4096
_MOST_BLOCKS = 10_000_000
_MOST_TIFF_ENTRIES = 4096


@dataclass(frozen=True, slots=True)
class Picture:
    """What the header says: the largest frame's size, how many frames, and where the last byte is, if that is known."""

    width: int
    height: int
    frames: int = 1
    end: int | None = None


class _Frames:
    """Frames of one picture, counted within bounds."""

    def __init__(self, most_pixels: int) -> None:
        self._most_pixels = most_pixels
        self._largest = (0, 0)
        self.count = 0

    def add(self, width: int, height: int) -> None:
        """A frame; refused when it has no pixels, or too many."""
        if width <= 0 or height <= 0:
            raise RefusedContent("the picture has no pixels")
        if width * height > self._most_pixels:
            raise RefusedContent(f"the picture has {width} x {height} pixels, more than the {self._most_pixels} that are taken")
        self.count += 1
        if self.count > MOST_FRAMES:
            raise RefusedContent(f"the picture has more than {MOST_FRAMES} frames")
        self._largest = max(self._largest, (width, height), key=lambda size: size[0] * size[1])

    def picture(self, end: int | None = None) -> Picture:
        """All of them together."""
        if not self.count:
            raise RefusedContent("the file has no picture in it")
        return Picture(*self._largest, self.count, end)


def read_picture(kind: Kind, source: Source, most_pixels: int) -> Picture:
    """The picture in the file, which begins as one of that kind; raises RefusedContent."""
    return _READERS[kind](source, _Frames(most_pixels))


# JPEG (ITU-T T.81 B.1): markers, with entropy-coded data after SOS.
_SOF = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_SOI, _EOI, _SOS, _DNL = 0xD8, 0xD9, 0xDA, 0xDC


def _jpeg(source: Source, frames: _Frames) -> Picture:
    at, scans = 2, 0
    for _ in range(_MOST_SEGMENTS):
        marker, at = _next_marker(source, at)
        if marker == _EOI:
            if not scans:
                raise RefusedContent("the JPEG has no picture in it")
            return frames.picture(at)
        if marker == 0x01 or 0xD0 <= marker <= _SOI:
            continue
        length = int.from_bytes(source.exactly(at, 2), "big")
        if length < 2:
            raise RefusedContent("the JPEG has a segment that is shorter than its own length")
        if marker in _SOF:
            height, width = struct.unpack(">HH", source.exactly(at + 3, 4))
            frames.add(width, height)
        elif marker == _SOS:
            scans += 1
        at += length
        if marker == _SOS:
            at = _end_of_scan(source, at)
    raise RefusedContent("the JPEG has too many segments")


def _next_marker(source: Source, at: int) -> tuple[int, int]:
    """The next marker, past fill bytes and a little rubbish, as all readers do, and where its segment begins."""
    window = source.at(at, _MOST_RUBBISH)
    begin = window.find(b"\xff")
    while begin >= 0:
        following = window[begin:].lstrip(b"\xff")
        if following[:1] not in (b"", b"\0"):
            return following[0], at + len(window) - len(following) + 1
        begin = window.find(b"\xff", begin + 2) if following else -1
    raise RefusedContent("the JPEG is cut off" if at + len(window) >= source.size else "the JPEG is broken: a marker is missing")


def _end_of_scan(source: Source, start: int) -> int:
    """Where entropy-coded data end: at a marker that is neither a stuffed byte nor a restart (T.81 B.1.1.5)."""
    begin = start
    for piece in source.pieces(start, overlap=1):
        at = piece.find(b"\xff")
        while 0 <= at < len(piece) - 1:
            following = piece[at + 1]
            if following not in (0x00, 0xFF) and not 0xD0 <= following <= 0xD7:
                return begin + at
            at = piece.find(b"\xff", at + 1 if following == 0xFF else at + 2)
        begin += len(piece) - 1
    raise RefusedContent("the JPEG is cut off: its end is missing")


# PNG (ISO/IEC 15948): length, type, data, CRC.
def _png(source: Source, frames: _Frames) -> Picture:
    if source.exactly(8, 8) != b"\0\0\0\rIHDR":
        raise RefusedContent("the PNG does not begin with its header")
    width, height = struct.unpack(">II", source.exactly(16, 8))
    frames.add(width, height)
    at, data, controls = 8, 0, 0
    for _ in range(_MOST_PARTS):
        length, name = struct.unpack(">I4s", source.exactly(at, 8))
        at += length + 12
        if at > source.size:
            raise RefusedContent("the PNG is cut off")
        if not name.isalpha():
            raise RefusedContent("the PNG is broken: a chunk has no name")
        data += name == b"IDAT"
        if name == b"fcTL":  # APNG: the first may stand for the picture itself
            controls += 1
            if controls > MOST_FRAMES:
                raise RefusedContent(f"the picture has more than {MOST_FRAMES} frames")
        if name == b"IEND":
            if not data:
                raise RefusedContent("the PNG has no picture in it")
            return frames.picture(at)
    raise RefusedContent("the PNG has too many chunks")


# GIF 87a and 89a.
def _gif(source: Source, frames: _Frames) -> Picture:
    flags = source.exactly(6, 7)[4]
    at = 13 + _table_bytes(flags)
    walker = _GifBlocks(source)
    while True:
        if at == source.size and frames.count:
            return frames.picture(at)  # some writers forget the end
        introducer = walker.byte(at)
        if introducer == 0x3B:
            return frames.picture(at + 1)
        if introducer == 0x2C:
            width, height, flags = struct.unpack("<HHB", source.exactly(at + 5, 5))
            frames.add(width, height)
            at = walker.skip(at + 11 + _table_bytes(flags))
        elif introducer == 0x21:
            at = walker.skip(at + 2)
        else:
            raise RefusedContent("the GIF is broken: a block has no known kind")


def _table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


class _GifBlocks:
    """Sub-blocks, read through a window: there may be millions."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._window, self._begin = b"", 0
        self._left = _MOST_BLOCKS

    def byte(self, at: int) -> int:
        """One byte of the file."""
        offset = at - self._begin
        if not 0 <= offset < len(self._window):
            self._window, self._begin, offset = self._source.at(at, 1024 * 1024), at, 0
            if not self._window:
                raise RefusedContent("the GIF is cut off")
        return self._window[offset]

    def skip(self, at: int) -> int:
        """The place behind a chain of sub-blocks."""
        while length := self.byte(at):
            at += length + 1
            self._left -= 1
            if not self._left:
                raise RefusedContent("the GIF has too many blocks")
        return at + 1


# WebP (RFC 9649): RIFF chunks.
def _webp(source: Source, frames: _Frames) -> Picture:
    end = 8 + struct.unpack("<I", source.exactly(4, 4))[0]
    if end > source.size:
        raise RefusedContent("the WebP is cut off")
    at, pictures = 12, 0
    for _ in range(_MOST_PARTS):
        if at + 8 > end:
            if not pictures:
                raise RefusedContent("the WebP has no picture in it")
            return frames.picture(end)
        name, length = struct.unpack("<4sI", source.exactly(at, 8))
        if at + 8 + length > end:
            raise RefusedContent("the WebP is broken: a chunk is longer than the file")
        size = _webp_size(name, source.at(at + 8, 16))
        if size is not None:
            frames.add(*size)
        pictures += name in (b"VP8 ", b"VP8L", b"ANMF")
        at += 8 + length + length % 2
    raise RefusedContent("the WebP has too many chunks")


def _webp_size(name: bytes, data: bytes) -> tuple[int, int] | None:
    """The size a chunk tells, if it tells one."""
    if name not in (b"VP8X", b"VP8 ", b"VP8L", b"ANMF"):
        return None
    if len(data) < 10 if name != b"VP8L" else len(data) < 5:
        raise RefusedContent("the WebP is broken: a chunk is too short")
    if name == b"VP8 ":
        if data[3:6] != b"\x9d\x01\x2a":
            raise RefusedContent("the WebP is broken: it has no key frame")
        width, height = struct.unpack("<HH", data[6:10])
        return width & 0x3FFF, height & 0x3FFF
    if name == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    offset = 4 if name == b"VP8X" else 6
    if len(data) < offset + 6:
        raise RefusedContent("the WebP is broken: a chunk is too short")
    return int.from_bytes(data[offset : offset + 3], "little") + 1, int.from_bytes(data[offset + 3 : offset + 6], "little") + 1


def _bmp(source: Source, frames: _Frames) -> Picture:
    header = source.exactly(0, 30)
    said, start, length = struct.unpack("<I4xII", header[2:18])
    if length == 12:
        width, height = struct.unpack("<HH", header[18:22])
    elif 40 <= length <= 256:
        width, height = struct.unpack("<ii", header[18:26])
    else:
        raise RefusedContent("the BMP has no known header")
    frames.add(width, abs(height))
    if not 14 + length <= start < source.size:
        raise RefusedContent("the BMP is broken: its pixels lie elsewhere")
    return frames.picture(_bmp_end(source, header, length, start, said, abs(width), abs(height)))


def _bmp_end(source: Source, header: bytes, length: int, start: int, said: int, width: int, height: int) -> int:
    bits = int.from_bytes(header[24:26] if length == 12 else header[28:30], "little")
    compression, stored = struct.unpack("<II", source.exactly(30, 8)) if length != 12 else (0, 0)
    data = (width * bits + 31) // 32 * 4 * height if compression in (0, 3, 6) else stored
    if start + data > source.size:
        raise RefusedContent("the BMP is cut off")
    return max(start + data, min(said, source.size))


# TIFF 6.0 and BigTIFF: directories that point to one another, anywhere in the file.
def _tiff(source: Source, frames: _Frames) -> Picture:
    order = "<" if source.head[:2] == b"II" else ">"
    big = struct.unpack(order + "H", source.exactly(2, 2))[0] == 43
    counted, entry, offset_code = ("Q", 20, "Q") if big else ("H", 12, "I")
    (at,) = struct.unpack(order + offset_code, source.exactly(8 if big else 4, 8 if big else 4))
    seen: set[int] = set()
    while at:
        if at in seen:
            raise RefusedContent("the TIFF is broken: its directories run in a circle")
        seen.add(at)
        head = struct.calcsize(counted)
        (count,) = struct.unpack(order + counted, source.exactly(at, head))
        if count > _MOST_TIFF_ENTRIES:
            raise RefusedContent("the TIFF has a directory with too many entries")
        frames.add(*_tiff_size(source.exactly(at + head, count * entry), order, big))
        at += head + count * entry
        (at,) = struct.unpack(order + offset_code, source.exactly(at, 8 if big else 4))
    return frames.picture()


def _tiff_size(entries: bytes, order: str, big: bool) -> tuple[int, int]:
    found = {0x100: 0, 0x101: 0}
    codes = {3: "H", 4: "I", 16: "Q"} if big else {3: "H", 4: "I"}
    step, value_at = (20, 12) if big else (12, 8)
    for begin in range(0, len(entries), step):
        tag, kind = struct.unpack_from(order + "HH", entries, begin)
        if tag in found and kind in codes:
            (found[tag],) = struct.unpack_from(order + codes[kind], entries, begin + value_at)
    return found[0x100], found[0x101]


def _heif(source: Source, frames: _Frames) -> Picture:
    for width, height in picture_sizes(source):
        frames.add(width, height)
    return frames.picture()


_READERS: dict[Kind, Callable[[Source, _Frames], Picture]] = {
    kinds.JPEG: _jpeg,
    kinds.PNG: _png,
    kinds.GIF: _gif,
    kinds.WEBP: _webp,
    kinds.BMP: _bmp,
    kinds.TIFF: _tiff,
    kinds.HEIC: _heif,
    kinds.AVIF: _heif,
}
