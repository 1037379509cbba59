"""Whatever comes, looking into a file ends: with what it is, or with the reason it is refused, in bounded memory."""

from __future__ import annotations

import io
import os
import random
import tempfile
import time
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacslite.core.file_inspection import Inspected, inspect
from pacslite.core.file_kinds import ALLOWED, KINDS
from pacslite.core.file_names import MOST_CHARACTERS, extension_of, original_name
from pacslite.core.file_types import MedicalFileType as Type
from pacslite.core.inspection_source import Source
from pacslite.core.zip_reading import path_problem, read_directory, unpacked
from pacslite.errors import BadRequest, RefusedContent
from pacslite.settings import Settings
from tests.support import file_samples as samples

SETTINGS = Settings()
SAMPLES: dict[str, bytes] = {
    **{f"a.{form.lower()}": samples.picture(form, (16, 12)) for form in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF")},
    "a.heic": samples.heic(),
    "a.stl": samples.binary_stl(),
    "b.stl": samples.ascii_stl(),
    "a.obj": samples.obj(),
    "a.ply": samples.ply(),
    "b.ply": samples.ply("ascii"),
    "a.pdf": samples.pdf(more=samples.packed_object(b"<< /Type /Catalog >>")),
    "a.docx": samples.ooxml("docx"),
    "a.odt": samples.odf("odt"),
    "a.doc": samples.compound({"WordDocument": b"\xec\xa5".ljust(600, b"\0")}),
    "a.xls": samples.compound({"Workbook": samples.workbook((0x85, bytes(6) + b"\x05\0Sheet"))}),
    "a.rtf": rb"{\rtf1\ansi text}",
    "a.txt": "Größe".encode(),
    "a.mp4": samples.box(b"ftyp", b"isom\0\0\0\0isom") + samples.box(b"moov", bytes(60)) + samples.box(b"mdat", bytes(60)),
    "a.dcm": samples.dicom_head(),
    "a.zip": samples.zipped({"a": "text" * 100, "b/": b"", "c": bytes(500)}),
}
ENTRY_NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=30)
MEDIA_TYPES = {kind.media_type for kind in KINDS}


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "spooled"


def ends_well(path: Path, data: bytes, name: str, file_type: Type | None) -> None:
    path.write_bytes(data)
    try:
        found = inspect(path, name, file_type, SETTINGS)
    except RefusedContent as refused:
        reason = str(refused)
    else:
        reason = ""
    if reason:
        assert 5 < len(reason) < 300
        return
    assert isinstance(found, Inspected)
    assert found.media_type in MEDIA_TYPES
    assert found.extension.startswith(".")
    assert file_type in (None, found.file_type)
    assert found.media_type in {kind.media_type for kind in ALLOWED[found.file_type]}


def read_well(path: Path) -> None:
    """The reader of archives, down to the bytes of entries."""
    with path.open("rb") as file:
        source = Source(file)
        try:
            for entry in read_directory(source):
                path_problem(entry.name)
                if not entry.problem and entry.size < 1 << 20:
                    try:
                        assert sum(map(len, unpacked(source, entry))) == entry.size
                    except RefusedContent:
                        continue
        except RefusedContent:
            return


types = st.sampled_from([None, *Type])


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=3000), name=st.text(max_size=20), file_type=types)
def test_any_bytes(path: Path, data: bytes, name: str, file_type: Type | None) -> None:
    ends_well(path, data, name, file_type)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), types, st.data())
def test_any_change_of_a_real_file(path: Path, name: str, file_type: Type | None, draw: st.DataObject) -> None:
    data = bytearray(SAMPLES[name])
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, max(0, len(data) - 1)))
        new = draw.draw(st.sampled_from([b"", b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"PK\5\6", b"\n", bytes(8)]) | st.binary(max_size=8))
        data[at : at + draw.draw(st.integers(0, 8))] = new
    ends_well(path, bytes(data), draw.draw(st.sampled_from([name, "", "a.stl", "a.obj"])), file_type)
    read_well(path)


def mutated(chance: random.Random) -> tuple[str, bytes]:
    name = chance.choice(sorted(SAMPLES))
    data = bytearray(SAMPLES[name])
    for _ in range(chance.randint(1, 6)):
        at, length = chance.randrange(len(data) + 1), chance.choice((0, 1, 2, 4, 8, 200))
        other = SAMPLES[chance.choice(sorted(SAMPLES))]
        begin = chance.randrange(len(other))
        new = chance.choice((b"", chance.randbytes(length), b"\xff" * length, bytes(length), other[begin : begin + 300]))
        data[at : at + length] = new
    return name, bytes(data)


@pytest.mark.full
def test_a_million_changes(path: Path) -> None:
    """The long form: seeds of the clock, as many as fit into five minutes."""
    end = time.monotonic() + 300
    seed = int.from_bytes(os.urandom(4), "big")
    while time.monotonic() < end:
        seed += 1
        chance = random.Random(seed)
        name, data = mutated(chance)
        file_type = chance.choice([None, *Type])
        try:
            ends_well(path, data, name, file_type)
            read_well(path)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


_BLOCKS = (b"\xff" + bytes(255)) * 4000


@pytest.mark.parametrize(
    ("name", "begin", "piece", "end"),
    [
        ("a.stl", b"solid a\n", samples.ascii_stl(samples.FACES * 1000)[12:-15], b"\nendsolid"),
        ("a.stl", b"solid a\n", b" " * 1_000_000, b""),
        ("a.obj", b"", b"v 1 2 3\n" * 125_000, b""),
        ("a.obj", b"", b"1" * 1_000_000, b""),
        ("a.txt", b"", b"words " * 160_000, b""),
        ("a.csv", b"", b"a;" * 500_000, b""),
        ("a.pdf", b"%PDF-1.7\n", b"1 0 obj\nstream\n" + bytes(1_000_000) + b"\nendstream\n", b"%%EOF"),
        ("a.gif", samples.picture("GIF")[:-1], b"\x21\xfe" + _BLOCKS + b"\0", b";"),
        ("a.png", samples.picture("PNG")[:33], b"\0\x0f\x42\x40tEXt" + bytes(1_000_004), b""),
        ("a.jpg", b"\xff\xd8", (b"\xff\xfe\xff\xff" + bytes(65533)) * 15, b""),
        ("a.jpg", b"\xff\xd8", b"\xff" * 1_000_000, b""),
        ("a.rtf", b"{\\rtf1", b"\\par\n" * 160_000, b"}"),
        ("a.mp4", samples.box(b"ftyp", b"isom\0\0\0\0isom"), samples.box(b"free", bytes(1_000_000)), b""),
    ],
)
def test_memory_does_not_depend_on_the_length(path: Path, name: str, begin: bytes, piece: bytes, end: bytes) -> None:
    with path.open("wb") as file:
        file.write(begin)
        for _ in range(12):
            file.write(piece)
        file.write(end)
    tracemalloc.start()
    try:
        inspect(path, name, None, SETTINGS)
    except RefusedContent:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024 < path.stat().st_size


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=400))
def test_names_are_safe_and_stay_what_they_are(name: str) -> None:
    try:
        kept = original_name(name)
    except BadRequest:
        return
    assert 0 < len(kept) <= MOST_CHARACTERS
    assert not {"/", "\\", "\0", "\n", "\r", "\u202e"} & set(kept)
    assert kept == kept.strip()
    assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in kept)
    assert original_name(kept) == kept
    kept.encode()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("Größe 5 µm.jpg", "Größe 5 µm.jpg"),
        ("口腔内写真.png", "口腔内写真.png"),
        ("صورة الأسنان.jpg", "صورة الأسنان.jpg"),
        ("Gro\u0308ße.jpg", "Gro\u0308ße.jpg"),
        ("C:\\Users\\me\\photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("photo\u202egpj.exe", "photogpj.exe"),
        ("a\r\nSet-Cookie: x.jpg", "aSet-Cookie: x.jpg"),
        ("a\0.jpg", "a.jpg"),
        ("CON.jpg", "_CON.jpg"),
        ("nul", "_nul"),
        ("photo.jpg. . ", "photo.jpg"),
        ("x" * 300 + ".jpeg", "x" * 250 + ".jpeg"),
        ("👩\u200d⚕️.jpg", "👩\u200d⚕️.jpg"),
    ],
)
def test_names_in_any_language(name: str, kept: str) -> None:
    assert original_name(name) == kept


@pytest.mark.parametrize("name", ["", "/", "..", "\0", "\u202e", " . ", "a/.."])
def test_names_of_nothing_are_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        original_name(name)


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("a.JPG", ".jpg"),
        ("a.tar.gz", ".gz"),
        (".profile", ""),
        ("a.b c", ""),
        ("a.", ""),
        ("a.exe ", ".exe"),
        ("a.exe.", ".exe"),
        ("x.y/z", ""),
        ("a.jpg\0", ""),
    ],
)
def test_extensions(name: str, extension: str) -> None:
    assert extension_of(name) == extension


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(ENTRY_NAMES, st.binary(max_size=200)), max_size=8, unique_by=lambda pair: pair[0]))
def test_archives_of_the_standard_library_are_read_alike(path: Path, entries: list[tuple[str, bytes]]) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries:
            file.writestr(name, data)
    read = zipfile.ZipFile(io.BytesIO(out.getvalue()))
    path.write_bytes(out.getvalue())
    with path.open("rb") as opened:
        source = Source(opened)
        found = read_directory(source)
        assert [entry.name for entry in found] == [name for name, _ in entries]
        assert [b"".join(unpacked(source, entry)) for entry in found] == [read.read(info) for info in read.infolist()]
