"""What is refused, and why: programs, scripts, two things at once, macros, bombs, broken models."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from pacslite.core.file_types import MedicalFileType as Type
from tests.support import file_samples as samples
from tests.unit.test_file_inspection import looked_into, refused

PROGRAMS = {
    "ELF": b"\x7fELF\x02\x01\x01" + bytes(57),
    "PE": b"MZ\x90\0" + bytes(124),
    "Mach-O": b"\xcf\xfa\xed\xfe" + bytes(60),
    "Java class": b"\xca\xfe\xba\xbe\0\0\0\x34" + bytes(60),
    "WebAssembly": b"\0asm\1\0\0\0",
    "Dalvik": b"dex\n035\0" + bytes(60),
    "a script": b"#!/bin/sh\nrm -rf /\n",
    "Windows shortcut": b"L\0\0\0\1\x14\2\0" + bytes(60),
}
PADDING = b"\0\xff"
PAGES = {
    "HTML": b"<!DOCTYPE html><html><body>hello</body></html>",
    "html without a type": b"\xef\xbb\xbf  <html><script>alert(1)</script>",
    "SVG": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "plain SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><rect/></svg>",
    "PHP": b"<?php system($_GET['c']); ?>",
    "batch": b"@echo off\r\ndel *.*\r\n",
    "script tag in text": b"Dear colleague,\n<script src=//evil></script>\n",
    "VBScript": b'Set s = CreateObject("WScript.Shell")\n',
}
APPENDED = {
    "ZIP": (samples.zipped({"a.txt": "text"}), "ZIP"),
    "JAR": (samples.zipped({"META-INF/MANIFEST.MF": "Main-Class: A", "A.class": b"\xca\xfe\xba\xbe"}), "ZIP"),
    "HTML": (b"<html><body onload=alert(1)>", "page"),
    "script": (b"<script>alert(1)</script>", "script"),
    "JavaScript": (b"*/=1;alert(document.domain)/*", "text"),
    "PHP": (b"<?php system($_GET['c']); ?>", "script"),
    "PE": (b"MZ\x90\0" + bytes(200), "program"),
    "PDF": (samples.pdf(), "PDF"),
    "RAR": (b"Rar!\x1a\x07\x00" + bytes(100), "RAR"),
    "padded ZIP": (bytes(1000) + samples.zipped({"a.txt": "text"}), "ZIP"),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(("filename", "file_type"), [("a.jpg", Type.PHOTO), ("a.txt", Type.DOCUMENT), ("a", None), ("a.mp4", Type.VIDEO)])
def test_programs_are_refused_under_any_name(tmp_path: Path, name: str, filename: str, file_type: Type | None) -> None:
    assert name in refused(tmp_path, filename, PROGRAMS[name], file_type)


@pytest.mark.parametrize("name", ["a.exe", "a.txt.js", "a.HTML", "a.svg", "report.pdf.lnk", "a.ps1", "a.docm", "A.BAT ", "a.sh."])
def test_names_of_programs_are_refused_whatever_is_in_them(tmp_path: Path, name: str) -> None:
    assert "may be run" in refused(tmp_path, name, b"plain text", Type.DOCUMENT)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("filename", "file_type"), [("a.txt", Type.DOCUMENT), ("a.md", None), ("a.jpg", Type.PHOTO)])
def test_pages_and_scripts_are_refused(tmp_path: Path, name: str, filename: str, file_type: Type | None) -> None:
    assert refused(tmp_path, filename, PAGES[name], file_type)


@pytest.mark.parametrize("second", APPENDED)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_pictures_with_something_behind_them_are_refused(tmp_path: Path, form: str, second: str) -> None:
    more, reason = APPENDED[second]
    extension = form.lower().replace("jpeg", "jpg")
    assert reason in refused(tmp_path, f"a.{extension}", samples.picture(form) + more, Type.PHOTO)


def test_what_phones_append_to_pictures_is_taken(tmp_path: Path) -> None:
    """A motion photo ends in a film, the multi-picture format in further pictures; makers append records of their own."""
    film = samples.box(b"ftyp", b"mp42\0\0\0\0isom") + samples.box(b"moov", bytes(50)) + samples.box(b"mdat", bytes(500))

    for more in (film, samples.picture("JPEG", (8, 8)), b"\1\x0a\x0e\0\0\0Image_UTC_Data1" + bytes(range(256)) + b"SEFT"):
        found = looked_into(tmp_path, "a.jpg", samples.picture("JPEG") + more, Type.PHOTO)
        # NULs and FFs at its beginning count as padding.
        assert found.warnings == (f"{len(more.lstrip(PADDING))} bytes follow the picture",)
    assert looked_into(tmp_path, "a.jpg", samples.picture("JPEG") + bytes(4000), Type.PHOTO).warnings == ()


def test_a_little_rubbish_between_segments_is_passed_over(tmp_path: Path) -> None:
    plain = samples.picture("JPEG")
    at = plain.find(b"\xff\xdb")
    assert looked_into(tmp_path, "a.jpg", plain[:at] + b"rubbish" + plain[at:], Type.PHOTO).warnings == ()
    assert "marker" in refused(tmp_path, "a.jpg", plain[:at] + bytes(5000) + plain[at:], Type.PHOTO)


@pytest.mark.parametrize("where", ["comment", "EXIF"])
def test_a_script_within_a_picture_is_refused(tmp_path: Path, where: str) -> None:
    plain = samples.picture("JPEG")
    code = b"<?php system($_GET['c']); ?>"
    segment = b"\xff\xfe" if where == "comment" else b"\xff\xe1"
    data = plain[:2] + segment + struct.pack(">H", len(code) + 2) + code + plain[2:]
    assert "script" in refused(tmp_path, "a.jpg", data, Type.PHOTO)


def test_a_word_of_a_script_is_found_across_pieces(tmp_path: Path) -> None:
    plain = samples.picture("PNG")
    filling = 1024 * 1024 - 33 - 8 - 4  # the word begins 4 bytes before the second piece
    text = b"a" * filling + b"<ScRipt>"
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", zlib.crc32(b"tEXt" + text))
    assert "script" in refused(tmp_path, "a.png", plain[:33] + chunk + plain[33:], Type.PHOTO)


@pytest.mark.parametrize("preamble", [b"MZ\x90\0" + bytes(60), b"\x7fELF" + bytes(60), b"#!/bin/sh\n", b"%PDF-1.7\n", b"<html>", b"PK\3\4"])
def test_a_dicom_file_that_is_a_program_too_is_refused(tmp_path: Path, preamble: bytes) -> None:
    assert "at the same time" in refused(tmp_path, "a.dcm", samples.dicom_head(preamble), Type.DICOM)


def test_a_dicom_file_with_the_preamble_of_a_tiff_is_taken(tmp_path: Path) -> None:
    """PS3.10 7.1 has the preamble for that: slides are both."""
    assert looked_into(tmp_path, "a.dcm", samples.dicom_head(b"II*\0\x08\0\0\0"), Type.DICOM).warnings == ()


@pytest.mark.parametrize("make", [samples.pdf, samples.binary_stl, samples.obj, samples.ply, samples.dicom_head, lambda: b"plain text\n"])
def test_anything_with_an_archive_at_its_end_is_refused(tmp_path: Path, make) -> None:
    assert refused(tmp_path, "", make() + samples.zipped({"a.txt": "text"}))


# PDF


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\n" + samples.pdf(), "no kind that is taken|text"),
        (samples.pdf()[:-40] + b"<script>alert(1)</script>", "script"),
        (samples.pdf("/OpenAction << /S /JavaScript /JS (app.alert\\(1\\)) >>"), "JavaScript"),
        (samples.pdf("/OpenAction << /S /J#61vaScript /JS (app.alert\\(1\\)) >>"), "JavaScript"),
        (samples.pdf("/OpenAction << /S /Launch /F (cmd.exe) >>"), "launches"),
        (samples.pdf("/Names << /EmbeddedFiles << /Names [(a) << /Type /Filespec /F (bill.exe) /EF 9 0 R >>] >> >>"), "program"),
        (samples.pdf(more=samples.packed_object(b"<< /S /JavaScript /JS (app.alert\\(1\\)) >>")), "JavaScript"),
        (samples.pdf() + b"<html><script>alert(1)</script>", "page or a script|HTML"),
        (samples.pdf() + samples.zipped({"a": "b"}), "ZIP"),
    ],
)
def test_pdfs_that_act_or_are_broken_are_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    found = refused(tmp_path, "a.pdf", data, Type.PDF)
    assert any(part in found for part in reason.split("|")), found


def test_pdfs_with_forms_links_and_attachments_are_taken(tmp_path: Path) -> None:
    more = "/AcroForm << /Fields [] >> /OpenAction [3 0 R /Fit] /Names << /EmbeddedFiles << /Names [(a) << /F (factur-x.xml) >>] >> >>"
    assert looked_into(tmp_path, "a.pdf", samples.pdf(more), Type.PDF).warnings == ()


def test_a_pdf_without_an_end_is_taken_with_a_warning(tmp_path: Path) -> None:
    assert "cut off" in looked_into(tmp_path, "a.pdf", samples.pdf()[:-40], Type.PDF).warnings[0]


def test_a_pdf_that_sends_its_form_somewhere_is_taken(tmp_path: Path) -> None:
    """`.com` is the end of a program's name, and of many hosts'."""
    data = samples.pdf(more=b"7 0 obj\n<< /S /SubmitForm /F << /FS /URL /F (http://example.com) >> >>\nendobj\n")
    assert looked_into(tmp_path, "a.pdf", data, Type.PDF).warnings == ()


def test_an_encrypted_pdf_is_taken_with_a_warning(tmp_path: Path) -> None:
    data = samples.pdf().replace(b"/Root 1 0 R", b"/Root 1 0 R /Encrypt 7 0 R")
    assert "encrypted" in looked_into(tmp_path, "a.pdf", data, Type.PDF).warnings[0]


def test_a_pdf_whose_objects_unpack_without_end_is_refused(tmp_path: Path) -> None:
    packed = samples.packed_object(bytes(20 * 1024 * 1024))
    assert "unpacks to more" in refused(tmp_path, "a.pdf", samples.pdf(more=packed * 14), Type.PDF)


# Office


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.docx", samples.ooxml("docx", {"word/vbaProject.bin": b"x"}), "macros"),
        ("a.docx", samples.ooxml("docx", content_type="application/vnd.ms-word.document.macroEnabled.main+xml"), "macros"),
        ("a.xlsx", samples.ooxml("xlsx", {"xl/macrosheets/sheet1.xml": "x"}), "macros"),
        ("a.xlsx", samples.ooxml("xlsx", {"xl/activeX/activeX1.bin": b"x"}), "macros"),
        ("a.docx", samples.ooxml("docx", {"word/embeddings/oleObject1.bin": "\1Ole10Native".encode("utf-16-le")}), "object"),
        ("a.docx", samples.ooxml("docx", {"word/embeddings/a.bin": b"MZ\x90\0" + bytes(100)}), "program"),
        ("a.docx", samples.ooxml("docx", {"word/a.exe": b"x"}), "program"),
        ("a.docx", samples.ooxml("docx", {"word/_rels/s.rels": samples.relationship("attachedTemplate", "http://e/t.dotm")}), "elsewhere"),
        ("a.docx", samples.ooxml("docx", {"../../evil.xml": "x"}), "leads out"),
        ("a.odt", samples.odf("odt", {"Basic/Standard/Module1.xml": "x"}), "macros"),
        ("a.odt", samples.odf("odt", {"Scripts/python/a.py": "x"}), "macros"),
        ("a.odt", samples.odf("odt", manifest="<manifest><encryption-data/></manifest>"), "encrypted"),
        ("a.doc", samples.compound({"WordDocument": b"\xec\xa5".ljust(600, b"\0")}, ("Macros",)), "macros"),
        ("a.doc", samples.compound({"WordDocument": (b"\xec\xa5" + bytes(9) + b"\1").ljust(600, b"\0")}), "encrypted"),
        ("a.xls", samples.compound({"Workbook": samples.workbook((0x85, bytes(5) + b"\1\6\0Macro1"))}), "macros"),
        ("a.xls", samples.compound({"Workbook": samples.workbook((0x2F, bytes(6)))}), "encrypted"),
        ("a.docx", samples.compound({"EncryptedPackage": bytes(100)}), "encrypted"),
        ("a.ppt", samples.compound({"PowerPoint Document": bytes(100)}), "PPTX"),
        ("a.msi", samples.compound({"x": bytes(100)}), "may be run"),
        ("a.rtf", rb"{\rtf1{\object\objemb{\*\objdata 0105}}}", "object"),
        ("a.docx", samples.zipped({"META-INF/MANIFEST.MF": "x", "A.class": b"x"}), "JAR"),
        ("a.docx", samples.zipped({"AndroidManifest.xml": "x", "classes.dex": b"x"}), "APK"),
    ],
)
def test_documents_that_act_or_hide_something_are_refused(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    assert reason in refused(tmp_path, name, data, Type.DOCUMENT)


def test_a_theme_that_word_keeps_in_a_doc_is_no_archive_of_its_own(tmp_path: Path) -> None:
    theme = samples.zipped({"theme/theme/theme1.xml": "<theme/>"})
    doc = samples.compound({"WordDocument": b"\xec\xa5".ljust(600, b"\0"), "1Table": theme})
    assert looked_into(tmp_path, "a.doc", doc, Type.DOCUMENT).media_type == "application/msword"
    assert "ZIP" in refused(tmp_path, "a.doc", doc + theme, Type.DOCUMENT)


def test_a_bomb_in_a_document_is_refused(tmp_path: Path) -> None:
    bomb = samples.ooxml("docx", {"word/media/image1.bmp": bytes(300 * 1024 * 1024)})
    assert len(bomb) < 1024 * 1024
    assert "unpacks to" in refused(tmp_path, "a.docx", bomb, Type.DOCUMENT)


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    """A directory that names the same bytes twice, which is how few bytes unpack to petabytes."""
    plain = samples.ooxml("docx")
    end = plain.rfind(b"PK\5\6")
    size, offset = struct.unpack("<II", plain[end + 12 : end + 20])
    directory = plain[offset : offset + size]
    last = directory[directory.rfind(b"PK\1\2") :]
    count = struct.unpack("<H", plain[end + 10 : end + 12])[0] + 1
    record = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, size + len(last), offset, 0)
    assert "overlap" in refused(tmp_path, "a.docx", plain[:offset] + directory + last + record, Type.DOCUMENT)


def test_names_that_differ_between_directory_and_entry_are_refused(tmp_path: Path) -> None:
    plain = samples.ooxml("docx", {"word/good.xml": "x"})
    at = plain.find(b"word/good.xml")
    changed = plain[:at] + b"word/evil.xml" + plain[at + 13 :]
    assert "another name" in refused(tmp_path, "a.docx", changed, Type.DOCUMENT)


def test_text_that_is_binary_is_refused(tmp_path: Path) -> None:
    assert "control characters" in refused(tmp_path, "a.txt", b"text " * 20_000 + b"\0\1\2", Type.DOCUMENT)


# Models


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.stl", samples.binary_stl()[:-1], "with 4 triangles it has 284 bytes, the file has 283"),
        ("a.stl", samples.binary_stl() + b"x", "the file has 285"),
        ("a.stl", bytes(50), "broken"),
        ("a.stl", b"", "empty"),
        ("a.stl", samples.ascii_stl()[:-100], "broken after"),
        ("a.stl", samples.ascii_stl().replace(b"endloop", b"endlop", 1), "broken after 0 triangles"),
        ("a.stl", samples.ascii_stl().replace(b"vertex 1.", b"vertex one.", 1), "broken after 0 triangles"),
        ("a.obj", samples.obj().replace(b"v 1.0", b"v one", 1), "line 5"),
        ("a.obj", samples.obj() + b"f 1 2\n", "broken in line"),
        ("a.obj", samples.obj() + b"csh rm -rf /\n", "broken in line"),
        ("a.stl", b"solid nothing\nendsolid nothing\nmore", "something else follows"),
        ("a.obj", b"nothing\n", "line 1"),
        ("a.ply", samples.ply()[:-1], "shorter"),
        ("a.ply", samples.ply() + bytes(5000), "longer"),
        ("a.ply", samples.ply("ascii").replace(b"element vertex 4", b"element vertex 40"), "its header says 44"),
        ("a.ply", samples.ply("ascii").replace(b"0.0", b"zero", 1), "something else than numbers"),
        ("a.ply", samples.ply().replace(b"end_header", b"end_haeder"), "no end"),
        ("a.ply", samples.ply().replace(b"property float x", b"property floot x"), "means nothing"),
        ("a.ply", samples.ply().replace(b"element vertex 4", b"element vertex 99999999999"), "means nothing"),
        ("a.ply", samples.ply().replace(b"binary_little_endian 1.0", b"binary_little_endian 2.0"), "no known format"),
    ],
)
def test_broken_models_are_refused(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    kinds = {".stl": Type.STL_MODEL, ".obj": Type.OBJ_MODEL, ".ply": Type.PLY_MODEL}
    assert reason in refused(tmp_path, name, data, kinds[name[1:]])


def test_triangles_without_area_are_reported_and_kept(tmp_path: Path) -> None:
    faces = (*samples.FACES, (0, 0, 1), (1, 1, 1))
    for data in (samples.binary_stl(faces), samples.ascii_stl(faces)):
        assert looked_into(tmp_path, "a.stl", data, Type.STL_MODEL).warnings == ("2 triangles have no area",)


def test_models_of_nothing_are_reported_and_kept(tmp_path: Path) -> None:
    """An STL is broken only when its length or its syntax is."""
    for name, data in {"a.stl": samples.binary_stl(()), "b.stl": b"solid nothing\nendsolid nothing\n"}.items():
        assert looked_into(tmp_path, name, data, Type.STL_MODEL).warnings == ("the model has no triangles",)
    assert looked_into(tmp_path, "a.obj", b"# nothing\n", Type.OBJ_MODEL).warnings == ("the model has no vertices",)


def test_coordinates_that_are_no_numbers_are_reported(tmp_path: Path) -> None:
    data = bytearray(samples.binary_stl())
    data[84 + 12 : 84 + 16] = struct.pack("<f", float("nan"))
    assert "no numbers" in looked_into(tmp_path, "a.stl", bytes(data), Type.STL_MODEL).warnings[0]


def test_models_are_read_across_pieces(tmp_path: Path) -> None:
    """Pieces of 1 MiB end anywhere in a line, a facet or an item."""
    many = samples.FACES * 2500
    assert looked_into(tmp_path, "a.stl", samples.ascii_stl(many), Type.STL_MODEL).warnings == ()
    lines = b"v 0.125 0.5 0.75\n" * 50_000 + b"f 1 2 3\r\n" * 100_000
    assert looked_into(tmp_path, "a.obj", lines, Type.OBJ_MODEL).warnings == ()
    assert "line 150001" in refused(tmp_path, "a.obj", lines + b"f 1 2\n", Type.OBJ_MODEL)
    header = b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty double x\n"
    header += b"element face 150000\nproperty list uchar int v\nproperty uchar red\nend_header\n"
    items = b"".join(struct.pack(f"<B{n}iB", n, *range(n), 0) for n in (3, 3, 4) * 50_000)
    assert looked_into(tmp_path, "a.ply", header + bytes(8) + items, Type.PLY_MODEL).warnings == ()
    assert "shorter" in refused(tmp_path, "a.ply", header + bytes(8) + items[:-1], Type.PLY_MODEL)


def test_an_archive_with_too_many_entries_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for number in range(10_001):
            file.writestr(f"{number}", b"")
    assert "10001 entries" in refused(tmp_path, "a.docx", out.getvalue(), Type.DOCUMENT)
