"""PLY: a header that says how many of what follows, and data that have to be just that many."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from pacslite.core.inspection_source import Source
from pacslite.errors import RefusedContent

_SIZES = {"char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I", "float": "f", "double": "d"}
_SIZES |= {"int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "float32": "f", "float64": "d"}
_END = re.compile(rb"(?:\r\n?|\n)end_header(?:\r\n|\r|\n)")
_MOST_ELEMENTS, _MOST_PROPERTIES = 64, 256
_MOST_ITEMS = 1_000_000_000
_NUMBERS = re.compile(rb"(?:[-+.\deE]|nan|inf|[ \t\r\n])*+", re.IGNORECASE)


@dataclass(slots=True)
class _Property:
    """A value, or a list of them with its length before it (`counted`)."""

    code: str
    counted: str = ""


@dataclass(slots=True)
class _Element:
    name: str
    count: int
    properties: list[_Property] = field(default_factory=list)


def check_ply(source: Source) -> tuple[str, ...]:
    """Warnings about a PLY; raises RefusedContent when its header or its length is wrong."""
    found = _END.search(source.head)
    if found is None:
        raise RefusedContent("the PLY is broken: its header has no end")
    order, elements = _header(source.head[: found.start()])
    counts = {element.name: element.count for element in elements}
    if not counts.get("vertex"):
        raise RefusedContent("the PLY is broken: it has no vertices")
    if order:
        end = _binary_end(source, found.end(), order, elements)
        extra = source.size - end
    else:
        extra = _ascii_extra(source, found.end(), sum(counts.values()))
    warnings = [] if any(counts.get(name) for name in ("face", "tristrips")) else ["the model has no faces"]
    if extra:
        warnings.append("something follows the model")
    if extra > 4096:
        raise RefusedContent(f"the PLY is broken: it is {extra} bytes longer than its header says")
    return tuple(warnings)


def _header(text: bytes) -> tuple[str, list[_Element]]:
    """Byte order of the data (none for text), and the elements."""
    lines = [line.split() for line in text.decode("ascii", "replace").splitlines()[1:]]
    formats = [line[1:] for line in lines if line[:1] == ["format"]]
    orders = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
    if len(formats) != 1 or len(formats[0]) != 2 or formats[0][0] not in orders or formats[0][1] != "1.0":
        raise RefusedContent("the PLY is broken: its header names no known format")
    elements: list[_Element] = []
    for line in lines:
        _read_line(line, elements)
    if len(elements) > _MOST_ELEMENTS or any(len(e.properties) > _MOST_PROPERTIES or not e.properties for e in elements):
        raise RefusedContent("the PLY is broken: an element has no properties, or too many")
    return orders[formats[0][0]], elements


def _read_line(line: list[str], elements: list[_Element]) -> None:
    match line:
        case [] | ["format", *_] | ["comment", *_] | ["obj_info", *_]:
            return
        case ["element", name, count] if re.fullmatch(r"\d{1,10}", count, re.ASCII) and int(count) <= _MOST_ITEMS:
            elements.append(_Element(name, int(count)))
        case ["property", "list", counted, kind, _] if elements and counted in _SIZES and kind in _SIZES and _SIZES[counted] not in "fd":
            elements[-1].properties.append(_Property(_SIZES[kind], _SIZES[counted]))
        case ["property", kind, _] if elements and kind in _SIZES:
            elements[-1].properties.append(_Property(_SIZES[kind]))
        case _:
            raise RefusedContent("the PLY is broken: its header has a line that means nothing")


def _binary_end(source: Source, at: int, order: str, elements: list[_Element]) -> int:
    for element in elements:
        if any(p.counted for p in element.properties):
            at = _end_of_lists(source, at, order, element)
        else:
            at += element.count * struct.calcsize(order + "".join(p.code for p in element.properties))
        if at > source.size:
            raise RefusedContent("the PLY is broken: it is shorter than its header says")
    return at


def _end_of_lists(source: Source, at: int, order: str, element: _Element) -> int:
    """Where an element ends whose items have lists: a run of items of the same length is one step."""
    left = element.count
    while left:
        length = _item_bytes(source.at(at, 1024 * 1024), order, element)
        same = _same(source, at, length, order, element, left)
        at += same * length
        left -= same
    return at


def _item_bytes(data: bytes, order: str, element: _Element) -> int:
    """The length of the first item."""
    at = 0
    for p in element.properties:
        count = 1
        if p.counted:
            (count,) = _unpack(order + p.counted, data, at)
            if count < 0:
                raise RefusedContent("the PLY is broken: a list has a negative length")
            at += struct.calcsize(p.counted)
        at += count * struct.calcsize(p.code)
    if at > len(data):
        raise RefusedContent("the PLY is broken: it is shorter than its header says")
    return at


def _unpack(code: str, data: bytes, at: int) -> tuple[int, ...]:
    if at + struct.calcsize(code) > len(data):
        raise RefusedContent("the PLY is broken: it is shorter than its header says")
    return struct.unpack_from(code, data, at)


def _same(source: Source, at: int, length: int, order: str, element: _Element, left: int) -> int:
    """How many items from here on have lists as long as the first one's, within one reading."""
    import numpy as np

    rows = min(left, max(1, 1024 * 1024 // length), (source.size - at) // length)
    if rows <= 1:
        return 1
    data = np.frombuffer(source.exactly(at, rows * length), "u1").reshape(rows, length)
    begin, alike = 0, np.ones(rows, "?")
    for p in element.properties:
        count = 1
        if p.counted:
            width = struct.calcsize(p.counted)
            alike &= (data[:, begin : begin + width] == data[0, begin : begin + width]).all(axis=1)
            (count,) = struct.unpack_from(order + p.counted, data[0].tobytes(), begin)
            begin += width
        begin += count * struct.calcsize(p.code)
    return rows if alike.all() else max(1, int(np.argmin(alike)))


def _ascii_extra(source: Source, start: int, items: int) -> int:
    """Bytes of lines beyond those the header counts."""
    lines, kept = 0, b""
    for piece in source.pieces(start):
        match = _NUMBERS.match(piece)
        if match is None or match.end() != len(piece):
            raise RefusedContent("the PLY is broken: there is something else than numbers in it")
        whole = kept + piece
        parts = whole.splitlines()
        kept = b"" if whole.endswith((b"\n", b"\r")) else parts.pop()[-1024:]
        lines += sum(1 for part in parts if part.strip())
    lines += bool(kept.strip())
    if lines < items:
        raise RefusedContent(f"the PLY is broken: it has {lines} lines, its header says {items}")
    return lines - items
