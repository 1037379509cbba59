"""Text: told from binary by having no control characters, in an encoding that people's programs write."""

from __future__ import annotations

import codecs
import re

from pacslite.core import file_kinds as kinds
from pacslite.core.file_kinds import TEXTS, Kind
from pacslite.core.inspection_source import Source
from pacslite.errors import RefusedContent

# Tab, line feed, form feed, carriage return, the end-of-file mark of DOS, and what ISO 2022 switches character sets with
# (SO, SI, ESC) are in texts; other controls are not.
_CONTROLS = bytes(byte for byte in range(32) if byte not in (9, 10, 12, 13, 14, 15, 26, 27)) + b"\x7f"
_UTF_16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
# Words that make a script or a page of a text, however it is named; they are looked for everywhere.
_ACTIVE = (b"<script", b"<?php", b"<iframe", b"javascript:", b"<svg", b"wscript.shell", b"-executionpolicy bypass")
# So far browsers look for a page in what is said to be none (WHATWG, MIME Sniffing 5.2).
_SNIFFED_BYTES = 1445
_PAGE = re.compile(rb"<!doctype\s+html|<html[\s>]", re.IGNORECASE)
_BATCH = re.compile(rb"\s*@?echo off\b|\s*@echo\b|\s*rem [^\n]*\n\s*@|\s*#requires -version|\s*set-executionpolicy\b", re.IGNORECASE)
_OVERLAP = 64


def is_text(head: bytes) -> bool:
    """Whether a file begins as text."""
    if head[:2] in _UTF_16:
        return _decodes(head[2 : len(head) - len(head) % 2], _UTF_16[head[:2]])
    return bool(head) and not _has_controls(head)


def _has_controls(data: bytes) -> bool:
    return len(data.translate(None, _CONTROLS)) != len(data)


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return False
    return not _has_controls(text.encode("utf-8", "surrogatepass"))


def text_kind(extension: str) -> Kind:
    """Which kind of text it is called; a name that says nothing of text is refused later."""
    return next((kind for kind in TEXTS if extension in kind.extensions), kinds.TEXT)


def check_text(source: Source) -> tuple[str, ...]:
    """Warnings about a text; raises RefusedContent for what is binary, or is run by something."""
    if _PAGE.search(source.head, 0, _SNIFFED_BYTES):
        raise RefusedContent("the text is an HTML page")
    if _BATCH.match(source.head):
        raise RefusedContent("the text is a script")
    encoding = _UTF_16.get(source.head[:2])
    decoder = codecs.getincrementaldecoder(encoding or "utf-8")()
    is_utf_8, kept = True, b""
    for piece in source.pieces():
        if encoding is None and _has_controls(piece):
            raise RefusedContent("the text has control characters in it: it is binary")
        if is_utf_8:
            try:
                plain = decoder.decode(piece).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError:
                if encoding is not None:
                    raise RefusedContent("the text is not valid UTF-16") from None
                is_utf_8, plain = False, piece
            if encoding is not None and _has_controls(plain):
                raise RefusedContent("the text has control characters in it: it is binary")
        else:
            plain = piece
        _check_active(kept + plain)
        kept = plain[-_OVERLAP:]
    return () if is_utf_8 else ("the text is not UTF-8",)


def _check_active(data: bytes) -> None:
    lower = data.lower()
    if any(word in lower for word in _ACTIVE):
        raise RefusedContent("the text is a page or a script, or has one in it")
