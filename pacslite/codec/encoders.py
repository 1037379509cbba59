"""Pixels to one compressed frame, or to native ones (PS3.5 8.2), and a frame from one transfer syntax to another."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np

from pacslite.codec.codestreams import DEPTH_AT
from pacslite.codec.pixels import PixelDescription, Pixels, decode_cells, refusal
from pacslite.dicom.syntaxes import (
    ALL_HTJ2K,
    ALL_JPEG_2000,
    ALL_JPEG_LS,
    DCT,
    DEFLATED_FRAMES,
    HTJ2K,
    HTJ2K_RPCL,
    JPEG_2000,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_NEAR,
    NATIVE,
    RLE,
)
from pacslite.errors import UndecodablePixels

# How good the lossy ones are. Noise and steps are measured by the range of the values in a frame, not by that of their words.
JPEG_QUALITY, NEAR = 90, 2
PEAK_SIGNAL_TO_NOISE_DB, STEP_OF_RANGE = {8: 45.0, 16: 60.0}, {8: 1 / 256, 16: 1 / 1024}
# Markers of JPEG (ISO/IEC 10918-1 B.1.1.3).
_SOF3, _SOS, _APP14 = 0xC3, 0xDA, 0xEE
_RLE_HEADER = struct.Struct("<16I")


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """The bytes of a frame, and the colour space they are in by the names of PS3.3 C.7.6.3.1.2."""

    data: bytes
    photometric_interpretation: str


def transcode_frame(encoded: bytes, description: PixelDescription, source_uid: str, target_uid: str) -> tuple[bytes, str]:
    """A frame in another transfer syntax, and its colour space there; raises UndecodablePixels. A task of codec processes."""
    decoded = decode_cells(encoded, description, source_uid)
    frame = encode_frame(decoded.array, decoded.photometric_interpretation, description, target_uid)
    return frame.data, frame.photometric_interpretation


def encode_frame(array: Pixels, photometric: str, description: PixelDescription, target_uid: str) -> EncodedFrame:
    """One frame of pixels in a transfer syntax; raises UndecodablePixels for what `refusal` tells."""
    if target_uid in NATIVE:
        return EncodedFrame(native_bytes(array, description), photometric)
    reason = refusal(description, target_uid)
    if reason:
        raise UndecodablePixels(reason)
    try:
        data, photometric = _ENCODERS[target_uid](array, photometric, description, target_uid)
    except (ValueError, RuntimeError, TypeError) as error:
        raise UndecodablePixels(f"The frame cannot be written as {target_uid}: {str(error)[:200]}") from error
    return EncodedFrame(data, photometric)


def native_bytes(array: Pixels, description: PixelDescription) -> bytes:
    """Little endian words, the samples of a pixel together; single bits packed from the lowest on (PS3.5 8.1.1)."""
    if description.bits_allocated == 1:
        return np.packbits(array.reshape(-1) != 0, bitorder="little").tobytes()
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _precision(array: Pixels, description: PixelDescription, lowest: int = 2) -> int:
    """Bits that hold every sample: Bits Stored, or all that are allocated when something else is in the words."""
    stored, bits = max(description.stored, lowest), array.dtype.itemsize * 8
    if stored >= bits or not array.size:
        return bits
    low, high = int(array.min()), int(array.max())
    half = 1 << (stored - 1)
    fits = -half <= low and high < half if description.signed else high < 1 << stored
    return stored if fits and not description.shift else bits


def _used_range(array: Pixels) -> int:
    """How many steps lie between the lowest and the highest sample, both included."""
    return int(array.max()) - int(array.min()) + 1


def _pattern(array: Pixels, precision: int) -> Pixels:
    """The samples without sign, as many bits of them as are kept, in the fewest bytes: for codecs that know no sign."""
    unsigned = array.view(np.dtype(f"u{array.dtype.itemsize}"))
    if array.dtype.kind == "i" and precision < array.dtype.itemsize * 8:
        unsigned = unsigned & unsigned.dtype.type((1 << precision) - 1)
    return np.ascontiguousarray(unsigned.astype("u1" if precision <= 8 else "u2", copy=False))


def _run_length(array: Pixels, photometric: str, description: PixelDescription, uid: str) -> tuple[bytes, str]:
    """Each byte of the samples is a segment, the most significant one first; rows apart (PS3.5 G.2, G.3.1)."""
    planes = np.ascontiguousarray(array).astype(array.dtype.newbyteorder(">"), copy=False)
    octets = planes.view("u1").reshape(description.rows, description.columns, -1)
    segments: list[bytes] = []
    for at in range(octets.shape[2]):
        packed = imagecodecs.packbits_encode(octets[:, :, at].copy(order="C"), axis=-1)
        segments.append(bytes(packed) + b"\0" * (len(packed) & 1))
    if len(segments) > 15:
        raise UndecodablePixels("RLE has room for 15 segments (PS3.5 G.5).")
    offsets, at = [0] * 15, _RLE_HEADER.size
    for number, segment in enumerate(segments):
        offsets[number], at = at, at + len(segment)
    return _RLE_HEADER.pack(len(segments), *offsets) + b"".join(segments), photometric


def _deflated(array: Pixels, photometric: str, description: PixelDescription, uid: str) -> tuple[bytes, str]:
    machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return machine.compress(native_bytes(array, description)) + machine.flush(), photometric


def _lossless_jpeg(array: Pixels, photometric: str, description: PixelDescription, uid: str) -> tuple[bytes, str]:
    """Process 14 with the predictor of its first selection value, which fits both transfer syntaxes; colours as they are."""
    precision = _precision(array, description)
    colours: dict[str, Any] = {"colorspace": "RGB", "outcolorspace": "RGB"} if array.ndim == 3 else {}
    cells = _pattern(array, precision)
    data = bytes(imagecodecs.jpeg8_encode(cells, lossless=True, predictor=1, bitspersample=precision, **colours))
    return _without_claim_of_rgb(data) if photometric.startswith("YBR") else data, photometric


def _without_claim_of_rgb(data: bytes) -> bytes:
    """The code stream with components 1, 2, 3 and no Adobe segment: some readers take R, G, B for RGB whatever the data set says."""
    encoded, at = bytearray(data), 2
    while True:
        marker, length = encoded[at + 1], int.from_bytes(encoded[at + 2 : at + 4], "big")
        if marker == _APP14:
            del encoded[at : at + 2 + length]
            continue
        if marker == _SOF3:
            encoded[at + 10 : at + 10 + 3 * encoded[at + 9] : 3] = bytes(range(1, encoded[at + 9] + 1))
        elif marker == _SOS:
            encoded[at + 5 : at + 5 + 2 * encoded[at + 4] : 2] = bytes(range(1, encoded[at + 4] + 1))
            return bytes(encoded)
        at += 2 + length


def _lossy_jpeg(array: Pixels, photometric: str, description: PixelDescription, uid: str) -> tuple[bytes, str]:
    precision = 8 if description.stored <= 8 else 12
    cells = array.astype("u1" if precision == 8 else "u2")
    if array.ndim < 3:
        return bytes(imagecodecs.jpeg8_encode(cells, level=JPEG_QUALITY, bitspersample=precision)), photometric
    if photometric not in ("RGB", "YBR_FULL"):
        raise UndecodablePixels(f"{photometric} cannot be written as {uid}.")
    space = "RGB" if photometric == "RGB" else "YCbCr"
    data = imagecodecs.jpeg8_encode(cells, level=JPEG_QUALITY, colorspace=space, outcolorspace="YCbCr", subsampling="422")
    return bytes(data), "YBR_FULL_422"


def _jpeg_ls(array: Pixels, photometric: str, description: PixelDescription, uid: str) -> tuple[bytes, str]:
    """In samples of 8 or 16 bits, whatever is stored of them: that costs some thousandths of the size."""
    if uid == JPEG_LS_NEAR and description.signed:
        raise UndecodablePixels(f"Signed pixels cannot be written as {uid}: JPEG-LS knows no sign, and a loss could turn it.")
    precision = 8 if _precision(array, description) <= 8 else 16
    cells = _pattern(array, precision)
    room = 2 * cells.nbytes + 4096  # noise grows; the encoder's own guess is too small for it
    return bytes(imagecodecs.jpegls_encode(cells, NEAR if uid == JPEG_LS_NEAR else 0, out=room)), photometric


def _jpeg_2000(array: Pixels, photometric: str, description: PixelDescription, uid: str) -> tuple[bytes, str]:
    if description.bits_allocated == 1:
        return _jpeg_2000_of_bits(array), photometric
    precision, lossy, is_rgb = _precision(array, description), uid == JPEG_2000, photometric == "RGB"
    level = 0
    if lossy:
        level = round(PEAK_SIGNAL_TO_NOISE_DB[8 if precision <= 8 else 16] - 20 * math.log10(_used_range(array) / (1 << precision)))
    cells = _narrowed(array, precision)
    data = imagecodecs.jpeg2k_encode(
        cells, level, codecformat="j2k", reversible=not lossy, mct=is_rgb, planar=False, bitspersample=precision, numthreads=1
    )
    return bytes(data), ("YBR_ICT" if lossy else "YBR_RCT") if is_rgb else photometric


def _jpeg_2000_of_bits(array: Pixels) -> bytes:
    """A code stream of one bit: OpenJPEG has no room for noise in it, but in two, which the same values with a sign need.

    Unsigned samples are lowered by half their range (ISO 15444-1 annex G.1), so that only the head tells them apart.
    """
    cells = array.astype("i1") - 1
    data = bytearray(imagecodecs.jpeg2k_encode(cells, 0, codecformat="j2k", reversible=True, bitspersample=2, numthreads=1))
    data[DEPTH_AT] = 0
    return bytes(data)


def _narrowed(array: Pixels, precision: int) -> Pixels:
    """In bytes when they hold the precision: a code stream of few bits in wide words confuses some readers."""
    return array.astype(f"{array.dtype.kind}1") if precision <= 8 < array.dtype.itemsize * 8 else np.ascontiguousarray(array)


def _htj2k(array: Pixels, photometric: str, description: PixelDescription, uid: str) -> tuple[bytes, str]:
    """The encoder takes whole words only. Signed words of fewer bits are a code stream of those bits once its head says so;
    unsigned ones are lowered by half their range first, which is what the encoder would do (ISO 15444-1 annex G.1)."""
    precision, lossy, is_rgb = _precision(array, description, 1), uid == HTJ2K, photometric == "RGB"
    cells = _narrowed(array, precision)
    bits = cells.dtype.itemsize * 8
    if precision < bits and not description.signed:
        cells = (cells.astype("i4") - (1 << (precision - 1))).astype(f"i{bits // 8}")
    options: dict[str, Any] = {"rgb": is_rgb} if array.ndim == 3 else {}
    level = STEP_OF_RANGE[8 if bits == 8 else 16] * _used_range(array) / (1 << bits) if lossy else None
    data = bytearray(imagecodecs.htj2k_encode(cells, level, reversible=not lossy, planar=False, tlm=uid == HTJ2K_RPCL, **options))
    if precision < bits:
        for component in range(description.samples_per_pixel):
            data[DEPTH_AT + 3 * component] = (0x80 if description.signed else 0) | (precision - 1)
    return bytes(data), ("YBR_ICT" if lossy else "YBR_RCT") if is_rgb else photometric


_ENCODERS = {
    RLE: _run_length,
    DEFLATED_FRAMES: _deflated,
    **dict.fromkeys((JPEG_LOSSLESS, JPEG_LOSSLESS_SV1), _lossless_jpeg),
    **dict.fromkeys(DCT, _lossy_jpeg),
    **dict.fromkeys(ALL_JPEG_LS, _jpeg_ls),
    **dict.fromkeys(ALL_JPEG_2000, _jpeg_2000),
    **dict.fromkeys(ALL_HTJ2K, _htj2k),
}
