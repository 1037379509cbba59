"""Bodies of STOW-RS with metadata and bulk data apart, and small media to put in them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.data_sets import BOUNDARY, new_uid

JSON_TYPE = f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}'
XML_TYPE = f'multipart/related; type="application/dicom+xml"; boundary={BOUNDARY}'
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

Metadata = dict[str, Any]


@dataclass(frozen=True)
class Bulk:
    """One part of bulk data."""

    location: str
    content: bytes
    media_type: str = "application/octet-stream"
    more: str = ""


def part(content: bytes, *headers: str) -> bytes:
    """One part of a body."""
    return f"--{BOUNDARY}\r\n".encode() + "".join(f"{h}\r\n" for h in headers if h).encode() + b"\r\n" + content + b"\r\n"


def json_body(data_sets: Sequence[Metadata] | bytes, bulk: Iterable[Bulk] = ()) -> bytes:
    """Metadata as one JSON part, then the bulk data."""
    document = data_sets if isinstance(data_sets, bytes) else json.dumps(data_sets).encode()
    return part(document, "Content-Type: application/dicom+json") + _bulk(bulk)


def xml_body(documents: Iterable[bytes], bulk: Iterable[Bulk] = ()) -> bytes:
    """Each data set as an XML part, then the bulk data."""
    return b"".join(part(document, "Content-Type: application/dicom+xml") for document in documents) + _bulk(bulk)


def _bulk(bulk: Iterable[Bulk]) -> bytes:
    parts = [part(b.content, f"Content-Type: {b.media_type}", f"Content-Location: {b.location}", b.more) for b in bulk]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def metadata(sop_class: str = SECONDARY_CAPTURE, uri: str = "", **more: Any) -> Metadata:
    """The least metadata of an instance; `uri` is that of its pixels, `more` are elements by tag as `t00100010`."""
    found: Metadata = {
        "00080016": {"vr": "UI", "Value": [sop_class]},
        "00080018": {"vr": "UI", "Value": [new_uid()]},
        "0020000D": {"vr": "UI", "Value": [new_uid()]},
        "0020000E": {"vr": "UI", "Value": [new_uid()]},
        "00100020": {"vr": "LO", "Value": ["T-1"]},
    }
    if uri:
        found["7FE00010"] = {"vr": "OB", "BulkDataURI": uri}
    return {**found, **{tag.removeprefix("t"): element for tag, element in more.items()}}


def uid_of(data_set: Metadata, tag: str = "00080018") -> str:
    """A UID of the metadata."""
    return str(data_set[tag]["Value"][0])


def path_of(data_set: Metadata) -> str:
    """The instance's resource."""
    study, series = uid_of(data_set, "0020000D"), uid_of(data_set, "0020000E")
    return f"/studies/{study}/series/{series}/instances/{uid_of(data_set)}"


def box(kind: bytes, content: bytes) -> bytes:
    """A box of an MP4 file."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def mp4(frames: int = 25, columns: int = 64, rows: int = 48, level: int = 41, codec: bytes = b"avc1", filling: int = 100) -> bytes:
    """An MP4 file as far as its tables go; its pictures are none."""
    profile = box(b"avcC", bytes([1, 100, 0, level])) if codec == b"avc1" else box(b"hvcC", bytes([1, 1, *bytes(11)]))
    entry = box(codec, bytes(24) + struct.pack(">HH", columns, rows) + bytes(50) + profile)
    table = box(b"stbl", box(b"stsd", bytes(4) + struct.pack(">I", 1) + entry) + box(b"stsz", bytes(4) + struct.pack(">II", 4, frames)))
    header = box(b"mdhd", bytes(12) + struct.pack(">II", 1000, 40 * frames) + bytes(4))
    sound = box(b"trak", box(b"mdia", box(b"minf", b"")))
    track = box(b"trak", box(b"mdia", header + box(b"minf", table)))
    return box(b"ftyp", b"isom\0\0\2\0") + box(b"mdat", b"\xab" * filling) + box(b"moov", sound + track)


def mpeg2(frames: int = 3, columns: int = 720, rows: int = 576) -> bytes:
    """An elementary stream of MPEG-2 as far as its headers go."""
    sequence = b"\0\0\1\xb3" + bytes([columns >> 4, (columns & 15) << 4 | rows >> 8, rows & 255, 0x13]) + b"\xff\xff\xe0\x20"
    return sequence + b"\0\0\1\0\x11\x22\x33\x44" * frames + b"\0\0\1\xb7"
