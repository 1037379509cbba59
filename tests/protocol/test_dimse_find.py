"""C-FIND as SCP (PS3.4 C.4.1): identifiers in, matches out, over the wire."""

from __future__ import annotations

import shutil
import subprocess
import zlib
from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pynetdicom import AE, build_context
from pynetdicom import pdu_primitives as primitives
from pynetdicom.dsutils import decode, encode
from sqlalchemy import text

from pacslite.catalog.database import Catalog
from pacslite.core import query
from pacslite.dimse import commands, find
from tests.support.catalog_rows import Loader, json_of
from tests.support.dimse import (
    CT,
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    PATIENT_ROOT_FIND,
    STUDY_ROOT_FIND,
    VERIFICATION,
    Listener,
    cancel_rq,
    find_rq,
    listening,
    sink_pacs,
)
from tests.support.processes import until

JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"
STUDIES = 1200  # more than two pages


def fill(loader: Loader) -> None:
    """Four people with studies of their own, and one with very many."""
    names = {"D1": "Doe^John", "D2": "Müller^Jörg", "D3": JAPANESE, "D4": "Ελλην^Γιώργος"}
    for number, (patient_id, name) in enumerate(names.items(), start=1):
        patient = loader.patient(PatientID=patient_id, PatientName=name, PatientBirthDate="19700101", PatientSex="O")
        study = loader.study(
            patient,
            StudyInstanceUID=f"1.2.{number}",
            StudyDate=f"2024010{number}",
            StudyTime="101500",
            AccessionNumber=f"A{number}",
            ModalitiesInStudy="CT\\SR" if number == 1 else "MR",
            NumberOfStudyRelatedSeries=1,
            NumberOfStudyRelatedInstances=2,
        )
        series = loader.series(
            study,
            [("SPS1", "RP1"), ("SPS2", "RP2")],
            SeriesInstanceUID=f"1.2.{number}.1",
            Modality="CT" if number == 1 else "MR",
            SeriesNumber="1",
        )
        for instance in (1, 2):
            document = json_of({"SOPInstanceUID": f"1.2.{number}.1.{instance}", "Rows": "512"})
            document["00180050"] = {"vr": "DS", "Value": [2.5]}
            document["00090010"] = {"vr": "LO", "Value": ["PACSLITE TEST"]}
            document["00091001"] = {"vr": "SH", "Value": [f"secret{number}"]}
            document["00091002"] = {"vr": "UN", "InlineBinary": b64encode(b"first \\second ").decode()}
            document["00081140"] = {
                "vr": "SQ",
                "Value": [{"00081155": {"vr": "UI", "Value": [uid]}, "00081150": {"vr": "UI"}} for uid in ("1.9", "1.10")],
            }
            loader.instance(
                series,
                document,
                SOPInstanceUID=f"1.2.{number}.1.{instance}",
                SOPClassUID=CT,
                InstanceNumber=str(instance),
                Rows="512",
            )
    many = loader.patient(PatientID="MANY", PatientName="Many^Studies", PatientComments="x" * 10_000)
    for number in range(STUDIES):
        loader.study(many, StudyInstanceUID=f"1.3.{number}", StudyDate="20200101", StudyDescription="one of many " * 5)
    loader.flush()


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    made = Catalog(f"sqlite:///{tmp_path_factory.mktemp('find') / 'catalog.db'}")
    made.migrate()
    made.write(lambda connection: fill(Loader(connection)))
    yield made
    made.close()


@pytest.fixture
def listener(tmp_path: Path, catalog: Catalog) -> Iterator[Listener]:
    pacs = SimpleNamespace(**vars(sink_pacs(tmp_path)), catalog=catalog)
    with listening(pacs) as running:
        yield running


def identifier(level: str = "STUDY", **keys: Any) -> Dataset:
    data_set = Dataset()
    if level:
        data_set.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(data_set, keyword, value)
    return data_set


def ask(
    listener: Listener, keys: Dataset, model: str = STUDY_ROOT_FIND, syntax: str = EXPLICIT_LE, **options: Any
) -> tuple[list[tuple[int, Dataset]], commands.Command]:
    """All pending (status, identifier), and the final command set."""
    explicit, little, deflated = syntax != IMPLICIT_LE, syntax != EXPLICIT_BE, syntax == DEFLATED_LE
    encoded = encode(keys, not explicit, little, deflated)
    assert encoded is not None
    with listener.peer() as peer:
        peer.associate([(model, [syntax])], **options)
        peer.request(1, find_rq(model), encoded)
        matches = []
        while True:
            command, data = peer.response()
            status = command.number(commands.STATUS)
            if status not in (commands.PENDING, commands.PENDING_WARNING):
                assert data == b""
                peer.release()
                return matches, command
            if deflated:
                data = zlib.decompress(data, -15)
            matches.append((status, decode(BytesIO(data), not explicit, little, False)))


def found(listener: Listener, keys: Dataset, model: str = STUDY_ROOT_FIND, syntax: str = EXPLICIT_LE, **options: Any) -> list[Dataset]:
    matches, final = ask(listener, keys, model, syntax, **options)
    assert final.number(commands.STATUS) == 0, final
    return [data_set for _, data_set in matches]


def relational(model: str = STUDY_ROOT_FIND) -> primitives.SOPClassExtendedNegotiation:
    item = primitives.SOPClassExtendedNegotiation()
    item.sop_class_uid, item.service_class_application_information = model, b"\x01"
    return item


def test_file_meta_information_in_an_identifier_is_passed_over(listener: Listener) -> None:
    element = Dataset()
    element.add_new(0x00020003, "UI", "1.2.1.1.1")
    keys = identifier("IMAGE", StudyInstanceUID="1.2.1", SeriesInstanceUID="1.2.1.1", SOPInstanceUID="1.2.1.1.1")
    encoded = encode(element, False, True), encode(keys, False, True)
    with listener.peer() as peer:
        peer.associate([(STUDY_ROOT_FIND, [EXPLICIT_LE])])
        peer.request(1, find_rq(), b"".join(part or b"" for part in encoded))
        statuses = [peer.response()[0].number(commands.STATUS) for _ in range(2)]
    assert statuses == [commands.PENDING, commands.SUCCESS]


@pytest.mark.parametrize("syntax", [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE, DEFLATED_LE])
def test_a_match_has_the_asked_keys_empty_ones_too_the_level_and_where_it_can_be_had(listener: Listener, syntax: str) -> None:
    keys = identifier(
        PatientID="D1", PatientName="", StudyDate="", StudyDescription="", ModalitiesInStudy="", NumberOfStudyRelatedInstances=""
    )
    (match,) = found(listener, keys, syntax=syntax)
    assert (match.QueryRetrieveLevel, match.RetrieveAETitle, match.InstanceAvailability) == ("STUDY", "PACSLITE", "ONLINE")
    assert (match.PatientID, match.PatientName, match.StudyDate, match.StudyInstanceUID) == ("D1", "Doe^John", "20240101", "1.2.1")
    assert match.ModalitiesInStudy == ["CT", "SR"]
    assert match.NumberOfStudyRelatedInstances == 2
    assert match["StudyDescription"].is_empty
    assert "AccessionNumber" not in match


@pytest.mark.parametrize(
    ("model", "level", "keys", "tags"),
    [
        (PATIENT_ROOT_FIND, "PATIENT", {"PatientID": "D?"}, ["D1", "D2", "D3", "D4"]),
        (PATIENT_ROOT_FIND, "STUDY", {"PatientID": "D2"}, ["1.2.2"]),
        (PATIENT_ROOT_FIND, "SERIES", {"PatientID": "D2", "StudyInstanceUID": "1.2.2"}, ["1.2.2.1"]),
        (STUDY_ROOT_FIND, "SERIES", {"StudyInstanceUID": "1.2.2"}, ["1.2.2.1"]),
        (STUDY_ROOT_FIND, "IMAGE", {"StudyInstanceUID": "1.2.2", "SeriesInstanceUID": "1.2.2.1"}, ["1.2.2.1.1", "1.2.2.1.2"]),
    ],
)
def test_every_level_of_both_models_is_searched(listener: Listener, model: str, level: str, keys: dict[str, str], tags: list[str]) -> None:
    """Checklist 124: matches are FF00, the final response 0000 without an identifier."""
    unique = {"PATIENT": "PatientID", "STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}[level]
    matches = found(listener, identifier(level, **keys), model)
    assert sorted(match[unique].value for match in matches) == tags
    assert all(match[key].value for match in matches for key in keys)


@pytest.mark.parametrize(
    ("keys", "uids"),
    [
        ({"PatientName": "doe*"}, ["1.2.1"]),
        ({"PatientName": "MULLER^*"}, ["1.2.2"]),
        ({"StudyDate": "20240102-20240103"}, ["1.2.2", "1.2.3"]),
        ({"StudyDate": "20240103-"}, ["1.2.3", "1.2.4"]),
        ({"StudyInstanceUID": ["1.2.1", "1.2.4", "1.9.9"]}, ["1.2.1", "1.2.4"]),
        ({"ModalitiesInStudy": "SR", "PatientID": "*"}, ["1.2.1"]),
        ({"AccessionNumber": "A1 "}, ["1.2.1"]),
        ({"PatientID": "D%"}, []),
        ({"PatientID": "d1"}, []),
    ],
)
def test_matching_is_that_of_the_shared_engine(listener: Listener, keys: dict[str, Any], uids: list[str]) -> None:
    """Checklist 51, 61, 63, 65, 69, 71: the same matching as in QIDO-RS; UID lists by backslash."""
    assert sorted(match.StudyInstanceUID for match in found(listener, identifier(**keys))) == uids


def test_a_sequence_key_matches_inside_one_item_and_is_returned(listener: Listener) -> None:
    """Checklist 66: all keys of a sequence inside the same item."""
    item = Dataset()
    item.ScheduledProcedureStepID, item.RequestedProcedureID = "SPS1", "RP1"
    keys = identifier("SERIES", StudyInstanceUID="1.2.1", RequestAttributesSequence=Sequence([item]))
    (match,) = found(listener, keys)
    assert [one.RequestedProcedureID for one in match.RequestAttributesSequence] == ["RP1"], "only the items that fit (C.2.2.2.6)"
    item.RequestedProcedureID = "OTHER"
    assert found(listener, keys) == []


def test_attributes_without_a_column_are_returned_from_the_stored_document(listener: Listener) -> None:
    """Checklist B8: from the stored document; there is no storage here to read files from."""
    item = Dataset()
    item.ReferencedSOPInstanceUID = ""
    keys = identifier(
        "IMAGE",
        StudyInstanceUID="1.2.1",
        SeriesInstanceUID="1.2.1.1",
        SOPInstanceUID="1.2.1.1.2",
        SliceThickness="",
        Rows=None,
        ReferencedImageSequence=Sequence([item]),
        WindowCenter="",
    )
    (match,) = found(listener, keys)
    assert (match.SliceThickness, match.Rows) == (2.5, 512)
    assert match["WindowCenter"].is_empty
    assert [reference.ReferencedSOPInstanceUID for reference in match.ReferencedImageSequence] == ["1.9", "1.10"]
    assert "ReferencedSOPClassUID" not in match.ReferencedImageSequence[0]
    item.ReferencedSOPInstanceUID = "1.10"
    (match,) = found(listener, keys)
    assert [reference.ReferencedSOPInstanceUID for reference in match.ReferencedImageSequence] == ["1.10"]


def test_a_private_attribute_is_matched_and_returned_when_its_creator_is_given(listener: Listener) -> None:
    keys = identifier("IMAGE", StudyInstanceUID="1.2.1", SeriesInstanceUID="1.2.1.1", SOPInstanceUID="1.2.1.1.1")
    keys.add_new(0x00090033, "LO", "PACSLITE TEST")
    keys.add_new(0x00093301, "SH", "")
    (match,) = found(listener, keys)
    assert (match[0x00090033].value, match[0x00093301].value) == ("PACSLITE TEST", "secret1")


@pytest.mark.parametrize(("wanted", "count"), [("second", 1), ("f*", 1), ("third", 0)])
def test_a_private_attribute_that_came_without_its_vr_is_matched_by_its_text(listener: Listener, wanted: str, count: int) -> None:
    """What comes in Implicit VR has no VR of its own where the dictionary knows none (PS3.5 6.2.2)."""
    keys = identifier("IMAGE", StudyInstanceUID="1.2.1", SeriesInstanceUID="1.2.1.1", SOPInstanceUID="1.2.1.1.1")
    keys.add_new(0x00090010, "LO", "PACSLITE TEST")
    keys.add_new(0x00091002, "LO", wanted)
    assert len(found(listener, keys)) == count


def test_private_tags_and_unknown_charsets_never_suppress_a_match(listener: Listener) -> None:
    """Checklist 134: neither private tags without a creator nor unknown character sets."""
    keys = identifier(PatientID="D1", SeriesDescription="")
    keys.add_new(0x00091001, "LO", "no creator is given")
    keys.add_new(0x00111001, "OB", b"\x01\x02")
    raw = encode(keys, False, True)
    assert raw is not None
    charset = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 999"
    with listener.peer() as peer:
        peer.associate([(STUDY_ROOT_FIND, [EXPLICIT_LE])])
        peer.request(1, find_rq(), charset + raw)
        command, data = peer.response()
        assert command.number(commands.STATUS) == commands.PENDING_WARNING
        assert decode(BytesIO(data), False, True, False).StudyInstanceUID == "1.2.1"
        assert peer.response()[0].number(commands.STATUS) == commands.SUCCESS


def test_ff01_tells_that_a_key_is_not_supported_and_ff00_that_all_are(listener: Listener) -> None:
    """Checklist 124: FF01 when an optional key is not supported."""
    ((plain, _),), _ = ask(listener, identifier(PatientID="D1", StudyDescription=""))
    ((lower, match),), _ = ask(listener, identifier(PatientID="D1", SliceThickness=""))
    assert (plain, lower) == (commands.PENDING, commands.PENDING_WARNING)
    assert "SliceThickness" not in match


@pytest.mark.parametrize(
    ("model", "level", "keys", "offending"),
    [
        (STUDY_ROOT_FIND, "", {"PatientID": "D1"}, 0x00080052),
        (STUDY_ROOT_FIND, "PATIENT", {"PatientID": "D1"}, 0x00080052),
        (STUDY_ROOT_FIND, "FRAME", {"PatientID": "D1"}, 0x00080052),
        (STUDY_ROOT_FIND, "SERIES", {"PatientID": "D1"}, 0x0020000D),
        (STUDY_ROOT_FIND, "SERIES", {"StudyInstanceUID": ["1.2.1", "1.2.2"]}, 0x0020000D),
        (STUDY_ROOT_FIND, "IMAGE", {"StudyInstanceUID": "1.2.1"}, 0x0020000E),
        (PATIENT_ROOT_FIND, "STUDY", {"StudyInstanceUID": "1.2.1"}, 0x00100020),
        (PATIENT_ROOT_FIND, "STUDY", {"PatientID": "D*"}, 0x00100020),
    ],
)
def test_a_missing_level_or_unique_key_is_answered_a900_naming_the_element(
    listener: Listener, model: str, level: str, keys: dict[str, Any], offending: int
) -> None:
    """Checklist 124: A900 without level or unique keys."""
    matches, final = ask(listener, identifier(level, **keys), model)
    assert (matches, final.number(commands.STATUS)) == ([], 0xA900)
    raw = final.values[commands.OFFENDING_ELEMENT]
    assert int.from_bytes(raw[:2], "little") << 16 | int.from_bytes(raw[2:], "little") == offending


def test_relational_queries_need_no_keys_above_when_negotiated(listener: Listener) -> None:
    """Checklist 70: relational queries are granted and done."""
    keys = identifier("SERIES", Modality="CT", PatientID="", StudyInstanceUID="")
    (match,) = found(listener, keys, user=[relational()])
    assert (match.SeriesInstanceUID, match.StudyInstanceUID, match.PatientID) == ("1.2.1.1", "1.2.1", "D1")


@pytest.mark.parametrize(
    "key", [b"\x08\x00\x20\x00DA\x08\x002024-13 ", b"\x08\x00\x20\x00DA\x02\x00- ", b"\x08\x00\x30\x00TM\x06\x0022-20 "]
)
def test_values_that_do_not_parse_are_answered_a900(listener: Listener, key: bytes) -> None:
    with listener.peer() as peer:
        peer.associate([(STUDY_ROOT_FIND, [EXPLICIT_LE])])
        peer.request(1, find_rq(), key + b"\x08\x00\x52\x00CS\x06\x00STUDY ")
        assert peer.response()[0].number(commands.STATUS) == 0xA900


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, DEFLATED_LE])
@pytest.mark.parametrize("raw", [b"garbage!garbage!", b"\x08\x00\x52\x00CS\xff\x00STUDY", b"\x08\x00\x52"])
def test_an_identifier_that_is_no_data_set_is_answered_a900(listener: Listener, syntax: str, raw: bytes) -> None:
    with listener.peer() as peer:
        peer.associate([(STUDY_ROOT_FIND, [syntax])])
        peer.request(1, find_rq(), raw)
        assert peer.response()[0].number(commands.STATUS) == 0xA900
        peer.release()


@pytest.mark.parametrize(
    ("asked", "patient", "answered", "name"),
    [
        (None, "D1", None, "Doe^John"),
        (None, "D2", "ISO_IR 192", "Müller^Jörg"),
        ("ISO_IR 100", "D2", "ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 144", "D2", "ISO_IR 192", "Müller^Jörg"),
        ("ISO_IR 192", "D2", "ISO_IR 192", "Müller^Jörg"),
        ("ISO_IR 100", "D3", "ISO_IR 192", JAPANESE),
        (["", "ISO 2022 IR 87"], "D3", ["", "ISO 2022 IR 87"], JAPANESE),
        (["", "ISO 2022 IR 87"], "D2", "ISO_IR 192", "Müller^Jörg"),
        ("ISO_IR 13", "D3", "ISO_IR 192", JAPANESE),
        (["ISO 2022 IR 6", "ISO 2022 IR 149"], "D3", "ISO_IR 192", JAPANESE),
        ("GB18030", "D3", "GB18030", JAPANESE),
        ("ISO_IR 126", "D4", "ISO_IR 126", "Ελλην^Γιώργος"),
        ("ISO_IR 144", "D4", "ISO_IR 192", "Ελλην^Γιώργος"),
    ],
)
def test_text_is_answered_in_the_callers_set_when_it_can_hold_it_else_in_utf_8(
    listener: Listener, asked: Any, patient: str, answered: Any, name: str
) -> None:
    """Checklist 67, B29: Specific Character Set is never matched, and tells what the caller reads."""
    keys = identifier(PatientID=patient, PatientName="")
    if asked:
        keys.SpecificCharacterSet = asked
    (match,) = found(listener, keys)
    assert match.get("SpecificCharacterSet") == answered
    assert str(match.PatientName) == name


@pytest.mark.parametrize(
    ("charset", "name", "uid"),
    [
        ("ISO_IR 100", "Müller*", "1.2.2"),
        ("ISO_IR 192", "*=山田*", "1.2.3"),
        (["", "ISO 2022 IR 87"], "=山田^太郎", "1.2.3"),
        ("ISO_IR 126", "Ελλην^*", "1.2.4"),
    ],
)
def test_names_are_matched_in_the_set_the_request_is_written_in(listener: Listener, charset: Any, name: str, uid: str) -> None:
    """Checklist 67, 68, B29: names of every group, written in the set of the request."""
    keys = identifier(SpecificCharacterSet=charset, PatientName=name)
    assert [match.StudyInstanceUID for match in found(listener, keys)] == [uid]


def test_many_matches_come_in_pages_each_once(listener: Listener) -> None:
    """Checklist 36, B11: all matches, each once."""
    matches = found(listener, identifier(PatientID="MANY"))
    assert len({match.StudyInstanceUID for match in matches}) == len(matches) == STUDIES


def test_newcomers_and_deletions_between_pages_neither_repeat_nor_hide_a_match(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checklist 36: pages go on behind the last row, not at a number of rows."""
    real = query.find

    def busy(catalog: Catalog, asked: query.Query) -> query.Page:
        if asked.cursor and asked.cursor.after:
            # What would be the newcomer before the next page, or a row less before it, by offset.
            catalog.write(lambda conn: conn.execute(text("UPDATE study SET study_date_normal = '20990101' WHERE pk = 5")))
        return real(catalog, asked)

    monkeypatch.setattr(find.query, "find", busy)
    matches = [match.StudyInstanceUID for match in found(listener, identifier(PatientID="MANY"))]
    listener.server._pacs.catalog.write(lambda conn: conn.execute(text("UPDATE study SET study_date_normal = '20200101' WHERE pk = 5")))
    assert len(set(matches)) == len(matches) == STUDIES - 1


@pytest.mark.parametrize(("limit", "status", "count"), [(700, 0xB001, 700), (STUDIES, commands.SUCCESS, STUDIES)])
def test_matches_past_the_limit_end_with_b001(tmp_path: Path, catalog: Catalog, limit: int, status: int, count: int) -> None:
    """Checklist 124: the response limit is told by B001 (PS3.4 C.4.1.1.4); all matches within it by 0000."""
    pacs = SimpleNamespace(**vars(sink_pacs(tmp_path, find_max_matches=limit)), catalog=catalog)
    with listening(pacs) as running:
        matches, final = ask(running, identifier(PatientID="MANY"))
    assert (final.number(commands.STATUS), len(matches)) == (status, count)


def test_a_search_in_too_many_documents_is_refused_a700_naming_a_key(tmp_path: Path, catalog: Catalog) -> None:
    """Checklist 124: A700 when the search would be too wide."""
    pacs = SimpleNamespace(**vars(sink_pacs(tmp_path, max_search_documents=2)), catalog=catalog)
    with listening(pacs) as running:
        matches, final = ask(running, identifier(MilitaryRank="x"))
        assert (matches, final.number(commands.STATUS)) == ([], 0xA700)
        assert b"PatientID" in final.values[commands.ERROR_COMMENT]
        assert found(running, identifier(MilitaryRank="x", PatientID="D1")) == []


def matching(model: str, options: bytes) -> primitives.SOPClassExtendedNegotiation:
    item = primitives.SOPClassExtendedNegotiation()
    item.sop_class_uid, item.service_class_application_information = model, options
    return item


@pytest.mark.parametrize(
    ("options", "keys", "uids"),
    [
        (b"\0\0\1", {"PatientName": "john doe"}, ["1.2.1"]),
        (b"\0\0\1", {"PatientName": "mueler"}, ["1.2.2"]),
        (b"\0\0\1", {"PatientName": "山田 taro", "SpecificCharacterSet": "ISO_IR 192"}, ["1.2.3"]),
        (b"\0\0\0", {"PatientName": "john doe"}, []),
        (b"\0\0\0\0\0\1", {"StudyID": '""', "PatientID": "D1"}, ["1.2.1"]),
        (b"\0\0\0\0\0\0", {"StudyID": '""', "PatientID": "D1"}, []),
        (b"\0\0\0\0\0\0\1", {"ModalitiesInStudy": ["CT", "SR"]}, ["1.2.1"]),
        (b"\0\0\0\0\0\0\1", {"ModalitiesInStudy": ["CT", "MR"]}, []),
        (b"\0\0\0\0\0\0\0", {"ModalitiesInStudy": ["SR", "XX"]}, ["1.2.1"]),
    ],
)
def test_kinds_of_matching_are_done_when_negotiated(listener: Listener, options: bytes, keys: dict[str, Any], uids: list[str]) -> None:
    """Checklist 70: fuzzy names, empty values and multiple values are granted and done (P4 C.5.1.1)."""
    matches = found(listener, identifier(**keys), user=[matching(STUDY_ROOT_FIND, options)])
    assert [match.StudyInstanceUID for match in matches] == uids


def test_a_cancel_ends_the_search_with_fe00_and_the_association_goes_on(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checklist 124: FE00 after C-CANCEL."""
    pages = 0
    real = query.find
    with listener.peer() as peer:

        def cancelling(catalog: Catalog, asked: query.Query) -> query.Page:
            nonlocal pages
            pages += 1
            page = real(catalog, asked)
            if pages == 2:
                peer.request(1, cancel_rq(7))
                (association,) = listener.server._active
                until(association.has_input)
            return page

        monkeypatch.setattr(find.query, "find", cancelling)
        peer.associate([(STUDY_ROOT_FIND, [EXPLICIT_LE]), (VERIFICATION, [EXPLICIT_LE])])
        raw = encode(identifier(PatientID="MANY"), False, True)
        peer.request(1, find_rq(message_id=7), raw)
        statuses = [0]
        while statuses[-1] in (0, commands.PENDING):
            statuses.append(peer.response()[0].number(commands.STATUS))
        assert statuses[-1] == commands.CANCELLED
        assert statuses.count(commands.PENDING) < STUDIES
        assert pages == 2
        assert peer.echo(3) == 0


def test_a_peer_that_does_not_read_is_dropped(tmp_path: Path, catalog: Catalog) -> None:
    pacs = SimpleNamespace(**vars(sink_pacs(tmp_path, network_timeout_s=1)), catalog=catalog)
    with listening(pacs) as listener, listener.peer() as peer:
        peer.associate([(STUDY_ROOT_FIND, [EXPLICIT_LE])])
        # 12 MB of answers, more than the buffers of both ends hold.
        peer.request(1, find_rq(), encode(identifier(PatientID="MANY", PatientComments=""), False, True))
        until(lambda: listener.server.associations == 1)
        until(lambda: listener.server.associations == 0)


def test_a_query_in_a_context_of_another_service_is_refused(listener: Listener) -> None:
    with listener.peer() as peer:
        peer.associate()
        peer.request(1, find_rq(VERIFICATION), b"")
        assert peer.response()[0].number(commands.STATUS) == 0x0122


def test_find_by_pynetdicom(listener: Listener) -> None:
    association = AE("TESTER").associate(
        listener.address.host, listener.address.port, [build_context(PATIENT_ROOT_FIND)], ae_title="PACSLITE"
    )
    assert association.is_established
    answers = list(association.send_c_find(identifier("PATIENT", PatientName="*", PatientID="D*"), PATIENT_ROOT_FIND))
    association.release()
    assert [status.Status for status, _ in answers] == [commands.PENDING] * 4 + [commands.SUCCESS]
    assert {str(match.PatientID) for _, match in answers if match} == {"D1", "D2", "D3", "D4"}


@pytest.mark.skipif(not shutil.which("findscu"), reason="dcmtk is not installed")
def test_find_by_dcmtk(listener: Listener) -> None:
    keys = ["QueryRetrieveLevel=STUDY", "PatientName=doe*", "StudyInstanceUID", "ModalitiesInStudy"]
    command = ["findscu", "-v", "-S", "-aec", "PACSLITE", *(word for key in keys for word in ("-k", key))]
    done = subprocess.run(
        [*command, listener.address.host, str(listener.address.port)], capture_output=True, text=True, timeout=30, check=False
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "Doe^John" in output
    assert "CT\\SR" in output
    assert output.count("Find Response:") == 1
