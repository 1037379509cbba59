"""From stored grey values to eight bits for the screen: modality, VOI and presentation (PS3.3 C.11.1, C.11.2, C.11.6).

Values of up to 16 bits go through one table for every bit pattern a stored pixel can have, so that a picture costs one
look-up for each pixel. Tables are kept: the slices of a series share theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacslite.codec.render_options import LINEAR_EXACT, SIGMOID, Window

Table = NDArray[np.uint8]
Values = NDArray[np.float64]

# Tables of 64 KiB each.
_KEPT_TABLES = 64
_STRIP = 1 << 19


@dataclass(frozen=True, slots=True)
class Lut:
    """A look-up table: the first value mapped, bits of an entry, and the entries as little endian words of 16 bits."""

    first: int
    bits: int
    words: bytes

    def entries(self) -> NDArray[np.uint16]:
        """The entries as numbers."""
        return np.frombuffer(self.words, "<u2")


@dataclass(frozen=True, slots=True)
class Transform:
    """What turns a stored grey value into what is shown. Tables go before slope and intercept, and before the window."""

    slope: float = 1.0
    intercept: float = 0.0
    modality: Lut | None = None
    window: Window | None = None
    voi: Lut | None = None
    invert: bool = False


@dataclass(frozen=True, slots=True)
class Bits:
    """Where the value lies in the bits of a stored pixel (PS3.5 8.1.1)."""

    allocated: int
    stored: int
    high: int
    signed: bool

    @property
    def lowest(self) -> int:
        """The smallest value that can be stored."""
        return -(1 << self.stored - 1) if self.signed else 0

    @property
    def highest(self) -> int:
        """The largest value that can be stored."""
        return (1 << self.stored - self.signed) - 1


def stored_values(raw: NDArray[Any], bits: Bits) -> NDArray[np.int64]:
    """The values in bit patterns: what lies beside the stored bits is cut off, the sign extended."""
    values = (raw.astype(np.int64) >> max(bits.high + 1 - bits.stored, 0)) & ((1 << bits.stored) - 1)
    if bits.signed:
        sign = 1 << bits.stored - 1
        values = (values ^ sign) - sign
    return values


def after_modality(values: NDArray[Any], transform: Transform) -> Values:
    """Modality values of stored values."""
    if transform.modality is not None:
        entries = transform.modality.entries()
        at = np.clip(values.astype(np.int64) - transform.modality.first, 0, len(entries) - 1)
        return entries[at].astype(np.float64)
    return values.astype(np.float64) * transform.slope + transform.intercept


def shown(values: Values, transform: Transform) -> Table:
    """Modality values as 0 (black) to 255, by the VOI table or the window, which one of them must be there."""
    if transform.voi is not None:
        entries = transform.voi.entries()
        at = np.clip(np.floor(values), transform.voi.first, transform.voi.first + len(entries) - 1).astype(np.int64) - transform.voi.first
        # Some tables say more bits than they use less often than they use more than they say.
        top = max((1 << transform.voi.bits) - 1, int(entries.max()))
        levels = entries[at] * (255.0 / top)
    else:
        assert transform.window is not None
        levels = _windowed(values, transform.window)
    grey = (levels + 0.5).astype(np.uint8)
    return np.subtract(255, grey, dtype=np.uint8) if transform.invert else grey


def _windowed(values: Values, window: Window) -> Values:
    center, width = window.center, window.width
    with np.errstate(over="ignore", invalid="ignore"):
        if window.function == SIGMOID:
            levels = 255.0 / (1.0 + np.exp(-4.0 * (values - center) / width))
        elif window.function == LINEAR_EXACT:
            levels = ((values - center) / width + 0.5) * 255.0
        elif width <= 1:
            levels = np.where(values > center - 0.5, 255.0, 0.0)
        else:
            levels = ((values - (center - 0.5)) / (width - 1) + 0.5) * 255.0
        return np.nan_to_num(np.clip(levels, 0.0, 255.0), nan=0.0)


def spanning(lowest: float, highest: float) -> Window:
    """The window that shows the lowest value black and the highest white."""
    return Window((lowest + highest) / 2, max(highest - lowest, 1e-12), LINEAR_EXACT)


@lru_cache(maxsize=_KEPT_TABLES)
def table(bits: Bits, transform: Transform) -> Table:
    """What is shown for every bit pattern of a pixel of 8 or 16 bits."""
    grey = shown(after_modality(np.arange(bits.lowest, bits.highest + 1), transform), transform)
    if bits.signed or bits.stored < bits.allocated:
        patterns = np.arange(1 << bits.allocated, dtype=np.uint32)
        grey = grey[stored_values(patterns, bits) - bits.lowest]
    grey.setflags(write=False)
    return grey


def grey_of(raw: NDArray[Any], bits: Bits, transform: Transform, padding: int | None = None) -> Table:
    """A whole picture; without window and table the values that are there are spread from black to white.

    `padding` is the stored value of pixels that are no part of the picture.
    """
    if transform.window is None and transform.voi is None:
        transform = _spread(raw, bits, transform, padding)
    flat = raw.reshape(-1)
    out = np.empty(flat.shape, np.uint8)
    small = raw.dtype.kind == "u" and bits.allocated in (8, 16)
    levels = table(bits, transform) if small else None
    for at in range(0, len(flat), _STRIP):
        strip = flat[at : at + _STRIP]
        if levels is not None:
            np.take(levels, strip, out=out[at : at + _STRIP], mode="wrap")
        else:
            values = strip if strip.dtype.kind == "f" else stored_values(strip, bits)
            out[at : at + _STRIP] = shown(after_modality(values, transform), transform)
    return out.reshape(raw.shape)


def _spread(raw: NDArray[Any], bits: Bits, transform: Transform, padding: int | None) -> Transform:
    """The transform with a window over all that can be stored in 8 bits, else over what is there."""
    if raw.dtype.kind != "f" and bits.stored <= 8:
        ends = after_modality(np.array([bits.lowest, bits.highest]), transform)
    else:
        ends = after_modality(_extremes(raw, bits, padding), transform)
    lowest, highest = sorted(map(float, ends))
    return Transform(transform.slope, transform.intercept, transform.modality, spanning(lowest, highest), None, transform.invert)


def _extremes(raw: NDArray[Any], bits: Bits, padding: int | None) -> NDArray[Any]:
    found: list[float] = []
    flat = raw.reshape(-1)
    for at in range(0, len(flat), _STRIP):
        strip = flat[at : at + _STRIP]
        values: NDArray[Any] = strip if strip.dtype.kind == "f" else stored_values(strip, bits)
        values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if padding is not None:
            values = values[values != padding]
        if values.size:
            found += [float(values.min()), float(values.max())]
    if not found:
        found = [0.0, 1.0]
    return np.array([min(found), max(found)])
