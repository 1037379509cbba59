"""Images in another transfer syntax than theirs: the data set is copied, its frames go through a codec one by one.

What becomes of the Image Pixel Module follows the pixels (PS3.3 C.7.6.3); what was lossy stays marked, and what becomes lossy
is another image with a UID of its own (PS3.3 C.7.6.1.1.5).
"""

from __future__ import annotations

import struct
import tempfile
from array import array
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pacslite.codec.derivation import Changes, changes_of, derived_uid, new_uid, source_item
from pacslite.codec.pixels import MAX_FRAME_BYTES, PixelDescription, refusal
from pacslite.codec.processes import CodecProcesses
from pacslite.codec.transfer_syntax import Writer, deflated, frame_bytes, gathered
from pacslite.dicom import vr as vrs
from pacslite.dicom.data_set import DataSetFile, encoding_of, open_data_set
from pacslite.dicom.frame_index import FrameIndex
from pacslite.dicom.header import Header, Kind, Walk
from pacslite.dicom.instance import Instance, read_instance
from pacslite.dicom.limits import Limits
from pacslite.dicom.part10 import encode_preamble_and_meta
from pacslite.dicom.syntaxes import DECODABLE, DEFLATED, IRREVERSIBLE, NATIVE
from pacslite.dicom.values import swapped
from pacslite.errors import UndecodablePixels

TASK = "pacslite.codec.encoders:transcode_frame"
_SOURCE_IMAGE_SEQUENCE = 0x00082112
_EXTENDED_OFFSETS, _EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002
_FLOATS = {0x7FE00008: 32, 0x7FE00009: 64}
_NUMBER_OF_FRAMES = 0x00280008
_MOST_NATIVE_BYTES = 0xFFFFFFFE
_COPIED = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Image:
    """What is known of an image before its first frame is looked at."""

    instance: Instance
    index: FrameIndex
    description: PixelDescription
    source_uid: str
    target_uid: str

    @property
    def frames(self) -> range:
        return range(1, self.index.number_of_frames + 1)


def can_transcode(source_uid: str, target_uid: str) -> bool:
    """Whether there is a codec for both; whether it takes these very pixels shows only when they are known."""
    return source_uid in DECODABLE and target_uid in DECODABLE and target_uid not in _NOT_WRITTEN


_NOT_WRITTEN = NATIVE - {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", DEFLATED, "1.2.840.10008.1.2.2"}


def transcode(
    path: Path, target_uid: str, limits: Limits, processes: CodecProcesses, digest: str = "", with_meta: bool = True
) -> Iterator[bytes]:
    """An image in another transfer syntax, piece by piece; without meta only the data set.

    `digest` tells this content from any other of its SOP Instance UID. Raises UndecodablePixels, Busy and leaves of InstanceRefused;
    what is wrong with the first frame shows before the first piece.
    """
    instance = read_instance(path, limits)
    if instance.frame_index is None and can_transcode(instance.meta.transfer_syntax_uid, target_uid) and not _has_pixels(instance.header):
        yield from _copied(path, target_uid, limits, with_meta)
        return
    image = _opened(instance, target_uid)
    with open_data_set(path, limits) as file:
        results = processes.run_each(_tasks(file, image))
        try:
            yield from _pieces(file, image, results, limits, digest, with_meta)
        finally:
            if isinstance(results, Generator):
                results.close()


def _has_pixels(header: Header) -> bool:
    return any(header.get(tag) for tag in vrs.PIXELS)


def _copied(path: Path, target_uid: str, limits: Limits, with_meta: bool) -> Iterator[bytes]:
    """What is no image: a transfer syntax of compressed pixels means explicit little endian for the rest (PS3.5 A.4)."""
    with open_data_set(path, limits) as file:
        if with_meta:
            yield encode_preamble_and_meta(file.meta.sop_class_uid, file.meta.sop_instance_uid, target_uid, file.meta.source_aet)
        pieces = gathered(Writer(file, encoding_of(target_uid)).pieces())
        yield from deflated(pieces) if target_uid == DEFLATED else pieces


def _opened(instance: Instance, target_uid: str) -> _Image:
    uid, index = instance.meta.transfer_syntax_uid, instance.frame_index
    if not can_transcode(uid, target_uid) or index is None:
        raise UndecodablePixels(f"An instance of transfer syntax {uid} {'' if index else 'without frames '}is not written as {target_uid}.")
    description = describe(instance.header)
    description.check()
    said = max(instance.header.number(_NUMBER_OF_FRAMES, 1), 1)
    if index.number_of_frames != said:
        raise UndecodablePixels(f"{index.number_of_frames} frames are there, Number of Frames (0028,0008) says {said}.")
    reason = refusal(description, target_uid)
    if reason:
        raise UndecodablePixels(reason)
    return _Image(instance, index, description, uid, target_uid)


def describe(header: Header) -> PixelDescription:
    """The Image Pixel Module of a data set."""
    float_bits = next((bits for tag, bits in _FLOATS.items() if header.get(tag)), 0)
    return PixelDescription(
        rows=header.number(0x00280010),
        columns=header.number(0x00280011),
        bits_allocated=float_bits or header.number(0x00280100),
        bits_stored=header.number(0x00280101),
        samples_per_pixel=header.number(0x00280002, 1),
        photometric_interpretation=header.text(0x00280004),
        signed=header.number(0x00280103) == 1,
        planar=header.number(0x00280006) == 1,
        high_bit=header.number(0x00280102, -1) if header.text(0x00280102) else None,
        is_float=bool(float_bits),
    )


def _tasks(file: DataSetFile, image: _Image) -> Iterator[tuple[object, ...]]:
    for number in image.frames:
        size = sum(length for _, length in image.index.segments(number))
        if size > MAX_FRAME_BYTES:
            raise UndecodablePixels(f"Frame {number} has {size} bytes; no more than {MAX_FRAME_BYTES} are decoded.")
        encoded = frame_bytes(lambda offset, length: file.source.read(offset, length), image.index, number)
        yield TASK, encoded, image.description, image.source_uid, image.target_uid


def _pieces(
    file: DataSetFile, image: _Image, results: Iterator[tuple[bytes, str]], limits: Limits, digest: str, with_meta: bool
) -> Iterator[bytes]:
    data, photometric = next(results)
    frames = _same_colours(data, photometric, results)
    meta, uid = file.meta, image.instance.sop_instance_uid
    first = frame_bytes(lambda offset, length: file.source.read(offset, length), image.index, 1)
    changes = changes_of(image.instance, image.description, photometric, image.target_uid, first, len(data))
    becomes_lossy = image.target_uid in IRREVERSIBLE
    if becomes_lossy:
        uid = derived_uid(uid, digest, image.target_uid)
        changes |= new_uid(uid)
    if with_meta:
        yield encode_preamble_and_meta(image.instance.sop_class_uid, uid, image.target_uid, meta.source_aet)
    item = source_item(image.instance.sop_class_uid, image.instance.sop_instance_uid) if becomes_lossy else b""
    if image.target_uid in NATIVE:
        writer = _ImageWriter(file, image, changes, _NativePixels(image, frames))
        pieces = gathered(writer.pieces())
        yield from deflated(pieces) if image.target_uid == DEFLATED else pieces
        return
    with tempfile.TemporaryFile(dir=limits.scratch, prefix="frames-") as scratch:
        writer = _ImageWriter(file, image, changes, _EncapsulatedPixels(frames, scratch), item)
        yield from gathered(writer.pieces())


def _same_colours(first: bytes, photometric: str, results: Iterator[tuple[bytes, str]]) -> Iterator[bytes]:
    yield first
    for data, other in results:
        if other != photometric:
            raise UndecodablePixels(f"Frames of one image are in {photometric} and in {other}.")
        yield data


class _NativePixels:
    """Frames one behind the other without padding (PS3.5 8.1.1)."""

    def __init__(self, image: _Image, frames: Iterator[bytes]) -> None:
        self._frames = frames
        description = image.description
        self._bits = 1 if description.bits_allocated == 1 else description.dtype.itemsize * 8
        self._frame_bits = description.rows * description.columns * description.samples_per_pixel * self._bits
        self.length = -(-self._frame_bits * image.index.number_of_frames // 8)
        if self.length > _MOST_NATIVE_BYTES:
            raise UndecodablePixels(f"The pixels have {self.length} bytes, more than a native element holds.")

    def pieces(self, writer: _ImageWriter, target_uid: str) -> Iterator[bytes]:
        wide = self._bits > 8 or not encoding_of(target_uid).explicit
        yield writer.head(vrs.PIXEL_DATA, "OW" if wide else "OB", self.length + (self.length & 1))
        turn = self._bits > 8 and not encoding_of(target_uid).little
        for data in self._packed() if self._frame_bits % 8 else self._frames:
            yield swapped(data, 2) if turn else data
        yield b"\0" * (self.length & 1)

    def _packed(self) -> Iterator[bytes]:
        """Frames that do not end with a whole byte."""
        rest, count = 0, 0
        for data in self._frames:
            rest |= (int.from_bytes(data, "little") & (1 << self._frame_bits) - 1) << count
            whole, count = divmod(count + self._frame_bits, 8)
            yield (rest & (1 << 8 * whole) - 1).to_bytes(whole, "little")
            rest >>= 8 * whole
        if count:
            yield rest.to_bytes(1, "little")


class _EncapsulatedPixels:
    """Frames as one fragment each behind the table of their offsets (PS3.5 A.4), which has to be known first."""

    def __init__(self, frames: Iterator[bytes], scratch: BinaryIO) -> None:
        self._scratch = scratch
        self._offsets, self._lengths = array("Q"), array("Q")
        at = 0
        for data in frames:
            padded = len(data) + (len(data) & 1)
            self._offsets.append(at)
            self._lengths.append(len(data))
            scratch.write(struct.pack("<HHI", 0xFFFE, 0xE000, padded))
            scratch.write(data)
            scratch.write(b"\0" * (padded - len(data)))
            at += 8 + padded
        self._is_long = self._offsets[-1] > 0xFFFFFFFF

    def pieces(self, writer: _ImageWriter, target_uid: str) -> Iterator[bytes]:
        basic = b"" if self._is_long else struct.pack(f"<{len(self._offsets)}I", *self._offsets)
        if self._is_long:
            # PS3.3 C.7.6.3.1.8: then the basic one is empty.
            for tag, numbers in ((_EXTENDED_OFFSETS, self._offsets), (_EXTENDED_LENGTHS, self._lengths)):
                yield writer.head(tag, "OV", 8 * len(numbers)) + struct.pack(f"<{len(numbers)}Q", *numbers)
        yield writer.head(vrs.PIXEL_DATA, "OB", vrs.UNDEFINED)
        yield struct.pack("<HHI", 0xFFFE, 0xE000, len(basic)) + basic
        self._scratch.seek(0)
        while piece := self._scratch.read(_COPIED):
            yield piece
        yield struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


class _ImageWriter(Writer):
    """Writes the data set with other pixels and what has to change along with them."""

    def __init__(
        self, file: DataSetFile, image: _Image, changes: Changes, pixels: _NativePixels | _EncapsulatedPixels, source_item: bytes = b""
    ) -> None:
        super().__init__(file, encoding_of(image.target_uid))
        self._image = image
        self._changes: Changes = {**changes, _EXTENDED_OFFSETS: None, _EXTENDED_LENGTHS: None}
        self._changes |= dict.fromkeys(_with_fragments(file))
        self._pixels = pixels
        self._source_item = source_item

    def head(self, tag: int, vr: str, length: int) -> bytes:
        """The head of an element."""
        return self._head(tag, vr, length)

    def pieces(self) -> Iterator[bytes]:
        file, depth, left_out = self._file, 0, False
        due = sorted(tag for tag, change in self._changes.items() if change is not None)
        if self._source_item:
            due = sorted([*due, _SOURCE_IMAGE_SEQUENCE])
        signed = (1 if self._image.description.signed else 0) if not file.encoding.explicit else None
        for token in Walk(file.source).tokens(file.position, file.encoding, signed):
            tag = token.head.tag
            if depth == 0 and token.kind in (Kind.VALUE, Kind.SEQUENCE, Kind.FRAGMENTS):
                while due and due[0] <= tag:
                    yield from self._due(due.pop(0), tag)
                left_out = tag in self._changes or (tag == _SOURCE_IMAGE_SEQUENCE and bool(self._source_item))
                if tag == vrs.PIXEL_DATA:
                    yield from self._pixels.pieces(self, self._image.target_uid)
                    continue
                if tag == _SOURCE_IMAGE_SEQUENCE and token.kind is Kind.SEQUENCE:
                    left_out = False
                    if self._source_item:
                        depth += 1  # its head and our item stand there already
                        continue
            depth += (token.kind is Kind.SEQUENCE) - (token.kind is Kind.SEQUENCE_END)
            if not left_out:
                yield from self._token(token)

    def _due(self, tag: int, next_tag: int) -> Iterator[bytes]:
        """An element of ours, in its place."""
        change = self._changes.get(tag)
        if change is not None:
            vr, value = change
            little = self._target.little or vr not in vrs.WORD_BYTES
            yield self._head(tag, vr, len(value)) + (value if little else swapped(value, vrs.WORD_BYTES[vr]))
        else:
            yield self._head(tag, "SQ", vrs.UNDEFINED) + self._source_item
            if next_tag != tag:
                yield struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _with_fragments(file: DataSetFile) -> Iterator[int]:
    """Top-level sequences that hold compressed pixels, such as icons: they would be in a transfer syntax that is left."""
    depth, top = 0, 0
    for token in Walk(file.source).tokens(file.position, file.encoding):
        if depth == 0:
            top = token.head.tag
        elif token.kind is Kind.FRAGMENTS:
            yield top
        depth += (token.kind is Kind.SEQUENCE) - (token.kind is Kind.SEQUENCE_END)
        if depth == 0 and top >= vrs.PIXEL_DATA:
            return
