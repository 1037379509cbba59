"""Office documents: ZIP files of a known make (ECMA-376, ODF 1.3), without macros, programs, encryption or bombs."""

from __future__ import annotations

import re

from pacslite.core import file_kinds as kinds
from pacslite.core.file_kinds import Kind
from pacslite.core.inspection_foreign import program_in
from pacslite.core.inspection_source import Source
from pacslite.core.zip_reading import ZipEntry, content, read_directory
from pacslite.errors import RefusedContent

_MOST_PART_BYTES = 4 * 1024 * 1024
# XML packs well, tables of the same row more than 100 to 1; a part that is larger unpacked than this is no document.
_MOST_UNPACKED = 256 * 1024 * 1024
_MOST_TOTAL = 2 * 1024**3
_MOST_RATIO = 100
_OOXML = {
    b"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml": kinds.DOCX,
    b"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml": kinds.XLSX,
    b"application/vnd.openxmlformats-officedocument.presentationml.presentation.main+xml": kinds.PPTX,
    b"application/vnd.openxmlformats-officedocument.presentationml.slideshow.main+xml": kinds.PPTX,
}
_ODF = {kind.media_type.encode(): kind for kind in (kinds.ODT, kinds.ODS, kinds.ODP)}
_MACRO_PARTS = re.compile(r"vbaproject|vbadata|/macrosheets/|/activex/|/dialogsheets/|^basic/|^scripts/|/basic/script", re.IGNORECASE)
_MACRO_TYPES = re.compile(rb"macroenabled|ms-office\.vba|macrosheet|ms-office\.activex", re.IGNORECASE)
_REMOTE = re.compile(rb"<(?:\w+:)?relationship\b[^>]*>", re.IGNORECASE)
_FETCHED = re.compile(rb"attachedtemplate|/oleobject|/frame\b|subdocument|/package\b", re.IGNORECASE)
_RUNNABLE_PARTS = (".class", ".dex", ".exe", ".dll", ".js", ".vbs", ".bat", ".cmd", ".ps1", ".scr", ".jar", ".so", ".hta", ".lnk")
# The stream of a Package object, which may be any file, a program too ([MS-OLEDS] 2.3.6).
_PACKAGE = "Ole10Native".encode("utf-16-le")


def office_kind(source: Source) -> Kind:
    """The kind of an office document that is safe to keep; raises RefusedContent for any other ZIP."""
    entries = read_directory(source)
    named = {entry.name: entry for entry in entries}
    if "META-INF/MANIFEST.MF" in named or "AndroidManifest.xml" in named or any(e.name.endswith((".class", ".dex")) for e in entries):
        raise RefusedContent("the file is a program (JAR or APK)")
    if "[Content_Types].xml" in named:
        kind = _ooxml_kind(source, named["[Content_Types].xml"])
    elif "mimetype" in named:
        kind = _odf_kind(source, named)
    else:
        raise RefusedContent("the file is a ZIP archive; its entries are taken when it is sent with expand=true")
    _check_entries(entries)
    _check_parts(source, entries)
    return kind


def _ooxml_kind(source: Source, types: ZipEntry) -> Kind:
    text = content(source, types, _MOST_PART_BYTES)
    if _MACRO_TYPES.search(text):
        raise RefusedContent("the document has macros")
    for name, kind in _OOXML.items():
        if name in text:
            return kind
    raise RefusedContent("the file is an office document of a kind that is not taken")


def _odf_kind(source: Source, named: dict[str, ZipEntry]) -> Kind:
    kind = _ODF.get(content(source, named["mimetype"], 256).strip())
    if kind is None:
        raise RefusedContent("the file is an archive of a kind that is not taken")
    manifest = named.get("META-INF/manifest.xml")
    if manifest is None:
        raise RefusedContent("the document is broken: it has no manifest")
    if b"encryption-data" in content(source, manifest, _MOST_PART_BYTES):
        raise RefusedContent("the document is encrypted, so nobody can tell what is in it")
    return kind


def _check_entries(entries: list[ZipEntry]) -> None:
    names = set()
    for entry in entries:
        if entry.problem:
            raise RefusedContent(f"the document is broken: {entry.problem}")
        if entry.name.lower() in names:
            raise RefusedContent("the document is broken: it has a part twice")
        names.add(entry.name.lower())
        if _MACRO_PARTS.search("/" + entry.name) or _MACRO_PARTS.search(entry.name):
            raise RefusedContent("the document has macros")
        if entry.name.lower().endswith(_RUNNABLE_PARTS):
            raise RefusedContent("the document has a program in it")
        if entry.size > _MOST_UNPACKED and entry.ratio > _MOST_RATIO:
            raise RefusedContent(f"a part of the document unpacks to {entry.size} bytes, {entry.ratio:.0f} times its length")
    if sum(entry.size for entry in entries) > max(_MOST_TOTAL, 20 * sum(entry.packed for entry in entries)):
        raise RefusedContent("the document unpacks to too many bytes")


def _check_parts(source: Source, entries: list[ZipEntry]) -> None:
    for entry in entries:
        name = entry.name.lower()
        if name.endswith(".rels"):
            _check_relations(content(source, entry, _MOST_PART_BYTES))
        elif "embeddings/" in name or name.startswith(("object ", "objectreplacements/")) or name.endswith(".bin"):
            data = content(source, entry, _MOST_PART_BYTES)
            if program_in(data) or _PACKAGE in data:
                raise RefusedContent("the document has a program, or any file, as an object in it")


def _check_relations(text: bytes) -> None:
    """Templates and objects that are fetched from elsewhere when the document is opened; links to click on are fine."""
    for found in _REMOTE.finditer(text):
        if b'"external"' in found[0].lower().replace(b"'", b'"') and _FETCHED.search(found[0]):
            raise RefusedContent("the document fetches a template or an object from elsewhere")
