"""The tokens of a data set (PS3.5 7): element heads in every native encoding, and the elements that were read.

`Walk` goes over a whole data set for those who copy or compare it; `json_model` has its own, faster loop for ingest and
comes here for every head that is not plain.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from pacslite.dicom import vr as vrs
from pacslite.dicom.source import Source
from pacslite.dicom.vr import UNDEFINED, VrContext
from pacslite.errors import DataSetTooLarge, NotDicom, TruncatedDataSet

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITER_GROUP = 0xFFFE
_ITEM_BYTES = b"\xfe\xff\x00\xe0"


class Encoding(NamedTuple):
    """How elements are written: VRs explicit or not, byte order (PS3.5 A)."""

    explicit: bool
    little: bool


IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE = Encoding(False, True), Encoding(True, True), Encoding(True, False)


class Element(NamedTuple):
    """An element as it was read; `raw` is None when its value was left in the file (bulk data, sequences).

    `texts` are its values as text, decoded and trimmed; `fragment` is its member in the DICOM JSON object; `items` are
    kept for wanted sequences only.
    """

    tag: int
    vr: str
    raw: bytes | None
    texts: tuple[str, ...]
    fragment: str
    offset: int = 0
    length: int = 0
    items: tuple[Header, ...] = ()


class Header:
    """The elements of a data set or item by tag."""

    __slots__ = ("elements",)

    def __init__(self, elements: dict[int, Element]) -> None:
        self.elements = elements

    def get(self, tag: int) -> Element | None:
        """The element, None when absent."""
        return self.elements.get(tag)

    def texts(self, tag: int) -> tuple[str, ...]:
        """The values as text; empty when absent or empty."""
        element = self.elements.get(tag)
        return element.texts if element else ()

    def text(self, tag: int) -> str:
        """The first value as text, trimmed; empty when there is none."""
        element = self.elements.get(tag)
        return element.texts[0] if element and element.texts else ""

    def number(self, tag: int, default: int = 0) -> int:
        """The first value as a whole number; the default when it is absent or none."""
        text = self.text(tag).strip()
        return int(text) if text.lstrip("+-").isdigit() and text.isascii() and len(text) < 20 else default

    def items(self, tag: int) -> tuple[Header, ...]:
        """The items of a wanted sequence."""
        element = self.elements.get(tag)
        return element.items if element else ()


@dataclass(slots=True)
class Head:
    """Where an element begins, what it is and where its value lies; `length` may be UNDEFINED."""

    tag: int
    vr: str
    offset: int
    start: int
    length: int
    implicit: bool = False


_LE, _BE = struct.Struct("<HHI"), struct.Struct(">HHI")
_LE2, _BE2 = struct.Struct("<H"), struct.Struct(">H")
_LE4, _BE4 = struct.Struct("<I"), struct.Struct(">I")


def name_of(tag: int) -> str:
    """A tag for people: (0010,0020)."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def read_head(source: Source, position: int, end: int, encoding: Encoding, context: VrContext) -> Head | None:
    """The head at `position`; None where the data set ends, zero padding included. Raises TruncatedDataSet, NotDicom."""
    source.load(position, 16)
    buffer, at = source.buffer, position - source.base
    room = min(len(buffer) - at, end - position)
    if room < 8:
        if buffer.count(0, at, at + room) == room:
            return None
        raise TruncatedDataSet(f"ends inside the head of an element at byte {position}")
    group, element, length = (_LE if encoding.little else _BE).unpack_from(buffer, at)
    tag = group << 16 | element
    if group == _DELIMITER_GROUP:
        return Head(tag, "", position, position + 8, length)
    if tag == 0 and length == 0:
        return None
    if encoding.explicit:
        return _explicit_head(buffer, at, tag, position, room, end, encoding.little, context)
    return Head(tag, context.vr_of(tag, length), position, position + 8, length)


def _explicit_head(buffer: bytes, at: int, tag: int, position: int, room: int, end: int, little: bool, context: VrContext) -> Head:
    vr = buffer[at + 4 : at + 6]
    long = vr in vrs.LONG
    short_length = (_LE2 if little else _BE2).unpack_from(buffer, at + 6)[0]
    if not long and vr not in vrs.SHORT:
        if not (vr.isalpha() and vr.isupper()) and vr != b"??" and vr.strip(b" \0-") != b"":
            return _stray_implicit(buffer, at, tag, position, end, little, context)
        # VRs of the future have the long form (PS3.5 7.1.2); private inventions the short one, then with a length there.
        long = short_length == 0 and room >= 12 and (_LE4 if little else _BE4).unpack_from(buffer, at + 8)[0] <= end - position - 12
        vr = b"UN"
    if not long:
        return Head(tag, vr.decode("ascii"), position, position + 8, short_length)
    if room < 12:
        raise TruncatedDataSet(f"ends inside the head of {name_of(tag)}")
    length = (_LE4 if little else _BE4).unpack_from(buffer, at + 8)[0]
    return Head(tag, vr.decode("ascii"), position, position + 12, length)


def _stray_implicit(buffer: bytes, at: int, tag: int, position: int, end: int, little: bool, context: VrContext) -> Head:
    """An element without VR amid explicit ones, as some writers leave in copied private sequences."""
    length = (_LE4 if little else _BE4).unpack_from(buffer, at + 4)[0]
    if length != UNDEFINED and length > end - position - 8:
        raise NotDicom(f"{name_of(tag)} at byte {position} has no value representation")
    return Head(tag, context.vr_of(tag, length), position, position + 8, length, implicit=True)


def check_end(head: Head, end: int, source: Source) -> int:
    """Where a value of known length ends; raises TruncatedDataSet naming the tag when that is beyond its enclosure."""
    after = head.start + head.length
    if after > end:
        where = "the file" if after > source.size else "its item"
        raise TruncatedDataSet(f"{name_of(head.tag)} has {head.length} bytes, more than {where} has left")
    return after


def looks_explicit(head: bytes) -> bool:
    """Whether an element's first 8 bytes carry a VR."""
    return head[4:6] in vrs.KNOWN


def is_sequence(head: Head) -> bool:
    """Whether the value is made of items; of undefined length only pixels are not (PS3.5 6.2.2, 7.5, A.4)."""
    return head.vr == "SQ" or (head.length == UNDEFINED and head.vr not in ("OB", "OW"))


def item_encoding(source: Source, head: Head, encoding: Encoding) -> Encoding:
    """The encoding of the items of a sequence: UN ones are implicit little endian (PS3.5 6.2.2, note 2)."""
    if not encoding.explicit or not (head.vr == "UN" or head.implicit):
        return encoding
    first = source.read(head.start, 16)
    if looks_explicit(first[8:16]):
        return EXPLICIT_LE
    return IMPLICIT_LE


class Kind(Enum):
    """What a token is."""

    VALUE = 1
    FRAGMENTS = 2
    SEQUENCE = 3
    ITEM = 4
    ITEM_END = 5
    SEQUENCE_END = 6


class Token(NamedTuple):
    """One step of the walk over a data set; `after` is where the value ends, `encoding` how it is written."""

    kind: Kind
    head: Head
    after: int
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Walk:
    """A walk over the tokens of one data set; with `settle`, UN whose VR is a sequence by the dictionary is entered."""

    source: Source
    settle: bool = False

    def tokens(self, position: int, encoding: Encoding, pixel_representation: int | None = None) -> Iterator[Token]:
        """Every element, item and delimiter in order; delimiters are told for defined lengths too. Values are not read."""
        self.source.left = 0
        yield from self._elements(position, self.source.size, encoding, VrContext(None, pixel_representation), 0, False)

    def _elements(
        self, position: int, end: int, encoding: Encoding, context: VrContext, depth: int, delimited: bool
    ) -> Generator[Token, None, int]:
        source = self.source
        while position < end:
            head = read_head(source, position, end, encoding, context)
            if head is None:
                break
            if head.tag == ITEM_END and delimited:
                return head.start
            check_not_delimiter(head)
            if is_sequence(head) or (self.settle and settled_sequence(source, head, context)):
                position = yield from self._sequence(head, end, encoding, context, depth)
            elif head.length == UNDEFINED:
                position = skip_fragments(source, head, end, encoding.little)
                source.left += position - head.start
                yield Token(Kind.FRAGMENTS, head, position, encoding)
            else:
                position = check_end(head, end, source)
                source.left += head.length
                if is_context(head.tag) and head.length <= 128:
                    context.note(head.tag, source.read(head.start, head.length), encoding.little)
                yield Token(Kind.VALUE, head, position, encoding)
        if delimited:
            raise TruncatedDataSet("ends inside an item")
        return end

    def _sequence(self, head: Head, end: int, encoding: Encoding, context: VrContext, depth: int) -> Generator[Token, None, int]:
        check_depth(depth, self.source)
        inner = item_encoding(self.source, head, encoding)
        position, after = head.start, end if head.length == UNDEFINED else check_end(head, end, self.source)
        yield Token(Kind.SEQUENCE, head, position, inner)
        while True:
            item = read_item(self.source, head, position, after, inner)
            if item is None:
                break
            yield Token(Kind.ITEM, item, item.start, inner)
            bound = after if item.length == UNDEFINED else item.start + item.length
            position = yield from self._elements(item.start, bound, inner, VrContext(context), depth + 1, item.length == UNDEFINED)
            yield Token(Kind.ITEM_END, item, position, inner)
        position = sequence_end(self.source, head, position, after)
        yield Token(Kind.SEQUENCE_END, head, position, inner)
        return position


def is_context(tag: int) -> bool:
    """Whether an element tells of others that do not carry their VR."""
    return tag == vrs.PIXEL_REPRESENTATION or bool(tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF)


def check_not_delimiter(head: Head) -> None:
    """Raise NotDicom for an item tag where an element is due."""
    if head.tag >> 16 == _DELIMITER_GROUP:
        raise NotDicom(f"{name_of(head.tag)} at byte {head.offset} stands where an element is due")


def check_depth(depth: int, source: Source) -> None:
    """Raise DataSetTooLarge when sequences nest too deep."""
    if depth >= source.limits.max_depth:
        raise DataSetTooLarge(f"sequences nest deeper than {source.limits.max_depth}")


def settled_sequence(source: Source, head: Head, context: VrContext) -> bool:
    """Whether a UN element of known length is a sequence by the dictionary and by its first bytes."""
    if head.vr != "UN" or context.vr_of(head.tag, head.length) != "SQ":
        return False
    return head.length == 0 or (head.length >= 8 and source.read(head.start, 4) == _ITEM_BYTES)


def read_item(source: Source, sequence: Head, position: int, end: int, encoding: Encoding) -> Head | None:
    """The head of the item at `position`; None where the sequence ends. Raises NotDicom, TruncatedDataSet."""
    if position >= end and sequence.length != UNDEFINED:
        return None
    source.load(position, 8)
    at = position - source.base
    if len(source.buffer) - at < 8 or position + 8 > end:
        if sequence.length != UNDEFINED and end <= source.size:
            return None  # less than an item head: padding
        raise TruncatedDataSet(f"ends inside {name_of(sequence.tag)}")
    group, element, length = (_LE if encoding.little else _BE).unpack_from(source.buffer, at)
    tag = group << 16 | element
    if tag == SEQUENCE_END:
        return None
    if tag != ITEM:
        raise NotDicom(f"{name_of(tag)} at byte {position} stands in {name_of(sequence.tag)} where an item is due")
    item = Head(tag, "", position, position + 8, length)
    if length != UNDEFINED:
        check_end(item, end, source)
    return item


def sequence_end(source: Source, sequence: Head, position: int, end: int) -> int:
    """Where a sequence whose last item ends at `position` is over, its delimiter included."""
    return position + 8 if sequence.length == UNDEFINED else end


def fragments(source: Source, head: Head, end: int, little: bool = True) -> Generator[Head, None, int]:
    """The items of an encapsulated value, the offset table first; returns where its delimiter ends (PS3.5 A.4)."""
    position = head.start
    layout = _LE if little else _BE
    while True:
        raw = source.read(position, 8)
        if len(raw) < 8 or position + 8 > end:
            raise TruncatedDataSet(f"{name_of(head.tag)} ends without its delimiter")
        group, element, length = layout.unpack(raw)
        tag = group << 16 | element
        if tag == SEQUENCE_END:
            return position + 8
        if tag != ITEM:
            raise NotDicom(f"{name_of(head.tag)} is not a sequence of fragments")
        item = Head(head.tag, "", position, position + 8, length)
        position = check_end(item, end, source)
        yield item


def skip_fragments(source: Source, head: Head, end: int, little: bool = True) -> int:
    """Where an encapsulated value ends, its delimiter included."""
    items = fragments(source, head, end, little)
    while True:
        try:
            next(items)
        except StopIteration as stop:
            return int(stop.value)
