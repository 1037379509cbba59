"""What a compressed picture says of itself, read from its first bytes: JPEG, JPEG-LS, JPEG 2000, HTJ2K, RLE.

Enough to choose its transfer syntax and to fill in an omitted Image Pixel Description (PS3.18 Table 10.5.2-1); nothing is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from pacslite.errors import InvalidMetadata

# Position and length, in that order.
Read = Callable[[int, int], bytes]

_SYNTAX = "1.2.840.10008.1.2.4."
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
_MOST_MARKERS = 1000
# Frame headers (ISO/IEC 10918-1 B.2.2): all but DHT, JPG and DAC.
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_LS_FRAME = 0xF7
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_CODE_STREAM_BOX = b"jp2c"


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame: its transfer syntax, and what it is made of.

    The code stream begins at `offset` and has `length` bytes (0: all that follow).
    """

    transfer_syntax_uid: str
    rows: int = 0
    columns: int = 0
    samples: int = 0
    bits_stored: int = 0
    signed: bool = False
    photometric: str = ""
    frames: int = 1
    offset: int = 0
    length: int = 0

    @property
    def bits_allocated(self) -> int:
        """Whole bytes for a sample."""
        return 8 if self.bits_stored <= 8 else 16 if self.bits_stored <= 16 else 32


def describe(read: Read) -> Picture | None:
    """The picture that begins here; None when it is none of these. Raises InvalidMetadata for a broken one."""
    head = read(0, 12)
    if head.startswith(b"\xff\xd8"):
        return _jpeg(read)
    if head.startswith(b"\xff\x4f\xff\x51"):
        return _jpeg_2000(read, 0, 0)
    if head == JP2_SIGNATURE:
        return _jpeg_2000(read, *code_stream_of_box(read))
    return None


def is_rle(read: Read) -> bool:
    """Whether an RLE header stands here (PS3.5 G.5)."""
    head = read(0, 64)
    if len(head) < 64:
        return False
    count, *offsets = struct.unpack("<16I", head)
    return 1 <= count <= 15 and offsets[0] == 64 and all(a < b for a, b in pairwise(offsets[:count]))


def _broken(what: str) -> InvalidMetadata:
    return InvalidMetadata(f"the bulk data is no whole {what}")


def _jpeg(read: Read) -> Picture:
    position, adobe_transform = 2, None
    marker, body = 0, b""
    for _ in range(_MOST_MARKERS):
        marker, body, position = _segment(read, position)
        if marker in _FRAME_MARKERS or marker == _JPEG_LS_FRAME:
            break
        if marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            adobe_transform = body[11]
    else:
        raise _broken("JPEG")
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise _broken("JPEG")
    precision, rows, columns, samples = struct.unpack_from(">BHHB", body)
    if not rows or not columns or not samples or precision > 16:
        raise _broken("JPEG")
    component = body[6 : 6 + 3 * samples]
    selection, near = _scan(read, position)
    syntax = _jpeg_syntax(marker, selection, near)
    return Picture(syntax, rows, columns, samples, precision, False, _jpeg_photometric(marker, component, adobe_transform))


def _segment(read: Read, position: int) -> tuple[int, bytes, int]:
    """The next marker segment: its code, its first bytes, and where it ends."""
    head = read(position, 4)
    while head[:2] == b"\xff\xff":  # fill bytes (ISO/IEC 10918-1 B.1.1.2)
        position += 1
        head = read(position, 4)
    if len(head) >= 2 and head[0] == 0xFF and head[1] in _STANDALONE:
        return head[1], b"", position + 2
    if len(head) < 4 or head[0] != 0xFF:
        raise _broken("JPEG")
    length = int.from_bytes(head[2:], "big")
    if length < 2:
        raise _broken("JPEG")
    return head[1], read(position + 4, min(length - 2, 1024)), position + 2 + length


def _scan(read: Read, position: int) -> tuple[int, int]:
    """Selection value (predictor, or NEAR of JPEG-LS) of the first scan."""
    for _ in range(_MOST_MARKERS):
        marker, body, position = _segment(read, position)
        if marker == 0xDA:
            count = body[0] if body else 0
            value = body[1 + 2 * count] if len(body) > 1 + 2 * count else 0
            return value, value
    raise _broken("JPEG")


def _jpeg_syntax(marker: int, selection: int, near: int) -> str:
    if marker == _JPEG_LS_FRAME:
        return _SYNTAX + ("81" if near else "80")
    known = {0xC0: "50", 0xC1: "51", 0xC3: "70" if selection == 1 else "57"}
    if marker not in known:
        raise InvalidMetadata("a JPEG of this process (progressive, hierarchical or arithmetic) has no transfer syntax today (PS3.5 10)")
    return _SYNTAX + known[marker]


def _jpeg_photometric(marker: int, components: bytes, adobe_transform: int | None) -> str:
    count = len(components) // 3
    if count == 1:
        return "MONOCHROME2"
    if count != 3:
        raise InvalidMetadata(f"a picture of {count} components has no Photometric Interpretation")
    if marker in (0xC3, _JPEG_LS_FRAME) or adobe_transform == 0 or components[::3] == b"RGB":
        return "RGB"
    return "YBR_FULL" if components[1] == components[4] else "YBR_FULL_422"


def code_stream_of_box(read: Read) -> tuple[int, int]:
    """Where the code stream of a JP2 file begins, and its length, 0 to the end (ISO/IEC 15444-1 I.4); raises InvalidMetadata."""
    position = 0
    for _ in range(_MOST_MARKERS):
        head = read(position, 16)
        if len(head) < 8:
            break
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        begin = 16 if length == 1 else 8
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if kind == _CODE_STREAM_BOX and (not length or length > begin):
            return position + begin, max(length - begin, 0)
        if length < 8:
            break
        position += length
    raise _broken("JPEG 2000 file")


def _jpeg_2000(read: Read, offset: int, length: int) -> Picture:
    if read(offset, 4) != b"\xff\x4f\xff\x51":
        raise _broken("JPEG 2000 code stream")
    head = read(offset, 64 * 1024)
    if len(head) < 45:
        raise _broken("JPEG 2000 code stream")
    right, lower, left, upper = struct.unpack_from(">4I", head, 8)
    samples, depth = int.from_bytes(head[40:42], "big"), head[42]
    if samples not in (1, 3) or right <= left or lower <= upper or max(right - left, lower - upper) > 0xFFFF:
        raise _broken("JPEG 2000 code stream of one or three components")
    coding, high_throughput = _coding_style(head)
    reversible, multiple = coding[9] == 1, bool(coding[4])
    # RPCL alone does not make it .202, which has other constraints too (PS3.5 10.18); a sender may name that.
    number = ("201" if reversible else "203") if high_throughput else ("90" if reversible else "91")
    photometric = "MONOCHROME2" if samples == 1 else ("YBR_RCT" if reversible else "YBR_ICT") if multiple else "RGB"
    size = lower - upper, right - left
    return Picture(_SYNTAX + number, *size, samples, (depth & 0x7F) + 1, bool(depth & 0x80), photometric, offset=offset, length=length)


def _coding_style(head: bytes) -> tuple[bytes, bool]:
    """The default coding style (COD), and whether high throughput is announced (CAP, ISO/IEC 15444-15 A.2)."""
    position, high_throughput = 2, False
    for _ in range(_MOST_MARKERS):
        if position + 4 > len(head) or head[position] != 0xFF:
            break
        marker, length = head[position + 1], int.from_bytes(head[position + 2 : position + 4], "big")
        if marker == 0x50:
            high_throughput = True
        elif marker == 0x52 and length >= 12 and position + 14 <= len(head):
            return head[position + 4 : position + 14], high_throughput or _is_high_throughput(head, position + 2 + length)
        if length < 2:
            break
        position += 2 + length
    raise _broken("JPEG 2000 code stream")


def _is_high_throughput(head: bytes, position: int) -> bool:
    """CAP comes right after SIZ by the standard; looked for behind COD as well."""
    return head[position : position + 2] == b"\xff\x50"
