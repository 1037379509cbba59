"""Pixels that come as bulk data: which transfer syntax they are in, and how they are laid down (PS3.5 A.4, PS3.18 10.5.2)."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from pacslite.dicom import code_stream, video
from pacslite.dicom import vr as vrs
from pacslite.dicom.code_stream import RLE_LOSSLESS, Picture, Read
from pacslite.dicom.from_json import Extent, Segment, element
from pacslite.dicom.uids import is_uid
from pacslite.errors import InvalidMetadata, UnsupportedTransferSyntax

_SYNTAX = "1.2.840.10008.1.2.4."
_JPEG_XL = tuple(_SYNTAX + number for number in ("110", "111", "112"))
# What a code stream of one kind may be called besides: lossless ones by the names of those that allow loss.
_ALSO = {
    "50": ("51",),
    "70": ("57",),
    "80": ("81",),
    "90": ("91", "92", "93"),
    "91": ("93",),
    "201": ("202", "203"),
    "100": ("101", "100.1", "101.1"),
    "101": ("101.1",),
    "102": ("103", "104", "105", "106", "102.1", "103.1", "104.1", "105.1", "106.1"),
    "104": ("105", "106", "104.1", "105.1", "106.1"),
    "105": ("105.1",),
    "106": ("106.1",),
    "107": ("108",),
}
# The end of one code stream, perhaps padded, and the begin of the next: JPEG and JPEG-LS, JPEG 2000.
_SEAM = re.compile(rb"\xff\xd9\0?(?=\xff\xd8\xff|\xff\x4f\xff\x51)")
_SEAM_BYTES = 7
_PIECE_BYTES = 1024 * 1024
# Fragments are even, and below 4 GiB with room for what counts them in 32 bits.
_FRAGMENT_BYTES = 1 << 31
_EXTENDED_OFFSETS, _EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002


@dataclass(frozen=True, slots=True)
class BulkPart:
    """A part of the request: where its bytes lie, its media type, the transfer syntax it names, and the one its type means."""

    extent: Extent
    media_type: str
    transfer_syntax_uid: str = ""
    default_syntax_uid: str = ""


@contextmanager
def reading(extent: Extent) -> Iterator[Read]:
    """Reads within an extent."""
    fd = os.open(extent.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield lambda at, size: os.pread(fd, max(min(size, extent.length - at), 0), extent.offset + at)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Frames:
    """Compressed frames in order, what they are made of, and the milliseconds of one (0 when they do not tell)."""

    frames: tuple[Extent, ...]
    picture: Picture
    frame_time_ms: float = 0.0


def frames_of(parts: Sequence[BulkPart], number_of_frames: int, described: bool) -> Frames:
    """The frames in these parts: one in each, or several, or a video, in a single one; raises InstanceRefused leaves.

    A code stream that cannot be understood is taken all the same when its part names a transfer syntax and the metadata
    has `described` the pixels: what came over C-STORE comes over here too.
    """
    first = parts[0]
    moving: video.Video | None = None
    picture: Picture | None = None
    with reading(first.extent) as read:
        try:
            moving = video.describe(read, first.extent.length)
            picture = moving.picture if moving else code_stream.describe(read)
        except InvalidMetadata:
            if not described or not is_uid(first.transfer_syntax_uid):
                raise
            picture = Picture(first.transfer_syntax_uid)
        syntax = _syntax(first, picture, read)
    if moving:
        if len(parts) > 1:
            raise InvalidMetadata("a video is one part")
        return Frames((first.extent,), moving.picture, moving.frame_time_ms)
    picture = picture or Picture(syntax)
    extents = [_code_stream(part, picture) for part in parts]
    if len(extents) == 1 and number_of_frames > 1:
        extents = _split(extents[0])
    if number_of_frames and len(extents) != number_of_frames:
        raise InvalidMetadata(f"{len(extents)} frames came, Number of Frames (0028,0008) says {number_of_frames}")
    whole = Picture(syntax, *_description(picture), frames=len(extents))
    return Frames(tuple(extents), whole)


def _description(picture: Picture) -> tuple[int, int, int, int, bool, str]:
    return picture.rows, picture.columns, picture.samples, picture.bits_stored, picture.signed, picture.photometric


def _syntax(part: BulkPart, picture: Picture | None, read: Read) -> str:
    """The transfer syntax of the bytes: what they say of themselves, by the name that the part gives it where that fits."""
    named = part.transfer_syntax_uid
    if named and not is_uid(named):
        raise UnsupportedTransferSyntax("the transfer syntax of a part is no UID")
    if picture is None:
        wanted = named or part.default_syntax_uid
        if wanted == RLE_LOSSLESS and code_stream.is_rle(read):
            return wanted
        if wanted in _JPEG_XL and read(0, 2) == b"\xff\x0a":
            return wanted if named else _JPEG_XL[2]
        raise InvalidMetadata(f"the bulk data is not {part.media_type}, or is broken")
    found = picture.transfer_syntax_uid
    if not named or named == found:
        return found
    if named not in [_SYNTAX + number for number in _ALSO.get(found.removeprefix(_SYNTAX), ())]:
        raise UnsupportedTransferSyntax(f"the bulk data is in {found}, not in {named} as its part says")
    return named


def _code_stream(part: BulkPart, first: Picture) -> Extent:
    """The code stream of a frame, without the file format around it."""
    extent = part.extent
    if not extent.length:
        raise InvalidMetadata("a frame is empty")
    if not first.transfer_syntax_uid.startswith(_SYNTAX + "9") and not first.transfer_syntax_uid.startswith(_SYNTAX + "20"):
        return extent
    with reading(extent) as read:
        found = code_stream.describe(read)
    if found is None or found.offset > extent.length:
        raise InvalidMetadata("a frame is no code stream")
    return Extent(extent.path, extent.offset + found.offset, min(found.length or extent.length, extent.length - found.offset))


def _split(extent: Extent) -> list[Extent]:
    """Code streams that lie one behind the other."""
    edges, tail, at = [0], b"", 0
    with reading(extent) as read:
        while piece := read(at, _PIECE_BYTES):
            base, at = at - len(tail), at + len(piece)
            piece = tail + piece
            # A seam in the tail is found a second time.
            edges += [edge for found in _SEAM.finditer(piece) if (edge := base + found.end()) > edges[-1]]
            tail = piece[-_SEAM_BYTES:]
    edges.append(extent.length)
    return [Extent(extent.path, extent.offset + a, b - a) for a, b in pairwise(edges)]


def encapsulated(frames: Sequence[Extent]) -> dict[int, list[Segment]]:
    """Pixel Data of these frames with its table of offsets: the basic one, or the extended one where that is too narrow."""
    offsets, position = [], 0
    for frame in frames:
        offsets.append(position)
        count = -(-frame.length // _FRAGMENT_BYTES)
        position += frame.length + frame.length % 2 + 8 * count
    is_wide = position > 0xFFFFFFFF
    many = len(frames) > 1
    extended = is_wide and many and all(frame.length <= _FRAGMENT_BYTES for frame in frames)
    table = b"" if is_wide or not many else struct.pack(f"<{len(offsets)}I", *offsets)
    content: list[Segment] = [struct.pack("<HHI", 0xFFFE, 0xE000, len(table)) + table]
    for frame in frames:
        for at in range(0, frame.length, _FRAGMENT_BYTES):
            length = min(_FRAGMENT_BYTES, frame.length - at)
            content += [struct.pack("<HHI", 0xFFFE, 0xE000, length + length % 2), Extent(frame.path, frame.offset + at, length)]
            content += [b"\0"] * (length % 2)
    content.append(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))
    head = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, vrs.UNDEFINED)
    ready: dict[int, list[Segment]] = {vrs.PIXEL_DATA: [head, *content]}
    if extended:
        lengths = [frame.length for frame in frames]
        ready[_EXTENDED_OFFSETS] = element(_EXTENDED_OFFSETS, "OV", [struct.pack(f"<{len(offsets)}Q", *offsets)])
        ready[_EXTENDED_LENGTHS] = element(_EXTENDED_LENGTHS, "OV", [struct.pack(f"<{len(lengths)}Q", *lengths)])
    return ready
