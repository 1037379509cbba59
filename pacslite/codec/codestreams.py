"""What the head of a compressed frame says of itself, read before a codec is trusted with it.

JPEG and JPEG-LS (ISO 10918-1 annex B, ISO 14495-1 annex C), JPEG 2000 and HTJ2K (ISO 15444-1 annex A). A codec that believes a
head allocates what the head asks for: so heads are compared with the Image Pixel Module first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pacslite.errors import UndecodablePixels

_SIGNATURE_OF_JP2 = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_START_OF_J2K = b"\xff\x4f\xff\x51"
_SIZ = struct.Struct(">HHIIIIIIIIH")
# Start of frame: baseline and extended sequential, progressive, lossless; JPEG-LS.
_FRAME_MARKERS = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_JFIF, _ADOBE = b"JFIF\0", b"Adobe"
_START_OF_SCAN, _END = 0xDA, 0xD9
_TAIL = 32
# The depth of the first component in the SIZ marker segment (ISO 15444-1 A.5.1); three bytes for each component.
DEPTH_AT = 42


@dataclass(frozen=True, slots=True)
class CodestreamHead:
    """Sizes in pixels, `precision` in bits; `component_ids` of JPEG, with the marks that tell its colour space."""

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool = False
    marker: int = 0
    component_ids: tuple[int, ...] = ()
    jfif: bool = False
    adobe_transform: int | None = None


def codestream_of(data: bytes) -> bytes:
    """The code stream itself: some writers put it into a JP2 file, against PS3.5 A.4.4."""
    if data[:12] != _SIGNATURE_OF_JP2:
        return data
    at = data.find(_START_OF_J2K, 0, 65536)
    if at < 0:
        raise UndecodablePixels("The JP2 file in the pixel data holds no code stream.")
    return data[at:]


def read_jpeg2000_head(data: bytes | memoryview) -> CodestreamHead:
    """The head of a JPEG 2000 or HTJ2K code stream; raises UndecodablePixels."""
    head = bytes(data[:64])
    if not head.startswith(_START_OF_J2K) or len(head) < 45:
        raise UndecodablePixels("The frame is no JPEG 2000 code stream.")
    _, _, right, bottom, left, top, _, _, _, _, components = _SIZ.unpack_from(head, 4)
    if not (right > left and bottom > top and components):
        raise UndecodablePixels("The JPEG 2000 code stream has no pixels.")
    depth = head[DEPTH_AT]
    return CodestreamHead(bottom - top, right - left, components, (depth & 0x7F) + 1, depth > 0x7F)


def is_reversible_jpeg2000(data: bytes) -> bool:
    """Whether the coding style says 5-3 wavelets, which lose nothing (ISO 15444-1 A.6.1)."""
    at = data.find(b"\xff\x52", 0, 4096)
    return at >= 0 and len(data) > at + 13 and data[at + 13] == 1


def is_near_lossless(data: bytes) -> bool:
    """Whether a scan of JPEG-LS allows differences (ISO 14495-1 C.2.3)."""
    at = data.find(b"\xff\xda", 0, 4096)
    return at >= 0 and len(data) > at + 5 + 2 * data[at + 4] and data[at + 5 + 2 * data[at + 4]] != 0


def read_jpeg_head(data: bytes | memoryview) -> CodestreamHead:
    """The head of a JPEG or JPEG-LS code stream; raises UndecodablePixels."""
    view = memoryview(data)
    if bytes(view[:2]) != b"\xff\xd8":
        raise UndecodablePixels("The frame is no JPEG code stream.")
    at, jfif, adobe = 2, False, None
    while at + 4 <= len(view):
        if view[at] != 0xFF:
            raise UndecodablePixels("The JPEG code stream has no marker where one has to be.")
        marker = view[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        if marker in (_START_OF_SCAN, _END):
            break
        length = view[at + 2] << 8 | view[at + 3]
        body = bytes(view[at + 4 : at + 2 + length])
        if marker in _FRAME_MARKERS:
            return _frame_head(marker, body, jfif, adobe)
        jfif = jfif or (marker == 0xE0 and body.startswith(_JFIF))
        if marker == 0xEE and body.startswith(_ADOBE) and len(body) >= 12:
            adobe = body[11]
        at += 2 + max(length, 2)
    raise UndecodablePixels("The JPEG code stream has no frame header.")


def _frame_head(marker: int, body: bytes, jfif: bool, adobe: int | None) -> CodestreamHead:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise UndecodablePixels("The frame header of the JPEG code stream is cut off.")
    precision, rows, columns, components = struct.unpack_from(">BHHB", body)
    if not (rows and columns and components):
        raise UndecodablePixels("The JPEG code stream has no pixels.")
    ids = tuple(body[6 + 3 * i] for i in range(components))
    return CodestreamHead(rows, columns, components, precision, False, marker, ids, jfif, adobe)


def check_end(data: bytes | memoryview) -> None:
    """Refuses a code stream without its end marker, which codecs would fill up in silence; raises UndecodablePixels.

    JPEG, JPEG-LS and JPEG 2000 end alike (FFD9H); padding after it is bounded.
    """
    if b"\xff\xd9" not in bytes(data[-_TAIL:]):
        raise UndecodablePixels("The code stream of the frame is cut off: it has no end marker.")
