"""The Native DICOM Model read: what `native_xml` writes, and whatever else is sent (PS3.19 A.1)."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacslite.dicomweb import native_xml
from pacslite.dicomweb.native_xml_reader import decode
from pacslite.errors import BadRequest

DATA_SET: dict[str, Any] = {
    "00081140": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}, {}]},
    "00090010": {"vr": "LO", "Value": ["A & B"]},
    "00091001": {"vr": "LO", "Value": ["x<y"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane^Q^Dr^MD", "Ideographic": "山田^太郎"}]},
    "00104000": {"vr": "LT", "Value": [" two\r\nlines\t "]},
    "00280030": {"vr": "DS", "Value": ["0.50", None, "0.25"]},
    "00282000": {"vr": "OB", "InlineBinary": "AAE="},
    "00400275": {"vr": "SQ"},
    "7FE00010": {"vr": "OW", "BulkDataURI": "http://h/a?b&c"},
}


def test_what_is_written_is_read() -> None:
    assert decode(native_xml.encode(DATA_SET), 64) == DATA_SET


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_is_refused_or_read(data: st.DataObject) -> None:
    content = bytearray(native_xml.encode(DATA_SET))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=5))
    with contextlib.suppress(BadRequest):
        decode(bytes(content), 64)


@pytest.mark.parametrize("depth", [3, 200, 20_000])
def test_depth_is_bounded(depth: int) -> None:
    item = '<DicomAttribute tag="00400275" vr="SQ"><Item number="1">', "</Item></DicomAttribute>"
    document = f"<NativeDicomModel>{item[0] * depth}{item[1] * depth}</NativeDicomModel>".encode()
    if depth == 3:
        assert decode(document, 64)["00400275"]["Value"][0]["00400275"]["Value"]
    else:
        with pytest.raises(BadRequest):
            decode(document, 64)
