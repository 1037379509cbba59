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
from pacslite.dicom.header import Head, Kind, Token, Walk, fragments
from pacslite.dicom.limits import Limits
from pacslite.dicom.source import Source
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
    if left.kind is Kind.FRAGMENTS:
        pairs = zip_longest(_fragments(one, left), _fragments(other, right))
        return all(a and b and _same_bytes(one.source, a, 1, other.source, b, 1) for a, b in pairs)
    if left.kind is not Kind.VALUE:
        return True
    return _same_bytes(one.source, left.head, _word(one, left), other.source, right.head, _word(other, right))


def _fragments(file: DataSetFile, token: Token) -> Iterator[Head]:
    return fragments(file.source, token.head, file.source.size, token.encoding.little)


def _word(file: DataSetFile, token: Token) -> int:
    """The size of the words to be turned for little endian."""
    turned = not token.encoding.little or (token.head.tag == vrs.PIXEL_DATA and file.big_endian_pixels)
    return vrs.WORD_BYTES.get(token.head.vr, 1) if turned else 1


def _same_bytes(one: Source, left: Head, left_word: int, other: Source, right: Head, right_word: int) -> bool:
    if abs(left.length - right.length) > 1:
        return False
    shared = min(left.length, right.length)
    for at in range(0, shared, _CHUNK):
        step = min(_CHUNK, shared - at)
        if swapped(one.read(left.start + at, step), left_word) != swapped(other.read(right.start + at, step), right_word):
            return False
    longer, source = (left, one) if left.length > shared else (right, other)
    return source.read(longer.start + shared, longer.length - shared) in _PADDING
