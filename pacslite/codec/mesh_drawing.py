"""Draws triangles by numpy: no graphics card, no display, and memory for little more than the picture.

There is one buffer: for each pixel a number whose high bits are the depth and whose low ones the brightness of what is nearest.
Triangles are drawn many at once, those whose boxes are of about the same size together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_MARGIN = 0.05
_AROUND, _ABOVE = np.radians(30.0), np.radians(28.0)
_LIGHT = np.array([-0.30, 0.45, 0.84], np.float32)
_AMBIENT, _DIFFUSE = 60.0, 195.0
_COLOUR = np.array([0.99, 0.955, 0.88], np.float32)  # bone, on white
_EMPTY = np.uint32(0xFFFFFFFF)
# How much more than its share a triangle of a sample covers, because chance leaves gaps.
_COVER = 2.4
_DEPTHS = float((1 << 24) - 2)
_BOXES = (2, 4, 8, 16, 32)
_PIXELS_AT_ONCE = 1 << 16
# What the triangles that are larger than any box may cost in all; those after that are left out.
_MOST_PIXELS = 1 << 29


def picture(triangles: Callable[[], Iterable[Floats]], stride: int, pixels: int) -> NDArray[np.uint8]:
    """A picture of `pixels` square, RGB, of triangles (n, 3 corners, 3 coordinates), each of which stands for `stride` ones."""
    view = _view()
    low, high = _extent(some @ view.T for some in triangles())
    middle, span = (low + high) / 2, np.maximum(high - low, 1e-30)
    scale = pixels * (1 - 2 * _MARGIN) / max(span[0], span[1])
    buffer = np.full(pixels * pixels, _EMPTY)
    canvas = _Canvas(buffer, pixels)
    for some in triangles():
        turned = _grown(np.asarray(some @ view.T - middle, np.float32), stride)
        brightness = _brightness(turned)
        turned[..., :2] = turned[..., :2] * (scale, -scale) + pixels / 2
        turned[..., 2] = np.clip(0.5 - turned[..., 2] / span[2], 0, 1) * _DEPTHS
        canvas.draw(turned, brightness)
    return _coloured(buffer, pixels)


def _view() -> Floats:
    """The axes of the picture: right, up, towards the eye, which is in front (-y), to the right and above; z is up."""
    eye = np.array([np.sin(_AROUND) * np.cos(_ABOVE), -np.cos(_AROUND) * np.cos(_ABOVE), np.sin(_ABOVE)])
    right = np.array([np.cos(_AROUND), np.sin(_AROUND), 0.0])
    return np.array([right, np.cross(eye, right), eye], np.float32)


def _extent(places: Iterable[Floats]) -> tuple[Floats, Floats]:
    low, high = np.full(3, np.inf, np.float32), np.full(3, -np.inf, np.float32)
    for some in places:
        low, high = np.minimum(low, some.min(axis=(0, 1))), np.maximum(high, some.max(axis=(0, 1)))
    return low, high


def _grown(turned: Floats, stride: int) -> Floats:
    """Made larger about their middles, so that a sample covers what all would."""
    if stride == 1:
        return turned
    middles = turned.mean(axis=1, keepdims=True)
    return np.asarray(middles + (turned - middles) * np.float32(_COVER * np.sqrt(stride)), np.float32)


def _brightness(turned: Floats) -> NDArray[np.uint32]:
    """By the angle to the light; both sides of a surface are lit."""
    sides = turned[:, 1:] - turned[:, :1]
    normals = np.cross(sides[:, 0], sides[:, 1])
    lengths = np.sqrt((normals * normals).sum(axis=1, keepdims=True))
    normals /= np.maximum(lengths, 1e-30)
    normals *= np.where(normals[:, 2:] < 0, np.float32(-1), np.float32(1))
    return (_AMBIENT + _DIFFUSE * np.clip(normals @ _LIGHT, 0, 1)).astype(np.uint32)


def _coloured(buffer: NDArray[np.uint32], pixels: int) -> NDArray[np.uint8]:
    result = np.full((pixels, pixels, 3), 255, np.uint8)
    rows = buffer.reshape(pixels, pixels)
    for row, target in zip(rows, result, strict=True):
        filled = row != _EMPTY
        target[filled] = ((row[filled] & np.uint32(0xFF)).astype(np.float32)[:, None] * _COLOUR).astype(np.uint8)
    return result


class _Canvas:
    def __init__(self, buffer: NDArray[np.uint32], pixels: int) -> None:
        self._buffer, self._pixels = buffer, pixels
        self._left = _MOST_PIXELS

    def draw(self, some: Floats, brightness: NDArray[np.uint32]) -> None:
        """Triangles in pixels and depth."""
        low, high = some[..., :2].min(axis=1), some[..., :2].max(axis=1)
        corner = np.clip(np.floor(low), 0, self._pixels - 1).astype(np.int64)
        size = np.clip(np.floor(high), 0, self._pixels - 1).astype(np.int64) - corner + 1
        widest = size.max(axis=1)
        # Whatever is too small to cover the middle of a pixel is a point.
        self._points(some[widest <= _BOXES[0]], brightness[widest <= _BOXES[0]])
        before = 1
        for box in _BOXES:
            chosen = np.flatnonzero((widest > before) & (widest <= box))
            step = max(1, _PIXELS_AT_ONCE // (box * box))
            for at in range(0, len(chosen), step):
                these = chosen[at : at + step]
                self._boxes(some[these], brightness[these], corner[these], box, box)
            before = box
        for number in np.flatnonzero(widest > _BOXES[-1]):
            self._large(some[number : number + 1], brightness[number : number + 1], corner[number], size[number])

    def _points(self, some: Floats, brightness: NDArray[np.uint32]) -> None:
        middles = some.mean(axis=1)
        x, y = (np.clip(middles[:, axis], 0, self._pixels - 1).astype(np.int64) for axis in (0, 1))
        np.minimum.at(self._buffer, y * self._pixels + x, (middles[:, 2].astype(np.uint32) << np.uint32(8)) | brightness)

    def _large(self, one: Floats, brightness: NDArray[np.uint32], corner: NDArray[np.int64], size: NDArray[np.int64]) -> None:
        width, height = (int(side) for side in size)
        self._left -= width * height
        if self._left < 0:
            return
        rows = max(1, _PIXELS_AT_ONCE // width)
        for top in range(0, height, rows):
            self._boxes(one, brightness, np.array([[corner[0], corner[1] + top]]), width, min(rows, height - top))

    def _boxes(self, some: Floats, brightness: NDArray[np.uint32], corner: NDArray[np.int64], width: int, height: int) -> None:
        """Triangles, each within a box of that size at its corner."""
        x = corner[:, 0, None] + np.tile(np.arange(width), height)
        y = corner[:, 1, None] + np.repeat(np.arange(height), width)
        depth, inside = _depths(some, x, y)
        inside &= (x < self._pixels) & (y < self._pixels)
        keys = (depth[inside].astype(np.uint32) << np.uint32(8)) | np.broadcast_to(brightness[:, None], inside.shape)[inside]
        np.minimum.at(self._buffer, (y * self._pixels + x)[inside], keys)


def _depths(some: Floats, x: NDArray[np.int64], y: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
    """The depth of each triangle at the middles of these pixels, and whether they are within it."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = ([some[:, at, axis, None] for axis in range(3)] for at in range(3))
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    area = np.where(np.abs(area) < 1e-12, np.float32(1e-12), area)
    px, py = x.astype(np.float32) + np.float32(0.5) - ax, y.astype(np.float32) + np.float32(0.5) - ay
    of_b = (px * (cy - ay) - py * (cx - ax)) / area
    of_c = (py * (bx - ax) - px * (by - ay)) / area
    slack = np.float32(1e-4)  # neighbours leave no gap
    inside = (of_b >= -slack) & (of_c >= -slack) & (of_b + of_c <= 1 + slack)
    depth = np.clip(az + of_b * (bz - az) + of_c * (cz - az), 0, _DEPTHS)
    return depth, inside
