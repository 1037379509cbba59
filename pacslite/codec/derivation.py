"""What changes in a data set along with the transfer syntax of its pixels: Image Pixel Module and marks of lossy compression."""

from __future__ import annotations

import hashlib
import struct
import uuid

from pacslite.codec.codestreams import is_near_lossless, is_reversible_jpeg2000
from pacslite.codec.pixels import PixelDescription
from pacslite.dicom.instance import Instance
from pacslite.dicom.syntaxes import (
    ALL_JPEG_2000,
    ALL_JPEG_LS,
    DCT,
    HTJ2K,
    IRREVERSIBLE,
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LS_NEAR,
    REVERSIBLE,
)

Changes = dict[int, tuple[str, bytes] | None]
"""New values by tag with their VR, little endian; None for elements that go."""

_IMAGE_TYPE, _SOP_INSTANCE_UID = 0x00080008, 0x00080018
_SAMPLES, _PHOTOMETRIC, _PLANAR, _BITS_ALLOCATED = 0x00280002, 0x00280004, 0x00280006, 0x00280100
_LOSSY, _RATIO, _METHOD = 0x00282110, 0x00282112, 0x00282114
# Defined terms of PS3.3 C.7.6.1.1.5.1.
_METHODS = {
    JPEG_BASELINE: "ISO_10918_1",
    JPEG_EXTENDED: "ISO_10918_1",
    JPEG_LS_NEAR: "ISO_14495_1",
    JPEG_2000: "ISO_15444_1",
    HTJ2K: "ISO_15444_15",
}


def changes_of(
    instance: Instance, description: PixelDescription, photometric: str, target_uid: str, first_source: bytes, first_target_bytes: int
) -> Changes:
    """What has to change; the first frame as it was tells of a loss, its sizes tell the ratio of compression."""
    changes: Changes = {}
    if photometric != description.photometric_interpretation:
        changes[_PHOTOMETRIC] = _text("CS", photometric)
    if description.samples_per_pixel > 1:
        changes[_PLANAR] = "US", b"\0\0"
    if description.bits_allocated == 12:
        changes[_BITS_ALLOCATED] = "US", b"\x10\0"
    source_uid = instance.meta.transfer_syntax_uid
    if target_uid in IRREVERSIBLE:
        changes |= _lossy_marks(instance, description, target_uid, first_target_bytes)
    elif has_lost(source_uid, first_source) and instance.header.text(_LOSSY) != "01":
        changes[_LOSSY] = _text("CS", "01")
        if not instance.header.text(_METHOD):
            changes[_METHOD] = _text("CS", _METHODS[source_uid])
    return changes


def has_lost(transfer_syntax_uid: str, frame: bytes) -> bool:
    """Whether compression took something from the pixels, as far as transfer syntax and code stream tell."""
    if transfer_syntax_uid in DCT:
        return True
    if transfer_syntax_uid not in IRREVERSIBLE or transfer_syntax_uid in REVERSIBLE:
        return False
    if transfer_syntax_uid in ALL_JPEG_LS:
        return is_near_lossless(frame)
    return not is_reversible_jpeg2000(frame) if transfer_syntax_uid in ALL_JPEG_2000 | {HTJ2K} else True


def _lossy_marks(instance: Instance, description: PixelDescription, target_uid: str, first_target_bytes: int) -> Changes:
    header = instance.header
    native = description.rows * description.columns * description.samples_per_pixel * description.bits_allocated / 8
    ratios = [*header.texts(_RATIO), f"{native / max(1, first_target_bytes):.2f}"]
    methods = [*header.texts(_METHOD), _METHODS[target_uid]]
    kinds = ["DERIVED", *(header.texts(_IMAGE_TYPE)[1:] or ("PRIMARY",))]
    return {
        _IMAGE_TYPE: _text("CS", "\\".join(kinds)),
        _LOSSY: _text("CS", "01"),
        _RATIO: _text("DS", "\\".join(ratios)),
        _METHOD: _text("CS", "\\".join(methods)),
    }


def _text(vr: str, text: str) -> tuple[str, bytes]:
    raw = text.encode("ascii", "replace")
    return vr, raw + (b"\0" if vr == "UI" else b" ") * (len(raw) & 1)


def new_uid(uid: str) -> Changes:
    """The SOP Instance UID of the result."""
    return {_SOP_INSTANCE_UID: _text("UI", uid)}


def derived_uid(sop_instance_uid: str, digest: str, target_uid: str) -> str:
    """The same UID for the same loss on the same content, whoever asks (PS3.5 B.2)."""
    hashed = hashlib.sha256(f"{sop_instance_uid}|{digest}|{target_uid}".encode()).digest()[:16]
    return f"2.25.{uuid.UUID(bytes=hashed, version=5).int}"


def source_item(sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """An item of Source Image Sequence that names what the image was made of (PS3.3 C.12.4.1.2); explicit little endian."""
    reference = _element(0x00081150, *_text("UI", sop_class_uid)) + _element(0x00081155, *_text("UI", sop_instance_uid))
    code = b"".join(
        _element(tag, *_text(vr, value))
        for tag, vr, value in (
            (0x00080100, "SH", "121320"),
            (0x00080102, "SH", "DCM"),
            (0x00080104, "LO", "Uncompressed predecessor"),
        )
    )
    purpose = struct.pack("<HH2sHI", 0x0040, 0xA170, b"SQ", 0, 8 + len(code)) + struct.pack("<HHI", 0xFFFE, 0xE000, len(code)) + code
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(reference) + len(purpose)) + reference + purpose


def _element(tag: int, vr: str, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode("ascii"), len(value)) + value
