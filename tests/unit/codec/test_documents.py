"""The first page of a PDF; what cannot be shown says why."""

from __future__ import annotations

import io
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image

from pacslite.codec import documents
from pacslite.errors import UndecodablePixels


def document(*pages: tuple[float, float]) -> bytes:
    """A PDF of empty pages, the first with a black band on top."""
    made = pypdfium2.PdfDocument.new()
    for number, (width, height) in enumerate(pages):
        page = made.new_page(width, height)
        if number == 0:
            band = pypdfium2.PdfImage.new(made)
            band.set_bitmap(pypdfium2.PdfBitmap.from_pil(Image.new("RGB", (8, 8), "black")))
            band.set_matrix(pypdfium2.PdfMatrix().scale(width, height / 4).translate(0, height * 3 / 4))
            page.insert_obj(band)
            page.gen_content()
    out = io.BytesIO()
    made.save(out)
    made.close()
    return out.getvalue()


def shown(data: bytes, directory: Path) -> tuple[dict[str, object], Image.Image]:
    source, target = directory / "a.pdf", directory / "a.jpg"
    source.write_bytes(data)
    info = documents.make(str(source), [(str(target), 1200, 85)])
    return info, Image.open(io.BytesIO(target.read_bytes()))


def test_page_one_of_three(tmp_path: Path) -> None:
    info, picture = shown(document((595, 842), (842, 595), (100, 100)), tmp_path)
    assert info == {"pages": 3, "page_width_pt": 595.0, "page_height_pt": 842.0}
    assert picture.size == (848, 1200)
    assert picture.getpixel((400, 100)) == pytest.approx((0, 0, 0), abs=6)
    assert picture.getpixel((400, 900)) == pytest.approx((255, 255, 255), abs=6)


def test_a_page_as_large_as_a_house(tmp_path: Path) -> None:
    assert shown(document((14_400, 3)), tmp_path)[1].size[0] == 1200


def test_no_pages_and_damage(tmp_path: Path) -> None:
    for data in (document(), b"", b"%PDF-1.7\n%%EOF", document((100, 100))[:100]):
        with pytest.raises(UndecodablePixels):
            shown(data, tmp_path)


# RC4 with 40 bits (ISO 32000-1, 7.6): nothing opens it but a password that is not the empty one.
ENCRYPTED = b"""%%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 100 100]>>endobj
4 0 obj<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>endobj
trailer<</Root 1 0 R/Encrypt 4 0 R/ID[<00><00>]/Size 5>>
%%%%EOF
""" % (b"11" * 32, b"22" * 32)


def test_an_encrypted_document(tmp_path: Path) -> None:
    with pytest.raises(UndecodablePixels, match="encrypted"):
        shown(ENCRYPTED, tmp_path)
