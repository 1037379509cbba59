"""DICOM JSON: PS3.18 annex F, rule by rule, and whole real files against dcm2json."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from pacslite.dicom import json_model
from pacslite.dicom.instance import Limits, read_instance
from pacslite.errors import DataSetTooLarge, InstanceRefused
from tests.support.dcm2json import dcm2json, differences, needs_dcm2json
from tests.support.dicom_files import (
    EXPLICIT_BE,
    IMPLICIT_LE,
    SEQUENCE_END,
    UNDEFINED,
    corpus_files,
    element,
    item,
    library_files,
    part10,
)

ALL_INLINE = Limits(bulk_threshold_bytes=1 << 40)


def metadata(path: Path, raw: bytes, limits: Limits = ALL_INLINE) -> dict[str, Any]:
    """The JSON object of a file, with the token of the URL as `*`."""
    path.write_bytes(raw)
    text = read_instance(path, limits).metadata
    loaded = json.loads(text.replace(b"\0", b"*"))
    assert list(loaded) == sorted(loaded)
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "instance.dcm"


@pytest.mark.parametrize(
    ("vr", "raw", "member"),
    [
        ("CS", b"ORIGINAL \\PRIMARY ", {"Value": ["ORIGINAL", "PRIMARY"]}),
        ("CS", b"A\\\\B ", {"Value": ["A", None, "B"]}),
        ("CS", b"  ", {}),
        ("LO", b" a b \0", {"Value": [" a b"]}),
        ("LO", b'"quoted"\t', {"Value": ['"quoted"\t']}),
        ("LT", b"C:\\dir ", {"Value": ["C:\\dir"]}),
        ("UR", b"http://h/a\\b ", {"Value": ["http://h/a\\b"]}),
        ("UI", b"1.2.3\\1.2.4\0", {"Value": ["1.2.3", "1.2.4"]}),
        ("PN", b"Doe^J=\\=X ", {"Value": [{"Alphabetic": "Doe^J"}, {"Ideographic": "X"}]}),
        ("PN", b"^^^^", {}),
        ("PN", b"A\\^\\B ", {"Value": [{"Alphabetic": "A"}, None, {"Alphabetic": "B"}]}),
        ("PN", b"=I=P", {"Value": [{"Ideographic": "I", "Phonetic": "P"}]}),
        ("AT", struct.pack("<4H", 0x0010, 0x0020, 0x7FE0, 0x00AB), {"Value": ["00100020", "7FE000AB"]}),
        ("US", struct.pack("<3H", 0, 1, 65535), {"Value": [0, 1, 65535]}),
        ("SS", struct.pack("<h", -2), {"Value": [-2]}),
        ("UV", struct.pack("<Q", 2**64 - 1), {"Value": [2**64 - 1]}),
        ("SV", struct.pack("<q", -(2**63)), {"Value": [-(2**63)]}),
        ("FD", struct.pack("<2d", 0.1, 1e300), {"Value": [0.1, 1e300]}),
        ("FD", struct.pack("<3d", math.nan, math.inf, -math.inf), {"Value": ["NaN", "Infinity", "-Infinity"]}),
        ("FL", struct.pack("<f", 1.5), {"Value": [1.5]}),
        ("OB", b"\0\1\2\3", {"InlineBinary": "AAECAw=="}),
        ("UN", b"ab", {"InlineBinary": "YWI="}),
        ("OW", b"", {}),
        ("SQ", b"", {}),
        ("SQ", item(b""), {"Value": [{}]}),
    ],
)
def test_a_value_of_each_kind(file: Path, vr: str, raw: bytes, member: dict[str, Any]) -> None:
    assert metadata(file, part10([element(0x00191001, vr, raw)]))["00191001"] == {"vr": vr, **member}


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("1.10", "1.10"),
        ("-0", "-0"),
        ("+12", "12"),
        ("007", "7"),
        ("-00.50", "-0.50"),
        (".5", "0.5"),
        ("5.", "5"),
        ("1E+5", "1E+5"),
        ("+01.e3", "1e3"),
        ("000", "0"),
        ("12345678901234567890", "12345678901234567890"),
        ("1.23456789012345678", "1.23456789012345678"),
        ("abc", '"abc"'),
        ("1,5", '"1,5"'),
        (".", '"."'),
        ("1e", '"1e"'),
        ("NaN", '"NaN"'),
        ("0x10", '"0x10"'),
        ("\u0661".encode("utf_8").decode("latin_1"), '"\u0661"'),
    ],
)
def test_decimal_strings_keep_their_digits(file: Path, text: str, literal: str) -> None:
    raw = text.encode("latin_1")
    file.write_bytes(part10([element(0x00180050, "DS", raw + b" " * (len(raw) % 2))]))
    assert f'"00180050":{{"vr":"DS","Value":[{literal}]}}'.encode() in read_instance(file, ALL_INLINE).metadata


def test_group_lengths_and_file_meta_are_left_out(file: Path) -> None:
    got = metadata(file, part10([element(0x00080000, "UL", bytes(4)), element(0x00190000, "UL", bytes(4))]))
    assert sorted(got) == ["00080016", "00080018", "0020000D", "0020000E"]


def test_a_file_wrapped_twice_is_what_its_outer_meta_says(file: Path) -> None:
    inner = part10([element(0x7FE00010, "OB", item(b"") + item(b"\xff\xd8") + SEQUENCE_END, length=UNDEFINED)])[132:]
    file.write_bytes(part10([], "1.2.840.10008.1.2.4.70", identified=False) + inner)
    instance = read_instance(file, ALL_INLINE)
    assert instance.meta.transfer_syntax_uid == "1.2.840.10008.1.2.4.70"
    assert instance.frame_index is not None


def test_a_stray_group_0002_in_an_implicit_data_set_is_left_out(file: Path) -> None:
    stray = element(0x00020010, "UI", b"1.2.840.10008.1.2.1\0", IMPLICIT_LE)
    assert "00020010" not in metadata(file, part10([stray], IMPLICIT_LE))


def test_keys_ascend_and_the_last_of_two_wins(file: Path) -> None:
    raw = part10([]) + element(0x00100020, "LO", b"B ") + element(0x00080060, "CS", b"CT") + element(0x00100020, "LO", b"C ")
    assert metadata(file, raw)["00100020"] == {"vr": "LO", "Value": ["C"]}


def test_text_is_utf_8_and_says_so(file: Path) -> None:
    charset, name = element(0x00080005, "CS", b"ISO_IR 100"), element(0x00100010, "PN", b"Buc^J\xe9r\xf4me")
    got = metadata(file, part10([charset, name]))
    assert got["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert got["00100010"]["Value"] == [{"Alphabetic": "Buc^Jérôme"}]
    assert metadata(file, part10([name]))["00080005"]["Value"] == ["ISO_IR 192"]  # undeclared, yet beyond ASCII
    assert "00080005" not in metadata(file, part10([element(0x00100010, "PN", b"Doe ")]))


def test_items_may_have_their_own_character_set(file: Path) -> None:
    greek = element(0x00080005, "CS", b"ISO_IR 126") + element(0x00081030, "LO", b"\xc4\xe9")
    latin = element(0x00081030, "LO", b"\xc4\xe9")
    raw = [
        element(0x00080005, "CS", b"ISO_IR 100"),
        element(0x00081111, "SQ", item(greek) + item(latin)),
        element(0x00100020, "LO", b"\xc4 "),
    ]
    got = metadata(file, part10(raw))
    assert [entry["00081030"]["Value"] for entry in got["00081111"]["Value"]] == [["Δι"], ["Äé"]]
    assert got["00100020"]["Value"] == ["Ä"]


@pytest.mark.parametrize("defined", [True, False])
@pytest.mark.parametrize("defined_item", [True, False])
def test_sequences_of_every_kind_of_length(file: Path, defined: bool, defined_item: bool) -> None:
    inner = item(element(0x00080100, "SH", b"C1"), defined_item) + item(b"", defined_item)
    outer = item(element(0x00081140, "SQ", inner) + element(0x00080104, "LO", b"x "), defined_item)
    sequence = element(0x00081115, "SQ", outer) if defined else element(0x00081115, "SQ", outer + SEQUENCE_END, length=UNDEFINED)
    got = metadata(file, part10([sequence, element(0x00100020, "LO", b"P1")]))
    assert got["00081115"]["Value"] == [
        {"00080104": {"vr": "LO", "Value": ["x"]}, "00081140": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["C1"]}}, {}]}}
    ]
    assert got["00100020"]["Value"] == ["P1"]


def test_unknown_of_undefined_length_is_an_implicit_sequence(file: Path) -> None:
    value = item(element(0x00080100, "", b"C1", IMPLICIT_LE), False) + SEQUENCE_END
    got = metadata(file, part10([element(0x00191001, "UN", value, length=UNDEFINED), element(0x00200010, "SH", b"7 ")]))
    assert got["00191001"] == {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["C1"]}}]}
    assert got["00200010"]["Value"] == ["7"]


def test_unknown_elements_of_the_dictionary_get_their_vr(file: Path) -> None:
    sequence = item(element(0x00080100, "", b"C1", IMPLICIT_LE))
    got = metadata(
        file, part10([element(0x00081115, "UN", sequence), element(0x00100010, "UN", b"Doe^"), element(0x00280010, "UN", b"\2\0")])
    )
    assert got["00081115"]["Value"] == [{"00080100": {"vr": "SH", "Value": ["C1"]}}]
    assert got["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Doe^"}]}
    assert got["00280010"] == {"vr": "US", "Value": [2]}


def test_unknown_value_representations_do_not_derail_the_reader(file: Path) -> None:
    future = struct.pack("<HH2sHI", 0x0019, 0x1001, b"ZZ", 0, 4) + b"abcd"
    private = struct.pack("<HH2sH", 0x0019, 0x1002, b"??", 2) + b"ab"
    stray = struct.pack("<HHI", 0x0019, 0x1003, 2) + b"ab"
    got = metadata(file, part10([future + private + stray, element(0x00191004, "SH", b"ok")]))
    assert [got[key]["vr"] for key in ("00191001", "00191002", "00191003")] == ["UN", "UN", "UN"]
    assert got["00191004"]["Value"] == ["ok"]


def test_private_elements_keep_their_block_and_get_their_creators_vr(file: Path) -> None:
    creator = element(0x00190011, "", b"GEMS_ACQU_01", IMPLICIT_LE)
    table = element(0x00191102, "", struct.pack("<i", 912), IMPLICIT_LE)
    stranger = element(0x00191202, "", b"ab", IMPLICIT_LE)
    got = metadata(file, part10([creator + table + stranger], IMPLICIT_LE))
    assert got["00190011"] == {"vr": "LO", "Value": ["GEMS_ACQU_01"]}
    assert got["00191102"] == {"vr": "SL", "Value": [912]}
    assert got["00191202"] == {"vr": "UN", "InlineBinary": "YWI="}


@pytest.mark.parametrize(("signed", "vr", "value"), [(0, "US", 65535), (1, "SS", -1)])
def test_pixel_representation_settles_signedness_also_in_earlier_items(file: Path, signed: int, vr: str, value: int) -> None:
    inside = element(0x00280106, "", b"\xff\xff", IMPLICIT_LE)
    sequence = element(0x00081140, "", item(inside), IMPLICIT_LE)
    raw = [sequence, element(0x00280103, "", bytes([signed, 0]), IMPLICIT_LE) + element(0x00280107, "", b"\xff\xff", IMPLICIT_LE)]
    got = metadata(file, part10(raw, IMPLICIT_LE))
    assert got["00280107"] == {"vr": vr, "Value": [value]}
    assert got["00081140"]["Value"][0]["00280106"] == {"vr": vr, "Value": [value]}


def test_big_endian_values_become_little_endian(file: Path) -> None:
    raw = [element(0x00280010, "US", b"\1\2", EXPLICIT_BE), element(0x00281201, "OW", b"\1\2\3\4", EXPLICIT_BE)]
    got = metadata(file, part10(raw, EXPLICIT_BE))
    assert got["00280010"]["Value"] == [0x0102]
    assert got["00281201"]["InlineBinary"] == "AgEEAw=="


def test_bulk_values_become_references_also_inside_items(file: Path) -> None:
    limits = Limits(bulk_threshold_bytes=8)
    icon = element(0x7FE00010, "OB", bytes(10))
    raw = [element(0x00880200, "SQ", item(b"") + item(icon)), element(0x7FE00010, "OB", bytes(2)), element(0x00091001, "UI", b"1" * 20)]
    got = metadata(file, part10(raw), limits)
    assert got["00880200"]["Value"][1]["7FE00010"] == {"vr": "OB", "BulkDataURI": "*/00880200/2/7FE00010"}
    assert got["7FE00010"] == {"vr": "OB", "BulkDataURI": "*/7FE00010"}  # pixels: whatever their size
    assert "Value" in got["00091001"]  # UI is never bulk (PS3.18 10.4.3.3.2)


def test_a_control_character_of_a_value_cannot_forge_the_url_token(file: Path) -> None:
    file.write_bytes(part10([element(0x00100020, "LO", b"a\0/b")]))
    assert b"\0" not in read_instance(file, ALL_INLINE).metadata


def test_what_follows_the_pixels_is_read_too(file: Path) -> None:
    got = metadata(file, part10([element(0x7FE00010, "OB", bytes(2)), element(0xFFFCFFFC, "OB", bytes(4))]))
    assert got["FFFCFFFC"]["vr"] == "OB"


def test_the_memory_of_elements_tells_no_lies_between_encodings(file: Path) -> None:
    """The same bytes mean other things under another character set, encoding or sign."""
    name = element(0x00100010, "PN", b"\xc4\xe9")
    for term, text in ((b"ISO_IR 100", "Äé"), (b"ISO_IR 126", "Δι"), (b"ISO_IR 100", "Äé")):
        assert metadata(file, part10([element(0x00080005, "CS", term), name]))["00100010"]["Value"] == [{"Alphabetic": text}]
    smallest = element(0x00280106, "", b"\xff\xff", IMPLICIT_LE)
    for sign, value in ((0, 65535), (1, -1), (0, 65535)):
        sign_element = element(0x00280103, "", bytes([sign, 0]), IMPLICIT_LE)
        assert metadata(file, part10([sign_element + smallest], IMPLICIT_LE))["00280106"]["Value"] == [value]


def test_plain_elements_are_read_in_the_short_way_as_in_the_long_one(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    for path in [*corpus_files(corpus), *library_files()]:
        for limits in (ALL_INLINE, Limits(bulk_threshold_bytes=8)):
            short = _read_anew(path, limits)
            with monkeypatch.context() as patched:
                patched.setattr(json_model.JsonReader, "_plain", lambda *_: None)
                assert _read_anew(path, limits) == short, path.name
            compared += not isinstance(short, str)
    assert compared >= 300


def test_sequences_seen_before_are_not_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    json_model._memos.clear()
    code = element(0x00080100, "SH", b"T-1 ")
    raw = part10([element(0x00081032, "SQ", item(code)), element(0x00100020, "LO", b"A ")])
    first = metadata(file, raw)
    with monkeypatch.context() as patched:
        patched.setattr(json_model.JsonReader, "_sequence", lambda *_: pytest.fail("read again"))
        assert metadata(file, raw) == first
    other = metadata(file, part10([element(0x00081032, "SQ", item(element(0x00080100, "SH", b"T-2 "))), element(0x00100020, "LO", b"A ")]))
    assert first["00081032"]["Value"] == [{"00080100": {"vr": "SH", "Value": ["T-1"]}}]
    assert other["00081032"]["Value"] == [{"00080100": {"vr": "SH", "Value": ["T-2"]}}]


def test_the_memory_of_sequences_tells_no_lies(file: Path) -> None:
    """The same bytes mean other things under another character set, at another place, beside another sign."""
    named = element(0x00081110, "SQ", item(element(0x00100010, "PN", b"\xc4\xe9")))
    for term, text in ((b"ISO_IR 100", "Äé"), (b"ISO_IR 126", "Δι"), (b"ISO_IR 100", "Äé")):
        got = metadata(file, part10([element(0x00080005, "CS", term), named]))
        assert got["00081110"]["Value"] == [{"00100010": {"vr": "PN", "Value": [{"Alphabetic": text}]}}]
    smallest = element(0x00880200, "SQ", item(element(0x00280106, "UN", b"\xff\xff")))
    for sign, value in ((0, 65535), (1, -1), (0, 65535)):
        sign_element = element(0x00280103, "US", bytes([sign, 0]))
        assert metadata(file, part10([sign_element, smallest]))["00880200"]["Value"][0]["00280106"]["Value"] == [value]
    strange = element(0x00081110, "SQ", item(element(0x00080005, "CS", b"NOWHERE ") + element(0x00100020, "LO", b"A ")))
    for _ in range(2):
        file.write_bytes(part10([strange]))
        assert "unknown Specific Character Set 'NOWHERE'" in read_instance(file, ALL_INLINE).warnings


def test_sequences_seen_before_count_as_many_elements(file: Path) -> None:
    json_model._memos.clear()
    items = b"".join(item(element(0x00080100, "SH", b"%d " % i)) for i in range(9))
    file.write_bytes(part10([element(0x00081032, "SQ", items)]))
    assert read_instance(file, Limits(max_elements=40)).metadata
    for _ in range(2):
        with pytest.raises(DataSetTooLarge):
            read_instance(file, Limits(max_elements=20))


def test_sequences_with_bulk_data_are_left_in_the_file_each_time(file: Path) -> None:
    items = [element(0x00880200 + i, "SQ", item(element(0x00091001, "OB", bytes(900)))) for i in range(400)]
    file.write_bytes(part10(items))
    for _ in range(2):
        assert read_instance(file, Limits(bulk_threshold_bytes=8, max_header_bytes=1000)).metadata


def test_wanted_sequences_have_their_items_each_time(file: Path) -> None:
    file.write_bytes(part10([element(0x00400275, "SQ", item(element(0x00401001, "SH", b"R1")))]))
    for wanted in (frozenset[int](), frozenset({0x00400275}), frozenset({0x00400275})):
        read = read_instance(file, Limits(bulk_threshold_bytes=1 << 40, tags=wanted))
        assert [items.text(0x00401001) for items in read.header.items(0x00400275)] == ["R1"] * len(wanted)


def test_what_was_seen_before_reads_as_what_is_new(corpus: Path) -> None:
    for path in [*corpus_files(corpus), *library_files()]:
        for limits in (ALL_INLINE, Limits(bulk_threshold_bytes=8)):
            assert _read_anew(path, limits) == _read(path, limits), path.name


def _read_anew(path: Path, limits: Limits) -> object:
    """All that is read of a file by a process that has read nothing before; why when it is refused."""
    json_model._memos.clear()
    return _read(path, limits)


def _read(path: Path, limits: Limits) -> object:
    try:
        read = read_instance(path, limits, lenient=True)
    except InstanceRefused as error:
        return str(error)
    return read.metadata, read.values, read.warnings, read.frame_index, read.sop_instance_uid, read.meta


@needs_dcm2json
def test_real_files_equal_dcm2json(corpus: Path) -> None:
    compared = 0
    for path in [*corpus_files(corpus), *library_files()]:
        try:
            ours = json.loads(read_instance(path, ALL_INLINE, lenient=True).metadata.replace(b"\0", b"*"))
        except InstanceRefused:
            assert path.parent != corpus, path
            continue
        theirs = dcm2json(path)
        if theirs is not None:
            assert differences(ours, theirs) == [], path.name
            compared += 1
    assert compared >= 190
