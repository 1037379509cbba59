"""Models: STL, OBJ and PLY, read from beginning to end in pieces, for nothing else tells whether they are whole.

Triangles without area, or with coordinates that are no numbers, are the scanner's business: they are reported and kept.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pacslite.core import file_kinds as kinds
from pacslite.core.file_kinds import Kind
from pacslite.core.inspection_ply import check_ply
from pacslite.core.inspection_source import Source
from pacslite.core.inspection_text import is_text
from pacslite.errors import RefusedContent

if TYPE_CHECKING:
    import numpy as np

_STL_HEAD, _TRIANGLE = 84, 50
_NUMBER = rb"[-+]?+(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][-+]?+\d++)?|[-+]?+(?:nan|inf(?:inity)?)"
_SPACE = rb"[ \t\r\n\f\v]"
_TRIPLE = rb"((?:" + _NUMBER + rb")(?:" + _SPACE + rb"++(?:" + _NUMBER + rb")){2})"
_FACET = re.compile(
    rb"\s*+facet\s++normal\s++" + _TRIPLE.replace(b"(", b"(?:", 1) + rb"\s++outer\s++loop"
    rb"\s++vertex\s++" + _TRIPLE + rb"\s++vertex\s++" + _TRIPLE + rb"\s++vertex\s++" + _TRIPLE + rb"\s++endloop\s++endfacet(?=\s|$)",
    re.IGNORECASE,
)
_SOLID = re.compile(rb"\s*+solid(?:[ \t][^\r\n]*+)?(?=[\r\n])", re.IGNORECASE)
_SOLID_END = re.compile(rb"\s*+end\s?solid(?:[ \t][^\r\n]*+)?(?=[\r\n]|$)", re.IGNORECASE)
# A facet takes some 250 bytes; what is longer than this by far is none.
_LONGEST_FACET = 8 * 1024

# Lines of numbers first, for nearly all are; a number here is what looks like one.
_VALUE = rb"(?:[-+]?+\d*+\.?+\d*+(?:[eE][-+]?+\d++)?(?<=[\d.])|[-+]?+(?:nan|inf|NaN|Inf))"
_OBJ_LINES = re.compile(
    rb"(?:[ \t]*+(?:"
    rb"v[tnp]?+(?:[ \t]++" + _VALUE + rb"){1,8}+"
    rb"|f(?:[ \t]++-?+\d++(?:/-?+\d*+){0,2}+){3,}+"
    rb"|#[^\r\n]*+"
    rb"|l(?:[ \t]++-?+\d++(?:/-?+\d*+)?+){2,}+"
    rb"|p(?:[ \t]++-?+\d++)++"
    rb"|(?:o|g|s|mtllib|usemtl|usemap|maplib|mg|lod|bevel|c_interp|d_interp|shadow_obj|trace_obj|cstype|deg|bmat|step|parm|trim|hole"
    rb"|scrv|sp|end|con|curv2?+|surf|ctech|stech)(?:[ \t][^\r\n]*+)?+"
    rb")?+[ \t]*+(?:\r\n?+|\n))*+"
)
_VERTEX_LINE = re.compile(rb"^[ \t]*+v[ \t]++[-+.\d]", re.MULTILINE)
_FACE_LINE = re.compile(rb"^[ \t]*+[flp][ \t]++-?\d", re.MULTILINE)
_LONGEST_LINE = 256 * 1024


def model_kind(source: Source, extension: str) -> Kind | None:
    """STL or OBJ, which have no signatures, going by length, first words, and for broken ones the name."""
    head = source.head
    if extension == ".stl" or (_is_binary_stl(source) and _triangles(source)):
        return kinds.STL
    if head[:512].lstrip().lower().startswith(b"solid") and b"facet" in head.lower():
        return kinds.STL
    if extension == ".obj" and is_text(head):
        return kinds.OBJ
    if not extension and is_text(head) and _VERTEX_LINE.search(head[:4096]) and _OBJ_LINES.match(head[:4096]):
        return kinds.OBJ if _is_obj_text(head[:4096]) else None
    return None


def _is_obj_text(head: bytes) -> bool:
    whole = head[: head.rfind(b"\n") + 1]
    found = _OBJ_LINES.match(whole)
    return found is not None and found.end() == len(whole)


def _triangles(source: Source) -> int:
    return int.from_bytes(source.head[80:84], "little")


def _is_binary_stl(source: Source) -> bool:
    return source.size >= _STL_HEAD and source.size == _STL_HEAD + _TRIANGLE * _triangles(source)


def check_model(kind: Kind, source: Source) -> tuple[str, ...]:
    """Warnings about a model; raises RefusedContent when it is broken."""
    if kind is kinds.PLY:
        return check_ply(source)
    if kind is kinds.OBJ:
        return _check_obj(source)
    if _is_binary_stl(source):
        return _check_binary_stl(source)
    if is_text(source.head) and source.head[:512].lstrip().lower().startswith(b"solid"):
        return _check_ascii_stl(source)
    if source.size < _STL_HEAD or is_text(source.head):
        raise RefusedContent("the STL is broken: it is neither text that begins with solid, nor has it the header of a binary one")
    expected = _STL_HEAD + _TRIANGLE * _triangles(source)
    raise RefusedContent(f"the STL is broken: with {_triangles(source)} triangles it has {expected} bytes, the file has {source.size}")


def _check_binary_stl(source: Source) -> tuple[str, ...]:
    import numpy as np

    record = np.dtype([("normal", "<f4", 3), ("points", "<f4", (3, 3)), ("attribute", "<u2")])
    degenerate = odd = 0
    step = 20_000 * _TRIANGLE
    for begin in range(_STL_HEAD, source.size, step):
        points = np.frombuffer(source.exactly(begin, min(step, source.size - begin)), record)["points"]
        finite = np.isfinite(points).all(axis=(1, 2))
        odd += int((~finite).sum())
        degenerate += _without_area(points[finite].astype("f8"))
    return _stl_warnings(_triangles(source), degenerate, odd)


def _without_area(points: np.ndarray) -> int:
    import numpy as np

    normals = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    return int((normals == 0).all(axis=1).sum())


def _stl_warnings(triangles: int, degenerate: int, odd: int) -> tuple[str, ...]:
    warnings = [] if triangles else ["the model has no triangles"]
    if degenerate:
        warnings.append(f"{degenerate} triangles have no area")
    if odd:
        warnings.append(f"{odd} triangles have coordinates that are no numbers")
    return tuple(warnings)


class _Text:
    """Text that is consumed by patterns, piece by piece: `rest` from `at` on."""

    def __init__(self, source: Source) -> None:
        self._pieces = source.pieces()
        self.rest = b""
        self.at = 0
        self.is_last = False

    def more(self) -> None:
        """Drops what was consumed, and appends the next piece."""
        piece = next(self._pieces, None)
        if piece is None:
            self.is_last = True
        else:
            self.rest, self.at = self.rest[self.at :] + piece, 0


def _check_ascii_stl(source: Source) -> tuple[str, ...]:
    text, facets, degenerate, within = _Text(source), 0, 0, False
    text.more()
    while True:
        if within:
            found, flat, text.at = _facets(text.rest, text.at)
            facets, degenerate = facets + found, degenerate + flat
        match = (_SOLID_END if within else _SOLID).match(text.rest, text.at)
        if match and (match.end() < len(text.rest) or text.is_last):
            within, text.at = not within, match.end()
        elif text.is_last:
            break
        elif len(text.rest) - text.at > _LONGEST_FACET:
            raise RefusedContent(f"the STL is broken after {facets} triangles")
        else:
            text.more()
    if within or text.rest[text.at :].strip():
        raise RefusedContent(f"the STL is broken after {facets} triangles: it is cut off, or something else follows")
    return _stl_warnings(facets, degenerate, 0)


def _facets(data: bytes, at: int) -> tuple[int, int, int]:
    """How many facets follow a place, how many of them have two corners in the same place, and where they end."""
    count = flat = 0
    while match := _FACET.match(data, at):
        if match.end() == len(data):
            break  # a name may go on in the next piece
        one, two, three = match.groups()
        flat += one in (two, three) or two == three
        count, at = count + 1, match.end()
    return count, flat, at


def _check_obj(source: Source) -> tuple[str, ...]:
    text, line, has_vertices, has_faces = _Text(source), 1, False, False
    while not text.is_last:
        text.more()
        data = re.sub(rb"\\\r?\n", b" ", text.rest)  # a line may go on
        end = len(data) if text.is_last else max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1
        whole = data[:end] + (b"\n" if text.is_last else b"")
        match = _OBJ_LINES.match(whole)
        at = match.end() if match else 0
        line += whole.count(b"\n", 0, at)
        if at != len(whole):
            raise RefusedContent(f"the OBJ is broken in line {line}")
        has_vertices = has_vertices or _VERTEX_LINE.search(whole) is not None
        has_faces = has_faces or _FACE_LINE.search(whole) is not None
        text.rest = data[end:]
        if len(text.rest) > _LONGEST_LINE:
            raise RefusedContent(f"the OBJ has a line that is longer than {_LONGEST_LINE} bytes")
    if not has_vertices:
        return ("the model has no vertices",)
    return () if has_faces else ("the model has no faces",)
