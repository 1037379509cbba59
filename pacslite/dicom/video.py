"""What a video says of itself: MP4 (H.264, H.265) and MPEG-2, for its transfer syntax and an omitted pixel description.

Only heads and tables are read, never a picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pacslite.dicom.code_stream import Picture, Read
from pacslite.errors import InvalidMetadata

_SYNTAX = "1.2.840.10008.1.2.4."
_MOST_BOXES = 10_000
_PIECE_BYTES = 1024 * 1024
_SEQUENCE_HEADER = b"\0\0\1\xb3"
_PICTURE_HEADER = re.compile(b"\0\0\1\0", re.DOTALL)
# H.264 levels are ten times their number; PS3.5 8.2.8 and 10.13 to 10.15.
_H264_LEVEL_4_1 = 41
_H265_MAIN_10 = 2
# ISO/IEC 13818-2 table 6-4.
_FRAME_RATES = {1: 24000 / 1001, 2: 24.0, 3: 25.0, 4: 30000 / 1001, 5: 30.0, 6: 50.0, 7: 60000 / 1001, 8: 60.0}


@dataclass(frozen=True, slots=True)
class Video:
    """A video: the picture it is made of, and the milliseconds of one frame (0 when it does not tell)."""

    picture: Picture
    frame_time_ms: float


def describe(read: Read, size: int) -> Video | None:
    """The video in these bytes; None when it is none of the known ones. Raises InvalidMetadata for a broken one."""
    head = read(0, 12)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return _mp4(read, size)
    if head[:4] in (_SEQUENCE_HEADER, b"\0\0\1\xba") or head[:1] == b"\x47":
        return _mpeg_2(read, size)
    return None


def _broken() -> InvalidMetadata:
    return InvalidMetadata("the bulk data is no MP4 with a video track of H.264 or H.265")


def _boxes(read: Read, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of the content of each box (ISO/IEC 14496-12 4.2)."""
    for _ in range(_MOST_BOXES):
        head = read(start, 16)
        if start + 8 > end or len(head) < 8:
            return
        length, content = int.from_bytes(head[:4], "big"), start + 8
        if length == 1 and len(head) == 16:
            length, content = int.from_bytes(head[8:], "big"), start + 16
        length = end - start if length == 0 else length
        if length < content - start or start + length > end:
            raise _broken()
        yield head[4:8], content, start + length
        start += length


def _inside(read: Read, start: int, end: int, *path: bytes) -> tuple[int, int] | None:
    """The first box at a path."""
    for kind, begin, stop in _boxes(read, start, end):
        if kind == path[0]:
            return (begin, stop) if len(path) == 1 else _inside(read, begin, stop, *path[1:])
    return None


def _mp4(read: Read, size: int) -> Video:
    movie = _inside(read, 0, size, b"moov")
    if movie is None:
        raise _broken()
    for kind, begin, end in _boxes(read, *movie):
        table = _inside(read, begin, end, b"mdia", b"minf", b"stbl") if kind == b"trak" else None
        if table is None:
            continue
        entry = _inside(read, *table, b"stsd")
        sizes = _inside(read, *table, b"stsz")
        if entry is None or sizes is None:
            continue
        picture = _sample_entry(read, *entry, frames=int.from_bytes(read(sizes[0] + 8, 4), "big"))
        if picture is not None:
            return Video(picture, _frame_time(read, begin, end, picture.frames))
    raise _broken()


def _sample_entry(read: Read, start: int, end: int, frames: int) -> Picture | None:
    """The picture of a visual sample entry (ISO/IEC 14496-12 12.1.3)."""
    for kind, begin, stop in _boxes(read, start + 8, end):
        columns, rows = int.from_bytes(read(begin + 24, 2), "big"), int.from_bytes(read(begin + 26, 2), "big")
        if kind in (b"avc1", b"avc3"):
            found = _inside(read, begin + 78, stop, b"avcC")
            syntax = _h264(read(found[0], 4), columns, rows) if found else ""
        elif kind in (b"hvc1", b"hev1"):
            found = _inside(read, begin + 78, stop, b"hvcC")
            syntax = _h265(read(found[0], 13)) if found else ""
        else:
            continue
        if not syntax or not rows or not columns or not frames:
            raise _broken()
        return Picture(syntax, rows, columns, 3, 10 if syntax.endswith("108") else 8, False, "YBR_PARTIAL_420", frames)
    return None


def _h264(configuration: bytes, columns: int, rows: int) -> str:
    if len(configuration) < 4:
        return ""
    profile, level = configuration[1], configuration[3]
    if profile in (118, 128):
        return _SYNTAX + "106"
    if level <= _H264_LEVEL_4_1:
        return _SYNTAX + "102"
    return _SYNTAX + ("104" if columns * rows <= 1920 * 1088 else "105")


def _h265(configuration: bytes) -> str:
    if len(configuration) < 13:
        return ""
    return _SYNTAX + ("108" if configuration[1] & 0x1F == _H265_MAIN_10 else "107")


def _frame_time(read: Read, start: int, end: int, frames: int) -> float:
    header = _inside(read, start, end, b"mdia", b"mdhd")
    if header is None:
        return 0.0
    wide = read(header[0], 1) == b"\1"
    scale, duration = (20, 24) if wide else (12, 16)
    ticks = int.from_bytes(read(header[0] + scale, 4), "big")
    length = int.from_bytes(read(header[0] + duration, 8 if wide else 4), "big")
    return 1000 * length / ticks / frames if ticks and frames else 0.0


def _mpeg_2(read: Read, size: int) -> Video:
    head = read(0, _PIECE_BYTES)
    found = head.find(_SEQUENCE_HEADER)
    if found < 0 or found + 8 > len(head):
        raise InvalidMetadata("the bulk data is no MPEG video")
    columns = head[found + 4] << 4 | head[found + 5] >> 4
    rows = (head[found + 5] & 0x0F) << 8 | head[found + 6]
    if not rows or not columns:
        raise InvalidMetadata("the bulk data is no MPEG video")
    # Main Profile at Main Level reaches 720 by 576 (ISO/IEC 13818-2 8.3).
    syntax = _SYNTAX + ("100" if columns <= 720 and rows <= 576 else "101")
    rate = _FRAME_RATES.get(head[found + 7] & 0x0F)
    picture = Picture(syntax, rows, columns, 3, 8, False, "YBR_PARTIAL_420", max(_pictures(read, size), 1))
    return Video(picture, 1000 / rate if rate else 0.0)


def _pictures(read: Read, size: int) -> int:
    """Picture headers of the stream."""
    count, tail, at = 0, b"", 0
    while at < size:
        piece = read(at, _PIECE_BYTES)
        if not piece:
            break
        at += len(piece)
        piece = tail + piece
        count += len(_PICTURE_HEADER.findall(piece))
        tail = piece[-3:]
    return count
