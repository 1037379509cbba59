"""One frame as a picture of eight bits, grey or RGB: every photometric interpretation of PS3.3 C.7.6.3.1.2 that is in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacslite.codec.render_values import Bits, Lut, Transform, grey_of
from pacslite.errors import NotAcceptable

Picture = NDArray[np.uint8]

_YBR = frozenset({"YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"})
# Decoders of JPEG 2000 undo these themselves (PS3.5 8.2.4).
_RGB = frozenset({"RGB", "YBR_ICT", "YBR_RCT"})
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_STRIP_ROWS_PIXELS = 1 << 19


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """The Image Pixel Module (PS3.3 C.7.6.3). `real`: values are floating point numbers."""

    rows: int
    columns: int
    samples: int
    photometric: str
    bits: Bits
    planar: bool = False
    real: bool = False
    palette: tuple[Lut, Lut, Lut] | None = None
    padding: int | None = None

    @property
    def frame_bits(self) -> int:
        """Bits of one native frame."""
        count = self.rows * self.columns * self.samples * self.bits.allocated
        # Two pixels share their chrominance (PS3.3 C.7.6.3.1.2).
        return count * 2 // 3 if self.photometric in ("YBR_FULL_422", "YBR_PARTIAL_422") else count


def native(data: bytes, form: PixelFormat) -> NDArray[Any]:
    """The samples of a native frame as they came, little endian: (rows, columns) or (rows, columns, samples)."""
    if len(data) * 8 < form.frame_bits:
        raise NotAcceptable("The frame has fewer bytes than its rows and columns need.")
    if form.samples == 1:
        return _samples(data, form, form.rows * form.columns).reshape(form.rows, form.columns)
    if form.photometric in ("YBR_FULL_422", "YBR_PARTIAL_422"):
        return _full_chrominance(_samples(data, form, form.rows * form.columns * 2), form)
    samples = _samples(data, form, form.rows * form.columns * form.samples)
    if form.planar:
        return np.moveaxis(samples.reshape(form.samples, form.rows, form.columns), 0, 2)
    return samples.reshape(form.rows, form.columns, form.samples)


def _samples(data: bytes, form: PixelFormat, count: int) -> NDArray[Any]:
    allocated = form.bits.allocated
    if allocated == 1:
        return np.unpackbits(np.frombuffer(data, np.uint8), count=count, bitorder="little")
    if allocated not in (8, 16, 32, 64):
        raise NotAcceptable(f"Pixels of {allocated} bits cannot be shown.")
    return np.frombuffer(data, f"<{'f' if form.real else 'u'}{allocated // 8}", count)


def _full_chrominance(samples: NDArray[Any], form: PixelFormat) -> NDArray[Any]:
    """Y1 Y2 Cb Cr for every two pixels, one sample each for every pixel."""
    if form.columns % 2:
        raise NotAcceptable("Rows of an odd number of pixels cannot share their chrominance.")
    pairs = samples.reshape(form.rows, form.columns // 2, 4)
    full = np.empty((form.rows, form.columns, 3), samples.dtype)
    full[:, 0::2, 0], full[:, 1::2, 0] = pairs[:, :, 0], pairs[:, :, 1]
    full[:, :, 1:] = np.repeat(pairs[:, :, 2:], 2, axis=1)
    return full


def picture(frame: NDArray[Any], form: PixelFormat, transform: Transform) -> Picture:
    """The picture of a frame: (rows, columns) of grey or (rows, columns, 3) of RGB; raises NotAcceptable."""
    if form.photometric == "PALETTE COLOR" and form.palette is not None:
        return _coloured(frame, form.bits, form.palette)
    if form.samples == 1 and form.photometric in _GREY:
        return grey_of(frame, form.bits, transform, form.padding)
    if form.samples == 3 and form.photometric in _RGB | _YBR:
        eight = _eight_bits(frame, form.bits)
        if form.photometric in _YBR:
            return _rgb_of_ybr(eight, form.photometric.startswith("YBR_PARTIAL"))
        return np.ascontiguousarray(eight)
    raise NotAcceptable(f"Pictures of photometric interpretation {form.photometric[:16]!r} cannot be shown.")


def _eight_bits(frame: NDArray[Any], bits: Bits) -> Picture:
    if frame.dtype == np.uint8 and bits.stored == 8:
        return frame
    if frame.dtype.kind != "u" or bits.allocated > 16:
        raise NotAcceptable("Colours of more than 16 bits cannot be shown.")
    # Straight from black to white: colour has no VOI (PS3.3 C.11.2).
    top = (1 << bits.stored) - 1
    levels = np.arange(1 << bits.allocated, dtype=np.uint32) >> max(bits.high + 1 - bits.stored, 0) & top
    levels = (levels * 255 + top // 2) // top
    found: Picture = levels.astype(np.uint8)[frame]
    return found


def _rgb_of_ybr(frame: Picture, partial: bool) -> Picture:
    """By the matrix of PS3.3 C.7.6.3.1.2, which JFIF uses too."""
    from PIL import Image

    if partial:
        # Luminance 16 to 235 and chrominance 16 to 240 are spread to the full range first.
        scaled = np.empty(frame.shape, np.uint8)
        scaled[..., 0] = _spread(16, 235)[frame[..., 0]]
        scaled[..., 1:] = _spread(16, 240)[frame[..., 1:]]
        frame = scaled
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame), "YCbCr").convert("RGB"))


def _spread(lowest: int, highest: int) -> Picture:
    values = (np.arange(256) - lowest) * (255.0 / (highest - lowest))
    found: Picture = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return found


def _coloured(frame: NDArray[Any], bits: Bits, palette: tuple[Lut, Lut, Lut]) -> Picture:
    if frame.dtype.kind != "u" or bits.allocated > 16:
        raise NotAcceptable("Palettes are for pixels of 8 or 16 bits.")
    from pacslite.codec.render_values import stored_values

    values = stored_values(np.arange(1 << bits.allocated, dtype=np.uint32), bits)
    colours = np.stack([_column(lut, values) for lut in palette], axis=1)
    flat = frame.reshape(-1)
    out = np.empty((len(flat), 3), np.uint8)
    for at in range(0, len(flat), _STRIP_ROWS_PIXELS):
        np.take(colours, flat[at : at + _STRIP_ROWS_PIXELS], axis=0, out=out[at : at + _STRIP_ROWS_PIXELS], mode="wrap")
    return out.reshape((*frame.shape, 3))


def _column(lut: Lut, values: NDArray[np.int64]) -> Picture:
    """What one colour table gives for each value, as eight bits."""
    entries = lut.entries()
    # Entries said to be of 16 bits that never use the upper half are 8 bits meant for 16.
    wide = lut.bits > 8 and int(entries.max(initial=0)) > 255
    levels = (entries >> (lut.bits - 8) if wide else entries).astype(np.uint8)
    found: Picture = levels[np.clip(values - lut.first, 0, len(levels) - 1)]
    return found


def segmented(data: bytes) -> bytes:
    """The entries of a segmented palette (PS3.3 C.7.9.2) of 16 bits, unfolded; raises NotAcceptable when it is malformed."""
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2").tolist()
    out: list[int] = []
    starts: list[int] = []
    at = 0
    while at + 1 < len(words):
        starts.append(at)
        at = _segment(words, at, out, starts)
        if len(out) > 1 << 16:
            raise NotAcceptable("A segmented palette is longer than 65536 entries.")
    return np.array(out, "<u2").tobytes()


def _segment(words: list[int], at: int, out: list[int], starts: list[int], nested: bool = False) -> int:
    """Unfolds the segment that begins at a word; gives where the next begins."""
    opcode, count = words[at], words[at + 1]
    if opcode == 0 and at + 2 + count <= len(words):
        out.extend(words[at + 2 : at + 2 + count])
        return at + 2 + count
    if opcode == 1 and out and at + 2 < len(words):
        first, last = out[-1], words[at + 2]
        out.extend(round(first + (last - first) * step / count) for step in range(1, count + 1))
        return at + 3
    if opcode == 2 and not nested and at + 3 < len(words):
        # Bytes to where the copied segments begin, the less significant half first.
        wanted = (words[at + 2] | words[at + 3] << 16) // 2
        if wanted in starts[:-1]:
            for copied in starts[starts.index(wanted) :][:count]:
                if copied == at:
                    break
                _segment(words, copied, out, starts, nested=True)
                if len(out) > 1 << 16:
                    break
            return at + 4
    raise NotAcceptable("A segmented palette is malformed.")
