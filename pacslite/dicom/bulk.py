"""Where a bulk value lies in its file, by the path that its BulkDataURI ends with (PS3.18 10.4.1.1.5)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pacslite.dicom import vr as vrs
from pacslite.dicom.data_set import DataSetFile, open_data_set
from pacslite.dicom.header import Kind, Token, Walk, fragments
from pacslite.dicom.limits import Limits

_PATH = re.compile(r"[0-9A-Fa-f]{8}(?:/[1-9][0-9]{0,8}/[0-9A-Fa-f]{8})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class BulkValue:
    """Pieces of a value as offset and length, in the file or in its inflated data set.

    `swap_bytes` is the size of the words to be swapped for little endian (0: none); `encapsulated` values are their
    fragments without the offset table.
    """

    segments: tuple[tuple[int, int], ...]
    vr: str
    swap_bytes: int
    inflated: bool
    encapsulated: bool

    @property
    def length(self) -> int:
        """Bytes of the whole value."""
        return sum(length for _, length in self.segments)


def is_path(text: str) -> bool:
    """Whether the text has the form of a path."""
    return _PATH.fullmatch(text) is not None


def find_each(file: Path | BinaryIO, bulk_paths: Collection[str], limits: Limits) -> dict[str, BulkValue]:
    """The values at these paths that are there, in one pass; raises InstanceRefused leaves."""
    found: dict[str, BulkValue] = {}
    with open_data_set(file, limits, lenient=True) as data_set:
        for path, token in _paths(data_set):
            if path in bulk_paths and token.kind in (Kind.VALUE, Kind.FRAGMENTS):
                found[path] = _value(data_set, token)
                if len(found) == len(bulk_paths):
                    break
    return found


def _paths(data_set: DataSetFile) -> Iterator[tuple[str, Token]]:
    """Every token with its path."""
    stack: list[tuple[str, int]] = []
    prefix = ""
    for token in Walk(data_set.source, settle=True).tokens(data_set.position, data_set.encoding):
        kind = token.kind
        if kind is Kind.SEQUENCE:
            stack.append((f"{prefix}{token.head.tag:08X}/", 0))
        elif kind is Kind.ITEM:
            base, number = stack[-1]
            stack[-1] = (base, number + 1)
            prefix = f"{base}{number + 1}/"
        elif kind is Kind.SEQUENCE_END:
            base, _ = stack.pop()
            prefix = base[:-9]
        elif kind is not Kind.ITEM_END:
            yield f"{prefix}{token.head.tag:08X}", token


def _value(data_set: DataSetFile, token: Token) -> BulkValue:
    head, little = token.head, token.encoding.little
    if token.kind is Kind.FRAGMENTS:
        pieces = tuple((piece.start, piece.length) for piece in fragments(data_set.source, head, data_set.source.size, little))
        return BulkValue(pieces[1:], "OB", 0, data_set.inflated, True)
    swap = vrs.WORD_BYTES.get(head.vr, 0)
    turned = not little or (head.tag == vrs.PIXEL_DATA and data_set.big_endian_pixels)
    segments = ((head.start, head.length),) if head.length else ()
    return BulkValue(segments, head.vr, swap if turned else 0, data_set.inflated, False)
