"""The first page of a PDF as a picture. Runs in a process of its own (`apart`); PDFium here runs no scripts and fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pacslite.codec.pictures import Wanted, write
from pacslite.errors import UndecodablePixels

_PASSWORD = "password"


def make(path: str, wanted: Sequence[Wanted]) -> dict[str, Any]:
    """Write pictures of page one; what was found out about the document. Raises UndecodablePixels."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if _PASSWORD in str(error).lower():
            raise UndecodablePixels("The PDF is encrypted: it opens only with its password.") from error
        raise UndecodablePixels("The PDF is damaged.") from error
    try:
        if len(document) < 1:
            raise UndecodablePixels("The PDF has no pages.")
        page = document[0]
        width, height = page.get_size()
        if not (width > 0 and height > 0):
            raise UndecodablePixels("The first page of the PDF has no size.")
        scale = max(pixels for _, pixels, _ in wanted) / max(width, height)
        picture = page.render(scale=scale, may_draw_forms=False).to_pil()
    except pypdfium2.PdfiumError as error:
        raise UndecodablePixels("The first page of the PDF is damaged.") from error
    write(picture, wanted)
    return {"pages": len(document), "page_width_pt": round(width, 2), "page_height_pt": round(height, 2)}
