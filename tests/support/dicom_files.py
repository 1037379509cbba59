"""Part 10 files put together byte by byte, for what a well-behaved writer would refuse to write; and the real files at hand."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path

from pydicom.data import get_testdata_files

from pacslite.dicom.part10 import FileMeta, encode_preamble_and_meta, parse_file_meta

EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
UNDEFINED = 0xFFFFFFFF


def element(tag: int, vr: str, value: bytes = b"", syntax: str = EXPLICIT_LE, length: int | None = None) -> bytes:
    """One element; `length` to tell another one than the value has. Even lengths are the caller's business."""
    order = ">" if syntax == EXPLICIT_BE else "<"
    group, number, size = tag >> 16, tag & 0xFFFF, len(value) if length is None else length
    if syntax == IMPLICIT_LE:
        return struct.pack("<HHI", group, number, size) + value
    if vr in _LONG:
        return struct.pack(order + "HH2sHI", group, number, vr.encode(), 0, size) + value
    return struct.pack(order + "HH2sH", group, number, vr.encode(), size) + value


def item(value: bytes, defined: bool = True) -> bytes:
    """An item of a sequence, or a fragment."""
    if defined:
        return struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value
    return struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED) + value + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)


SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def part10(elements: Iterable[bytes], syntax: str = EXPLICIT_LE, identified: bool = True) -> bytes:
    """A file of these elements, behind the four UIDs that make it an instance unless told otherwise."""
    encoding = syntax if syntax in (IMPLICIT_LE, EXPLICIT_BE) else EXPLICIT_LE
    uids = ((0x00080016, b"1.2.840.10008.5.1.4.1.1.7\0"), (0x00080018, b"1.2.3.40"))
    places = ((0x0020000D, b"1.2.3.10"), (0x0020000E, b"1.2.3.20"))
    body = [raw for raw in elements if raw]
    if identified:
        body += [element(tag, "UI", uid, encoding) for tag, uid in (*uids, *places)]
        body.sort(key=lambda raw: struct.unpack(">HH" if encoding == EXPLICIT_BE else "<HH", raw[:4]))
    return encode_preamble_and_meta("1.2.840.10008.5.1.4.1.1.7", "1.2.3.40", syntax) + b"".join(body)


def meta_of(file: bytes) -> FileMeta:
    """The file meta information of a whole file that has some."""
    meta = parse_file_meta(file, whole=True)
    assert meta is not None
    return meta


def corpus_files(corpus: Path, valid: bool | None = True) -> list[Path]:
    """The real files that must be accepted (`valid`), that need not be (False), or all (None)."""
    listed = json.loads((corpus / "index.json").read_text())
    return [corpus / entry["file"] for entry in listed if valid is None or entry["valid"] is valid]


def library_files() -> list[Path]:
    """The DICOM files that pydicom brings, good and bad."""
    return sorted({Path(str(name)) for name in get_testdata_files("**/*.dcm")})
