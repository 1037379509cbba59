"""The DICOM file format: preamble, prefix and file meta information (PS3.10 section 7).

Reads the meta information of any file that has some, and writes ours. Knows nothing of the data set behind it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pacslite.errors import NotDicom, TruncatedDataSet

IMPLEMENTATION_CLASS_UID = "2.25.213377594187042541866215926371044853217"
IMPLEMENTATION_VERSION_NAME = "PACSLITE"

PREFIX_END = 132
# Far above any real file meta; private information (0002,0102) is what could make one long.
MAX_META_BYTES = 1024 * 1024

_LONG_VRS = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UR", b"UT", b"UN", b"SV", b"UV"})
_HEAD = struct.Struct("<HH2sH")
_U32 = struct.Struct("<I")

_SOP_CLASS_UID, _SOP_INSTANCE_UID, _TRANSFER_SYNTAX_UID = 0x0002, 0x0003, 0x0010
_IMPLEMENTATION_CLASS_UID, _IMPLEMENTATION_VERSION_NAME, _SOURCE_AET = 0x0012, 0x0013, 0x0016
_WANTED = frozenset({_SOP_CLASS_UID, _SOP_INSTANCE_UID, _TRANSFER_SYNTAX_UID, _SOURCE_AET})


@dataclass(frozen=True, slots=True)
class FileMeta:
    """The file meta information (PS3.10 7.1) as far as it is used, trimmed; empty text where an element is absent.

    The UIDs are what the file says, not checked: the data set is the authority.
    """

    transfer_syntax_uid: str
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    data_set_offset: int = 0
    source_aet: str = ""


def parse_file_meta(head: bytes, whole: bool = False) -> FileMeta | None:
    """The file meta information in the first bytes (`whole`: all bytes) of a file; None when more are needed to tell.

    Walks the elements of group 0002 and does not trust the group length, which real files get wrong.
    """
    if len(head) < PREFIX_END or head[128:132] != b"DICM":
        raise NotDicom("no DICM prefix at byte 128")
    return parse_meta_elements(head, PREFIX_END, whole)


def parse_meta_elements(head: bytes, position: int, whole: bool = False) -> FileMeta | None:
    """The elements of group 0002 that begin at `position`; None when more bytes are needed."""
    found: dict[int, str] = {}
    size = len(head)
    while True:
        if position + 8 > size:
            return _meta(found, position) if whole and position == size else None
        group, element, vr, length = _HEAD.unpack_from(head, position)
        if group != 2:
            return _meta(found, position)
        start = position + 8
        if vr in _LONG_VRS:
            if start + 4 > size:
                return None
            length, start = _U32.unpack_from(head, start)[0], start + 4
        elif not (vr.isalpha() and vr.isupper()):
            if _TRANSFER_SYNTAX_UID not in found:
                raise NotDicom(f"file meta element (0002,{element:04X}) has no value representation")
            return _meta(found, position)  # an implicit data set that begins with a stray group 0002
        position = start + length
        if position > size:
            if length > MAX_META_BYTES:
                raise TruncatedDataSet(f"file meta element (0002,{element:04X}) is longer than a file meta may be")
            return None
        if element in _WANTED and element not in found:  # a file wrapped twice: its outer meta tells of the pixels
            found[element] = head[start:position].decode("ascii", "replace").strip(" \0")


def _meta(found: dict[int, str], data_set_offset: int) -> FileMeta:
    get = found.get
    return FileMeta(
        get(_TRANSFER_SYNTAX_UID, ""),
        get(_SOP_CLASS_UID, ""),
        get(_SOP_INSTANCE_UID, ""),
        data_set_offset,
        get(_SOURCE_AET, ""),
    )


def _element(element: int, vr: bytes, value: str, padding: bytes = b"\0") -> bytes:
    raw = value.encode("ascii")
    raw += padding * (len(raw) & 1)
    return _HEAD.pack(2, element, vr, len(raw)) + raw


_PREAMBLE = bytes(128) + b"DICM" + _HEAD.pack(2, 0, b"UL", 4)
_VERSION = struct.pack("<HH2sHI", 2, 1, b"OB", 0, 2) + b"\x00\x01"
_IMPLEMENTATION = _element(_IMPLEMENTATION_CLASS_UID, b"UI", IMPLEMENTATION_CLASS_UID) + _element(
    _IMPLEMENTATION_VERSION_NAME, b"SH", IMPLEMENTATION_VERSION_NAME, b" "
)


def encode_preamble_and_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_aet: str = "") -> bytes:
    """Preamble, prefix and file meta information to be written before a data set (PS3.10 7.1)."""
    body = b"".join(
        (
            _VERSION,
            _element(_SOP_CLASS_UID, b"UI", sop_class_uid),
            _element(_SOP_INSTANCE_UID, b"UI", sop_instance_uid),
            _element(_TRANSFER_SYNTAX_UID, b"UI", transfer_syntax_uid),
            _IMPLEMENTATION,
            _element(_SOURCE_AET, b"AE", source_aet, b" ") if source_aet else b"",
        )
    )
    return _PREAMBLE + _U32.pack(len(body)) + body
