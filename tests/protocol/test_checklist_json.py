"""DICOM JSON as it comes over the wire (PS3.18 annex F), of instances made to hold what its clauses speak of."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.support.data_sets import NATIVE, image, new_uid, part10
from tests.support.dicom_files import element
from tests.support.wado import WebArchive, path_of, web_archive

DICOM_JSON = "application/dicom+json"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebArchive]:
    with web_archive(tmp_path_factory.mktemp("json")) as started:
        yield started


def metadata(archive: WebArchive, ds: Dataset) -> dict[str, Any]:
    answer = archive.get(path_of(ds) + "/metadata", DICOM_JSON)
    assert answer.status == 200, answer.body
    [found] = json.loads(answer.body)
    assert isinstance(found, dict)
    return found


def kept(archive: WebArchive, ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> dict[str, Any]:
    """The metadata of an instance that was just stored."""
    archive.store(part10(ds, syntax))
    return metadata(archive, ds)


def with_elements(ds: Dataset, *more: tuple[int, bytes]) -> bytes:
    """A file with elements, by tag, put as bytes where they belong: pydicom would not write some of them so."""
    file = part10(ds)
    for tag, raw in sorted(more):
        at = file.index(b"\x08\0\x16\0")
        while at < len(file) and struct.unpack_from("<HH", file, at) < (tag >> 16, tag & 0xFFFF):
            long = file[at + 4 : at + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF", b"OD")
            at += 12 + struct.unpack_from("<I", file, at + 8)[0] if long else 8 + struct.unpack_from("<H", file, at + 6)[0]
        file = file[:at] + raw + file[at:]
    return file


def walk(data_set: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """All elements, those of items too."""
    for key, found in data_set.items():
        yield key, found
        if found["vr"] == "SQ":
            for item in found.get("Value", []):
                yield from walk(item)


def test_names_are_objects_of_the_groups_they_have(archive: WebArchive) -> None:
    """Checklist 74: only groups that are not empty (F.2.2)."""
    ds = image()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.OperatorsName = "Yamada^Tarou=山田^太郎=やまだ^たろう", ["Only^Latin", "=山田", "A==B"]
    ds.ReferringPhysicianName = ""
    found = kept(archive, ds)
    assert found["00100010"]["Value"] == [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}]
    assert found["00081070"]["Value"] == [{"Alphabetic": "Only^Latin"}, {"Ideographic": "山田"}, {"Alphabetic": "A", "Phonetic": "B"}]
    assert found["00080090"] == {"vr": "PN"}


def test_a_fourth_group_of_a_name_is_told_by_nobody(archive: WebArchive) -> None:
    """Three component groups there are (PS3.5 6.2.1.1); a search says of a name what metadata say."""
    ds = image()
    ds.pop("ReferringPhysicianName", None)
    expected = [{"Alphabetic": "F", "Ideographic": "G", "Phonetic": "H"}]
    archive.store(with_elements(ds, (0x00080090, element(0x00080090, "PN", b"F=G=H=I "))))
    answer = archive.get(f"/studies?StudyInstanceUID={ds.StudyInstanceUID}&includefield=00080090", DICOM_JSON)
    assert json.loads(answer.body)[0]["00080090"]["Value"] == metadata(archive, ds)["00080090"]["Value"] == expected


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_what_is_empty_has_only_its_vr(archive: WebArchive, syntax: str) -> None:
    """Checklist 75: an empty element is its vr, an empty value null, an empty item {} (F.2.5)."""
    ds, item = image(), Dataset()
    item.CodeMeaning = ""
    ds.AccessionNumber, ds.ImageType = "", ["ORIGINAL", "", "AXIAL"]
    ds.ReferencedStudySequence, ds.ProcedureCodeSequence = [], [Dataset(), item]
    ds.OperatorsName = ["First^One", "", "Last^One"]
    found = kept(archive, ds, syntax)
    assert found["00080050"] == {"vr": "SH"}
    assert found["00080008"]["Value"] == ["ORIGINAL", None, "AXIAL"]
    assert found["00081110"] == {"vr": "SQ"}
    assert found["00081032"]["Value"] == [{}, {"00080104": {"vr": "LO"}}]
    assert found["00081070"]["Value"] == [{"Alphabetic": "First^One"}, None, {"Alphabetic": "Last^One"}]


def test_an_element_has_one_kind_of_value_at_most(archive: WebArchive) -> None:
    """Checklist 76: Value, BulkDataURI or InlineBinary, in items and searches too (F.2.2)."""
    ds, item = image(), Dataset()
    item.LUTData, item.LUTDescriptor, item.LUTExplanation = list(range(4000)), [4000, 0, 16], ""
    item["LUTData"].VR = item["LUTDescriptor"].VR = "US"
    ds.ModalityLUTSequence = [item, Dataset()]
    ds.ICCProfile = bytes(60)
    ds.EncapsulatedDocument = b"x" * 9000
    found = kept(archive, ds)
    [answered] = json.loads(archive.get(f"/instances?SOPInstanceUID={ds.SOPInstanceUID}&includefield=all", DICOM_JSON).body)
    seen = set()
    for _, one in [*walk(found), *walk(answered)]:
        assert set(one) <= {"vr", "Value", "BulkDataURI", "InlineBinary"}
        assert len(one) <= 2
        seen |= set(one)
    assert seen == {"vr", "Value", "BulkDataURI", "InlineBinary"}


@pytest.mark.parametrize("syntax", NATIVE)
def test_inline_binary_is_the_whole_value_in_little_endian(archive: WebArchive, syntax: str) -> None:
    """Checklist 77: one string of base64, little endian whatever is stored (F.2.7)."""
    words, floats, doubles, longs = np.arange(5), np.array([1.5, -2.25]), np.array([1e300, -0.5]), np.array([1, 2**32 - 1])
    ds = image()
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    ds.RedPaletteColorLookupTableData = words.astype(order + "u2").tobytes()
    ds["RedPaletteColorLookupTableData"].VR = "OW"
    ds.ICCProfile = b"\1\2\3\4"
    ds.SelectorOFValue, ds.SelectorODValue = floats.astype(order + "f4").tobytes(), doubles.astype(order + "f8").tobytes()
    ds.SelectorOLValue = longs.astype(order + "u4").tobytes()
    found = kept(archive, ds, syntax)
    for key, value in (
        ("00281201", words.astype("<u2").tobytes()),
        ("00282000", b"\1\2\3\4"),
        ("00720067", floats.astype("<f4").tobytes()),
        ("00720073", doubles.astype("<f8").tobytes()),
        ("00720075", longs.astype("<u4").tobytes()),
    ):
        assert base64.b64decode(found[key]["InlineBinary"], validate=True) == value, key


def test_no_number_loses_digits(archive: WebArchive) -> None:
    """Checklist 79: numbers that JSON or a double would change are strings; NaN and infinity are strings too (F.2.3)."""
    ds = image()
    ds.SliceThickness, ds.ImagePositionPatient = "0.142999999", ["-0", "+1.50", "1E+3"]
    ds.SelectorSVValue, ds.SelectorUVValue = [-(2**63), 2**53 + 1], [0, 2**64 - 1]
    ds.SelectorFDValue = [0.1, float("nan"), float("inf"), float("-inf")]
    ds.SelectorFLValue = [0.5, float("nan")]
    found = kept(archive, ds)
    answer_text = archive.get(path_of(ds) + "/metadata", DICOM_JSON).body.decode()
    assert "NaN" not in answer_text.replace('"NaN"', "")
    assert "Infinity" not in answer_text.replace('"Infinity"', "").replace('"-Infinity"', "")
    assert '"Value":[0.142999999]' in answer_text
    assert [float(value) for value in found["00200032"]["Value"]] == [0.0, 1.5, 1000.0]
    assert [int(value) for value in found["00720082"]["Value"]] == [-(2**63), 2**53 + 1]
    assert [int(value) for value in found["00720083"]["Value"]] == [0, 2**64 - 1]
    assert found["00720074"]["Value"][0] == 0.1
    assert [str(value).lower() for value in found["00720074"]["Value"][1:]] in (["nan", "inf", "-inf"], ["nan", "infinity", "-infinity"])
    assert found["00720076"]["Value"][0] == 0.5


@pytest.mark.parametrize("syntax", NATIVE)
def test_tags_as_values_are_eight_digits(archive: WebArchive, syntax: str) -> None:
    """Checklist 80: AT is 8 upper-case hexadecimal digits, each of several values kept (F.2.3)."""
    ds, item = image(), Dataset()
    ds.FrameIncrementPointer = [0x00181063, 0x0018106A, 0x7FE00010]
    item.DimensionIndexPointer = 0x00209056
    ds.DimensionIndexSequence = [item]
    found = kept(archive, ds, syntax)
    assert found["00280009"] == {"vr": "AT", "Value": ["00181063", "0018106A", "7FE00010"]}
    assert found["00209222"]["Value"] == [{"00209165": {"vr": "AT", "Value": ["00209056"]}}]


def test_text_is_utf_8_and_the_character_set_named_is_too(archive: WebArchive) -> None:
    """Checklist 81: the character set of the file is not told beside text that was converted."""
    for term, name in (("ISO_IR 100", "Müller^Jörg"), ("ISO_IR 144", "Иванов^Иван"), ("GB18030", "王^小东")):
        ds, item = image(), Dataset()
        ds.SpecificCharacterSet = term
        ds.PatientName = name
        item.PatientName = name
        ds.ReferencedPatientSequence = [item]
        archive.store(part10(ds))
        for path in (f"{path_of(ds)}/metadata", f"/instances?SOPInstanceUID={ds.SOPInstanceUID}&includefield=PatientName,00080005"):
            answer = archive.get(path, DICOM_JSON)
            [found] = json.loads(answer.body.decode("utf_8"))
            assert found["00100010"]["Value"] == [{"Alphabetic": name}]
            assert found.get("00080005", {"Value": ["ISO_IR 192"]})["Value"] == ["ISO_IR 192"]
            assert term.encode() not in answer.body


@pytest.mark.parametrize(
    ("terms", "raw", "values"),
    [
        ("ISO_IR 13", b"\xc4\\\xcf", ["ﾄ", "ﾏ"]),
        ("ISO_IR 100", "é\\ü".encode("latin-1"), ["é", "ü"]),
        ("GB18030", "王".encode("gb18030") + b"\\" + "誠".encode("gb18030") + b" ", ["王", "誠"]),
        ("GBK", b"\x8f\x5c\\a", [b"\x8f\x5c".decode("gbk"), "a"]),
        ("\\ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B\\\x1b$BB@O:\x1b(B", ["山田", "太郎"]),
        ("\\ISO 2022 IR 87", b"\x1b$B%\\\x1b(B\\xyz", [b"\x1b$B%\\\x1b(B".decode("iso2022_jp"), "xyz"]),
        ("\\ISO 2022 IR 149", b"\x1b$)C\xb1\xe8\\\x1b$)C\xc8\xab ", ["김", "홍"]),
        ("ISO_IR 192", "é\\山".encode(), ["é", "山"]),
    ],
)
def test_values_are_told_apart_by_their_character_set(archive: WebArchive, terms: str, raw: bytes, values: list[str]) -> None:
    """Checklist 82: a byte 5CH within a character, or after an escape, is not a delimiter (PS3.5 6.1.2.3, F.2.4)."""
    ds = image()
    raw += b" " * (len(raw) % 2)
    character_set = terms.encode() + b" " * (len(terms) % 2)
    more = ((0x00080005, element(0x00080005, "CS", character_set)), (0x00100021, element(0x00100021, "LO", raw)))
    archive.store(with_elements(ds, *more))
    assert metadata(archive, ds)["00100021"]["Value"] == values


def test_padding_goes_and_private_blocks_keep_their_creator(archive: WebArchive) -> None:
    """Checklist 83: values without trailing padding (F.1), private elements with the creator of their block."""
    ds = image(instance="1.2.276.0.99.1")
    ds.FrameOfReferenceUID = "1.2.3.45"
    block = ds.private_block(0x0029, "ACME 1.1", create=True)
    block.add_new(0x08, "CS", "VALUE")
    block.add_new(0x10, "OB", b"\1\2\3\0")
    other = ds.private_block(0x0029, "OTHER", create=True)
    other.add_new(0x08, "LO", ["a", "bcd"])
    item = Dataset()
    item.private_block(0x0011, "INNER", create=True).add_new(0x01, "SH", "x")
    ds.ProcedureCodeSequence = [item]
    padded = ((0x00080050, "SH", b"A1  "), (0x00180015, "CS", b"HEAD  "), (0x00204000, "LT", b" text  "))
    archive.store(with_elements(ds, *((tag, element(tag, vr, value)) for tag, vr, value in padded)))
    found = metadata(archive, ds)
    assert found["00080018"]["Value"] == ["1.2.276.0.99.1"]
    assert found["00200052"]["Value"] == ["1.2.3.45"]
    assert found["00080050"]["Value"] == ["A1"]
    assert found["00180015"]["Value"] == ["HEAD"]
    assert found["00204000"]["Value"] == [" text"]
    assert (found["00290010"]["Value"], found["00290011"]["Value"]) == (["ACME 1.1"], ["OTHER"])
    assert found["00291008"] == {"vr": "CS", "Value": ["VALUE"]}
    assert base64.b64decode(found["00291010"]["InlineBinary"]) == b"\1\2\3\0"
    assert found["00291108"] == {"vr": "LO", "Value": ["a", "bcd"]}
    assert found["00081032"]["Value"] == [{"00110010": {"vr": "LO", "Value": ["INNER"]}, "00111001": {"vr": "SH", "Value": ["x"]}}]


def test_every_json_answer_is_an_array_of_ascending_keys_without_group_lengths(archive: WebArchive) -> None:
    """Checklist 72, 73: one instance is an array too; neither group lengths nor file meta information are there (F.2.1, F.2.2)."""
    ds = image(study=new_uid())
    lengths = ((tag, element(tag, "UL", struct.pack("<I", 12))) for tag in (0x00080000, 0x00180000))
    archive.store(with_elements(ds, *lengths))
    [found] = json.loads(archive.get(path_of(ds) + "/metadata", DICOM_JSON).body)
    keys = list(found)
    assert keys == sorted(keys)
    assert all(len(key) == 8 and key == key.upper() and int(key, 16) & 0xFFFF for key in keys)
    assert not any(key.startswith("0002") for key in keys)
