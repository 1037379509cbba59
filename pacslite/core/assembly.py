"""Instances made of metadata and bulk data (PS3.18 10.5.1.1, 10.5.2): a Part 10 file with file meta information of its own.

Bulk data is copied piece by piece from the file it was received into. Compressed pixels are encapsulated as they came, PNG and
GIF become pixels; where the metadata leaves the Image Pixel Description out, what the pixels say of themselves is filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from pacslite.core import pictures
from pacslite.core.encapsulation import BulkPart, encapsulated, frames_of, reading
from pacslite.dicom import vr as vrs
from pacslite.dicom.code_stream import Picture
from pacslite.dicom.data_set import BIG_ENDIAN, EXPLICIT, NATIVE
from pacslite.dicom.from_json import DataSet, Encoder, Extent, Segment, element, first_text
from pacslite.dicom.limits import Limits
from pacslite.dicom.part10 import encode_preamble_and_meta
from pacslite.dicom.uids import is_uid
from pacslite.errors import InvalidMetadata, MissingAttribute, UnsupportedTransferSyntax
from pacslite.storage.spool import Spool, SpoolFile, SpoolWriter

OCTET_STREAM = "application/octet-stream"
_CONVERTED = frozenset({"image/png", "image/gif"})
_PIXEL_DATA, _EXTENDED_OFFSETS, _EXTENDED_LENGTHS = "7FE00010", "7FE00001", "7FE00002"
_SOP_CLASS, _SOP_INSTANCE = "00080016", "00080018"
_NUMBER_OF_FRAMES, _ROWS, _COLUMNS, _SAMPLES, _PLANAR = "00280008", "00280010", "00280011", "00280002", "00280006"
_PHOTOMETRIC, _BITS_ALLOCATED, _BITS_STORED, _HIGH_BIT, _SIGNED = "00280004", "00280100", "00280101", "00280102", "00280103"
_FRAME_TIME, _FRAME_POINTER, _LOSSY = "00181063", "00280009", "00282110"
_DOCUMENT, _DOCUMENT_LENGTH, _DOCUMENT_TYPE = "00420011", "00420015", "00420012"
# Never reversible; JPEG 2000 and its like say by their names whether they may be.
_ALWAYS_LOSSY = ("50", "51", "81", "91", "93", "203", "111")
_SYNTAX = "1.2.840.10008.1.2.4."
_COPY_BYTES = 1024 * 1024

# The parts of a BulkDataURI; empty when none came.
Lookup = Callable[[str], Sequence[BulkPart]]


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Elements that hold the pixels, their transfer syntax, and what they are made of where they tell."""

    ready: dict[int, list[Segment]]
    transfer_syntax_uid: str
    picture: Picture | None = None
    frame_time_ms: float = 0.0


def assemble(data_set: DataSet, lookup: Lookup, spool: Spool, limits: Limits) -> SpoolFile:
    """The instance as a file in the spool; raises InstanceRefused leaves, StorageError."""
    data_set = _upper(data_set)
    sop_class, sop_instance = first_text(data_set, _SOP_CLASS), first_text(data_set, _SOP_INSTANCE)
    for tag, uid in ((_SOP_CLASS, sop_class), (_SOP_INSTANCE, sop_instance)):
        if not is_uid(uid):
            raise MissingAttribute(f"({tag[:4]},{tag[4:]}) of the metadata is no UID")
    with ExitStack() as while_writing:
        pixels = _pixels(data_set, lookup, spool, limits, while_writing)
        whole = _with_document(_described(data_set, pixels), lookup)
        encoder = Encoder(lambda uri, tag: [_plain(lookup(uri), tag)], limits.max_depth)
        segments = encoder.encode(whole, pixels.ready)
        meta = encode_preamble_and_meta(sop_class, sop_instance, pixels.transfer_syntax_uid)
        with spool.create() as writer:
            for segment in (meta, *segments):
                _write(writer, segment)
            return writer.finish()


def _upper(data_set: DataSet) -> DataSet:
    """Tags as they are looked up here; all writers use upper case."""
    found = {tag.upper(): member for tag, member in data_set.items()}
    if len(found) != len(data_set):
        raise InvalidMetadata("an attribute is there twice")
    return found


def _write(writer: SpoolWriter, segment: Segment) -> None:
    if isinstance(segment, bytes):
        writer.write(segment)
        return
    with reading(segment) as read:
        for at in range(0, segment.length, _COPY_BYTES):
            wanted = min(_COPY_BYTES, segment.length - at)
            piece = read(at, wanted)
            if len(piece) != wanted:
                raise InvalidMetadata("bulk data was cut short")
            writer.write(piece)


def _uri(data_set: Mapping[str, Any], tag: str) -> str:
    member = data_set.get(tag)
    uri = member.get("BulkDataURI") if isinstance(member, dict) else None
    return uri if isinstance(uri, str) else ""


def _plain(parts: Sequence[BulkPart], tag: int) -> Extent:
    """A value that is taken as it came."""
    if not parts:
        raise InvalidMetadata(f"no part has the Content-Location that ({tag >> 16:04X},{tag & 0xFFFF:04X}) names")
    if len(parts) > 1:
        raise InvalidMetadata(f"several parts have the Content-Location that ({tag >> 16:04X},{tag & 0xFFFF:04X}) names")
    if tag == vrs.PIXEL_DATA and (parts[0].default_syntax_uid or parts[0].media_type in _CONVERTED):
        raise InvalidMetadata("Pixel Data (7FE0,0010) inside a sequence has to be octets")
    return parts[0].extent


def _pixels(data_set: DataSet, lookup: Lookup, spool: Spool, limits: Limits, stack: ExitStack) -> _Pixels:
    uri = _uri(data_set, _PIXEL_DATA)
    if not uri:
        return _Pixels({}, EXPLICIT)
    parts = lookup(uri)
    if not parts:
        _plain(parts, vrs.PIXEL_DATA)
    first = parts[0]
    named = first.transfer_syntax_uid
    if first.media_type in _CONVERTED:
        return _converted(_plain(parts, 0), spool, limits, stack)
    if first.default_syntax_uid or (named and named not in NATIVE and first.media_type == OCTET_STREAM):
        found = frames_of(parts, _number(data_set, _NUMBER_OF_FRAMES), bool(first_text(data_set, _ROWS)))
        return _Pixels(encapsulated(found.frames), found.picture.transfer_syntax_uid, found.picture, found.frame_time_ms)
    if named == BIG_ENDIAN:
        raise UnsupportedTransferSyntax("pixels are sent little endian (PS3.18 8.7.3.3.1)")
    if first.media_type != OCTET_STREAM:
        raise UnsupportedTransferSyntax(f"pixels of type {first.media_type[:64]} are not taken")
    member = data_set[_PIXEL_DATA]
    vr = member["vr"] if member.get("vr") in ("OB", "OW") else "OW" if _number(data_set, _BITS_ALLOCATED) > 8 else "OB"
    return _Pixels({vrs.PIXEL_DATA: element(vrs.PIXEL_DATA, vr, [_plain(parts, vrs.PIXEL_DATA)])}, EXPLICIT)


def _converted(extent: Extent, spool: Spool, limits: Limits, stack: ExitStack) -> _Pixels:
    """A PNG or GIF as pixels, in a spool file that lives as long as the stack."""
    read = stack.enter_context(reading(extent))
    decoded = pictures.decode(read, extent.length, limits.max_inflated_bytes)
    with spool.create() as writer:
        for piece in decoded.pixels:
            writer.write(piece)
        file = writer.finish()
    stack.callback(file.discard)
    vr = "OW" if decoded.picture.bits_allocated > 8 else "OB"
    pixels = element(vrs.PIXEL_DATA, vr, [Extent(file.path, 0, file.size_bytes)])
    return _Pixels({vrs.PIXEL_DATA: pixels}, EXPLICIT, decoded.picture, decoded.frame_time_ms)


def _number(data_set: DataSet, tag: str) -> int:
    text = first_text(data_set, tag)
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _described(data_set: DataSet, pixels: _Pixels) -> DataSet:
    """The metadata with what it leaves out of the Image Pixel Description; what it says stays."""
    if not pixels.ready:
        return data_set
    whole = {tag: member for tag, member in data_set.items() if tag not in (_EXTENDED_OFFSETS, _EXTENDED_LENGTHS)}
    picture = pixels.picture
    if picture is None:
        return whole
    if pixels.transfer_syntax_uid == EXPLICIT:
        _check_agrees(whole, picture)
    is_bare = not first_text(whole, _ROWS)
    if picture.frames > 1:
        _fill(whole, _NUMBER_OF_FRAMES, "IS", picture.frames)
    if not picture.rows:
        if is_bare:
            raise InvalidMetadata("pixels of this kind need the Image Pixel Description in the metadata")
        return whole
    for tag, number in (
        (_SAMPLES, picture.samples),
        (_ROWS, picture.rows),
        (_COLUMNS, picture.columns),
        (_BITS_ALLOCATED, picture.bits_allocated),
        (_BITS_STORED, picture.bits_stored),
        (_HIGH_BIT, picture.bits_stored - 1),
        (_SIGNED, int(picture.signed)),
    ):
        _fill(whole, tag, "US", number)
    _fill(whole, _PHOTOMETRIC, "CS", picture.photometric)
    if picture.samples > 1:
        _fill(whole, _PLANAR, "US", 0)
    if is_bare:
        _fill_more(whole, pixels)
    return whole


def _fill_more(whole: DataSet, pixels: _Pixels) -> None:
    """For a sender that leaves the description to us: that loss has happened, and how long a frame lasts."""
    syntax = pixels.transfer_syntax_uid
    number = syntax.removeprefix(_SYNTAX)
    if number in _ALWAYS_LOSSY or (number.startswith("10") and syntax != number):
        _fill(whole, _LOSSY, "CS", "01")
    if pixels.frame_time_ms and pixels.picture and pixels.picture.frames > 1 and not first_text(whole, _FRAME_POINTER):
        _fill(whole, _FRAME_TIME, "DS", f"{pixels.frame_time_ms:.10g}"[:16])
        _fill(whole, _FRAME_POINTER, "AT", _FRAME_TIME)


def _fill(whole: DataSet, tag: str, vr: str, value: int | str) -> None:
    if not first_text(whole, tag):
        whole[tag] = {"vr": vr, "Value": [str(value)]}


def _check_agrees(data_set: DataSet, picture: Picture) -> None:
    """Pixels that were decoded here have to be what the metadata says, or nobody could read them."""
    for tag, number in (
        (_ROWS, picture.rows),
        (_COLUMNS, picture.columns),
        (_SAMPLES, picture.samples),
        (_BITS_ALLOCATED, picture.bits_allocated),
        (_NUMBER_OF_FRAMES, picture.frames),
    ):
        if first_text(data_set, tag) and _number(data_set, tag) != number:
            raise InvalidMetadata(f"the picture has {number} where ({tag[:4]},{tag[4:]}) says otherwise")


def _with_document(data_set: DataSet, lookup: Lookup) -> DataSet:
    """An encapsulated document with its type, and its length where that is odd and a byte of padding follows."""
    uri = _uri(data_set, _DOCUMENT)
    parts = lookup(uri) if uri else ()
    if len(parts) != 1:
        return data_set
    whole = dict(data_set)
    if parts[0].media_type != OCTET_STREAM:
        _fill(whole, _DOCUMENT_TYPE, "LO", parts[0].media_type)
    if parts[0].extent.length % 2:
        _fill(whole, _DOCUMENT_LENGTH, "UL", parts[0].extent.length)
    return whole
