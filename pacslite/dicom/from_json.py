"""DICOM JSON (PS3.18 annex F) to a data set in Explicit VR Little Endian, in segments: bulk values stay where they lie.

All text becomes UTF-8, and Specific Character Set (0008,0005) says so wherever it stands, or at the top when text goes
beyond ASCII. Numbers keep the digits they were written with when the document was read by `load`. File meta information
(group 0002) and group lengths are left out.
"""

from __future__ import annotations

import binascii
import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pacslite.dicom import vr as vrs
from pacslite.errors import BadRequest, DataSetTooLarge, InvalidMetadata, TooLarge

_TAG = re.compile(r"[0-9A-Fa-f]{8}", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,20}", re.ASCII)
_META_GROUP = 0x0002
# Neither commands nor delimiters belong into a data set (PS3.5 7.1, 7.5).
_FORBIDDEN_GROUPS = frozenset({0x0000, 0x0001, 0x0003, 0x0005, 0x0007, 0xFFFE, 0xFFFF})
_MAX_SHORT = 0xFFFE
_MAX_LONG = 0xFFFFFFFE
# Small values take some twenty times the memory that they take in the document.
_MOST_VALUES = 1_500_000
_UTF_8 = b"ISO_IR 192"
_STRINGS = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UR", "UT"})
_BYTES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_NOT_FINITE = {"nan": "nan", "infinity": "inf", "inf": "inf", "-infinity": "-inf", "-inf": "-inf"}

DataSet = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes of a file."""

    path: Path
    offset: int
    length: int


Segment = bytes | Extent
# The bytes of a BulkDataURI, which is the value of a tag; raises InstanceRefused leaves.
Resolve = Callable[[str, int], Sequence[Extent]]


class Digits(str):
    """A JSON number as it was written."""

    __slots__ = ()


def load(text: bytes) -> list[DataSet]:
    """The data sets of a metadata document: an array, or one object; raises BadRequest, TooLarge."""
    if text.count(b",") + text.count(b"{") + text.count(b"[") > _MOST_VALUES:
        raise TooLarge(f"The metadata has more than {_MOST_VALUES} values.")
    try:
        found = json.loads(text, parse_int=Digits, parse_float=Digits, parse_constant=Digits, object_pairs_hook=_unique)
    except RecursionError:
        raise BadRequest("The metadata is nested too deeply.") from None
    except ValueError:  # among them UnicodeDecodeError and JSONDecodeError
        raise BadRequest("The metadata is not JSON in UTF-8, or names a member twice.") from None
    found = [found] if isinstance(found, dict) else found
    if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
        raise BadRequest("The metadata is not an array of data sets (PS3.18 F.2.1).")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> DataSet:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is named twice")
    return members


def has_meta(data_set: DataSet) -> bool:
    """Whether it brings elements of group 0002."""
    return any(tag.startswith("0002") for tag in data_set)


def first_text(data_set: DataSet, tag: str) -> str:
    """The first value of an element as text, trimmed; empty when there is none."""
    element = data_set.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    if not isinstance(values, list) or not values or not isinstance(values[0], str | int | float):
        return ""
    return str(values[0]).strip(" \0")


def element(tag: int, vr: str, value: Sequence[Segment]) -> list[Segment]:
    """One element of even length in Explicit VR Little Endian."""
    length = length_of(value)
    padded = list(value)
    if length % 2:
        padded.append(b" " if vr == "PN" or (vr in _STRINGS and vr != "UI") else b"\0")
        length += 1
    if vr not in vrs.LONG_NAMES and length > _MAX_SHORT:
        vr = "UN"  # too long for its own VR (PS3.5 6.2.2, note 5)
    if vr not in vrs.LONG_NAMES:
        return [struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), length), *padded]
    if length > _MAX_LONG:
        raise DataSetTooLarge(f"the value of ({tag >> 16:04X},{tag & 0xFFFF:04X}) is longer than 4 GiB")
    return [struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, length), *padded]


def length_of(segments: Sequence[Segment]) -> int:
    """Bytes of all segments."""
    return sum(len(segment) if isinstance(segment, bytes) else segment.length for segment in segments)


@dataclass(slots=True)
class Encoder:
    """Writes one data set; `resolve` finds its bulk values."""

    resolve: Resolve
    max_depth: int
    _beyond_ascii: bool = field(default=False, init=False)

    def encode(self, data_set: DataSet, ready: Mapping[int, Sequence[Segment]]) -> list[Segment]:
        """The whole data set; `ready` elements take the place of those of the same tag.

        Raises InvalidMetadata for what cannot be written, DataSetTooLarge, and what `resolve` raises.
        """
        elements = self._elements(data_set, 0, ready)
        if self._beyond_ascii and not elements.get(vrs.SPECIFIC_CHARACTER_SET, [b""])[1:]:
            elements[vrs.SPECIFIC_CHARACTER_SET] = element(vrs.SPECIFIC_CHARACTER_SET, "CS", [_UTF_8])
        return [segment for tag in sorted(elements) for segment in elements[tag]]

    def _elements(self, data_set: DataSet, depth: int, ready: Mapping[int, Sequence[Segment]]) -> dict[int, Sequence[Segment]]:
        if depth > self.max_depth:
            raise DataSetTooLarge(f"sequences are nested deeper than {self.max_depth}")
        found: dict[int, Sequence[Segment]] = {}
        for key, member in data_set.items():
            if not _TAG.fullmatch(key):
                raise InvalidMetadata(f"{key[:64]!r} is not a tag of eight hexadecimal digits")
            tag = int(key, 16)
            if tag >> 16 == _META_GROUP or not tag & 0xFFFF or tag in ready:
                continue
            if tag >> 16 in _FORBIDDEN_GROUPS:
                raise InvalidMetadata(f"an element {_name(tag)} cannot be in a data set")
            if tag in found:
                raise InvalidMetadata(f"{_name(tag)} is there twice")
            found[tag] = self._element(tag, member, depth)
        return {**found, **ready}

    def _element(self, tag: int, member: Any, depth: int) -> list[Segment]:
        vr = member.get("vr") if isinstance(member, dict) else None
        if not isinstance(vr, str) or vr.encode("utf_8", "replace") not in vrs.KNOWN:
            raise InvalidMetadata(f"{_name(tag)} has no vr, or an unknown one")
        given = [key for key in ("Value", "InlineBinary", "BulkDataURI") if key in member]
        if len(given) > 1:
            raise InvalidMetadata(f"{_name(tag)} has more than one of Value, InlineBinary and BulkDataURI (PS3.18 F.2.2)")
        if tag == vrs.SPECIFIC_CHARACTER_SET:
            return element(tag, vr, [_UTF_8] if member.get("Value") else [])
        if not given:
            return element(tag, vr, [])
        content = member[given[0]]
        if given[0] == "BulkDataURI":
            return element(tag, vr, self._bulk(tag, vr, content))
        if given[0] == "InlineBinary":
            return element(tag, vr, [_inline(tag, content)])
        if not isinstance(content, list):
            raise InvalidMetadata(f"the Value of {_name(tag)} is not an array")
        if vr == "SQ":
            return self._sequence(tag, content, depth)
        return element(tag, vr, [self._value(tag, vr, content)])

    def _bulk(self, tag: int, vr: str, uri: Any) -> Sequence[Extent]:
        if not isinstance(uri, str) or vr not in vrs.BULK:
            raise InvalidMetadata(f"{_name(tag)} cannot be bulk data (PS3.18 10.4.3.3.2)")
        return self.resolve(uri, tag)

    def _sequence(self, tag: int, items: list[Any], depth: int) -> list[Segment]:
        content: list[Segment] = []
        for item in items:
            if item is not None and not isinstance(item, dict):
                raise InvalidMetadata(f"an item of {_name(tag)} is not an object")
            elements = self._elements(item or {}, depth + 1, {})
            inner = [segment for key in sorted(elements) for segment in elements[key]]
            content += _wrapped(0xE000, 0xE00D, inner)
        length = length_of(content)
        head = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, length if length <= _MAX_LONG else vrs.UNDEFINED)
        return [head, *content, *([struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)] if length > _MAX_LONG else [])]

    def _value(self, tag: int, vr: str, values: list[Any]) -> bytes:
        if vr in _STRINGS:
            return self._text("\\".join([_string(tag, value) for value in values]))
        if vr == "PN":
            return self._text("\\".join([_person_name(tag, value) for value in values]))
        if vr == "AT":
            return b"".join([_tag(tag, value) for value in values])
        if vr in _NUMBERS:
            return _numbers(tag, vr, values)
        raise InvalidMetadata(f"{_name(tag)} of VR {vr} has a Value instead of InlineBinary or BulkDataURI")

    def _text(self, text: str) -> bytes:
        if text.isascii():
            return text.encode("ascii")
        self._beyond_ascii = True
        try:
            return text.encode("utf_8")
        except UnicodeEncodeError:
            raise InvalidMetadata("a text has half of a surrogate pair") from None


def _wrapped(begin: int, end: int, content: list[Segment]) -> list[Segment]:
    length = length_of(content)
    if length <= _MAX_LONG:
        return [struct.pack("<HHI", 0xFFFE, begin, length), *content]
    return [struct.pack("<HHI", 0xFFFE, begin, vrs.UNDEFINED), *content, struct.pack("<HHI", 0xFFFE, end, 0)]


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _inline(tag: int, text: Any) -> bytes:
    try:
        return binascii.a2b_base64("".join(text.split()).encode("ascii"), strict_mode=True)
    except (AttributeError, ValueError):
        raise InvalidMetadata(f"the InlineBinary of {_name(tag)} is not base64") from None


def _string(tag: int, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise InvalidMetadata(f"a value of {_name(tag)} is neither text nor number")


def _person_name(tag: int, value: Any) -> str:
    if isinstance(value, dict) and all(isinstance(value.get(group, ""), str) for group in _NAME_GROUPS):
        return "=".join([value.get(group, "") for group in _NAME_GROUPS]).rstrip("=")
    return _string(tag, value)


def _tag(tag: int, value: Any) -> bytes:
    if not isinstance(value, str) or not _TAG.fullmatch(value):
        raise InvalidMetadata(f"a value of {_name(tag)} is not a tag of eight hexadecimal digits")
    return struct.pack("<HH", int(value[:4], 16), int(value[4:], 16))


def _numbers(tag: int, vr: str, values: list[Any]) -> bytes:
    try:
        if vr in ("FL", "FD"):
            return struct.pack(f"<{len(values)}{_NUMBERS[vr]}", *[float(_NOT_FINITE.get(v.strip().lower(), v)) for v in values])
        return struct.pack(f"<{len(values)}{_NUMBERS[vr]}", *[_integer(v) for v in values])
    except (AttributeError, ValueError, OverflowError, struct.error):
        raise InvalidMetadata(f"a value of {_name(tag)} is not a number that {vr} can hold") from None


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text.strip()):
        number = float(text)  # 1.0 and 1e3 are whole numbers in JSON too
        if abs(number) > 2**53 or number != int(number):
            raise ValueError(text)
        return int(number)
    return int(text)
