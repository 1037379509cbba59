"""Boxes of the ISO base media file format (ISO/IEC 14496-12): movies, and pictures of HEIF and AVIF (23008-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pacslite.core import file_kinds as kinds
from pacslite.core.file_kinds import Kind
from pacslite.core.inspection_source import Source
from pacslite.errors import RefusedContent

_MOST_BOXES = 100_000
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_PICTURE_BRANDS = frozenset({b"mif1", b"msf1", b"mif2"})  # of HEIF in general: the compatible brands tell which
_NO_MOVIES = {b"M4A ": "sound", b"M4B ": "sound", b"M4P ": "sound", b"F4A ": "sound", b"F4B ": "sound", b"crx ": "a raw picture"}
_NO_MOVIES |= {b"jp2 ": "JPEG 2000", b"jpx ": "JPEG 2000", b"jxl ": "JPEG XL", b"isma": "sound"}
# QuickTime of before 2001 begins with any of these instead of a type.
_FIRST_BOXES = frozenset({b"moov", b"mdat", b"wide", b"pnot", b"skip", b"free"})
_MOST_ALTERNATIVES = 64


@dataclass(frozen=True, slots=True)
class Box:
    """Where a box is: its name, where its content begins, and where it ends as it says."""

    name: bytes
    start: int
    end: int


def boxes(source: Source, start: int, end: int) -> Iterator[Box]:
    """The boxes of a range, one after the other; the last may end beyond the file."""
    for _ in range(_MOST_BOXES):
        head = source.at(start, 16)
        if start + 8 > end or len(head) < 8:
            if head[: max(0, end - start)].strip(b"\0"):
                raise RefusedContent("the file is cut off")
            return
        length, name = struct.unpack(">I4s", head[:8])
        content = start + 8
        if length == 1 and len(head) == 16:
            length, content = int.from_bytes(head[8:16], "big"), start + 16
        elif length == 0:
            length = end - start
        if length < content - start:
            raise RefusedContent("a box in the file is shorter than its own head")
        yield Box(name, content, start + length)
        start += length
    raise RefusedContent("the file has too many boxes")


def kind_of(head: bytes) -> Kind | str | None:
    """What the brand in the first box says; text when that is something else than a movie or a picture."""
    name = head[4:8]
    if name in _FIRST_BOXES:
        return kinds.MOV
    if name != b"ftyp" or len(head) < 16:
        return None
    end = min(int.from_bytes(head[:4], "big"), 16 + 4 * _MOST_ALTERNATIVES)
    major, others = head[8:12], [head[at : at + 4] for at in range(16, end - 3, 4)]
    return _kind_of_brand(major, others)


def _kind_of_brand(major: bytes, others: list[bytes]) -> Kind | str:
    if major in _NO_MOVIES:
        return _NO_MOVIES[major]
    for brand in (major, *others) if major in _PICTURE_BRANDS else (major,):
        if brand in _AVIF_BRANDS:
            return kinds.AVIF
        if brand in _HEIC_BRANDS:
            return kinds.HEIC
    if major in _PICTURE_BRANDS:
        return "a HEIF picture that is neither HEIC nor AVIF"
    if major == b"qt  ":
        return kinds.MOV
    return kinds.THREE_GP if major[:2] == b"3g" else kinds.MP4


def picture_sizes(source: Source) -> Iterator[tuple[int, int]]:
    """The sizes (ispe) of all pictures that the meta box describes, and of the tracks of a sequence."""
    found = False
    for box in _within(source, 0, source.size, b"meta", b"moov"):
        found = True
        if box.name == b"meta":
            for properties in _path(source, Box(box.name, box.start + 4, box.end), (b"iprp", b"ipco")):
                yield from _extents(source, properties)
        else:
            for track in _path(source, box, (b"trak", b"tkhd")):
                size = source.exactly(track.end - 8, 8)
                width, height = int.from_bytes(size[:2], "big"), int.from_bytes(size[4:6], "big")
                if width and height:
                    yield width, height
    if not found:
        raise RefusedContent("the picture has no description of what is in it")


def _extents(source: Source, properties: Box) -> Iterator[tuple[int, int]]:
    for extent in _within(source, properties.start, properties.end, b"ispe"):
        yield struct.unpack(">II", source.exactly(extent.start + 4, 8))


def _path(source: Source, box: Box, names: tuple[bytes, ...]) -> Iterator[Box]:
    """The boxes at the end of a path of names below a box."""
    for inner in _within(source, box.start, box.end, names[0]):
        if len(names) == 1:
            yield inner
        else:
            yield from _path(source, inner, names[1:])


def _within(source: Source, start: int, end: int, *names: bytes) -> Iterator[Box]:
    for box in boxes(source, start, end):
        if box.end > min(end, source.size):
            raise RefusedContent("the file is cut off")
        if box.name in names:
            yield box


def check_movie(source: Source) -> tuple[str, ...]:
    """Warnings; refused when there is nothing that says how to play it."""
    warnings, has_header = [], False
    for box in boxes(source, 0, source.size):
        has_header |= box.name in (b"moov", b"moof")
        if box.end > source.size:
            warnings.append("the video is cut off")
            if box.name == b"moov":
                raise RefusedContent("the video is cut off in its header")
    if not has_header:
        raise RefusedContent("the video has no header: it is cut off, or was not finished")
    return tuple(warnings)
