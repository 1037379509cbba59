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
# Items with lists are walked one by one where they differ.
_MOST_WALKED = 10_000_000
_WINDOW_BYTES = 1024 * 1024
_CUT_OFF = -1
_NUMBERS = re.compile(rb"[-+.\deE \t\r\nnaifNAIF]*+")  # with nan and inf
_LINE = re.compile(rb"[^\s][ \t]*+[\r\n]")


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
    if "vertex" not in counts:
        raise RefusedContent("the PLY is broken: its header names no vertices")
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
    walked = 0
    for element in elements:
        if any(p.counted for p in element.properties):
            at, walked = _end_of_lists(source, at, order, element, walked)
        else:
            at += element.count * struct.calcsize(order + "".join(p.code for p in element.properties))
        if at > source.size:
            raise RefusedContent("the PLY is broken: it is shorter than its header says")
    return at


def _end_of_lists(source: Source, at: int, order: str, element: _Element, walked: int) -> tuple[int, int]:
    """Where an element ends whose items have lists, a window at a time: at once if all items in it are as long as the first.

    `walked` counts items that were walked one by one, over all elements: those before this one, and with it.
    """
    steps = _steps(order, element)
    left = element.count
    while left:
        window = source.at(at, _WINDOW_BYTES)
        length = _end_of_item(window, 0, steps)
        if length == _CUT_OFF:
            raise RefusedContent("the PLY is broken: it is shorter than its header says, or a list is too long")
        rows = min(left, len(window) // length)
        if rows > 1 and _are_alike(window[: rows * length], length, steps):
            at, left = at + rows * length, left - rows
            continue
        before, end = left, 0
        while left and (following := _end_of_item(window, end, steps)) != _CUT_OFF:
            end, left = following, left - 1
        at, walked = at + end, walked + before - left
        if walked > _MOST_WALKED:
            raise RefusedContent(f"the PLY has more than {_MOST_WALKED} faces of changing numbers of corners")
    return at, walked


@dataclass(frozen=True, slots=True)
class _Step:
    """Part of an item: so many bytes, then, if it has a code, the length of a list of items of so many bytes."""

    before: int
    counted: struct.Struct | None
    size: int


def _steps(order: str, element: _Element) -> list[_Step]:
    steps, before = [], 0
    for p in element.properties:
        size = struct.calcsize(p.code)
        if p.counted:
            steps.append(_Step(before, struct.Struct(order + p.counted), size))
            before = 0
        else:
            before += size
    return [*steps, _Step(before, None, 0)]


def _end_of_item(data: bytes, at: int, steps: list[_Step]) -> int:
    """Where an item ends, or `_CUT_OFF` when that is beyond the data."""
    for step in steps:
        at += step.before
        if step.counted is not None:
            if at + step.counted.size > len(data):
                return _CUT_OFF
            (count,) = step.counted.unpack_from(data, at)
            if count < 0:
                raise RefusedContent("the PLY is broken: a list has a negative length")
            at += step.counted.size + count * step.size
    return at if at <= len(data) else _CUT_OFF


def _are_alike(data: bytes, length: int, steps: list[_Step]) -> bool:
    """Whether all items of this length have lists as long as the first one's."""
    import numpy as np

    rows, at = np.frombuffer(data, "u1").reshape(-1, length), 0
    for step in steps:
        at += step.before
        if step.counted is not None:
            columns = rows[:, at : at + step.counted.size]
            if not (columns == columns[0]).all():
                return False
            (count,) = step.counted.unpack_from(data, at)
            at += step.counted.size + count * step.size
    return True


def _ascii_extra(source: Source, start: int, items: int) -> int:
    """Bytes of lines beyond those the header counts."""
    lines, kept = 0, b""
    for piece in source.pieces(start):
        match = _NUMBERS.match(piece)
        if match is None or match.end() != len(piece):
            raise RefusedContent("the PLY is broken: there is something else than numbers in it")
        lines += len(_LINE.findall(kept + piece))
        kept = piece[-1:] if not piece[-1:].isspace() else b""
    lines += not source.tail[-1:].isspace()
    if lines < items:
        raise RefusedContent(f"the PLY is broken: it has {lines} lines, its header says {items}")
    return lines - items
