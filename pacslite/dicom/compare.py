"""Whether two files hold the same data set, whatever native encoding each is in.

Byte order, explicit or implicit VRs, defined or undefined lengths, deflation, group lengths and one byte of padding make
no difference. Compressed pixels are compared as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

from pacslite.dicom import vr as vrs
from pacslite.dicom.data_set import DataSetFile, open_data_set
from pacslite.dicom.header import Kind, Token, Walk
from pacslite.dicom.limits import Limits
from pacslite.dicom.values import swapped

# A multiple of every word size, so that words are not cut.
_CHUNK = 1024 * 1024
_PADDING = (b"", b" ", b"\0")


def same_data_set(a: Path | BinaryIO, b: Path | BinaryIO, limits: Limits) -> bool:
    """Compare element by element in bounded memory; raises InstanceRefused leaves when a file cannot be read."""
    with open_data_set(a, limits, lenient=True) as one, open_data_set(b, limits, lenient=True) as other:
        for left, right in zip_longest(_tokens(one), _tokens(other)):
            if left is None or right is None or not _same(one, left, other, right):
                return False
    return True


def _tokens(file: DataSetFile) -> Iterator[Token]:
    for token in Walk(file.source, settle=True).tokens(file.position, file.encoding):
        if token.kind is not Kind.VALUE or token.head.tag & 0xFFFF:
            yield token


def _same(one: DataSetFile, left: Token, other: DataSetFile, right: Token) -> bool:
    if left.kind is not right.kind or left.head.tag != right.head.tag:
        return False
    if left.kind not in (Kind.VALUE, Kind.FRAGMENTS):
        return True
    lengths = (left.after - left.head.start, right.after - right.head.start)
    if abs(lengths[0] - lengths[1]) > 1:
        return False
    shared = min(lengths)
    for at in range(0, shared, _CHUNK):
        step = min(_CHUNK, shared - at)
        if _chunk(one, left, at, step) != _chunk(other, right, at, step):
            return False
    tail = _chunk(one, left, shared, lengths[0] - shared) + _chunk(other, right, shared, lengths[1] - shared)
    return tail in _PADDING


def _chunk(file: DataSetFile, token: Token, at: int, length: int) -> bytes:
    """A piece of a value in little endian."""
    head = token.head
    raw = file.source.read(head.start + at, length)
    turned = not token.encoding.little or (head.tag == vrs.PIXEL_DATA and file.big_endian_pixels)
    if turned and token.kind is Kind.VALUE:
        return swapped(raw, vrs.WORD_BYTES.get(head.vr, 1))
    return raw
