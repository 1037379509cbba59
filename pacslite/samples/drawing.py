"""Shapes on a grid of pixels, by whole numbers only: the same picture on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.int32]
Mask = NDArray[np.bool_]

# Five columns by seven rows for each digit, the leftmost column in the highest bit.
_DIGITS = (
    (14, 17, 19, 21, 25, 17, 14),
    (4, 12, 4, 4, 4, 4, 14),
    (14, 17, 1, 2, 4, 8, 31),
    (31, 2, 4, 2, 1, 17, 14),
    (2, 6, 10, 18, 31, 2, 2),
    (31, 16, 30, 1, 1, 17, 14),
    (6, 8, 16, 30, 17, 17, 14),
    (31, 1, 2, 4, 8, 8, 8),
    (14, 17, 17, 14, 17, 17, 14),
    (14, 17, 17, 15, 1, 2, 12),
)


class Canvas:
    """A picture of `rows` by `columns` values that shapes are painted on; points are (column, row)."""

    def __init__(self, rows: int, columns: int, background: int) -> None:
        self.values: Grid = np.full((rows, columns), background, dtype=np.int32)
        self._rows, self._columns = np.ogrid[:rows, :columns]

    def ellipse(self, centre: tuple[int, int], radii: tuple[int, int], value: int) -> None:
        """A filled ellipse; nothing for a radius below 1."""
        self.values[self.inside(centre, radii)] = value

    def inside(self, centre: tuple[int, int], radii: tuple[int, int]) -> Mask:
        """Which pixels lie in the ellipse."""
        (x, y), (a, b) = centre, radii
        if a < 1 or b < 1:
            return np.zeros(self.values.shape, dtype=np.bool_)
        mask: Mask = (self._columns - x) ** 2 * b**2 + (self._rows - y) ** 2 * a**2 <= (a * b) ** 2
        return mask

    def rectangle(self, corner: tuple[int, int], size: tuple[int, int], value: int) -> None:
        """A filled rectangle from its upper left corner."""
        (x, y), (width, height) = corner, size
        self.values[y : y + height, x : x + width] = value

    def number(self, corner: tuple[int, int], number: int, scale: int, value: int) -> None:
        """A number in two digits at least, 12 by 7 squares of `scale` pixels."""
        x, y = corner
        for digit in f"{number:02}":
            for row, bits in enumerate(_DIGITS[int(digit)]):
                for column in range(5):
                    if bits >> (4 - column) & 1:
                        self.rectangle((x + column * scale, y + row * scale), (scale, scale), value)
            x += 6 * scale

    def grain(self, where: Mask, amplitude: int, seed: int) -> None:
        """Adds repeatable noise of -amplitude..amplitude to the pixels of the mask (a multiplicative hash of the position)."""
        rows, columns = (axis.astype(np.uint64) for axis in (self._rows, self._columns))
        mixed = (rows * np.uint64(73856093)) ^ (columns * np.uint64(19349663)) ^ np.uint64(seed * 83492791)
        mixed = (mixed ^ (mixed >> np.uint64(13))) * np.uint64(1274126177)
        noise = (mixed >> np.uint64(16)) % np.uint64(2 * amplitude + 1)
        self.values[where] += noise[where].astype(np.int32) - amplitude
