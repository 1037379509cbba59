"""Triangles of STL, OBJ and PLY files, read as a stream: an array of some thousand at a time, whatever the size of the file."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pacslite.errors import UndecodablePixels

Triangles = NDArray[np.float64]
"""Shape (n, 3, 3): corners by triangle, coordinates by corner."""

_AT_ONCE = 8192
_BLOCK_BYTES = 128 * 1024
_LONGEST_LINE = 1024 * 1024
_MOST_CORNERS = 10_000
_MOST_HEADER_LINES = 1000
_STL_HEAD, _STL_TRIANGLE = 84, 50
_VERTEX = re.compile(rb"\bvertex\s+(\S+)\s+(\S+)\s+(\S+)", re.IGNORECASE)
_STL_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}


def triangles_of(path: str, kind: str, scratch: str) -> Iterator[Triangles]:
    """The triangles of a file of that kind (stl, obj, ply), polygons cut into triangles; raises UndecodablePixels."""
    readers: dict[str, Callable[[BinaryIO, str], Iterator[Triangles]]] = {"stl": _stl, "obj": _obj, "ply": _ply}
    try:
        with open(path, "rb") as file:
            for some in readers[kind](file, scratch):
                if not np.isfinite(some).all():
                    raise UndecodablePixels("A coordinate is no number.")
                yield some
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
        raise UndecodablePixels("The model is damaged: it breaks the syntax of its format.") from error


def _lines(file: BinaryIO) -> Iterator[list[bytes]]:
    """The lines from here on, many at a time; one that ends in a backslash goes on in the next."""
    rest = b""
    while block := file.read(_BLOCK_BYTES):
        block = (rest + block).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        at = block.rfind(b"\n") + 1
        while at >= 2 and block[at - 2 : at - 1] == b"\\":
            at = block.rfind(b"\n", 0, at - 2) + 1
        rest = block[at:]
        if len(rest) > _LONGEST_LINE:
            raise UndecodablePixels("The model has a line that is too long.")
        yield block[:at].replace(b"\\\n", b" ").split(b"\n")
    yield [rest]


# STL


def _stl(file: BinaryIO, scratch: str) -> Iterator[Triangles]:
    head = file.read(_STL_HEAD)
    size = os.fstat(file.fileno()).st_size
    count = int.from_bytes(head[80:84], "little")
    # By the length: a binary file, too, may begin with "solid".
    if len(head) == _STL_HEAD and size == _STL_HEAD + count * _STL_TRIANGLE:
        yield from _binary_stl(file, count)
    elif head.lstrip()[:5].lower() == b"solid":
        file.seek(0)
        yield from _ascii_stl(file)
    else:
        raise UndecodablePixels("The STL file is not as long as its number of triangles says.")


def _binary_stl(file: BinaryIO, count: int) -> Iterator[Triangles]:
    while count > 0:
        data = file.read(min(count, _AT_ONCE) * _STL_TRIANGLE)
        records = np.frombuffer(data, _STL_RECORD)
        if not len(records):
            raise UndecodablePixels("The STL file is cut off.")
        count -= len(records)
        yield records["corners"].astype(np.float64)


def _ascii_stl(file: BinaryIO) -> Iterator[Triangles]:
    left: list[tuple[bytes, ...]] = []
    for lines in _lines(file):
        left += _VERTEX.findall(b"\n".join(lines))
        whole = len(left) // 3 * 3
        if whole:
            yield np.array(left[:whole], dtype=np.float32).astype(np.float64).reshape(-1, 3, 3)
            left = left[whole:]
    if left:
        raise UndecodablePixels("The STL file ends within a triangle.")


# Corners by number: the vertices lie in a file of no name, so that any number of them takes no memory


class _Vertices:
    """Vertices that are written one after the other and then looked up by number."""

    def __init__(self, scratch: str) -> None:
        self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - closed by `close`
        self._mapped: np.memmap[Any, np.dtype[np.float64]] | None = None
        self.count = 0

    def add(self, some: NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(some, dtype=np.float64).tobytes())
        self.count += len(some)

    def corners(self, numbers: NDArray[np.int64]) -> Triangles:
        """The triangles of these numbers, shape (n, 3)."""
        if numbers.size and (numbers.min() < 0 or numbers.max() >= self.count):
            raise UndecodablePixels("A face names a vertex that is not there.")
        if self._mapped is None:
            self._file.flush()
            self._mapped = np.memmap(self._file, np.float64, "r", shape=(self.count, 3)) if self.count else None
        if self._mapped is None:
            return np.zeros((0, 3, 3))
        found = np.asarray(self._mapped[numbers])
        # What was looked at is not kept in memory.
        self._mapped._mmap.madvise(_MADV_DONTNEED)  # type: ignore[attr-defined]
        return found

    def close(self) -> None:
        self._file.close()


_MADV_DONTNEED = 4


def _fans(faces: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Polygons as triangles around their first corner."""
    if any(len(face) > _MOST_CORNERS for face in faces):
        raise UndecodablePixels("A face has too many corners.")
    if all(len(face) == 3 for face in faces):
        return np.array(faces, dtype=np.int64).reshape(-1, 3)
    cut = [(face[0], face[at], face[at + 1]) for face in faces for at in range(1, len(face) - 1)]
    return np.array(cut, dtype=np.int64).reshape(-1, 3)


def _looked_up(vertices: _Vertices, numbers: NDArray[np.int64]) -> Iterator[Triangles]:
    for at in range(0, len(numbers), _AT_ONCE):
        yield vertices.corners(numbers[at : at + _AT_ONCE])


# OBJ: the vertices first, then the faces, so that it does not matter how they are mixed


def _obj(file: BinaryIO, scratch: str) -> Iterator[Triangles]:
    vertices = _Vertices(scratch)
    try:
        for lines in _lines(file):
            found = [line.split(None, 4)[1:4] for line in lines if line.lstrip()[:2] in (b"v ", b"v\t")]
            if found:
                vertices.add(np.array(found, dtype=np.float64).reshape(-1, 3))
        file.seek(0)
        seen = 0
        for lines in _lines(file):
            faces, seen = _obj_faces(lines, seen)
            if faces:
                yield from _looked_up(vertices, _fans(faces))
    finally:
        vertices.close()


def _obj_faces(lines: list[bytes], seen: int) -> tuple[list[list[int]], int]:
    """Faces by numbers of vertices from 0; a negative number counts back from the vertices before it."""
    faces = []
    for line in lines:
        words = line.split()
        if not words:
            continue
        if words[0] == b"v":
            seen += 1
        elif words[0] == b"f":
            numbers = [int(word.partition(b"/")[0]) for word in words[1:]]
            if 0 in numbers:
                raise UndecodablePixels("A face names a vertex that is not there.")
            faces.append([number - 1 if number > 0 else seen + number for number in numbers])
    return faces, seen


# PLY


@dataclass(frozen=True, slots=True)
class _Property:
    name: str
    type: str
    count_type: str | None = None  # of a list


@dataclass(frozen=True, slots=True)
class _Element:
    name: str
    count: int
    properties: tuple[_Property, ...]

    @property
    def has_lists(self) -> bool:
        return any(one.count_type for one in self.properties)


def _ply(file: BinaryIO, scratch: str) -> Iterator[Triangles]:
    form, elements = _ply_header(file)
    vertices, seen = _Vertices(scratch), False
    body = _PlyText(file) if form == "ascii" else _PlyBinary(file, "<" if form == "binary_little_endian" else ">")
    try:
        for element in elements:
            if element.name == "vertex":
                seen = True
                for rows in body.columns(element, ("x", "y", "z")):
                    vertices.add(rows)
            elif element.name == "face":
                if not seen:
                    raise UndecodablePixels("The PLY file has its faces before its vertices, which is not read.")
                for numbers in body.faces(element):
                    yield from _looked_up(vertices, numbers)
                return
            else:
                body.skip(element)
    finally:
        vertices.close()


def _ply_header(file: BinaryIO) -> tuple[str, list[_Element]]:
    if file.readline(100).strip() != b"ply":
        raise UndecodablePixels("This is no PLY file.")
    form = ""
    elements: list[_Element] = []
    for _ in range(_MOST_HEADER_LINES):
        words = file.readline(_LONGEST_LINE).decode("ascii", "replace").split()
        match words:
            case ["end_header"]:
                if form not in ("ascii", "binary_little_endian", "binary_big_endian"):
                    break
                return form, elements
            case ["format", name, *_]:
                form = name
            case ["element", name, count]:
                elements.append(_Element(name, int(count), ()))
            case ["property", "list", count_type, type_, name]:
                elements[-1] = _with(elements[-1], _Property(name, _PLY_TYPES[type_], _PLY_TYPES[count_type]))
            case ["property", type_, name]:
                elements[-1] = _with(elements[-1], _Property(name, _PLY_TYPES[type_]))
    raise UndecodablePixels("The header of the PLY file is damaged.")


def _with(element: _Element, one: _Property) -> _Element:
    return _Element(element.name, element.count, (*element.properties, one))


def _list_of_corners(element: _Element) -> int:
    """Which property lists the corners of a face."""
    for at, one in enumerate(element.properties):
        if one.count_type and one.name in ("vertex_indices", "vertex_index"):
            return at
    raise UndecodablePixels("The faces of the PLY file do not name their vertices.")


class _PlyText:
    """Elements of an ASCII file: a line each."""

    def __init__(self, file: BinaryIO) -> None:
        self._lines = (words for lines in _lines(file) for line in lines if (words := line.split()))

    def _rows(self, count: int) -> Iterator[list[list[bytes]]]:
        while count > 0:
            rows = [words for _, words in zip(range(min(count, _AT_ONCE)), self._lines, strict=False)]
            if not rows:
                raise UndecodablePixels("The PLY file is cut off.")
            count -= len(rows)
            yield rows

    def columns(self, element: _Element, names: Sequence[str]) -> Iterator[NDArray[np.float64]]:
        places = [[one.name for one in element.properties].index(name) for name in names]
        for rows in self._rows(element.count):
            yield np.array([[row[at] for at in places] for row in rows], dtype=np.float64)

    def faces(self, element: _Element) -> Iterator[NDArray[np.int64]]:
        corners = _list_of_corners(element)
        for rows in self._rows(element.count):
            yield _fans([self._corners(row, element, corners) for row in rows])

    @staticmethod
    def _corners(row: list[bytes], element: _Element, wanted: int) -> list[int]:
        at = 0
        for place, one in enumerate(element.properties):
            length = int(row[at]) if one.count_type else 0
            if place == wanted:
                return [int(word) for word in row[at + 1 : at + 1 + length]]
            at += 1 + length
        return []

    def skip(self, element: _Element) -> None:
        for _ in self._rows(element.count):
            pass


class _PlyBinary:
    """Elements of a binary file; rows whose lists are all of three corners, as nearly always, are read many at once."""

    def __init__(self, file: BinaryIO, order: str) -> None:
        self._file, self._order = file, order

    def _dtype(self, element: _Element, corners: int = 3) -> np.dtype[Any]:
        fields: list[tuple[Any, ...]] = []
        for at, one in enumerate(element.properties):
            if one.count_type:
                fields += [(f"n{at}", self._order + one.count_type), (f"p{at}", self._order + one.type, (corners,))]
            else:
                fields.append((f"p{at}", self._order + one.type))
        return np.dtype(fields)

    def _fixed(self, element: _Element) -> Iterator[NDArray[Any]]:
        form, count = self._dtype(element), element.count
        while count > 0 and form.itemsize:
            rows = np.frombuffer(self._file.read(min(count, _AT_ONCE) * form.itemsize), form)
            if not len(rows):
                raise UndecodablePixels("The PLY file is cut off.")
            count -= len(rows)
            yield rows

    def columns(self, element: _Element, names: Sequence[str]) -> Iterator[NDArray[np.float64]]:
        places = [[one.name for one in element.properties].index(name) for name in names]
        if element.has_lists:
            raise UndecodablePixels("The vertices of the PLY file have lists, which is not read.")
        for rows in self._fixed(element):
            yield np.stack([rows[f"p{at}"].astype(np.float64) for at in places], axis=1)

    def faces(self, element: _Element) -> Iterator[NDArray[np.int64]]:
        corners, count = _list_of_corners(element), element.count
        form = self._dtype(element)
        is_plain = sum(one.count_type is not None for one in element.properties) == 1
        while count > 0:
            wanted, here = min(count, _AT_ONCE), self._file.tell()
            data = self._file.read(wanted * form.itemsize) if is_plain else b""
            if len(data) == wanted * form.itemsize and is_plain:
                rows = np.frombuffer(data, form)
                if (rows[f"n{corners}"] == 3).all():
                    yield rows[f"p{corners}"].astype(np.int64)
                    count -= wanted
                    continue
            self._file.seek(here)
            yield _fans([self._face(element, corners) for _ in range(wanted)])
            count -= wanted

    def _face(self, element: _Element, wanted: int) -> list[int]:
        found: list[int] = []
        for at, one in enumerate(element.properties):
            length = int(self._values(one.count_type, 1)[0]) if one.count_type else 1
            if length > _MOST_CORNERS:
                raise UndecodablePixels("A face has too many corners.")
            values = self._values(one.type, length)
            if at == wanted:
                found = [int(value) for value in values]
        return found

    def _values(self, type_: str, count: int) -> NDArray[Any]:
        form = np.dtype(self._order + type_)
        data = self._file.read(form.itemsize * count)
        if len(data) < form.itemsize * count:
            raise UndecodablePixels("The PLY file is cut off.")
        return np.frombuffer(data, form)

    def skip(self, element: _Element) -> None:
        if not element.has_lists:
            self._file.seek(element.count * self._dtype(element).itemsize, os.SEEK_CUR)
            return
        for _ in range(element.count):
            self._face(element, -1)
