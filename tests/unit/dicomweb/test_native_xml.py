"""The Native DICOM Model: PS3.19 A.1."""

from __future__ import annotations

from xml.etree import ElementTree

from pacslite.dicomweb.native_xml import encode

_NS = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"


def test_every_kind_of_value_is_written() -> None:
    root = ElementTree.fromstring(
        encode(
            {
                "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
                "00080060": {"vr": "CS"},
                "00081140": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}, {}]},
                "00090010": {"vr": "LO", "Value": ["A & B"]},
                "00091001": {"vr": "LO", "Value": ["x<y\x01"]},
                "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane^Q^Dr^MD", "Ideographic": "山田^太郎"}]},
                "00280030": {"vr": "DS", "Value": [0.5, None, 0.25]},
                "00282000": {"vr": "OB", "InlineBinary": "AAE="},
                "7FE00010": {"vr": "OW", "BulkDataURI": "http://h/a?b&c"},
            }
        )
    )
    assert root.tag == _NS + "NativeDicomModel"
    by_tag = {element.get("tag"): element for element in root}
    assert by_tag["00080005"].get("keyword") == "SpecificCharacterSet"
    assert len(by_tag["00080060"]) == 0
    items = by_tag["00081140"].findall(_NS + "Item")
    assert [item.get("number") for item in items] == ["1", "2"]
    assert items[0][0][0].text == "1.2.3"
    assert by_tag["00091001"].get("privateCreator") == "A & B"
    assert by_tag["00091001"][0].text == "x<y"  # what XML cannot hold is left out
    name = by_tag["00100010"][0]
    assert [part.text for part in name.find(_NS + "Alphabetic") or ()] == ["Doe", "Jane", "Q", "Dr", "MD"]
    assert [part.text for part in name.find(_NS + "Ideographic") or ()] == ["山田", "太郎"]
    assert [(v.get("number"), v.text) for v in by_tag["00280030"]] == [("1", "0.5"), ("2", None), ("3", "0.25")]
    assert by_tag["00282000"][0].text == "AAE="
    assert by_tag["7FE00010"][0].get("uri") == "http://h/a?b&c"
