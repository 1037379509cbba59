"""Surfaces: how large, of how many triangles, whether closed, and a picture of them. Runs in a process of its own (`apart`).

The file is read once, as a stream, and nothing that grows with it stays in memory: what is to be compared (edges) and drawn
(a sample of the triangles) goes to files of no name. The figures are exact for any size.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pacslite.codec import mesh_drawing
from pacslite.codec.mesh_files import Triangles, triangles_of
from pacslite.codec.pictures import Wanted, write
from pacslite.errors import UndecodablePixels

TASK = "pacslite.codec.meshes:make"
SAMPLE = 500_000
"""Triangles that are drawn at most; of a larger model every n-th stands for its neighbours."""

_BUCKET_BYTES = 1024 * 1024
_MOST_BUCKETS = 256
_EDGE_BYTES = 16
_AT_ONCE = 8192


def make(path: str, kind: str, wanted: Sequence[Wanted], scratch: str) -> dict[str, Any]:
    """Write pictures of a model; what was found out about it. Raises UndecodablePixels."""
    with closing(_Edges(scratch, path)) as edges, closing(_Sample(scratch)) as sample:
        info = _figures(triangles_of(path, kind, scratch), edges, sample)
        picture = mesh_drawing.picture(sample.read, sample.stride, max(pixels for _, pixels, _ in wanted))
    write(Image.fromarray(picture), wanted)
    return info


def _figures(triangles: Iterator[Triangles], edges: _Edges, sample: _Sample) -> dict[str, Any]:
    count, degenerate = 0, 0
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for some in triangles:
        if not len(some):
            continue
        count += len(some)
        low, high = np.minimum(low, some.min(axis=(0, 1))), np.maximum(high, some.max(axis=(0, 1)))
        degenerate += edges.add(some)
        sample.add(some)
    if not count:
        raise UndecodablePixels("The model has no triangles.")
    return {
        "triangles": count,
        "degenerate_triangles": degenerate,
        "dimensions": [float(side) for side in high - low],
        "bounds": [[float(value) for value in low], [float(value) for value in high]],
        "is_watertight": edges.are_paired(),
    }


class _Edges:
    """Whether every edge belongs to two triangles. Edges are told by the places of their ends, as 128 bits, and sorted bucket by bucket."""

    def __init__(self, scratch: str, path: str) -> None:
        # A triangle takes 30 bytes at the least, and has three edges.
        expected = os.path.getsize(path) // 30 * 3 * _EDGE_BYTES
        self._count = 1 << min(_MOST_BUCKETS, max(1, expected // _BUCKET_BYTES)).bit_length() - 1
        self._files: list[IO[bytes]] = [tempfile.TemporaryFile(dir=scratch, buffering=0) for _ in range(self._count)]  # noqa: SIM115
        self._total = 0

    def add(self, some: Triangles) -> int:
        """How many of the triangles are none: they have corners in one place, or all on a line. The former have no part in the surface."""
        first, second = _places(some)
        ends = first ^ (second << np.uint64(1))
        flat = (ends == np.roll(ends, 1, axis=1)).any(axis=1)
        first, second = first[~flat], second[~flat]
        one, other = np.roll(first, -1, axis=1), np.roll(second, -1, axis=1)
        # An edge is the same in both directions.
        low = _mixed(np.minimum(first, one) ^ _mixed(np.maximum(first, one) + _ODD)).ravel()
        high = _mixed((second + other) ^ _mixed(second ^ other)).ravel()
        self._write(low, high)
        sides = some[:, 1:] - some[:, :1]
        area = np.cross(sides[:, 0], sides[:, 1])
        return int((flat | ~area.any(axis=1)).sum())

    def _write(self, low: NDArray[np.uint64], high: NDArray[np.uint64]) -> None:
        self._total += len(low)
        buckets = (low >> np.uint64(40)).astype(np.int64) & (self._count - 1)
        order = np.argsort(buckets, kind="stable")
        pairs = np.stack([low[order], high[order]], axis=1)
        ends = np.cumsum(np.bincount(buckets, minlength=self._count))
        begin = 0
        for file, end in zip(self._files, ends.tolist(), strict=True):
            if end > begin:
                file.write(pairs[begin:end].tobytes())
            begin = end

    def are_paired(self) -> bool:
        """Asked at the end."""
        return self._total > 0 and all(_is_paired(file) for file in self._files)

    def close(self) -> None:
        for file in self._files:
            file.close()


_ODD = np.uint64(0x9E3779B97F4A7C15)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit depends on every other (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _places(some: Triangles) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Two numbers of 64 bits for the place of each corner, shape (n, 3); + 0.0 makes one zero of both."""
    bits = np.ascontiguousarray(some + 0.0).view(np.uint64)
    first, second = _mixed(bits[..., 0] + _ODD), _mixed(bits[..., 0] ^ _ODD)
    for axis in (1, 2):
        first, second = _mixed(first * np.uint64(31) + bits[..., axis]), _mixed(second * np.uint64(37) ^ bits[..., axis])
    return first, second


def _is_paired(file: IO[bytes]) -> bool:
    """Whether everything in a bucket is there exactly twice."""
    file.seek(0)
    values = np.frombuffer(file.read(), np.uint64).reshape(-1, 2)
    if len(values) % 2:
        return False
    values = values[np.lexsort((values[:, 1], values[:, 0]))]
    one, other = values[0::2], values[1::2]
    return bool((one == other).all() and not (other[:-1] == one[1:]).all(axis=1).any())


class _Sample:
    """One of every n triangles, at most `SAMPLE` of them; n grows with the model. Places are relative to `origin`.

    Which one of the n is left to chance: in the grid of a scanner every n-th may be in the same column.
    """

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - closed by `close`
        self.stride, self._count, self._thrown = 1, 0, 0
        self.origin: NDArray[np.float64] | None = None

    def add(self, some: Triangles) -> None:
        if self.origin is None and len(some):
            self.origin = some[0, 0].copy()
        firsts = np.arange(0, len(some), self.stride)
        numbers = firsts + self._chance(len(firsts)) % np.minimum(self.stride, len(some) - firsts)
        chosen = (some[numbers] - (0.0 if self.origin is None else self.origin)).astype(np.float32)
        self._file.write(chosen.tobytes())
        self._count += len(chosen)
        if self._count > SAMPLE:
            self._thin_out()

    def _chance(self, count: int) -> NDArray[np.int64]:
        """So many numbers that follow no pattern; the next ones each time."""
        self._thrown += count
        return (_mixed(np.arange(self._thrown - count, self._thrown, dtype=np.uint64) * _ODD) >> np.uint64(8)).astype(np.int64)

    def _thin_out(self) -> None:
        thinner: IO[bytes] = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115
        count = 0
        for some in self.read():
            firsts = np.arange(0, len(some), 2)
            chosen = some[np.minimum(firsts + self._chance(len(firsts)) % 2, len(some) - 1)]
            thinner.write(chosen.tobytes())
            count += len(chosen)
        self.close()
        self._file, self._count, self.stride = thinner, count, self.stride * 2

    def read(self) -> Iterator[NDArray[np.float32]]:
        """All of it, some at a time; nothing is added after it but by `_thin_out`."""
        self._file.seek(0)
        while data := self._file.read(_AT_ONCE * 36):
            yield np.frombuffer(data, np.float32).reshape(-1, 3, 3)

    def close(self) -> None:
        self._file.close()
