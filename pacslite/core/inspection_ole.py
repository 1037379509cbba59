"""Compound files ([MS-CFB]): Word and Excel documents of before 2007, taken when nothing in them is a macro."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pacslite.core import file_kinds as kinds
from pacslite.core.file_kinds import Kind
from pacslite.core.inspection_source import Source
from pacslite.errors import RefusedContent

_MOST_SECTORS = 1_000_000
_MOST_ENTRIES = 20_000
_END_OF_CHAIN, _MOST_NUMBER = 0xFFFFFFFE, 0xFFFFFFFA
_MACROS = frozenset({"macros", "vba", "_vba_project", "_vba_project_cur", "vba_project_cur", "_vba_project_cur1"})
_ENCRYPTED = frozenset({"encryptedpackage", "encryptioninfo", "encryptedsummary"})
_PROGRAMS = frozenset({"\1ole10native"})
_STORAGE, _STREAM, _ROOT = 1, 2, 5


@dataclass(frozen=True, slots=True)
class _Item:
    name: str
    kind: int
    first: int
    size: int


class _Compound:
    """Sectors and the chains they make."""

    def __init__(self, source: Source) -> None:
        self._source = source
        header = source.exactly(0, 512)
        (shift,) = struct.unpack_from("<H", header, 30)
        if shift not in (9, 12):
            raise _broken()
        self.sector = 1 << shift
        self._numbers = self.sector // 4
        self._tables = self._table_sectors(header)
        self._cached: tuple[int, tuple[int, ...]] = (-1, ())
        (self._first_directory,) = struct.unpack_from("<I", header, 48)

    def _table_sectors(self, header: bytes) -> list[int]:
        """The sectors of the allocation table: 109 in the header, more in a chain of lists."""
        found = [n for n in struct.unpack_from("<109I", header, 76) if n <= _MOST_NUMBER]
        following, count = struct.unpack_from("<II", header, 68)
        for _ in range(min(count, _MOST_SECTORS // self._numbers)):
            if following > _MOST_NUMBER:
                break
            *numbers, following = struct.unpack(f"<{self._numbers}I", self._read(following))
            found += [n for n in numbers if n <= _MOST_NUMBER]
        return found

    def _read(self, number: int) -> bytes:
        return self._source.at((number + 1) * self.sector, self.sector).ljust(self.sector, b"\0")

    def _next(self, number: int) -> int:
        table, at = divmod(number, self._numbers)
        if table >= len(self._tables):
            raise _broken()
        if self._cached[0] != table:
            self._cached = (table, struct.unpack(f"<{self._numbers}I", self._read(self._tables[table])))
        following: int = self._cached[1][at]
        return following

    def chain(self, number: int, most: int) -> bytes:
        """The bytes of a chain, at most so many."""
        found, seen = bytearray(), 0
        while number <= _MOST_NUMBER and len(found) < most:
            if (number + 1) * self.sector >= self._source.size:
                raise _broken()
            found += self._read(number)
            number, seen = self._next(number), seen + 1
            if seen > _MOST_SECTORS:
                raise _broken()
        return bytes(found[:most])

    def directory(self) -> list[_Item]:
        """All storages and streams, however they hang together."""
        data = self.chain(self._first_directory, _MOST_ENTRIES * 128 + 1)
        if len(data) > _MOST_ENTRIES * 128:
            raise RefusedContent("the document has too many parts")
        items = []
        for at in range(0, len(data) - 127, 128):
            length, kind = struct.unpack_from("<HB", data, at + 64)
            first, size = struct.unpack_from("<IQ", data, at + 116)
            if kind in (_STORAGE, _STREAM, _ROOT):
                name = data[at : at + max(0, min(length, 64) - 2)].decode("utf-16-le", "replace")
                items.append(_Item(name, kind, first, size & 0xFFFFFFFF if self.sector == 512 else size))
        return items


def _broken() -> RefusedContent:
    return RefusedContent("the document is broken: its parts do not hang together")


def ole_kind(source: Source) -> Kind:
    """DOC or XLS without macros; raises RefusedContent for everything else in such a file."""
    compound = _Compound(source)
    items = compound.directory()
    names = {item.name.lower() for item in items}
    if names & _MACROS:
        raise RefusedContent("the document has macros")
    if names & _ENCRYPTED:
        raise RefusedContent("the document is encrypted, so nobody can tell what is in it")
    if names & _PROGRAMS:
        raise RefusedContent("the document has a program, or any file, as an object in it")
    for item in items:
        name = item.name.lower()
        if name == "worddocument" and item.kind == _STREAM:
            _check_word(compound, item)
            return kinds.DOC
        if name in ("workbook", "book") and item.kind == _STREAM:
            _check_workbook(compound, item)
            return kinds.XLS
    if "powerpoint document" in names:
        raise RefusedContent("presentations of before 2007 may hide macros where they cannot be told; save it as PPTX or PDF")
    raise RefusedContent("the file is a compound document (installer, message, ...) of a kind that is not taken")


def _check_word(compound: _Compound, item: _Item) -> None:
    """[MS-DOC] 2.5.2 FibBase: the mark of a document, and whether it is encrypted."""
    head = compound.chain(item.first, 32)
    if len(head) < 12 or head[:2] not in (b"\xec\xa5", b"\xdc\xa5"):
        raise _broken()
    if head[11] & 0x01:
        raise RefusedContent("the document is encrypted, so nobody can tell what is in it")


# [MS-XLS] 2.4.21, 2.4.28, 2.4.117
_BOF, _BOUND_SHEET, _FILE_PASS, _EOF = 0x0809, 0x0085, 0x002F, 0x000A
_MOST_GLOBALS = 8 * 1024 * 1024


def _check_workbook(compound: _Compound, item: _Item) -> None:
    """The workbook's own records, which come first: whether it is encrypted, and whether a sheet is one of Excel 4.0 macros."""
    data = compound.chain(item.first, min(item.size, _MOST_GLOBALS))
    at = 0
    while at + 4 <= len(data):
        record, length = struct.unpack_from("<HH", data, at)
        if at == 0 and record != _BOF:
            raise _broken()
        if record == _FILE_PASS:
            raise RefusedContent("the document is encrypted, so nobody can tell what is in it")
        if record == _BOUND_SHEET and length >= 6 and data[at + 9] in (1, 6):
            raise RefusedContent("the document has macros")
        if record == _EOF:
            return
        at += 4 + length
    raise _broken()
