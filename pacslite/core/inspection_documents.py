"""Documents: each kind by its reader."""

from __future__ import annotations

import re

from pacslite.core import file_kinds as kinds
from pacslite.core.file_kinds import TEXTS, Kind
from pacslite.core.inspection_source import Source
from pacslite.core.inspection_text import check_text
from pacslite.errors import RefusedContent

# Objects of other programs, and templates from elsewhere: the ways RTF is used to run something.
_RTF_ACTIVE = (rb"\objdata", rb"\objocx", rb"\objupdate", rb"\objautlink", b"ddeauto")
_RTF_TEMPLATE = re.compile(rb"\\\*\\template\s*(?:https?|file|\\\\)", re.IGNORECASE)


def check_document(kind: Kind, source: Source) -> tuple[str, ...]:
    """Warnings about a document; raises RefusedContent."""
    if kind is kinds.PDF:
        from pacslite.core.inspection_pdf import check_pdf

        return check_pdf(source)
    if kind in TEXTS:
        return check_text(source)
    if kind is kinds.RTF:
        return _check_rtf(source)
    return ()  # looked into when it was recognized: `office_kind`, `ole_kind`


def _check_rtf(source: Source) -> tuple[str, ...]:
    for piece in source.pieces(overlap=256):
        lower = piece.lower()
        if any(word in lower for word in _RTF_ACTIVE) or _RTF_TEMPLATE.search(piece):
            raise RefusedContent("the RTF has an object of another program in it, or fetches a template")
    if b"}" not in source.tail[-4096:]:
        raise RefusedContent("the RTF is cut off")
    return ()
