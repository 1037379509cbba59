"""Small real files of every kind that is taken, and of some that are not, made here."""

from __future__ import annotations

import io
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

OOXML_TYPES = {
    "docx": "wordprocessingml.document.main+xml",
    "xlsx": "spreadsheetml.sheet.main+xml",
    "pptx": "presentationml.presentation.main+xml",
}
ODF_TYPES = {"odt": "text", "ods": "spreadsheet", "odp": "presentation"}


def picture(form: str, size: tuple[int, int] = (48, 32), **options: object) -> bytes:
    """A picture of noise as Pillow writes it: JPEG, PNG, WEBP, TIFF, GIF, BMP, AVIF."""
    out = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(out, form, **options)
    return out.getvalue()


def video(path: Path, seconds: float = 0.4, *options: str) -> bytes:
    """A video as ffmpeg writes it, of the kind that the path ends in."""
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", "-f", "lavfi", "-i", f"testsrc=duration={seconds}:size=176x144:rate=25"]
    subprocess.run([*command, *options, str(path)], check=True, timeout=60)
    return path.read_bytes()


def zipped(entries: Mapping[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP of these entries, in their order."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return out.getvalue()


def ooxml(kind: str, more: Mapping[str, bytes | str] | None = None, content_type: str = "") -> bytes:
    """A DOCX, XLSX or PPTX of the fewest parts."""
    name = content_type or f"application/vnd.openxmlformats-officedocument.{OOXML_TYPES[kind]}"
    override = f'<Override PartName="/main.xml" ContentType="{name}"/>'
    types = f'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">{override}</Types>'
    relations = relationship("hyperlink", "https://example.org/")
    return zipped({"[Content_Types].xml": types, "_rels/.rels": relations, "main.xml": "<document/>", **(more or {})})


def relationship(kind: str, target: str) -> str:
    """A part with one relationship (ECMA-376 part 2, 9) to something elsewhere."""
    base = "http://schemas.openxmlformats.org"
    one = f'<Relationship Id="r1" Type="{base}/officeDocument/2006/relationships/{kind}" Target="{target}" TargetMode="External"/>'
    return f'<Relationships xmlns="{base}/package/2006/relationships">{one}</Relationships>'


def odf(kind: str, more: Mapping[str, bytes | str] | None = None, manifest: str = "<manifest/>") -> bytes:
    """An ODT, ODS or ODP of the fewest parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(zipfile.ZipInfo("mimetype"), f"application/vnd.oasis.opendocument.{ODF_TYPES[kind]}")
        for name, data in {"content.xml": "<content/>", "META-INF/manifest.xml": manifest, **(more or {})}.items():
            file.writestr(name, data)
    return out.getvalue()


def pdf(catalog: str = "", more: bytes = b"") -> bytes:
    """A PDF of one empty page; `catalog` is added to its catalog, `more` are further objects."""
    objects = [f"<< /Type /Catalog /Pages 2 0 R {catalog} >>".encode(), b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"]
    objects.append(b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] >>")
    out, places = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    out += more
    begin = len(out)
    out += b"xref\n0 4\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size 4 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % begin
    return bytes(out)


def packed_object(text: bytes) -> bytes:
    """An object stream (ISO 32000-2 7.5.7) that holds the text."""
    data = zlib.compress(b"9 0 " + text)
    head = b"8 0 obj\n<< /Type /ObjStm /N 1 /First 4 /Filter /FlateDecode /Length %d >>\nstream\n" % len(data)
    return head + data + b"\nendstream\nendobj\n"


CORNERS = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
FACES = ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))


def binary_stl(faces: tuple[tuple[int, int, int], ...] = FACES, header: bytes = b"made by a test") -> bytes:
    """A tetrahedron, or what these faces of its corners make."""
    body = b"".join(struct.pack("<12fH", 0, 0, 0, *(value for corner in face for value in CORNERS[corner]), 0) for face in faces)
    return header.ljust(80, b"\0") + struct.pack("<I", len(faces)) + body


def ascii_stl(faces: tuple[tuple[int, int, int], ...] = FACES, name: str = "thing") -> bytes:
    """The same as text."""
    lines = [f"solid {name}"]
    for face in faces:
        lines += ["  facet normal 0 0 0", "    outer loop"]
        lines += ["      vertex " + " ".join(f"{value:e}" for value in CORNERS[corner]) for corner in face]
        lines += ["    endloop", "  endfacet"]
    return "\n".join([*lines, f"endsolid {name}", ""]).encode()


def obj() -> bytes:
    """The same as OBJ."""
    lines = ["# a tetrahedron", "mtllib thing.mtl", "o thing"]
    lines += ["v " + " ".join(map(str, corner)) for corner in CORNERS]
    lines += ["vn 0 0 1", "usemtl none", "s off"]
    lines += ["f " + " ".join(f"{corner + 1}//1" for corner in face) for face in FACES]
    return "\r\n".join([*lines, ""]).encode()


def ply(form: str = "binary_little_endian") -> bytes:
    """The same as PLY: ascii, binary_little_endian or binary_big_endian."""
    header = f"ply\nformat {form} 1.0\ncomment made by a test\nelement vertex {len(CORNERS)}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz")
    header += f"element face {len(FACES)}\nproperty list uchar int vertex_indices\nend_header\n"
    if form == "ascii":
        rows = [" ".join(map(str, corner)) for corner in CORNERS] + ["3 " + " ".join(map(str, face)) for face in FACES]
        return (header + "\n".join(rows) + "\n").encode()
    order = "<" if form == "binary_little_endian" else ">"
    body = b"".join(struct.pack(order + "3f", *corner) for corner in CORNERS)
    return header.encode() + body + b"".join(struct.pack(order + "B3i", 3, *face) for face in FACES)


def heic(width: int = 64, height: int = 48, brand: bytes = b"heic", compatible: tuple[bytes, ...] = (b"mif1", b"heic")) -> bytes:
    """The boxes of a HEIC picture (ISO/IEC 23008-12) around data that are none."""
    ispe = box(b"ispe", struct.pack(">III", 0, width, height))
    meta = box(b"meta", bytes(4) + box(b"hdlr", bytes(20)) + box(b"iprp", box(b"ipco", ispe)))
    return box(b"ftyp", brand + bytes(4) + b"".join(compatible)) + meta + box(b"mdat", bytes(100))


def box(name: bytes, content: bytes) -> bytes:
    """One box of ISO/IEC 14496-12."""
    return struct.pack(">I4s", 8 + len(content), name) + content


def dicom_head(preamble: bytes = b"") -> bytes:
    """The beginning of a DICOM file, which is all that tells one."""
    return preamble.ljust(128, b"\0") + b"DICM" + b"\x02\0\0\0UL\x04\0\0\0\0\0"


def compound(streams: Mapping[str, bytes], storages: tuple[str, ...] = ()) -> bytes:
    """A compound file ([MS-CFB]) of version 3 with these streams, each in sectors of its own."""
    sectors: list[bytes] = []
    table: list[int] = [0xFFFFFFFD, 0xFFFFFFFE]  # the allocation table itself, then one sector of the directory
    entries = [_entry("Root Entry", 5, 0xFFFFFFFE, 0), *(_entry(name, 1, 0, 0) for name in storages)]
    for name, data in streams.items():
        first = len(table)
        pieces = [data[at : at + 512].ljust(512, b"\0") for at in range(0, max(len(data), 4096), 512)]
        sectors += pieces
        table += [*range(first + 1, first + len(pieces)), 0xFFFFFFFE]
        entries.append(_entry(name, 2, first, len(data)))
    assert len(entries) <= 4
    assert len(table) <= 128
    header = (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
        + bytes(16)
        + struct.pack("<HHHHH6x9I", 0x3E, 3, 0xFFFE, 9, 6, 0, 1, 1, 0, 4096, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0)
    )
    header += struct.pack("<I", 0) + b"\xff\xff\xff\xff" * 108
    allocation = struct.pack(f"<{len(table)}I", *table).ljust(512, b"\xff")
    return header + allocation + b"".join(entries).ljust(512, b"\0") + b"".join(sectors)


def _entry(name: str, kind: int, first: int, size: int) -> bytes:
    text = name.encode("utf-16-le") + b"\0\0"
    return text.ljust(64, b"\0") + struct.pack("<HBB", len(text), kind, 1) + b"\xff" * 12 + bytes(36) + struct.pack("<IQ", first, size)


def workbook(*records: tuple[int, bytes]) -> bytes:
    """The stream of a workbook's own records ([MS-XLS]), with its beginning and end."""
    return b"".join(struct.pack("<HH", number, len(data)) + data for number, data in ((0x0809, bytes(16)), *records, (0x000A, b"")))
