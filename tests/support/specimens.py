"""DICOM files for tests of the whole: the real ones at hand, and generated ones for every encoding they lack.

The generated files prove the same points in a checkout that has no corpus beside it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from pydicom.data import get_charset_files
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.sequence import Sequence
from pydicom.uid import JPEGBaseline8Bit, RLELossless

from pacslite.dicom.part10 import encode_preamble_and_meta
from tests.support import data_sets
from tests.support.data_sets import NATIVE, image, new_uid
from tests.support.dicom_files import EXPLICIT_LE, IMPLICIT_LE, SEQUENCE_END, UNDEFINED, element, item, library_files, part10

# One name in each repertoire of PS3.3 C.12.1.1.2; those with several terms switch by escape sequences.
NAMES: tuple[tuple[str | list[str], str], ...] = (
    ("", "Plain^Name"),
    ("ISO_IR 100", "Müller^Jörg"),
    ("ISO_IR 101", "Łukasiewicz^Żółć"),
    ("ISO_IR 109", "Ĉapek^Ŝtono"),
    ("ISO_IR 110", "Bērziņš^Jānis"),
    ("ISO_IR 144", "Люкceмбypг^Иван"),  # noqa: RUF001
    ("ISO_IR 127", "قباني^لنزار"),
    ("ISO_IR 126", "Διονυσιος^Νίκος"),
    ("ISO_IR 138", "שרון^דבורה"),
    ("ISO_IR 148", "Şükrü^İğdır"),  # noqa: RUF001
    ("ISO_IR 166", "สมชาย^ใจดี"),
    ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    ("ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ("GB18030", "Wang^XiaoDong=王^小东"),
    ("GBK", "Wang^XiaoDong=王^小东"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    (["", "ISO 2022 IR 58"], "Zhang^XiaoDong=张^小东"),
    (["ISO 2022 IR 100", "ISO 2022 IR 144"], "Jörg^Müller"),
)


def charset_files() -> list[Path]:
    """The files of many character sets that pydicom brings; some share their UIDs."""
    return sorted({Path(str(name)) for name in get_charset_files("**/*.dcm")})


def real_files() -> list[Path]:
    """All DICOM files of pydicom, and of the package pydicom-data where it is installed."""
    return [*library_files(), *charset_files()]


def generated_files(folder: Path) -> list[Path]:
    """Files that every archive has to take, one for each encoding."""
    made = []
    for name, file in _everything():
        path = folder / f"{name}.dcm"
        path.write_bytes(file)
        made.append(path)
    return made


def _everything() -> Iterator[tuple[str, bytes]]:
    for index, syntax in enumerate(NATIVE):
        for name, make in _NATIVE_PIXELS.items():
            yield f"{name}-{index}", data_sets.part10(make(), syntax)
        yield f"all-vrs-{index}", data_sets.part10(_all_vrs(), syntax)
        yield f"sequences-{index}", data_sets.part10(_nested(), syntax)
    for index, (charset, name) in enumerate(NAMES):
        yield f"charset-{index}", data_sets.part10(_named(charset, name), NATIVE[index % 2])
    yield from _encapsulated()
    yield from _odd()


def _many_frames() -> Dataset:
    return image(np.arange(5 * 7 * 9, dtype=np.uint8).reshape(5, 7, 9))


def _bits() -> Dataset:
    return image(np.arange(3 * 3 * 5).reshape(3, 3, 5) % 3 == 0, bits=1)


def _floats() -> Dataset:
    ds = image()
    del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    ds.SOPClassUID, ds.BitsAllocated = "1.2.840.10008.5.1.4.1.1.30", 32
    ds.FloatPixelData = np.linspace(-1, 1, 24, dtype="<f4").tobytes()
    return ds


_NATIVE_PIXELS: dict[str, Callable[[], Dataset]] = {"grey16": image, "grey8-frames": _many_frames, "bits": _bits}


def _all_vrs() -> Dataset:
    ds = image()
    ds.AcquisitionDateTime, ds.PatientAge, ds.ImageType = "20260102030405.123456+0100", "042Y", ["ORIGINAL", "PRIMARY", "", "M"]
    ds.SliceThickness, ds.WindowCenter, ds.ImagePositionPatient = "0.142999999", ["40", "-1e2"], ["-0", "+1.50", "1E+3"]
    ds.PatientComments, ds.ImageComments = "line one\r\nline two; back\\slash", ""
    ds.LongCodeValue, ds.URNCodeValue = "a long code value " * 20, "urn:oid:1.2.3"
    ds.RetrieveURL, ds.FrameIncrementPointer = "http://example.org/a?b=c", 0x00181063
    ds.SelectorSSValue, ds.RecommendedDisplayFrameRateInFloat = -3, 12.5
    ds.ReferencedFrameNumber, ds.PixelAspectRatio = [1, 22, 333], [1, 1]
    ds.SmallestImagePixelValue, ds.LargestImagePixelValue = 0, 65535
    ds.ReferencePixelX0, ds.SelectorSVValue, ds.SelectorUVValue = -70000, [-(2**63), 2**63 - 1], [0, 2**64 - 1]
    ds.SelectorODValue, ds.SelectorOLValue = struct.pack("<3d", 1.5, -2.25, 1e300), struct.pack("<3I", 1, 2, 2**32 - 1)
    ds.SelectorOVValue, ds.SelectorOFValue = struct.pack("<2Q", 1, 2**63), struct.pack("<2f", 0.1, -0.0)
    ds.SelectorFDValue, ds.SelectorFLValue, ds.SelectorULValue = [0.1, 1e-30, -0.0], [0.1, 3.4e38], [0, 2**32 - 1]
    ds.TextValue = "long text " * 400  # bulk data
    block = ds.private_block(0x0099, "PACSLITE TEST", create=True)
    block.add_new(0x01, "LO", ["private", "values"])
    block.add_new(0x02, "UN", b"\x01\x02\x03\x04")
    block.add_new(0x03, "OB", bytes(range(256)) * 20)
    block.add_new(0x04, "SQ", [_item(PatientComments="inside")])
    return ds


def _item(**values: object) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def _nested() -> Dataset:
    ds = image()
    inner = _item(CodeValue="inner")
    for depth in range(20):
        inner = _item(ConceptCodeSequence=Sequence([inner, _item(CodeValue=str(depth))]))
    ds.ContentSequence = Sequence([inner, Dataset(), _item(TextValue="x" * 5000)])
    ds.ReferencedStudySequence = Sequence([])
    ds.RequestAttributesSequence = Sequence([_item(ScheduledProcedureStepID="SPS", RequestedProcedureID="RP")])
    ds["ContentSequence"].is_undefined_length = True
    ds.ContentSequence[0].is_undefined_length_sequence_item = True
    return ds


def _named(charset: str | list[str], name: str) -> Dataset:
    ds = image()
    if charset:
        ds.SpecificCharacterSet = charset
    ds.PatientName, ds.PatientID = name, new_uid()[-16:]
    ds.StudyDescription = name.split("^")[0]
    ds.ReferencedPatientSequence = Sequence([_item(PatientName=name)])
    return ds


def _encapsulated() -> Iterator[tuple[str, bytes]]:
    frames = [bytes([0xFF, 0xD8]) + bytes([n]) * (9 + 2 * n) + b"\xff\xd9" for n in range(1, 5)]
    plain = image(_PICTURES, compressed=frames)
    yield "jpeg-basic-table", data_sets.part10(plain, JPEGBaseline8Bit)
    for name, value in (
        ("jpeg-no-table", encapsulate(frames, has_bot=False)),
        ("jpeg-fragments", encapsulate(frames, fragments_per_frame=3)),
        ("jpeg-fragments-no-table", encapsulate(frames, fragments_per_frame=2, has_bot=False)),
    ):
        ds = image(_PICTURES, compressed=frames)
        ds.PixelData = value
        yield name, data_sets.part10(ds, JPEGBaseline8Bit)
    extended = image(_PICTURES, compressed=frames)
    extended.PixelData, extended.ExtendedOffsetTable, extended.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    yield "jpeg-extended-table", data_sets.part10(extended, JPEGBaseline8Bit)
    rle = image(np.arange(4 * 6 * 8, dtype=np.uint16).reshape(4, 6, 8) * 77)
    rle.ensure_file_meta()
    rle.file_meta.TransferSyntaxUID = EXPLICIT_LE
    rle.compress(RLELossless, generate_instance_uid=False)
    yield "rle", data_sets.part10(rle, RLELossless)
    single = image(_PICTURES[:1], compressed=[frames[0]])
    single.PixelData = encapsulate([frames[0] * 9], fragments_per_frame=5, has_bot=False)
    del single.NumberOfFrames
    yield "jpeg-one-frame-many-fragments", data_sets.part10(single, JPEGBaseline8Bit)


_PICTURES = np.zeros((4, 4, 6), dtype=np.uint8)


def _odd() -> Iterator[tuple[str, bytes]]:
    for said, real in ((EXPLICIT_LE, NATIVE[0]), (IMPLICIT_LE, NATIVE[1])):
        ds = image()
        data_set = data_sets.part10(ds, real)
        data_set = data_set[data_set.index(b"\x08\0\x16\0") :]
        yield f"other-than-said-{said}", encode_preamble_and_meta(ds.SOPClassUID, ds.SOPInstanceUID, said) + data_set
    private = image()
    private.SOPClassUID = "1.3.6.1.4.1.99999.7"
    yield "private-sop-class", data_sets.part10(private)
    ds = image()
    data_set = data_sets.part10(ds).partition(element(0x00080016, "UI", ds.SOPClassUID.encode() + b"\0"))
    yield (
        "private-transfer-syntax",
        encode_preamble_and_meta(ds.SOPClassUID, ds.SOPInstanceUID, "1.3.6.1.4.1.99999.8") + b"".join(data_set[1:]),
    )
    yield "document", data_sets.part10(data_sets.document(b"%PDF-1.4 " + b"x" * 4000))
    yield "floats", data_sets.part10(_floats())
    nobody = image()
    nobody.PatientID = nobody.PatientName = ""
    yield "empty-patient", data_sets.part10(nobody)
    unknown = image()
    del unknown.PatientID, unknown.PatientName, unknown.StudyDate, unknown.Modality
    yield "no-patient", data_sets.part10(unknown)
    for index, uid in enumerate(("1.2.3." + "4" * 58, "1.02.003", "1.2.840 ", "1")):
        ds = image(instance=f"1.2.276.1.{index}")
        yield f"uid-{index}", data_sets.part10(ds).replace(*_replaced_uid(ds, uid))
    length = element(0x00100000, "UL", struct.pack("<I", 12))
    name = element(0x00100010, "PN", b"Raw^Elements")
    padding = element(0xFFFCFFFC, "OB", bytes(100))
    yield "group-lengths-and-padding", _raw([length, name, padding])
    after = element(0x7FE00010, "OW", bytes(48)) + element(0x7FE10010, "LO", b"LATE") + element(0x7FE11001, "OB", b"late")
    yield "elements-after-pixels", _raw([name, *_pixel_module(), after])
    sequence = element(0x00091001, "UN", item(element(0x00100020, "LO", b"IN", IMPLICIT_LE)) + SEQUENCE_END, length=UNDEFINED)
    yield "unknown-of-undefined-length", _raw([element(0x00090010, "LO", b"MAKER "), sequence, name])
    yield "foreign-vr", _raw([element(0x00091001, "ZZ", b"????"), name])
    yield "sequences-of-undefined-length", _raw([name, element(0x00400275, "SQ", item(name, False) + SEQUENCE_END, length=UNDEFINED)])
    yield (
        "implicit-private",
        _raw([element(0x00090010, "LO", b"MAKER ", IMPLICIT_LE), element(0x00091001, "", b"\x01\x02", IMPLICIT_LE)], IMPLICIT_LE),
    )


def _replaced_uid(ds: Dataset, uid: str) -> tuple[bytes, bytes]:
    """The Study Instance UID element of a data set, and one with another value in its place."""
    old = str(ds.StudyInstanceUID).encode()
    old += b"\0" * (len(old) % 2)
    new = uid.encode() + b"\0" * (len(uid) % 2)
    return element(0x0020000D, "UI", old), element(0x0020000D, "UI", new)


def _pixel_module() -> list[bytes]:
    shorts = ((0x00280002, 1), (0x00280010, 4), (0x00280011, 6), (0x00280100, 16), (0x00280101, 16), (0x00280102, 15), (0x00280103, 0))
    return [element(tag, "US", struct.pack("<H", value)) for tag, value in shorts]


def _raw(elements: list[bytes], syntax: str = EXPLICIT_LE) -> bytes:
    """A file of these elements, with UIDs of its own."""
    file = part10(elements, syntax)
    for uid in (b"1.2.3.10", b"1.2.3.20", b"1.2.3.40"):
        file = file.replace(uid, b"9." + str(10**5 + next(_numbers)).encode())
    return file


_numbers = iter(range(1 << 30))
