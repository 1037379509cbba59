"""What is taken as a file: every kind as programs write it, under the types it belongs to, and under no other name or type."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pacslite.core.file_inspection import Inspected, inspect
from pacslite.core.file_types import MedicalFileType as Type
from pacslite.errors import RefusedContent
from pacslite.settings import Settings
from tests.support import file_samples as samples

SETTINGS = Settings()

PICTURES = {
    "a.jpg": lambda: samples.picture("JPEG"),
    "b.JPEG": lambda: samples.picture("JPEG", progressive=True),
    "c.png": lambda: samples.picture("PNG"),
    "d.webp": lambda: samples.picture("WEBP"),
    "e.webp": lambda: samples.picture("WEBP", lossless=True),
    "f.tif": lambda: samples.picture("TIFF"),
    "g.tiff": lambda: samples.picture("TIFF", compression="jpeg"),
    "h.gif": lambda: samples.picture("GIF"),
    "i.bmp": lambda: samples.picture("BMP"),
    "j.avif": lambda: samples.picture("AVIF"),
    "k.heic": samples.heic,
}
MODELS = {
    "a.stl": (samples.binary_stl, Type.STL_MODEL, "model/stl"),
    "b.STL": (samples.ascii_stl, Type.STL_MODEL, "model/stl"),
    "solid.stl": (lambda: samples.binary_stl(header=b"solid facet, but binary"), Type.STL_MODEL, "model/stl"),
    "c.obj": (samples.obj, Type.OBJ_MODEL, "model/obj"),
    "d.ply": (samples.ply, Type.PLY_MODEL, "model/ply"),
    "e.ply": (lambda: samples.ply("ascii"), Type.PLY_MODEL, "model/ply"),
    "f.ply": (lambda: samples.ply("binary_big_endian"), Type.PLY_MODEL, "model/ply"),
}
OFFICE = "application/vnd.openxmlformats-officedocument."
DOCUMENTS = {
    "a.pdf": (samples.pdf, "application/pdf"),
    "a.docx": (lambda: samples.ooxml("docx"), OFFICE + "wordprocessingml.document"),
    "a.xlsx": (lambda: samples.ooxml("xlsx"), OFFICE + "spreadsheetml.sheet"),
    "a.pptx": (lambda: samples.ooxml("pptx"), OFFICE + "presentationml.presentation"),
    "a.odt": (lambda: samples.odf("odt"), "application/vnd.oasis.opendocument.text"),
    "a.ods": (lambda: samples.odf("ods"), "application/vnd.oasis.opendocument.spreadsheet"),
    "a.odp": (lambda: samples.odf("odp"), "application/vnd.oasis.opendocument.presentation"),
    "a.doc": (lambda: samples.compound({"WordDocument": b"\xec\xa5".ljust(600, b"\0")}), "application/msword"),
    "a.xls": (
        lambda: samples.compound({"Workbook": samples.workbook((0x85, bytes(6) + b"\x05\0Sheet"))}),
        "application/vnd.ms-excel",
    ),
    "a.rtf": (lambda: rb"{\rtf1\ansi Befund: gut\par}", "application/rtf"),
    "a.txt": (lambda: "Größe 5 µm\n日本語\n".encode(), "text/plain"),
    "latin.txt": (lambda: "Größe".encode("latin-1"), "text/plain"),
    "utf16.txt": (lambda: "Größe".encode("utf-16"), "text/plain"),
    "iso2022.txt": (lambda: "所見なし".encode("iso2022_jp"), "text/plain"),
    "a.csv": (lambda: b"tooth;depth\n11;3\n", "text/csv"),
    "a.md": (lambda: b"# Findings\n\n* none\n", "text/markdown"),
    "a.json": (lambda: b'{"findings": []}', "application/json"),
}
MEDIA_TYPES = {"jpg": "jpeg", "tif": "tiff"}


def looked_into(directory: Path, name: str, data: bytes, file_type: Type | None) -> Inspected:
    path = directory / "spooled"
    path.write_bytes(data)
    return inspect(path, name, file_type, SETTINGS)


def refused(directory: Path, name: str, data: bytes, file_type: Type | None = None) -> str:
    with pytest.raises(RefusedContent) as caught:
        looked_into(directory, name, data, file_type)
    return str(caught.value)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("file_type", [Type.PHOTO, Type.PHOTO_SERIES, Type.XRAY, Type.PANORAMIC, Type.CT_SCAN, Type.MRI])
def test_pictures_are_taken(tmp_path: Path, name: str, file_type: Type) -> None:
    extension = "." + name.rpartition(".")[2].lower()
    media_type = "image/" + MEDIA_TYPES.get(extension[1:], extension[1:])
    assert looked_into(tmp_path, name, PICTURES[name](), file_type) == Inspected(media_type, extension, file_type)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_alone_is_a_photo(tmp_path: Path, name: str) -> None:
    assert looked_into(tmp_path, "", PICTURES[name](), None).file_type is Type.PHOTO


@pytest.mark.parametrize("name", [name for name in PICTURES if not name.endswith((".tif", ".tiff"))])
@pytest.mark.parametrize("kept", [0.9, 0.5])
def test_pictures_that_are_cut_off_are_refused(tmp_path: Path, name: str, kept: float) -> None:
    data = PICTURES[name]()
    assert refused(tmp_path, name, data[: int(len(data) * kept)], Type.PHOTO)


@pytest.mark.parametrize("name", MODELS)
def test_models_are_taken(tmp_path: Path, name: str) -> None:
    make, file_type, media_type = MODELS[name]
    extension = "." + name.rpartition(".")[2].lower()
    for declared in (file_type, None):
        assert looked_into(tmp_path, name, make(), declared) == Inspected(media_type, extension, file_type)


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("file_type", [Type.DOCUMENT, Type.REPORT])
def test_documents_are_taken(tmp_path: Path, name: str, file_type: Type) -> None:
    make, media_type = DOCUMENTS[name]
    found = looked_into(tmp_path, name, make(), file_type)
    assert (found.media_type, found.file_type) == (media_type, file_type)


def test_a_pdf_alone_is_a_pdf(tmp_path: Path) -> None:
    assert looked_into(tmp_path, "a.pdf", samples.pdf(), None).file_type is Type.PDF


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg makes the samples")
@pytest.mark.parametrize(
    ("name", "media_type", "options"),
    [
        ("a.mp4", "video/mp4", ()),
        ("fragments.mp4", "video/mp4", ("-movflags", "frag_keyframe+empty_moov")),
        ("a.mov", "video/quicktime", ()),
        ("a.avi", "video/x-msvideo", ()),
        ("a.mkv", "video/x-matroska", ()),
        ("a.webm", "video/webm", ("-c:v", "libvpx")),
        ("a.mpg", "video/mpeg", ()),
        ("a.ts", "video/mp2t", ()),
        ("a.m2ts", "video/mp2t", ("-mpegts_m2ts_mode", "1")),
        ("a.3gp", "video/3gpp", ("-c:v", "h263")),
    ],
)
def test_videos_are_taken(tmp_path: Path, name: str, media_type: str, options: tuple[str, ...]) -> None:
    data = samples.video(tmp_path / name, 0.4, *options)
    for declared in (Type.VIDEO, None):
        found = looked_into(tmp_path, name, data, declared)
        assert (found.media_type, found.file_type, found.warnings) == (media_type, Type.VIDEO, ())
    assert "not taken as photo" in refused(tmp_path, name, data, Type.PHOTO)


def test_a_video_without_its_header_is_refused(tmp_path: Path) -> None:
    data = samples.box(b"ftyp", b"isom\0\0\0\0isom") + samples.box(b"mdat", bytes(500))
    assert "no header" in refused(tmp_path, "a.mp4", data, Type.VIDEO)


@pytest.mark.parametrize("name", ["a.dcm", "IM0001", "1.2.840.113619.2", "scan.0001", "a.ima", ""])
@pytest.mark.parametrize("file_type", [Type.DICOM, Type.XRAY, Type.PANORAMIC, Type.CT_SCAN, Type.MRI, None])
def test_dicom_is_taken_whatever_its_name(tmp_path: Path, name: str, file_type: Type | None) -> None:
    found = looked_into(tmp_path, name, samples.dicom_head(), file_type)
    assert (found.media_type, found.file_type) == ("application/dicom", file_type or Type.DICOM)


def test_the_extension_is_the_names_own(tmp_path: Path) -> None:
    assert looked_into(tmp_path, "Foto.JPEG", samples.picture("JPEG"), Type.PHOTO).extension == ".jpeg"
    assert looked_into(tmp_path, "foto", samples.picture("JPEG"), Type.PHOTO).extension == ".jpg"


@pytest.mark.parametrize(
    ("name", "make", "file_type", "reason"),
    [
        ("a.png", lambda: samples.picture("JPEG"), Type.PHOTO, "the name ends in .png, the content is JPEG"),
        ("a.jpg", samples.pdf, Type.PHOTO, "the content is PDF, which is not taken as photo"),
        ("a.pdf", lambda: samples.picture("JPEG"), Type.PDF, "the content is JPEG, which is not taken as pdf"),
        ("a.dcm", lambda: samples.picture("JPEG"), Type.DICOM, "not taken as dicom"),
        ("a.jpg", samples.dicom_head, Type.XRAY, "the name ends in .jpg, the content is DICOM"),
        ("a.stl", samples.obj, Type.STL_MODEL, "the STL is broken"),
        ("a.obj", samples.binary_stl, Type.OBJ_MODEL, "the content is STL"),
        ("a.ply", samples.ascii_stl, Type.PLY_MODEL, "the content is STL"),
        ("a.txt", samples.pdf, Type.DOCUMENT, "the name ends in .txt, the content is PDF"),
        ("a.docx", lambda: samples.ooxml("xlsx"), Type.DOCUMENT, "the name ends in .docx, the content is XLSX"),
        ("a.pdf", lambda: b"Not a PDF.", Type.DOCUMENT, "the name ends in .pdf, the content is text"),
        ("a.xyz", lambda: b"text", Type.DOCUMENT, "the name ends in .xyz, the content is text"),
        ("a.jpg", lambda: b"", Type.PHOTO, "the file is empty"),
        ("a.jpg", lambda: bytes(5000), Type.PHOTO, "no kind that is taken"),
        ("a.psd", lambda: b"8BPS\0\1" + bytes(100), None, "Photoshop"),
        ("a.7z", lambda: b"7z\xbc\xaf\x27\x1c" + bytes(100), None, "7-Zip"),
        ("a.zip", lambda: samples.zipped({"a.txt": "text"}), None, "expand=true"),
    ],
)
def test_what_is_not_what_it_is_said_to_be_is_refused(tmp_path: Path, name: str, make, file_type: Type | None, reason: str) -> None:
    assert reason in refused(tmp_path, name, make(), file_type)


def test_the_bound_of_pixels_is_looked_at_in_the_header(tmp_path: Path) -> None:
    """A few bytes that stand for gigapixels are refused before anything is decoded."""
    png = bytearray(samples.picture("PNG"))
    png[16:24] = (50_000).to_bytes(4, "big") * 2
    jpeg = bytearray(samples.picture("JPEG"))
    at = jpeg.find(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    gif = bytearray(samples.picture("GIF"))
    at = 13 + (3 << (gif[10] & 7) + 1)
    gif[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    for name, data in {"a.png": png, "a.jpg": jpeg, "a.gif": gif, "a.heic": samples.heic(20_000, 20_000)}.items():
        assert "pixels, more than the 100000000" in refused(tmp_path, name, bytes(data), Type.PHOTO), name


def test_the_bound_of_pixels_is_a_setting(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(samples.picture("PNG", (20, 20)))
    assert inspect(path, "a.png", Type.PHOTO, Settings(max_picture_pixels=400))
    with pytest.raises(RefusedContent, match="20 x 20"):
        inspect(path, "a.png", Type.PHOTO, Settings(max_picture_pixels=399))


def test_frames_are_bounded(tmp_path: Path) -> None:
    gif = samples.picture("GIF", (1, 1))
    begin = 13 + (3 << (gif[10] & 7) + 1)
    frame = gif[begin:-1]
    assert looked_into(tmp_path, "a.gif", gif[:begin] + frame * 10_000 + b";", Type.PHOTO)
    assert "more than 10000 frames" in refused(tmp_path, "a.gif", gif[:begin] + frame * 10_001 + b";", Type.PHOTO)


def test_a_tiff_whose_pages_run_in_a_circle_is_refused(tmp_path: Path) -> None:
    page = b"\x02\0" + b"\0\1\4\0\1\0\0\0\4\0\0\0" + b"\1\1\4\0\1\0\0\0\4\0\0\0"
    assert "circle" in refused(tmp_path, "a.tif", b"II*\0\x08\0\0\0" + page + b"\x08\0\0\0", Type.PHOTO)
    assert looked_into(tmp_path, "a.tif", b"II*\0\x08\0\0\0" + page + b"\0\0\0\0", Type.PHOTO)
