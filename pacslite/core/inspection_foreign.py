"""What must not come along: programs, and files that are two things at once (polyglots).

A file that is a picture to one program and an archive, a page or a script to another passes every check of the first kind
and does its harm as the second. The second half lies where its own readers look for it: a ZIP at the end, a program or a
page at the beginning or behind the end of the first.
"""

from __future__ import annotations

import re

from pacslite.core.inspection_source import Source
from pacslite.errors import RefusedContent

# What systems run. puremagic knows most of these too; these are the ones that must never depend on a table of others.
_PROGRAMS: tuple[tuple[bytes, str], ...] = (
    (b"\x7fELF", "a program (ELF)"),
    (b"MZ", "a program (PE)"),
    (b"\xfe\xed\xfa\xce", "a program (Mach-O)"),
    (b"\xfe\xed\xfa\xcf", "a program (Mach-O)"),
    (b"\xce\xfa\xed\xfe", "a program (Mach-O)"),
    (b"\xcf\xfa\xed\xfe", "a program (Mach-O)"),
    (b"\xca\xfe\xba\xbe", "a program (Java class or Mach-O)"),
    (b"\xca\xfe\xd0\x0d", "a program (Java)"),
    (b"\0asm", "a program (WebAssembly)"),
    (b"dex\n", "a program (Dalvik)"),
    (b"BC\xc0\xde", "a program (LLVM)"),
    (b"\x1bLua", "a program (Lua)"),
    (b"!<arch>\n", "a program library or package"),
    (b"\xed\xab\xee\xdb", "a software package (RPM)"),
    (b"L\0\0\0\x01\x14\x02\0", "a Windows shortcut"),
    (b"ITSF", "a compiled help file"),
    (b"Cr24", "a browser extension"),
    (b"FWS", "a Flash film"),
    (b"CWS", "a Flash film"),
    (b"ZWS", "a Flash film"),
    (b"#!", "a script"),
)
_ARCHIVES: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\x1f\x8b\x08", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"MSCF\0\0\0\0", "a cabinet archive"),
)
_MARKUP = re.compile(rb"<(?:!doctype\s+html|html|head|body|script|iframe|svg|object|embed|\?php|\?=|%[@=\s])", re.IGNORECASE)
# Words that have no business in a picture and that something runs, wherever they stand.
_WORDS = (b"<script", b"<?php", b"__halt_compiler", b"<iframe", b"<!doctype html")
_OVERLAP = max(map(len, _WORDS))
_PADDING = bytes(1) + b"\xff \t\r\n"
_MOST_PADDING = 1024 * 1024
_END, _CENTRAL = b"PK\x05\x06", b"PK\x01\x02"


def program_in(head: bytes) -> str | None:
    """What kind of program begins so, if one does."""
    for signature, name in _PROGRAMS:
        if head.startswith(signature) and (signature != b"MZ" or _is_portable_executable(head)):
            return name
    return None


def _is_portable_executable(head: bytes) -> bool:
    """MZ are two letters: text that begins with them has no header of a program behind them."""
    return any(byte >= 0x7F or (byte < 0x20 and byte not in (9, 10, 13)) for byte in head[:64])


def archive_in(head: bytes) -> str | None:
    """What kind of archive begins so, if one does."""
    return next((name for signature, name in _ARCHIVES if head.startswith(signature)), None)


def page_in(head: bytes) -> str | None:
    """What kind of page or script text is, going by its beginning."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n\0\f")[:2048].lower()
    is_xml = text.startswith((b"<?xml", b"<!--", b"<!doctype svg"))
    if text.startswith(b"<svg") or (is_xml and b"<svg" in text):
        return "an SVG picture, which may hold scripts"
    if is_xml and b"<html" in text:
        return "an HTML page"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<iframe")):
        return "an HTML page"
    if text.startswith((b"<?php", b"<?=", b"<%")):
        return "a script"
    return None


def check_no_archive_at_end(source: Source, *, strictly: bool = True) -> None:
    """Refuses a file that ZIP readers, which begin at the end (APPNOTE 4.3.16), take for an archive.

    Many readers do not mind what follows the archive; where files of a kind have archives in them that end before they do, the end
    has to be that of the archive.
    """
    base, at = source.size - len(source.tail), source.tail.rfind(_END)
    while at >= 0:
        record = source.tail[at : at + 22]
        if len(record) == 22 and (strictly or at + 22 + int.from_bytes(record[20:22], "little") == len(source.tail)):
            length = int.from_bytes(record[12:16], "little")
            begin = base + at - length
            has_entries = length and begin >= 0 and source.at(begin, 4) == _CENTRAL
            if has_entries or source.tail[max(0, at - 20) : at].startswith(b"PK\x06\x07"):
                raise RefusedContent("the file is a ZIP archive at the same time")
        at = source.tail.rfind(_END, 0, at)


def check_words(source: Source, what: str = "picture") -> None:
    """Refuses a picture, or another thing, that has words of scripts in it, be it in a comment, between its pixels or behind them."""
    for piece in source.pieces(overlap=_OVERLAP):
        lower = piece.lower()
        for word in _WORDS:
            if word in lower:
                raise RefusedContent(f"the {what} has a script in it ({word.decode()})")


def check_trailing(source: Source, end: int, what: str = "picture") -> tuple[str, ...]:
    """Warnings about what follows the end of a picture, or of another thing.

    Phones append films and further pictures to pictures (motion photos, multi-picture format, depth and gain maps), some
    makers' records of their own, and editors leave rests of the picture before. That is kept. Refused is what another
    program would read as something else: text, pages, archives, documents, programs.
    """
    if end >= source.size:
        return ()
    begin = _past_padding(source, end)
    if begin >= source.size:
        return ()
    data = source.at(begin, 4096)
    for name in (program_in(data), archive_in(data), page_in(data)):
        if name is not None:
            raise RefusedContent(f"behind the {what} there is {name}")
    if b"%PDF-" in data[:1024] or b"%PDF-" in source.at(end, 4096):
        raise RefusedContent(f"behind the {what} there is a PDF")
    if _MARKUP.search(data) or _MARKUP.search(source.tail):
        raise RefusedContent(f"behind the {what} there is a page or a script")
    if len(data) >= 4 and _is_mostly_text(data):
        raise RefusedContent(f"behind the {what} there is text")
    return (f"{source.size - begin} bytes follow the {what}",)


def _past_padding(source: Source, start: int) -> int:
    at = start
    for piece in source.pieces(start):
        rest = piece.lstrip(_PADDING)
        at += len(piece) - len(rest)
        if rest or at - start > _MOST_PADDING:
            return at
    return at


def _is_mostly_text(data: bytes) -> bool:
    printable = sum(0x20 <= byte < 0x7F or byte in (9, 10, 13) for byte in data)
    return printable >= 0.9 * len(data)


def check_preamble(head: bytes) -> None:
    """Refuses a DICOM file whose preamble (PS3.10 7.1) makes a program of it; that of a TIFF is what the standard has it for."""
    preamble = head[:128]
    name = program_in(preamble) or archive_in(preamble) or page_in(preamble.rstrip(b"\0"))
    if name is None and preamble.startswith((b"%PDF-", b"{\\rtf")):
        name = "a document"
    if name is not None:
        raise RefusedContent(f"the preamble of the DICOM file makes it {name} at the same time")
