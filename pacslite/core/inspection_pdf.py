"""PDF (ISO 32000-2): whole, from its first byte on, and without anything that runs when it is opened.

Refused are JavaScript, launching of programs and embedded programs. Forms, links, and attachments that are no programs
(the data of electronic invoices and reports, PDF/A-3) are taken. Names may be written with #xx escapes and objects may be
packed in object streams: both are looked through. Where a PDF is encrypted its packed objects cannot be; many reports are
protected against changes that way, so it is taken, with a warning.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from pacslite.core.file_kinds import RUNNABLE_EXTENSIONS
from pacslite.core.inspection_foreign import check_trailing, check_words
from pacslite.core.inspection_source import Source
from pacslite.errors import RefusedContent

_OVERLAP = 4096
_MOST_UNPACKED = 256 * 1024 * 1024
_MOST_STREAMS = 50_000
_PACKED_PIECE = 16 * 1024


def _name(text: str) -> bytes:
    """A pattern for a name as it may be written: each character as itself or as #xx (ISO 32000-2 7.3.5)."""
    return b"/" + b"".join(b"(?:%s|#%02x|#%02X)" % (re.escape(char.encode()), ord(char), ord(char)) for char in text) + rb"(?![\w#.-])"


_JAVASCRIPT = re.compile(_name("JavaScript"))
_LAUNCH = re.compile(rb"/(?:S|#53)\s*" + _name("Launch"))
_ENCRYPT = re.compile(_name("Encrypt"))
_RICH = re.compile(_name("RichMedia"))
_OBJECT_STREAM = re.compile(_name("ObjStm"))
_STREAM = re.compile(rb"\bstream(?:\r\n|\n|\r)")
_RUNNABLE = re.compile(
    rb"/U?F\s*\((?!https?:|mailto:)[^()]{0,200}(?:"
    + b"|".join(re.escape(name.encode()) for name in sorted(RUNNABLE_EXTENSIONS))
    + rb")\s*\)",
    re.IGNORECASE,
)


def check_pdf(source: Source) -> tuple[str, ...]:
    """Warnings about a PDF; raises RefusedContent."""
    end = source.tail.rfind(b"%%EOF")
    if end >= 0:
        warnings = check_trailing(source, source.size - len(source.tail) + end + 5, "PDF")
    else:  # readers mend it
        check_words(source, "PDF")
        warnings = ("the PDF is cut off: its end is missing",)
    marks = _Marks()
    streams = 0
    for start, piece in _placed(source):
        marks.look(piece)
        for found in _OBJECT_STREAM.finditer(piece):
            streams += 1
            if streams > _MOST_STREAMS:
                raise RefusedContent("the PDF has too many object streams")
            marks.look_packed(source, start + found.start())
    if marks.is_encrypted:
        return (*warnings, "the PDF is encrypted: what is packed in it could not be looked through")
    return warnings


def _placed(source: Source) -> Iterator[tuple[int, bytes]]:
    start = 0
    for piece in source.pieces(overlap=_OVERLAP):
        yield start, piece
        start += len(piece) - _OVERLAP


class _Marks:
    """What has been found so far."""

    def __init__(self) -> None:
        self.is_encrypted = False
        self._left = _MOST_UNPACKED
        self._done = -1

    def look(self, data: bytes) -> None:
        """Looks through a part of the file, or of what was packed in it."""
        if _JAVASCRIPT.search(data):
            raise RefusedContent("the PDF has JavaScript in it")
        if _LAUNCH.search(data):
            raise RefusedContent("the PDF launches programs")
        if _RICH.search(data):
            raise RefusedContent("the PDF has Flash or other rich media in it")
        if _RUNNABLE.search(data):
            raise RefusedContent("the PDF has a program attached to it")
        self.is_encrypted |= _ENCRYPT.search(data) is not None

    def look_packed(self, source: Source, at: int) -> None:
        """Looks through the object stream whose dictionary names it at that place; each once."""
        if at <= self._done:
            return
        self._done = at
        head = source.at(at, _OVERLAP)
        begin = _STREAM.search(head)
        if begin is None:
            return
        kept = b""
        for piece in self._inflated(source, at + begin.end()):
            self.look(kept + piece)
            kept = piece[-_OVERLAP:]

    def _inflated(self, source: Source, at: int) -> Iterator[bytes]:
        inflate, data = zlib.decompressobj(), b""
        while not inflate.eof:
            data = inflate.unconsumed_tail or source.at(at, _PACKED_PIECE)
            if not inflate.unconsumed_tail:
                at += len(data)
            if not data:
                return
            try:
                out = inflate.decompress(data, _PACKED_PIECE)
            except zlib.error:
                return  # encrypted, or of another filter
            self._left -= len(out)
            if self._left < 0:
                raise RefusedContent(f"the PDF unpacks to more than {_MOST_UNPACKED} bytes of objects")
            yield out
