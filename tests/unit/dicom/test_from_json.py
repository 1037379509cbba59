"""DICOM JSON to a data set and back: PS3.18 annex F, PS3.5 7."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacslite.dicom.from_json import Encoder, Extent, Segment, load
from pacslite.dicom.instance import read_instance
from pacslite.dicom.limits import Limits
from pacslite.dicom.part10 import encode_preamble_and_meta
from pacslite.errors import BadRequest, InstanceRefused, InvalidMetadata

EXPLICIT = "1.2.840.10008.1.2.1"
IDENTIFIERS = {
    tag: {"vr": "UI", "Value": [f"1.2.{tag[-2:]}".replace("D", "3").replace("E", "4")]}
    for tag in ("00080016", "00080018", "0020000D", "0020000E")
}

# No control characters, no backslash, no padding at the ends: what text values can hold (PS3.5 6.2).
TEXT = (
    st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\\^="), min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool)
)
CODE = st.text("ABCDEFGHIJ _0123456789", min_size=1, max_size=12).map(str.strip).filter(bool)
NAME = st.fixed_dictionaries({"Alphabetic": TEXT}, optional={"Ideographic": TEXT, "Phonetic": TEXT})
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "LO": TEXT,
    "SH": TEXT,
    "UC": TEXT,
    "CS": CODE,
    "PN": NAME,
    "UI": st.from_regex(r"[1-9][0-9]{0,8}(\.[1-9][0-9]{0,8}){0,4}", fullmatch=True),
    "AT": st.from_regex(r"[0-9A-F]{8}", fullmatch=True),
    "IS": st.integers(-(2**31), 2**31 - 1),
    "DS": st.floats(-1e6, 1e6).map(lambda n: float(f"{n:.6g}")),
    "US": st.integers(0, 2**16 - 1),
    "SS": st.integers(-(2**15), 2**15 - 1),
    "UL": st.integers(0, 2**32 - 1),
    "SL": st.integers(-(2**31), 2**31 - 1),
    "UV": st.integers(0, 2**64 - 1),
    "SV": st.integers(-(2**63), 2**63 - 1),
    "FL": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "FD": st.floats(allow_nan=False, allow_infinity=False),
}
_LISTS = [st.builds(lambda vr, v: {"vr": vr, "Value": v}, st.just(vr), st.lists(v, min_size=1, max_size=4)) for vr, v in VALUES.items()]
_SINGLE = [st.builds(lambda vr, v: {"vr": vr, "Value": [v]}, st.just(vr), TEXT) for vr in ("LT", "ST", "UT")]
_EMPTY = st.sampled_from(["LO", "PN", "SQ", "OB", "US", "DA"]).map(lambda vr: {"vr": vr})
_BINARY = st.builds(
    lambda vr, words: {"vr": vr, "InlineBinary": b64encode(words * 8).decode()},
    st.sampled_from(["OB", "OW", "OF", "OD", "OL", "OV", "UN"]),
    st.binary(min_size=1, max_size=5),
)
PLAIN = st.one_of(*_LISTS, *_SINGLE, _EMPTY, _BINARY)
# Private elements of a block that nobody knows: their VR is what is written.
TAGS = st.integers(0x00991000, 0x009910FF).map(lambda tag: f"{tag:08X}")
CREATOR = {"00990010": {"vr": "LO", "Value": ["PACSLITE TEST"]}}
ITEMS = st.recursive(
    st.dictionaries(TAGS, PLAIN, max_size=4),
    lambda inner: st.dictionaries(
        TAGS, st.lists(inner, min_size=1, max_size=3).map(lambda items: {"vr": "SQ", "Value": items}), max_size=2
    ),
    max_leaves=6,
)


def refuse(uri: str, tag: int) -> list[Extent]:
    raise InvalidMetadata(uri)


def written(data_set: dict[str, Any]) -> bytes:
    segments: list[Segment] = Encoder(refuse, 64).encode(load(json.dumps([data_set]).encode())[0], {})
    assert all(isinstance(segment, bytes) for segment in segments)
    return encode_preamble_and_meta("1.2.16", "1.2.18", EXPLICIT) + b"".join(s for s in segments if isinstance(s, bytes))


@settings(max_examples=80, deadline=None)
@given(data_set=ITEMS)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, data_set: dict[str, Any]) -> None:
    whole = dict(sorted({**IDENTIFIERS, **CREATOR, **data_set}.items()))
    path = tmp_path_factory.getbasetemp() / "written.dcm"
    path.write_bytes(written(whole))
    found = json.loads(read_instance(path, Limits(bulk_threshold_bytes=10**6)).metadata)
    found.pop("00080005", None)  # added for text beyond ASCII
    assert found == without_empty(whole)


def without_empty(data_set: dict[str, Any]) -> dict[str, Any]:
    return {
        tag: {**element, "Value": [without_empty(item) for item in element["Value"]]}
        if element["vr"] == "SQ" and "Value" in element
        else element
        for tag, element in sorted(data_set.items())
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["vr", "Value", "InlineBinary", "BulkDataURI", "Alphabetic", "00100010", "00400275", "7FE00010"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(document=JSON, vr=st.sampled_from([*VALUES, "SQ", "OB", "UN", "ZZ"]))
def test_any_json_is_written_or_refused_by_name(document: Any, vr: str) -> None:
    for data_set in (
        document,
        {"00100010": document},
        {"00100010": {"vr": vr, "Value": document}},
        {"00100010": {"vr": vr, "Value": [document]}},
    ):
        try:
            for one in load(json.dumps(data_set).encode()):
                Encoder(refuse, 64).encode(one, {})
        except (BadRequest, InstanceRefused):
            continue


def test_a_value_too_long_for_its_vr_becomes_un() -> None:
    raw = written({**IDENTIFIERS, "00990010": {"vr": "LO", "Value": ["x" * 70_000]}})
    assert b"\x99\0\x10\0UN\0\0" in raw


def test_bulk_values_keep_their_place_and_even_length(tmp_path: Path) -> None:
    file = tmp_path / "bulk"
    file.write_bytes(b"0123456789")
    segments = Encoder(lambda uri, tag: [Extent(file, 2, 5)], 64).encode(
        load(b'[{"00420011":{"vr":"OB","BulkDataURI":"a"},"00080016":{"vr":"UI"}}]')[0], {}
    )
    at = segments.index(Extent(file, 2, 5))
    assert segments[at - 1] == b"\x42\0\x11\0OB\0\0\x06\0\0\0"
    assert segments[at + 1] == b"\0"
