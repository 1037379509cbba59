"""Frames decoded: the bytes of one frame become an array of pixels.

The codecs are imported when a frame first needs them. What is decoded may have been made to do harm, and the codecs are C and
C++: `pacslite.codec.processes` runs this outside of the processes that serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pacslite.dicom.syntaxes import (
    ALL_HTJ2K,
    DCT,
    DECODABLE,
    DEFLATED_FRAMES,
    IRREVERSIBLE,
    JPEG_2000_REVERSIBLE,
    JPEG_BASELINE,
    NATIVE,
    RLE,
)
from pacslite.errors import UndecodablePixels

__all__ = ["DECODABLE", "DecodedFrame", "PixelDescription", "Pixels", "decode_cells", "decode_frame", "refusal"]

Pixels = npt.NDArray[Any]

FULL, SUBSAMPLED = "YBR_FULL", "YBR_FULL_422"
_BY_CODEC = frozenset({"YBR_ICT", "YBR_RCT"})
# Whose frames are bytes, or bits, of any kind.
_OF_BYTES = frozenset({RLE, DEFLATED_FRAMES})
# What knows samples of one bit; JPEG and JPEG-LS begin with two.
_OF_BITS = _OF_BYTES | {JPEG_2000_REVERSIBLE} | (ALL_HTJ2K - IRREVERSIBLE)
# One decoded frame; a whole-slide tile has 1 MiB, the largest mammogram 60 MiB.
MAX_FRAME_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PixelDescription:
    """What the Image Pixel Module says of every frame (PS3.3 C.7.6.3). `is_float`: Float or Double Float Pixel Data."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int = 0
    samples_per_pixel: int = 1
    photometric_interpretation: str = "MONOCHROME2"
    signed: bool = False
    planar: bool = False
    high_bit: int | None = None
    is_float: bool = False

    @property
    def stored(self) -> int:
        """Bits that count of each sample, whatever the module says."""
        return self.bits_stored if 0 < self.bits_stored <= self.bits_allocated else self.bits_allocated

    @property
    def shift(self) -> int:
        """Bits below the sample (PS3.5 8.1.1); not 0 only in retired images."""
        return max(0, self.high_bit + 1 - self.stored) if self.high_bit is not None and self.high_bit < self.bits_allocated else 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """The array type that holds a sample."""
        size = max(8, 1 << (self.bits_allocated - 1).bit_length())
        return np.dtype(f"{'f' if self.is_float else 'i' if self.signed else 'u'}{size // 8}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns, and samples when there are several."""
        return (self.rows, self.columns, *((self.samples_per_pixel,) if self.samples_per_pixel > 1 else ()))

    def check(self) -> None:
        """Refuses what is no image, or a larger one than is decoded; raises UndecodablePixels."""
        if min(self.rows, self.columns, self.bits_allocated) < 1 or self.samples_per_pixel not in (1, 3, 4):
            raise UndecodablePixels("The image has no rows, columns or samples.")
        if self.is_float and self.bits_allocated not in (32, 64):
            raise UndecodablePixels(f"Float pixels of {self.bits_allocated} bits are not known.")
        if self.bits_allocated > 64 or (self.bits_allocated % 8 and self.bits_allocated not in (1, 12)):
            raise UndecodablePixels(f"Bits Allocated (0028,0100) is {self.bits_allocated}.")
        size = self.rows * self.columns * self.samples_per_pixel * self.dtype.itemsize
        if size > MAX_FRAME_BYTES:
            raise UndecodablePixels(f"A frame has {size} bytes; no more than {MAX_FRAME_BYTES} are decoded.")


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """Pixels as (rows, columns) or (rows, columns, samples), little endian, in the colour space that is told.

    Colour spaces of a codec are undone: what was YBR_ICT or YBR_RCT is RGB, YBR_FULL_422 of native pixels is YBR_FULL with its
    chroma repeated, and lossy JPEG in YCbCr is RGB.
    """

    array: Pixels
    photometric_interpretation: str


def decode_frame(encoded: bytes | memoryview, description: PixelDescription, transfer_syntax_uid: str) -> DecodedFrame:
    """The samples of one frame: Bits Stored wide, sign extended, nothing else in their words; raises UndecodablePixels.

    `encoded` is the frame as `core.frames` gives it: little endian and from its first bit on when native, the code stream when
    compressed.
    """
    frame = decode_cells(encoded, description, transfer_syntax_uid)
    return DecodedFrame(_samples(frame.array, description), frame.photometric_interpretation)


def decode_cells(encoded: bytes | memoryview, description: PixelDescription, transfer_syntax_uid: str) -> DecodedFrame:
    """Like `decode_frame`, but whatever else is in the words of native and run-length pixels stays (overlays, PS3.5 8.1.2)."""
    description.check()
    if transfer_syntax_uid in NATIVE:
        return decode_native(encoded, description)
    if transfer_syntax_uid not in DECODABLE:
        raise UndecodablePixels(f"Frames of transfer syntax {transfer_syntax_uid} are not decoded here.")
    if description.is_float:
        raise UndecodablePixels("Float pixels are never compressed (PS3.5 8.2).")
    from pacslite.codec import decoders

    array, photometric = decoders.decode(bytes(encoded), description, transfer_syntax_uid)
    if array.shape != description.shape:
        raise UndecodablePixels(f"The frame decodes to {array.shape}, not to {description.shape}.")
    return DecodedFrame(array, _after_codec(photometric))


def _after_codec(photometric: str) -> str:
    if photometric in _BY_CODEC:
        return "RGB"
    return FULL if photometric == SUBSAMPLED else photometric


def _samples(array: Pixels, description: PixelDescription) -> Pixels:
    """The stored bits of each word."""
    stored, bits = description.stored, array.dtype.itemsize * 8
    if description.is_float or description.bits_allocated == 1 or (stored == bits and not description.shift):
        return array
    # To the top and back: the shift to the right extends the sign of signed words and clears the rest of the others.
    raised = np.left_shift(array, bits - stored - description.shift) if description.shift + stored < bits else array
    lowered: Pixels = np.right_shift(raised, bits - stored)
    return lowered


def decode_native(encoded: bytes | memoryview, description: PixelDescription) -> DecodedFrame:
    """The words of a native frame; raises UndecodablePixels."""
    photometric = description.photometric_interpretation
    if photometric == SUBSAMPLED and description.samples_per_pixel == 3:
        return DecodedFrame(_full_chroma(encoded, description), FULL)
    count = description.rows * description.columns * description.samples_per_pixel
    if description.bits_allocated == 1:
        flat: Pixels = np.unpackbits(_words(encoded, -(-count // 8), np.dtype("u1")), bitorder="little")[:count]
    elif description.bits_allocated == 12:
        flat = _packed_by_12(_words(encoded, -(-count * 3 // 2), np.dtype("u1")), count).astype(description.dtype)
    elif description.bits_allocated % 8 or description.dtype.itemsize * 8 != description.bits_allocated:
        raise UndecodablePixels(f"Bits Allocated (0028,0100) is {description.bits_allocated}.")
    else:
        flat = _words(encoded, count, description.dtype)
    if description.planar and description.samples_per_pixel > 1:
        planes = flat.reshape(description.samples_per_pixel, description.rows, description.columns)
        return DecodedFrame(np.ascontiguousarray(np.moveaxis(planes, 0, -1)), _after_codec(photometric))
    return DecodedFrame(flat.reshape(description.shape), _after_codec(photometric))


def _words(encoded: bytes | memoryview, count: int, dtype: np.dtype[Any]) -> Pixels:
    if len(encoded) < count * dtype.itemsize:
        raise UndecodablePixels(f"The frame has {len(encoded)} bytes of {count * dtype.itemsize}.")
    return np.frombuffer(encoded, dtype.newbyteorder("<"), count)


def _packed_by_12(octets: Pixels, count: int) -> Pixels:
    """Samples of 12 bits one behind the other (PS3.5 8.1.1 as it was, retired)."""
    wide = np.zeros(-(-count // 2) * 3, "u2")
    wide[: octets.size] = octets
    low, middle, high = wide[0::3], wide[1::3], wide[2::3]
    samples = np.stack([low | (middle & 0x0F) << 8, middle >> 4 | high << 4], axis=-1)
    return samples.reshape(-1)[:count]


def _full_chroma(encoded: bytes | memoryview, description: PixelDescription) -> Pixels:
    """Y1 Y2 Cb Cr of every two pixels (PS3.3 C.7.6.3.1.2) with the chroma of the first for both."""
    if description.bits_allocated != 8 or description.columns % 2:
        raise UndecodablePixels("YBR_FULL_422 needs 8 bits and an even number of columns.")
    pairs = _words(encoded, description.rows * description.columns * 2, np.dtype("u1")).reshape(description.rows, -1, 4)
    full = np.empty((description.rows, description.columns, 3), "u1")
    full[:, 0::2, 0], full[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
    full[..., 1] = np.repeat(pairs[..., 2], 2, axis=1)
    full[..., 2] = np.repeat(pairs[..., 3], 2, axis=1)
    return full


def refusal(description: PixelDescription, target_uid: str) -> str:
    """Why such frames cannot be written in a transfer syntax; empty when they can."""
    bits = description.dtype.itemsize * 8
    if target_uid in NATIVE:
        return ""
    is_bits = description.bits_allocated == 1
    if description.is_float or (is_bits and target_uid not in _OF_BITS) or (bits > 16 and target_uid not in _OF_BYTES):
        return f"Pixels of {description.bits_allocated} bits{' (float)' * description.is_float} cannot be written as {target_uid}."
    if description.samples_per_pixel == 4 and target_uid not in _OF_BYTES:
        return f"Pixels of four samples cannot be written as {target_uid}."
    if target_uid in IRREVERSIBLE and description.photometric_interpretation == "PALETTE COLOR":
        return "Indices into a palette do not stand any loss."
    if target_uid in DCT and (description.signed or description.stored > (8 if target_uid == JPEG_BASELINE else 12)):
        return f"Pixels of {description.stored} bits{', signed,' * description.signed} cannot be written as {target_uid}."
    if target_uid in DCT and description.samples_per_pixel == 3 and description.stored > 8:
        return f"Colours of {description.stored} bits cannot be written as {target_uid}."
    return "" if target_uid in DECODABLE else f"Nothing is written as {target_uid} here."
