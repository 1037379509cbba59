"""DICOMDIR: the directory of a file set (PS3.10 8, PS3.3 annex F), made from DICOM JSON documents.

Records go depth first, in the order the files are given; each knows where its next sibling and its first child begin.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pacslite.dicom.document import Document, items_of, values_of
from pacslite.dicom.part10 import encode_preamble_and_meta
from pacslite.dicom.vr import LONG_NAMES

_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
_EXPLICIT_LE = "1.2.840.10008.1.2.1"
_SHORT_HEAD, _LONG_HEAD, _ITEM_HEAD = struct.Struct("<HH2sH"), struct.Struct("<HH2sHI"), struct.Struct("<HHI")
_U32 = struct.Struct("<I")
_ITEM = (0xFFFE, 0xE000)
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_TEXTS = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"))
_PREFIX = "1.2.840.10008.5.1.4.1.1."
# Where a record's two offsets lie, from the beginning of its item: they are its first and third element.
_NEXT_AT, _LOWER_AT = 16, 38

# PS3.3 table F.4-1. What is not listed is an image, or something that no record type exists for and is listed as one.
_TYPES = {
    "4.2": "SPECTROSCOPY",
    "66": "RAW DATA",
    "66.1": "REGISTRATION",
    "66.2": "FIDUCIAL",
    "66.3": "REGISTRATION",
    "66.5": "SURFACE",
    "66.6": "TRACT",
    "67": "VALUE MAP",
    "68.1": "SURFACE SCAN",
    "68.2": "SURFACE SCAN",
    "77.1.5.3": "STEREOMETRIC",
    "78.6": "SR DOCUMENT",
    "79.1": "SR DOCUMENT",
    "80.1": "MEASUREMENT",
    "88.59": "KEY OBJECT DOC",
    "90.1": "ASSESSMENT",
    "131": "PRESENTATION",
    "481.2": "RT DOSE",
    "481.3": "RT STRUCTURE SET",
    "481.4": "RT TREAT RECORD",
    "481.5": "RT PLAN",
    "481.6": "RT TREAT RECORD",
    "481.7": "RT TREAT RECORD",
    "481.8": "RT PLAN",
    "481.9": "RT TREAT RECORD",
}
_GROUPS = {
    "9": "WAVEFORM",
    "11": "PRESENTATION",
    "78": "MEASUREMENT",
    "88": "SR DOCUMENT",
    "104": "ENCAP DOC",
    "481": "RADIOTHERAPY",
}
_OTHERS = {"1.2.840.10008.5.1.4.34.7": "PLAN", "1.2.840.10008.5.1.4.34.10": "PLAN"}

# Keys of the records (PS3.3 F.5): tag, VR and type. Of type 1 a value is made up where the instance has none.
_Key = tuple[int, str, str]
_NUMBER: _Key = (0x00200013, "IS", "1")
_DATE: _Key = (0x00080023, "DA", "1")
_TIME: _Key = (0x00080033, "TM", "1")
_CONCEPT: _Key = (0x0040A043, "SQ", "1")
_CONTENT: _Key = (0x0040A730, "SQ", "modifiers")
_NAMED: tuple[_Key, ...] = (_NUMBER, (0x00700080, "CS", "1"), (0x00700081, "LO", "2"), (0x00700084, "PN", "2"))
_PATIENT: tuple[_Key, ...] = ((0x00100010, "PN", "2"), (0x00100020, "LO", "1"))
_STUDY: tuple[_Key, ...] = (
    (0x00080020, "DA", "1"),
    (0x00080030, "TM", "1"),
    (0x00080050, "SH", "2"),
    (0x00081030, "LO", "2"),
    (0x0020000D, "UI", "1"),
    (0x00200010, "SH", "1"),
)
_SERIES: tuple[_Key, ...] = ((0x00080060, "CS", "1"), (0x0020000E, "UI", "1"), (0x00200011, "IS", "1"))
_KEYS: dict[str, tuple[_Key, ...]] = {
    "IMAGE": (_NUMBER,),
    "WAVEFORM": (_DATE, _TIME, _NUMBER),
    "RAW DATA": (_DATE, _TIME, _NUMBER),
    "PRESENTATION": ((0x00081115, "SQ", "3"), *_NAMED, (0x00700082, "DA", "1"), (0x00700083, "TM", "1"), (0x00700402, "SQ", "3")),
    "SR DOCUMENT": (
        _DATE,
        _TIME,
        _NUMBER,
        (0x0040A030, "DT", "3"),
        _CONCEPT,
        (0x0040A491, "CS", "1"),
        (0x0040A493, "CS", "1"),
        _CONTENT,
    ),
    "KEY OBJECT DOC": (_DATE, _TIME, _NUMBER, _CONCEPT, _CONTENT),
    "SPECTROSCOPY": (
        (0x00080008, "CS", "1"),
        _DATE,
        _TIME,
        _NUMBER,
        (0x00280008, "IS", "1"),
        (0x00280010, "US", "1"),
        (0x00280011, "US", "1"),
        (0x00289001, "UL", "1"),
        (0x00289002, "UL", "1"),
    ),
    **dict.fromkeys(("REGISTRATION", "FIDUCIAL", "VALUE MAP", "MEASUREMENT", "SURFACE", "TRACT"), (_DATE, _TIME, *_NAMED)),
    "ENCAP DOC": (
        (0x00080023, "DA", "2"),
        (0x00080033, "TM", "2"),
        _NUMBER,
        (0x0040A043, "SQ", "2"),
        (0x0040E001, "ST", "3"),
        (0x00420010, "ST", "2"),
        (0x00420012, "LO", "1"),
    ),
    "RT DOSE": (_NUMBER, (0x3004000A, "CS", "1")),
    "RT STRUCTURE SET": (_NUMBER, (0x30060002, "SH", "1"), (0x30060008, "DA", "2"), (0x30060009, "TM", "2")),
    "RT PLAN": (_NUMBER, (0x300A0002, "SH", "1"), (0x300A0006, "DA", "2"), (0x300A0007, "TM", "2")),
    "RT TREAT RECORD": (_NUMBER, (0x30080250, "DA", "2"), (0x30080251, "TM", "2")),
    "SURFACE SCAN": (_DATE, _TIME),
    "STEREOMETRIC": (),
    "PLAN": (),
    "ASSESSMENT": ((0x00080012, "DA", "1"), (0x00080013, "TM", "2"), _NUMBER),
    "RADIOTHERAPY": (_NUMBER, (0x00700081, "LO", "2"), (0x00700084, "PN", "2"), (0x30100033, "SH", "3"), (0x30100034, "LO", "3")),
}
_MADE_UP = {"DA": "19000101", "TM": "000000", "CS": "UNKNOWN", "SH": "UNKNOWN", "LO": "UNKNOWN", "UI": "", "SQ": ""}


@dataclass(frozen=True, slots=True)
class DirectoryFile:
    """One file of the set: its File ID (PS3.10 8.2), what it holds, and its attributes as DICOM JSON."""

    file_id: tuple[str, ...]
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    document: Document


def record_type(sop_class_uid: str) -> str:
    """The type of the directory record of an instance."""
    if not sop_class_uid.startswith(_PREFIX):
        return _OTHERS.get(sop_class_uid, "IMAGE")
    rest = sop_class_uid[len(_PREFIX) :]
    return _TYPES.get(rest) or _GROUPS.get(rest.partition(".")[0], "IMAGE")


def encode(files: Iterable[DirectoryFile], uid: str) -> bytes:
    """The DICOMDIR of a file set whose files come patient by patient, study by study, series by series; `uid` is its own."""
    out = bytearray(encode_preamble_and_meta(_MEDIA_STORAGE_DIRECTORY, uid, _EXPLICIT_LE))
    out += _element(0x00041130, "CS", b"")
    first_at = len(out) + 8
    out += _element(0x00041200, "UL", bytes(4))
    last_at = len(out) + 8
    out += _element(0x00041202, "UL", bytes(4)) + _element(0x00041212, "US", bytes(2))
    length_at = len(out) + 8
    out += _LONG_HEAD.pack(0x0004, 0x1220, b"SQ", 0, 0)
    begin = len(out)
    # Identity and place of the record that is open on each level.
    opened: list[tuple[str, int]] = []
    for number, file in enumerate(files, 1):
        for level, (identity, body) in enumerate(_records(file, number)):
            if level < len(opened) and opened[level][0] == identity:
                continue
            place = len(out)
            out += body
            if level < len(opened):
                _U32.pack_into(out, opened[level][1] + _NEXT_AT, place)
            elif level:
                _U32.pack_into(out, opened[level - 1][1] + _LOWER_AT, place)
            opened[level:] = [(identity, place)]
    if opened:
        _U32.pack_into(out, first_at, begin)
        _U32.pack_into(out, last_at, opened[0][1])
    _U32.pack_into(out, length_at, len(out) - begin)
    return bytes(out)


def _records(file: DirectoryFile, number: int) -> list[tuple[str, bytes]]:
    """Identity and bytes of the records from the patient down to the file."""
    document, kind = file.document, record_type(file.sop_class_uid)
    leaf = (
        _element(0x00041500, "CS", "\\".join(file.file_id).encode("ascii"))
        + _element(0x00041510, "UI", file.sop_class_uid.encode("ascii"))
        + _element(0x00041511, "UI", file.sop_instance_uid.encode("ascii"))
        + _element(0x00041512, "UI", file.transfer_syntax_uid.encode("ascii"))
    )
    patient = "|".join(_texts(document, 0x00100020))
    return [
        (patient, _record("PATIENT", _PATIENT, document, 1)),
        ("|".join(_texts(document, 0x0020000D)), _record("STUDY", _STUDY, document, 1)),
        ("|".join(_texts(document, 0x0020000E)), _record("SERIES", _SERIES, document, 1)),
        (file.file_id[-1] + str(number), _record(kind, _KEYS[kind], document, number, leaf)),
    ]


def _record(kind: str, keys: tuple[_Key, ...], document: Document, number: int, reference: bytes = b"") -> bytes:
    body = b"".join(_key(key, document, number) for key in sorted(keys))
    charset = b"" if body.isascii() else _element(0x00080005, "CS", b"ISO_IR 192")
    head = _element(0x00041400, "UL", bytes(4)) + _element(0x00041410, "US", b"\xff\xff") + _element(0x00041420, "UL", bytes(4))
    whole = head + _element(0x00041430, "CS", kind.encode("ascii")) + reference + charset + body
    return _ITEM_HEAD.pack(*_ITEM, len(whole)) + whole


def _texts(document: Document, tag: int) -> tuple[str, ...]:
    return values_of(document.get(f"{tag:08X}"))


def _key(key: _Key, document: Document, number: int) -> bytes:
    tag, vr, kind = key
    if vr == "SQ":
        found = items_of(document.get(f"{tag:08X}"))
        if kind == "modifiers":  # the only content that a record repeats (PS3.3 F.5.23)
            found = tuple(item for item in found if _texts(item, 0x0040A010) == ("HAS CONCEPT MOD",))
        return _sequence(tag, found) if found or kind in "12" else b""
    value = _value(vr, _texts(document, tag))
    if not value and kind == "1":
        value = _value(vr, (str(number) if vr not in _MADE_UP else _MADE_UP[vr],))
    return _element(tag, vr, value) if value or kind != "3" else b""


def _sequence(tag: int, found: Iterable[Mapping[str, Any]]) -> bytes:
    items = (b"".join(_any(key, element) for key, element in sorted(item.items())) for item in found)
    return _element(tag, "SQ", b"".join(_ITEM_HEAD.pack(*_ITEM, len(body)) + body for body in items))


def _any(key: str, element: dict[str, Any]) -> bytes:
    """An element of a nested item; nothing for values that metadata only names, and binary ones."""
    vr, tag = str(element.get("vr")), int(key, 16)
    if vr == "SQ":
        return _sequence(tag, items_of(element))
    return _element(tag, vr, _value(vr, values_of(element))) if vr in _TEXTS or vr in _NUMBERS else b""


def _value(vr: str, texts: tuple[str, ...]) -> bytes:
    if vr not in _NUMBERS:
        return "\\".join(texts).encode("utf-8", "replace")
    numbers = [float(text) if vr in ("FL", "FD") else int(text) for text in texts]
    try:
        return struct.pack(f"<{len(numbers)}{_NUMBERS[vr]}", *numbers)
    except (struct.error, OverflowError):
        return b""


def _element(tag: int, vr: str, value: bytes) -> bytes:
    if len(value) & 1:
        value += b"\0" if vr == "UI" else b" "
    group, element = tag >> 16, tag & 0xFFFF
    if vr in LONG_NAMES:
        return _LONG_HEAD.pack(group, element, vr.encode("ascii"), 0, len(value)) + value
    value = value[:0xFFFE]
    return _SHORT_HEAD.pack(group, element, vr.encode("ascii"), len(value)) + value
