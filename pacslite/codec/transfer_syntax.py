"""Native transfer syntaxes into each other, and frames as they go out: pixel values stay, bytes move.

Streams in bounded memory: sequences are written with undefined lengths, so nothing has to be measured beforehand.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from pacslite.dicom import vr as vrs
from pacslite.dicom.data_set import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, NATIVE, DataSetFile, encoding_of, open_data_set
from pacslite.dicom.frame_index import FrameIndex
from pacslite.dicom.header import Encoding, Head, Kind, Token, Walk, fragments
from pacslite.dicom.limits import Limits
from pacslite.dicom.part10 import encode_preamble_and_meta
from pacslite.dicom.source import Source
from pacslite.dicom.values import swapped
from pacslite.errors import UnsupportedTransferSyntax

TARGETS = frozenset({IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN})

# A multiple of every word size, so that words are not cut.
_CHUNK = 1024 * 1024
_GATHER = 64 * 1024
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
_TEXT_PADDED = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"})


def can_convert(source_uid: str, target_uid: str) -> bool:
    """Whether `convert` knows the way; the same syntax needs none and is always possible."""
    return source_uid == target_uid or (source_uid in NATIVE and target_uid in TARGETS)


def convert(source: BinaryIO, target_uid: str, limits: Limits, with_meta: bool = True) -> Iterator[bytes]:
    """A native Part 10 file in another native transfer syntax, piece by piece; without meta only the data set.

    Raises UnsupportedTransferSyntax, and on the way other leaves of InstanceRefused. Group lengths are left out.
    """
    file = open_data_set(source, limits)
    uid = file.meta.transfer_syntax_uid
    if uid not in NATIVE or target_uid not in TARGETS:
        file.source.close()
        raise UnsupportedTransferSyntax(f"{uid} cannot be written as {target_uid}")
    return _converted(file, target_uid, with_meta)


def _converted(file: DataSetFile, target_uid: str, with_meta: bool) -> Iterator[bytes]:
    with file:
        meta = file.meta
        if with_meta:
            yield encode_preamble_and_meta(meta.sop_class_uid, meta.sop_instance_uid, target_uid, meta.source_aet)
        pieces = gathered(Writer(file, encoding_of(target_uid)).pieces())
        yield from deflated(pieces) if target_uid == DEFLATED else pieces


def gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Small pieces joined, large ones passed on."""
    pending = bytearray()
    for piece in pieces:
        pending += piece
        if len(pending) >= _GATHER:
            yield bytes(pending)
            pending.clear()
    if pending:
        yield bytes(pending)


def deflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    written = 0
    for piece in pieces:
        packed = machine.compress(piece)
        written += len(packed)
        if packed:
            yield packed
    packed = machine.flush()
    yield packed + b"\0" * ((written + len(packed)) & 1)  # PS3.5 A.5: padded to an even length


class Writer:
    """Writes the tokens of a data set in another encoding."""

    def __init__(self, file: DataSetFile, target: Encoding) -> None:
        self._file = file
        self._target = target
        order = "<" if target.little else ">"
        self._implicit_head = struct.Struct(order + "HHI")
        self._short_head = struct.Struct(order + "HH2sH")
        self._long_head = struct.Struct(order + "HH2sHI")

    def pieces(self) -> Iterator[bytes]:
        """The data set, piece by piece."""
        file = self._file
        signed = _pixel_representation(file) if not file.encoding.explicit and self._target.explicit else None
        for token in Walk(file.source).tokens(file.position, file.encoding, signed):
            yield from self._token(token)

    def _token(self, token: Token) -> Iterator[bytes]:
        match token.kind:
            case Kind.VALUE:
                if token.head.tag & 0xFFFF:
                    yield from self._value(token)
            case Kind.SEQUENCE:
                yield self._head(token.head.tag, "SQ", vrs.UNDEFINED)
            case Kind.ITEM:
                yield self._delimiter(_ITEM, vrs.UNDEFINED)
            case Kind.ITEM_END:
                yield self._delimiter(_ITEM_END, 0)
            case Kind.SEQUENCE_END:
                yield self._delimiter(_SEQUENCE_END, 0)
            case Kind.FRAGMENTS:
                yield from self._fragments(token)

    def _delimiter(self, element: int, length: int) -> bytes:
        return self._implicit_head.pack(0xFFFE, element, length)

    def _head(self, tag: int, vr: str, length: int) -> bytes:
        group, element = tag >> 16, tag & 0xFFFF
        if not self._target.explicit:
            return self._implicit_head.pack(group, element, length)
        if vr in vrs.LONG_NAMES:
            return self._long_head.pack(group, element, vr.encode("ascii"), 0, length)
        if length > 0xFFFF:
            # Too long for its VR in explicit form: PS3.5 6.2.2, note 5.
            return self._long_head.pack(group, element, b"UN", 0, length)
        return self._short_head.pack(group, element, vr.encode("ascii"), length)

    def _value(self, token: Token) -> Iterator[bytes]:
        head = token.head
        little = token.encoding.little and not (head.tag == vrs.PIXEL_DATA and self._file.big_endian_pixels)
        unknown = self._target.explicit and head.vr not in vrs.LONG_NAMES and head.length + (head.length & 1) > 0xFFFF
        # UN keeps little endian values in every syntax (PS3.5 6.2.2).
        word = vrs.WORD_BYTES.get(head.vr, 1) if little != (self._target.little or unknown) else 1
        yield self._head(head.tag, head.vr, head.length + (head.length & 1))
        yield from self._bytes(head, word)
        if head.length & 1:
            yield b" " if head.vr in _TEXT_PADDED else b"\0"

    def _bytes(self, head: Head, word: int) -> Iterator[bytes]:
        source: Source = self._file.source
        for at in range(0, head.length, _CHUNK):
            raw = source.read(head.start + at, min(_CHUNK, head.length - at))
            yield swapped(raw, word) if word > 1 else raw

    def _fragments(self, token: Token) -> Iterator[bytes]:
        """An encapsulated value amid a native data set, such as an icon."""
        yield self._head(token.head.tag, "OB", vrs.UNDEFINED)
        for item in fragments(self._file.source, token.head, self._file.source.size, token.encoding.little):
            yield self._delimiter(_ITEM, item.length)
            yield from self._bytes(item, 1)
        yield self._delimiter(_SEQUENCE_END, 0)


def _pixel_representation(file: DataSetFile) -> int | None:
    """The top-level Pixel Representation, which elements before it may need to know."""
    depth = 0
    for token in Walk(file.source).tokens(file.position, file.encoding):
        depth += (token.kind is Kind.SEQUENCE) - (token.kind is Kind.SEQUENCE_END)
        if depth == 0 and token.head.tag >= vrs.PIXEL_REPRESENTATION:
            found = token.head.tag == vrs.PIXEL_REPRESENTATION
            return int.from_bytes(file.source.read(token.head.start, 2), "little") & 1 if found else None
    return None


def frame_bytes(read: Callable[[int, int], bytes], index: FrameIndex, frame_number: int) -> bytes:
    """One frame as it goes out: little endian, fragments joined, from its first bit on; raises FrameNotFound.

    `read` takes offset and length, in the inflated data set when `index.inflated`.
    """
    data = b"".join([read(offset, length) for offset, length in index.segments(frame_number)])
    if not index.frame_bits:
        return data
    if index.swap_bytes:
        data = swapped(data, index.swap_bytes)
    skip = index.bit_offset(frame_number)
    size = -(-index.frame_bits // 8)
    if skip % 8 == 0 and index.frame_bits % 8 == 0:
        return data[skip // 8 : skip // 8 + size]
    bits = int.from_bytes(data, "little") >> skip & (1 << index.frame_bits) - 1
    return bits.to_bytes(size, "little")
