"""One compressed frame to pixels, by the codec of its transfer syntax (PS3.5 8.2 and A.4)."""

from __future__ import annotations

import zlib
from typing import Any

import imagecodecs
import numpy as np

from pacslite.codec.codestreams import CodestreamHead, check_end, codestream_of, is_reversible_jpeg2000, read_jpeg2000_head, read_jpeg_head
from pacslite.codec.pixels import PixelDescription, Pixels, decode_native
from pacslite.dicom.syntaxes import ALL_HTJ2K, ALL_JPEG, ALL_JPEG_2000, ALL_JPEG_LS, DEFLATED_FRAMES, RLE
from pacslite.errors import UndecodablePixels

_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
# Padding of a frame, and room in which the end of a stream is seen.
_SLACK = 64
_RGB_IDS, _PLAIN_IDS = (0x52, 0x47, 0x42), (1, 2, 3)


def decode(encoded: bytes, description: PixelDescription, uid: str) -> tuple[Pixels, str]:
    """Pixels and their colour space, which may still be named after a codec; raises UndecodablePixels."""
    try:
        if uid == RLE:
            return _run_length(encoded, description), description.photometric_interpretation
        if uid == DEFLATED_FRAMES:
            return _deflated(encoded, description)
        if uid in ALL_JPEG:
            return _jpeg(encoded, description)
        if uid in ALL_JPEG_LS:
            return _jpeg_ls(encoded, description), description.photometric_interpretation
        if uid in ALL_JPEG_2000 | ALL_HTJ2K:
            return _jpeg_2000(encoded, description, uid), description.photometric_interpretation
    except UndecodablePixels:
        raise
    except (ValueError, RuntimeError, zlib.error, TypeError, IndexError, MemoryError) as error:
        # The texts of the codecs tell what they met, nothing of the patient.
        raise UndecodablePixels(f"The frame cannot be decoded: {str(error)[:200]}") from error
    raise UndecodablePixels(f"Frames of transfer syntax {uid} are not decoded here.")


def _check(head: CodestreamHead, description: PixelDescription) -> None:
    said = (description.rows, description.columns, description.samples_per_pixel)
    if (head.rows, head.columns, head.components) != said:
        raise UndecodablePixels(
            f"The code stream has {head.columns} x {head.rows} pixels of {head.components} samples, "
            f"the image {description.columns} x {description.rows} of {description.samples_per_pixel}."
        )
    if head.precision > max(8, description.bits_allocated):
        raise UndecodablePixels(f"The code stream has samples of {head.precision} bits, the image of {description.bits_allocated}.")


def _cells(array: Pixels, description: PixelDescription, precision: int) -> Pixels:
    """Words as the image allocates them. A codec that knows no sign, or the wrong one, has kept the pattern of the bits."""
    wanted = description.dtype
    if array.dtype == wanted and not (description.signed and precision < wanted.itemsize * 8):
        return np.ascontiguousarray(array)
    if array.dtype.kind == wanted.kind and array.dtype.kind == "i":
        return np.ascontiguousarray(array.astype(wanted))
    unsigned = np.dtype(f"u{wanted.itemsize}")
    pattern = array.astype(unsigned)
    if not description.signed:
        # Signed in the code stream only: what is beyond its precision are copies of the sign.
        keep = unsigned.type((1 << max(precision, 1)) - 1)
        kept: Pixels = pattern & keep if array.dtype.kind == "i" and precision < wanted.itemsize * 8 else pattern
        return kept
    # What a code stream of few bits leaves out is the sign of samples as wide as itself.
    free = wanted.itemsize * 8 - precision
    extended: Pixels = np.right_shift(np.left_shift(pattern, free).view(wanted), free)
    return extended


def _run_length(encoded: bytes, description: PixelDescription) -> Pixels:
    """Segments of bytes, the most significant plane first (PS3.5 annex G)."""
    if description.bits_allocated == 1:
        return _run_length_of_bits(encoded, description)
    if description.bits_allocated % 8:
        raise UndecodablePixels(f"RLE does not know {description.bits_allocated} bits (PS3.5 A.4.2).")
    segments = description.samples_per_pixel * description.bits_allocated // 8
    if len(encoded) < 64 or int.from_bytes(encoded[:4], "little") != segments:
        raise UndecodablePixels(f"The RLE header does not announce {segments} segments.")
    unsigned = np.dtype(f"<u{description.bits_allocated // 8}")
    planes = np.frombuffer(imagecodecs.dicomrle_decode(encoded, unsigned), unsigned)
    if planes.size != description.rows * description.columns * description.samples_per_pixel:
        raise UndecodablePixels("The RLE segments do not have one byte for each pixel.")
    planes = planes.view(description.dtype.newbyteorder("<"))
    if description.samples_per_pixel == 1:
        return planes.reshape(description.rows, description.columns)
    stacked = planes.reshape(description.samples_per_pixel, description.rows, description.columns)
    return np.ascontiguousarray(np.moveaxis(stacked, 0, -1))


def _run_length_of_bits(encoded: bytes, description: PixelDescription) -> Pixels:
    """A byte for each bit (PS3.5 G.2: a pixel is padded to whole bytes); bits packed as in native pixels were written too."""
    count = description.rows * description.columns
    if len(encoded) < 64 or int.from_bytes(encoded[:4], "little") != 1 or description.samples_per_pixel != 1:
        raise UndecodablePixels("The RLE header does not announce one segment of single bits.")
    segment = np.frombuffer(imagecodecs.dicomrle_decode(encoded, np.dtype("u1")), "u1")
    if segment.size >= count and segment.size - count < 2:
        bits: Pixels = (segment[:count] != 0).astype("u1")
    elif -(-count // 8) <= segment.size <= -(-count // 8) + 1:
        bits = np.unpackbits(segment, bitorder="little", count=count)
    else:
        raise UndecodablePixels("The RLE segment does not have one byte or bit for each pixel.")
    return bits.reshape(description.shape)


def _deflated(encoded: bytes, description: PixelDescription) -> tuple[Pixels, str]:
    """A native frame, deflated (PS3.5 8.2.16 and A.4.13); no more of it is inflated than a frame has."""
    machine = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    native = machine.decompress(
        encoded, description.rows * description.columns * description.samples_per_pixel * description.dtype.itemsize + _SLACK
    )
    if not machine.eof:
        raise UndecodablePixels("The deflated frame is cut off, or larger than the image.")
    frame = decode_native(native, description)
    return frame.array, frame.photometric_interpretation


def _jpeg(encoded: bytes, description: PixelDescription) -> tuple[Pixels, str]:
    head = read_jpeg_head(encoded)
    _check(head, description)
    check_end(encoded)
    photometric = description.photometric_interpretation
    options: dict[str, Any] = {}
    if description.samples_per_pixel == 3:
        options = {"colorspace": "RGB", "outcolorspace": "RGB"}
        if head.marker not in _LOSSLESS and _is_ycbcr(head, photometric):
            options, photometric = {"colorspace": "YCbCr", "outcolorspace": "RGB"}, "RGB"
    elif description.samples_per_pixel == 4:
        options = {"colorspace": "CMYK", "outcolorspace": "CMYK"}
    array = np.asarray(imagecodecs.jpeg8_decode(encoded, **options))
    return _cells(array, description, head.precision), photometric


def _is_ycbcr(head: CodestreamHead, photometric: str) -> bool:
    """Whether lossy JPEG is in YCbCr. Marks of the code stream, when it has some, know better than the data set."""
    if head.adobe_transform is not None:
        return head.adobe_transform == 1
    if head.component_ids == _RGB_IDS:
        return False
    return head.jfif or photometric != "RGB"


def _jpeg_ls(encoded: bytes, description: PixelDescription) -> Pixels:
    head = read_jpeg_head(encoded)
    _check(head, description)
    array = np.asarray(imagecodecs.jpegls_decode(encoded))
    if description.samples_per_pixel > 1 and array.shape[:1] == (description.samples_per_pixel,) and array.shape != description.shape:
        array = np.moveaxis(array, 0, -1)  # one scan for each component
    return _cells(array, description, head.precision)


def _jpeg_2000(encoded: bytes, description: PixelDescription, uid: str) -> Pixels:
    stream = codestream_of(encoded)
    head = read_jpeg2000_head(stream)
    _check(head, description)
    check_end(stream)
    if uid in ALL_HTJ2K and is_reversible_jpeg2000(stream):
        # Twice as fast; not for the others, whose values it does not keep within their range.
        array = np.asarray(imagecodecs.htj2k_decode(stream, planar=False))
    else:
        array = np.asarray(imagecodecs.jpeg2k_decode(stream, planar=False, numthreads=1))
    return _cells(array, description, head.precision)
