"""QIDO-RS by section of PS3.18 8.3.4 and 10.6, through the whole WSGI application, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from werkzeug.test import Client, TestResponse

from pacslite.catalog import search
from pacslite.catalog.database import Catalog
from pacslite.core.access import LOCAL_ADMIN
from pacslite.dicom.attributes import BY_KEYWORD
from pacslite.dicomweb import qido, qido_json
from pacslite.dicomweb.media_types import acceptable, choose, instance_offers
from pacslite.settings import load
from pacslite.web import app
from pacslite.web.messages import Request, Route
from tests.support.catalog_rows import Loader, json_of
from tests.support.databases import postgres

__all__ = ["postgres"]
ROOT = "http://localhost/dicom-web"
CT_CLASS, SR_CLASS = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.11"
STUDIES = 12


def _fill(connection: Any) -> None:
    """Twelve studies of twelve patients, a day apart; the first has two CT series and a report, the second knows next to nothing."""
    loader = Loader(connection)
    doe = loader.patient(PatientID="PID-1", PatientName="Doe^Jané", PatientBirthDate="19700131", PatientSex="F", IssuerOfPatientID="HOSP")
    first = loader.study(
        doe, StudyInstanceUID="1.2.1", StudyDate="20240101", StudyTime="2215", AccessionNumber="Acc_1", StudyID="S1",
        StudyDescription='Head "x"', ReferringPhysicianName="Ref^A", ModalitiesInStudy="CT\\SR", NumberOfStudyRelatedSeries=3,
        NumberOfStudyRelatedInstances=5,
    )  # fmt: skip
    ct = loader.series(
        first, [("SPS1", "RP1"), ("SPS2", "RP2")], SeriesInstanceUID="1.2.1.1", Modality="CT", SeriesNumber="2", SeriesDescription="Axial",
        NumberOfSeriesRelatedInstances=3, PerformedProcedureStepStartDate="20240101",
    )  # fmt: skip
    for i, number in enumerate(("10", "9", "+011")):
        document = json_of({"PatientName": "Doe^Jané", "InstanceNumber": number}) | _unindexed(i)
        loader.instance(
            ct, document, SOPClassUID=CT_CLASS, SOPInstanceUID=f"1.2.1.1.{i}", InstanceNumber=number, Rows="512", Columns="256",
            BitsAllocated="16",
        )  # fmt: skip
    unnumbered = loader.series(first, SeriesInstanceUID="1.2.1.3", Modality="CT", NumberOfSeriesRelatedInstances=1)
    loader.instance(unnumbered, {}, SOPClassUID=CT_CLASS, SOPInstanceUID="1.2.1.3.0")
    report = loader.series(first, SeriesInstanceUID="1.2.1.2", Modality="SR", SeriesNumber="1", NumberOfSeriesRelatedInstances=1)
    loader.instance(report, _unindexed(7), SOPClassUID=SR_CLASS, SOPInstanceUID="1.2.1.2.0", InstanceNumber="1")
    bare = loader.series(loader.study(loader.patient(), StudyInstanceUID="1.2.2"), SeriesInstanceUID="1.2.2.1")
    loader.instance(bare, {}, SOPClassUID=CT_CLASS, SOPInstanceUID="1.2.2.1.0")
    for n in range(3, STUDIES + 1):
        patient = loader.patient(PatientID=f"PID-{n}", PatientName=f"Roe^R{n}=山田^太郎" if n == 3 else f"Roe^R{n}")
        study = loader.study(patient, StudyInstanceUID=f"1.2.{n}", StudyDate=f"202401{n:02d}", StudyTime="02", ModalitiesInStudy="MR")
        series = loader.series(study, SeriesInstanceUID=f"1.2.{n}.1", Modality="MR")
        loader.instance(series, {}, SOPClassUID=CT_CLASS, SOPInstanceUID=f"1.2.{n}.1.0")
    loader.flush()


def _unindexed(n: int) -> dict[str, Any]:
    """Attributes without a column: of a study, of an instance, private ones, bulk data, a sequence."""
    return {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]},
        "00104000": {"vr": "LT"},
        "001021B0": {"vr": "LT", "Value": [f"History {n}"]},
        "00180050": {"vr": "DS", "Value": [n + 0.5]},
        "00189346": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["113691"]}, "00080102": {"vr": "SH", "Value": ["DCM"]}}]},
        "00290012": {"vr": "LO", "Value": ["ACME 1"]},
        "00291208": {"vr": "CS", "Value": [f"P{n}"]},
        "00420011": {"vr": "OB", "BulkDataURI": "\0/00420011"},
        "54000100": {"vr": "SQ", "Value": [_waveform(2), {}, _waveform(n)]},
    }


def _waveform(channels: int) -> dict[str, Any]:
    """An item with bulk data, and with a sequence that has some."""
    return {
        "003A0005": {"vr": "US", "Value": [channels]},
        "003A0200": {"vr": "SQ", "Value": [{"003A0203": {"vr": "SH", "Value": ["I"]}, "003A020A": {"vr": "OW", "BulkDataURI": "\0/x"}}]},
        "54001010": {"vr": "OW", "BulkDataURI": "\0/54000100/1/54001010"},
    }


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """A filled catalog of each kind, which the tests only read."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('qido')}/catalog.db"
    else:
        url = request.getfixturevalue("postgres").new_database()
    made = Catalog(url, pool_size=2)
    made.migrate()
    made.write(_fill)
    yield made
    made.close()


@pytest.fixture
def site(catalog: Catalog) -> Client:
    """The application over it."""
    return _client(catalog)


def _client(catalog: Catalog, **settings: Any) -> Client:
    pacs = SimpleNamespace(catalog=catalog, settings=replace(load(environment={}), **settings))
    return Client(app.create(pacs, qido.ROUTES, (_as_administrator,)))


def _as_administrator(pacs: Any, request: Request, route: Route) -> None:
    request.principal = LOCAL_ADMIN


def get(site: Client, path: str, accept: str | None = "application/dicom+json", **headers: str) -> TestResponse:
    headers = {"Accept": accept} | headers if accept else headers
    return site.get("/dicom-web" + path, headers=headers, base_url="http://localhost")


def found(site: Client, path: str) -> list[dict[str, Any]]:
    reply = get(site, path)
    assert reply.status_code in (200, 204), reply.get_data(as_text=True)
    if reply.status_code == 204:
        assert reply.data == b""
        return []
    assert reply.headers["Content-Type"] == "application/dicom+json"
    objects: list[dict[str, Any]] = json.loads(reply.data)
    assert all(list(one) == sorted(one) for one in objects), "keys ascend (Annex F.2.2)"
    return objects


def uids(site: Client, path: str, tag: str = "0020000D") -> list[str]:
    return [one[tag]["Value"][0] for one in found(site, path)]


def test_a_study_answer_holds_table_10_6_3_3(site: Client) -> None:
    """Checklist 33, 43, 44, 49: what is required and what is known, RetrieveURL as UR under the public URL."""
    (study,) = found(site, "/studies?StudyInstanceUID=1.2.1")
    assert study == {
        "00080020": {"vr": "DA", "Value": ["20240101"]},
        "00080030": {"vr": "TM", "Value": ["2215"]},
        "00080050": {"vr": "SH", "Value": ["Acc_1"]},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
        "00080090": {"vr": "PN", "Value": [{"Alphabetic": "Ref^A"}]},
        "00081030": {"vr": "LO", "Value": ['Head "x"']},
        "00081190": {"vr": "UR", "Value": [f"{ROOT}/studies/1.2.1"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jané"}]},
        "00100020": {"vr": "LO", "Value": ["PID-1"]},
        "00100021": {"vr": "LO", "Value": ["HOSP"]},
        "00100030": {"vr": "DA", "Value": ["19700131"]},
        "00100040": {"vr": "CS", "Value": ["F"]},
        "0020000D": {"vr": "UI", "Value": ["1.2.1"]},
        "00200010": {"vr": "SH", "Value": ["S1"]},
        "00201206": {"vr": "IS", "Value": [3]},
        "00201208": {"vr": "IS", "Value": [5]},
    }


def test_required_attributes_that_are_unknown_are_present_and_empty(site: Client) -> None:
    """Checklist 50: required attributes are present and empty when unknown."""
    (study,) = found(site, "/studies?StudyInstanceUID=1.2.2")
    assert study["00080020"] == {"vr": "DA"}
    assert study["00100010"] == {"vr": "PN"}
    assert study["00080061"] == {"vr": "CS", "Value": []}  # OHIF takes the length of it
    assert "00081030" not in study


def test_a_series_answer_holds_table_10_6_3_4(site: Client) -> None:
    """Checklist 43, 45: what a series answer holds."""
    series = found(site, "/studies/1.2.1/series?SeriesInstanceUID=1.2.1.1")
    assert series == [
        {
            "00080056": {"vr": "CS", "Value": ["ONLINE"]},
            "00080060": {"vr": "CS", "Value": ["CT"]},
            "0008103E": {"vr": "LO", "Value": ["Axial"]},
            "00081190": {"vr": "UR", "Value": [f"{ROOT}/studies/1.2.1/series/1.2.1.1"]},
            "0020000D": {"vr": "UI", "Value": ["1.2.1"]},
            "0020000E": {"vr": "UI", "Value": ["1.2.1.1"]},
            "00200011": {"vr": "IS", "Value": [2]},
            "00201209": {"vr": "IS", "Value": [3]},
            "00400244": {"vr": "DA", "Value": ["20240101"]},
            "00400275": {
                "vr": "SQ",
                "Value": [
                    {"00400009": {"vr": "SH", "Value": ["SPS1"]}, "00401001": {"vr": "SH", "Value": ["RP1"]}},
                    {"00400009": {"vr": "SH", "Value": ["SPS2"]}, "00401001": {"vr": "SH", "Value": ["RP2"]}},
                ],
            },
        }
    ]


@pytest.mark.parametrize(
    ("stored", "listed"),
    [
        ("1.2.840.10008.1.2", ["1.2.840.10008.1.2.1"]),
        ("1.2.840.10008.1.2.2", ["1.2.840.10008.1.2.1"]),
        ("1.2.840.10008.1.2.1", ["1.2.840.10008.1.2.1"]),
        ("1.2.840.10008.1.2.4.102", ["1.2.840.10008.1.2.4.102"]),
        ("1.2.840.10008.1.2.4.50", ["1.2.840.10008.1.2.4.50"]),
    ],
)
def test_only_transfer_syntaxes_that_retrieval_takes_are_listed(stored: str, listed: list[str]) -> None:
    """Checklist 59: AvailableTransferSyntaxUID lists what WADO-RS sends when asked for it (10.6.3.3.3)."""
    cell = qido_json.encoder_of(BY_KEYWORD["AvailableTransferSyntaxUID"])(stored)
    found: list[str] = json.loads("{" + cell + "}")["00083002"]["Value"]
    assert set(found) >= set(listed)
    for uid in found:
        accepted = acceptable(f'multipart/related; type="application/dicom"; transfer-syntax={uid}')
        assert choose(accepted, instance_offers(stored, False)) is not None
    hidden = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.2"}
    assert not hidden & set(found), "these never appear in answers (8.7.3.4)"


def test_an_instance_answer_holds_table_10_6_3_5(site: Client) -> None:
    """Checklist 43, 46: what an instance answer holds."""
    (instance,) = found(site, "/studies/1.2.1/series/1.2.1.1/instances?SOPInstanceUID=1.2.1.1.2")
    assert instance == {
        "00080016": {"vr": "UI", "Value": [CT_CLASS]},
        "00080018": {"vr": "UI", "Value": ["1.2.1.1.2"]},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00081190": {"vr": "UR", "Value": [f"{ROOT}/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.2"]},
        "00083002": {"vr": "UI", "Value": ["1.2.840.10008.1.2.1"]},
        "0020000D": {"vr": "UI", "Value": ["1.2.1"]},
        "0020000E": {"vr": "UI", "Value": ["1.2.1.1"]},
        "00200013": {"vr": "IS", "Value": ["+011"]},
        "00280010": {"vr": "US", "Value": [512]},
        "00280011": {"vr": "US", "Value": [256]},
        "00280100": {"vr": "US", "Value": [16]},
    }


@pytest.mark.parametrize(
    ("path", "levels"),
    [
        ("/series?SeriesInstanceUID=1.2.1.1", {"00100010", "00080020", "00080060"}),
        ("/instances?SOPInstanceUID=1.2.1.1.0", {"00100010", "00080020", "00080060", "00080018"}),
        ("/studies/1.2.1/instances?SOPInstanceUID=1.2.1.1.0", {"00080060", "00080018"}),
        ("/studies/1.2.1/series/1.2.1.1/instances?SOPInstanceUID=1.2.1.1.0", {"00080018"}),
        ("/studies/1.2.1/series?SeriesInstanceUID=1.2.1.1", {"00080060"}),
    ],
)
def test_resources_above_the_parents_in_the_url_are_shown_too(site: Client, path: str, levels: set[str]) -> None:
    """Checklist 33, 47: /series adds studies, /instances studies and series, the instances of a study series (10.6.3.3.2)."""
    (one,) = found(site, path)
    assert {"00100010", "00080020", "00080060", "00080018"} & set(one) == levels


def test_studies_come_newest_first_and_unknown_dates_last(site: Client) -> None:
    assert uids(site, "/studies") == [*(f"1.2.{n}" for n in range(STUDIES, 2, -1)), "1.2.1", "1.2.2"]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("StudyDate&PatientID=PID-1*", ["1.2.1", "1.2.10", "1.2.11", "1.2.12"]),
        ("-PatientID&PatientID=PID-1*", ["1.2.12", "1.2.11", "1.2.10", "1.2.1"]),
        ("ModalitiesInStudy,-StudyDate&PatientID=PID-1*", ["1.2.1", "1.2.12", "1.2.11", "1.2.10"]),
        ("00100010&limit=2&offset=1", ["1.2.1", "1.2.10"]),
    ],
)
def test_studies_come_in_the_order_asked_for(site: Client, order: str, expected: list[str]) -> None:
    """Checklist 36: `orderby`, a common extension, keeps a whole order: the same request has the same answer."""
    assert uids(site, "/studies?orderby=" + order) == expected


def test_series_and_instances_come_by_their_numbers(site: Client) -> None:
    assert uids(site, "/studies/1.2.1/series", "0020000E") == ["1.2.1.3", "1.2.1.2", "1.2.1.1"]
    assert uids(site, "/studies/1.2.1/series/1.2.1.1/instances", "00080018") == ["1.2.1.1.1", "1.2.1.1.0", "1.2.1.1.2"]
    in_study = ["1.2.1.3.0", "1.2.1.2.0", "1.2.1.1.1", "1.2.1.1.0", "1.2.1.1.2"]
    assert uids(site, "/studies/1.2.1/instances", "00080018") == in_study


@pytest.mark.parametrize("resource", ["/studies", "/series", "/instances"])
def test_pages_neither_overlap_nor_skip(site: Client, resource: str) -> None:
    """Checklist 36, B10, B11: the pages together are the whole, each match once."""
    whole = [one["00081190"] for one in found(site, resource)]
    pages = [one["00081190"] for start in range(0, len(whole), 3) for one in found(site, f"{resource}?limit=3&offset={start}")]
    assert pages == whole


def test_a_truncated_answer_says_how_many_are_left(site: Client) -> None:
    """Checklist 35: Warning 299 with the number left (8.3.4.4.1)."""
    reply = get(site, "/studies?limit=5&offset=2")
    assert len(json.loads(reply.data)) == 5
    assert reply.headers.getlist("Warning") == [f'299 {ROOT}: "There are 5 additional results that can be requested"']
    assert "Warning" not in get(site, "/studies?limit=5&offset=7").headers


def test_a_search_without_a_limit_is_bounded(site: Client, catalog: Catalog) -> None:
    """Checklist 35, B9: a default and a largest limit, and how many are left."""
    bounded = _client(catalog, query_default_limit=4, query_max_limit=6)
    assert len(found(bounded, "/studies")) == 4
    reply = get(bounded, "/studies?limit=100")
    assert len(json.loads(reply.data)) == 6
    assert "There are 6 additional" in reply.headers["Warning"]


@pytest.mark.parametrize("path", ["/studies?PatientID=nobody", "/studies?offset=999", "/studies?limit=0", "/studies/1.2.99/series"])
def test_no_match_is_204_without_a_body(site: Client, path: str) -> None:
    """Checklist 34, 37: nothing found, an offset past the end and limit=0 are 204."""
    reply = get(site, path)
    assert (reply.status_code, reply.data) == (204, b"")


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/studies?limit=-1", "limit"),
        ("/studies?limit=x", "limit"),
        ("/studies?limit=1.5", "limit"),
        ("/studies?limit=1&limit=2", "limit"),
        ("/studies?offset=-1", "offset"),
        ("/studies?offset=", "offset"),
        ("/studies?limit=99999999999999999999999", "limit"),
        ("/studies?PatientID=a&PatientID=b", "PatientID"),
        ("/studies?PatientID=a&00100020=b", "PatientID"),
        ("/studies?NoSuchKeyword=a", "NoSuchKeyword"),
        ("/studies?patientid=a", "patientid"),
        ("/studies?00081234=a", "00081234"),
        ("/studies?PatientID.PatientName=a", "PatientID"),
        ("/studies?includefield=NoSuchKeyword", "NoSuchKeyword"),
        ("/studies?includefield=all&includefield=PatientID", "includefield"),
        ("/studies?fuzzymatching=maybe", "fuzzymatching"),
        ("/studies?fuzzymatching=TRUE", "fuzzymatching"),
        ("/studies?emptyvaluematching=1", "emptyvaluematching"),
        ("/studies?StudyDate=-", "StudyDate"),
        ("/studies?StudyDate=2024010", "StudyDate"),
        ("/studies?StudyTime=2200-0200", "StudyTime"),
        ("/studies?StudyInstanceUID=1.2.*", "StudyInstanceUID"),
        ("/studies?PatientID=a%00b", "PatientID"),
        ("/studies?00291208=P0", "00290012"),
        ("/studies?SliceThickness=1", "SliceThickness"),
        ("/studies?orderby=Nonsense", "Nonsense"),
        ("/studies?orderby=SliceThickness", "SliceThickness"),
        ("/studies?orderby=Modality", "Modality"),
        ("/studies?orderby=NumberOfPatientRelatedStudies", "NumberOfPatientRelatedStudies"),
        ("/studies?orderby=StudyDate&orderby=PatientID", "orderby"),
        ("/studies?TimezoneOffsetFromUTC=5", "TimezoneOffsetFromUTC"),
        ("/studies?EncapsulatedDocument=a", "EncapsulatedDocument"),
        ("/studies/1.2.x/series", "1.2.x"),
    ],
)
def test_what_does_not_parse_is_400_and_named(site: Client, path: str, named: str) -> None:
    """Checklist 37, 38, 39, 41, 42, 53, 60, 63: 400 naming what is wrong."""
    reply = get(site, path)
    assert reply.status_code == 400
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert named in reply.get_json()["detail"]


@pytest.mark.parametrize(
    ("parameters", "matching"),
    [
        ("PatientID=PID-1", ["1.2.1"]),
        ("00100020=PID-1", ["1.2.1"]),
        ("0020000d=1.2.1", ["1.2.1"]),
        ("PatientID=pid-1", []),
        ("PatientID=PID-1%20", ["1.2.1"]),
        ("AccessionNumber=Acc_*", ["1.2.1"]),
        ("AccessionNumber=Acc%25", []),
        ("AccessionNumber=*", None),
        ("AccessionNumber=", None),
        ("PatientName=doe*", ["1.2.1"]),
        ("PatientName=doe%5Ejane", ["1.2.1"]),
        ("PatientName=*an%C3%A9", ["1.2.1"]),
        ("PatientName=doe*&PatientID=PID-*", ["1.2.1"]),
        ("PatientName=" + quote("山田*"), ["1.2.3"]),
        ("PatientName=" + quote("=山田^太郎"), ["1.2.3"]),
        ("StudyInstanceUID=1.2.3,1.2.4", ["1.2.4", "1.2.3"]),
        ("StudyInstanceUID=1.2.3%5C1.2.4", ["1.2.4", "1.2.3"]),
        ("StudyInstanceUID=1.2.3%00", ["1.2.3"]),
        ("ModalitiesInStudy=SR", ["1.2.1"]),
        ("ModalitiesInStudy=SR,SEG", ["1.2.1"]),
        ("ModalitiesInStudy=SEG%5CS*", ["1.2.1"]),
        ("ModalitiesInStudy=T", []),
        ("StudyDate=20240103-20240104", ["1.2.4", "1.2.3"]),
        ("StudyDate=-20240103", ["1.2.3", "1.2.1"]),
        ("StudyDate=20240112-", ["1.2.12"]),
        ("StudyDate=20240101-20240103&StudyTime=220000-0230", ["1.2.3", "1.2.1"]),
        ("StudyDate=20240101-20240103&StudyTime=220000-010000", ["1.2.1"]),
        ("StudyDate=20240101&StudyTime=22", ["1.2.1"]),
        ("NumberOfStudyRelatedInstances=5", ["1.2.1"]),
        ("PatientBirthDate=1970.01.31", ["1.2.1"]),
        ("Modality=SR", ["1.2.1"]),
        ("Modality=CT&SOPInstanceUID=1.2.1.1.0", ["1.2.1"]),
        ("Modality=SR&SOPInstanceUID=1.2.1.1.0", []),
        ("RequestAttributesSequence.ScheduledProcedureStepID=SPS1", ["1.2.1"]),
        ("AdditionalPatientHistory=History%207", ["1.2.1"]),
        ("AdditionalPatientHistory=*9", []),
        ("fuzzymatching=false&PatientID=PID-1", ["1.2.1"]),
    ],
)
def test_keys_match_as_documented(site: Client, parameters: str, matching: list[str] | None) -> None:
    """Checklist 39, 51, 52, 56, 60, 61, 62, 63, 65, 68, 69, 71: keys of every kind."""
    if matching is None:
        assert len(found(site, f"/studies?{parameters}")) == STUDIES
    else:
        assert uids(site, f"/studies?{parameters}") == matching


@pytest.mark.parametrize(
    ("parameters", "matching"),
    [
        ("RequestAttributesSequence.ScheduledProcedureStepID=SPS1&00400275.RequestedProcedureID=RP1", ["1.2.1.1"]),
        ("RequestAttributesSequence.ScheduledProcedureStepID=SPS1&00400275.00401001=RP2", []),
        ("RequestAttributesSequence.ScheduledProcedureStepID=", ["1.2.1.3", "1.2.1.2", "1.2.1.1"]),
    ],
)
def test_keys_of_a_sequence_fit_the_same_item(site: Client, parameters: str, matching: list[str]) -> None:
    """Checklist 40, 66: all keys of a sequence inside the same item; an empty item asks nothing."""
    assert uids(site, f"/studies/1.2.1/series?{parameters}", "0020000E") == matching


@pytest.mark.parametrize(
    ("parameters", "matching"),
    [
        ("SliceThickness=0.50", ["1.2.1.1.0"]),
        ("CTDIPhantomTypeCodeSequence.CodeValue=113691&CTDIPhantomTypeCodeSequence.00080102=DCM&SliceThickness=1.5", ["1.2.1.1.1"]),
        ("CTDIPhantomTypeCodeSequence.CodeValue=1&SliceThickness=1.5", []),
        ("00291008=P1&00290010=ACME%201", ["1.2.1.1.1"]),
        ("00291008=P1&00290010=OTHER", []),
        ("Rows=512", ["1.2.1.1.1", "1.2.1.1.0", "1.2.1.1.2"]),
        ("InstanceNumber=11", ["1.2.1.1.2"]),
    ],
)
def test_attributes_without_a_column_are_matched_in_documents(site: Client, parameters: str, matching: list[str]) -> None:
    """Checklist 40, 41, B8: any attribute, from the stored documents: there is no storage here to read files from."""
    assert uids(site, f"/studies/1.2.1/series/1.2.1.1/instances?{parameters}", "00080018") == matching


def test_pages_of_a_search_in_documents(site: Client) -> None:
    reply = get(site, "/studies/1.2.1/instances?AdditionalPatientHistory=History*&limit=3")
    assert [one["00080018"]["Value"][0] for one in json.loads(reply.data)] == ["1.2.1.2.0", "1.2.1.1.1", "1.2.1.1.0"]
    assert "There are 1 additional" in reply.headers["Warning"]
    assert uids(site, "/studies/1.2.1/instances?AdditionalPatientHistory=History*&limit=3&offset=3", "00080018") == ["1.2.1.1.2"]


def test_a_search_in_too_many_documents_is_refused_with_advice(catalog: Catalog) -> None:
    """Checklist 26: too broad a search is 413 and names the keys to add (10.6.3.1)."""
    bounded = _client(catalog, max_search_documents=4)
    reply = get(bounded, "/studies?AdditionalPatientHistory=x")
    assert reply.status_code == 413
    assert "AdditionalPatientHistory" in reply.get_json()["detail"]
    assert "PatientID" in reply.get_json()["detail"]
    assert get(bounded, "/studies?AdditionalPatientHistory=x&PatientID=PID-1").status_code == 204


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("PatientComments", {"00104000": {"vr": "LT"}}),
        ("001021b0", {"001021B0": {"vr": "LT", "Value": ["History 7"]}}),
        ("AdditionalPatientHistory%2C00081080", {"001021B0": {"vr": "LT", "Value": ["History 7"]}, "00081080": {"vr": "LO"}}),
        ("SeriesDescription", {}),
        ("00080060,00180050", {}),
        ("RetrieveURL,InstanceAvailability,SpecificCharacterSet", {}),
    ],
)
def test_fields_of_the_level_and_above_are_added(site: Client, field: str, expected: dict[str, Any]) -> None:
    """Checklist 42, 48: includefield of this level and above; of a lower one nothing."""
    (plain,) = found(site, "/studies?PatientID=PID-1")
    (more,) = found(site, f"/studies?PatientID=PID-1&includefield={field}")
    assert more == plain | expected


def test_fields_repeat_and_come_from_the_instance_itself(site: Client) -> None:
    """Checklist 41, 42: includefield repeated; private attributes with their creator."""
    path = "/studies/1.2.1/series/1.2.1.1/instances?SOPInstanceUID=1.2.1.1.1"
    (one,) = found(site, path + "&includefield=SliceThickness&includefield=00189346.00080100,StudyDate&includefield=EncapsulatedDocument")
    assert one["00180050"] == {"vr": "DS", "Value": [1.5]}
    assert one["00189346"]["Value"][0]["00080100"]["Value"] == ["113691"]
    assert one["00080020"]["Value"] == ["20240101"]
    assert "00420011" not in one, "bulk data is no part of an answer to a search"
    (waves,) = found(site, path + "&includefield=WaveformSequence.NumberOfWaveformChannels")
    items = [
        {"003A0005": {"vr": "US", "Value": [n]}, "003A0200": {"vr": "SQ", "Value": [{"003A0203": {"vr": "SH", "Value": ["I"]}}]}}
        for n in (2, 1)
    ]
    assert waves["54000100"] == {"vr": "SQ", "Value": [items[0], {}, items[1]]}, "nor of a sequence, of which the rest is"
    (private,) = found(site, path + "&00290010=ACME%201&00291008=")
    assert private["00291208"] == {"vr": "CS", "Value": ["P1"]}
    assert private["00290012"] == {"vr": "LO", "Value": ["ACME 1"]}


def test_all_fields_are_the_indexed_ones(site: Client) -> None:
    """Checklist 42: includefield=all."""
    (one,) = found(site, "/studies?PatientID=PID-1&includefield=all")
    assert {"00080062", "00101010", "00104000"} <= set(one)
    assert "00080060" not in one


@pytest.mark.parametrize(
    ("parameters", "matching"),
    [
        ("PatientName=jane doe", ["1.2.1"]),
        ("PatientName=doe jan", ["1.2.1"]),
        ("PatientName=Jayne^Dough", []),
        ("PatientName=Jahne^Toe", ["1.2.1"]),
        ("PatientName=" + quote("JANÉ"), ["1.2.1"]),
        ("PatientName=oe", []),
        ("PatientName=*oe&PatientID=PID-1", ["1.2.1"]),
        ("PatientName=d?e", ["1.2.1"]),
        ("PatientName=" + quote("山田"), ["1.2.3"]),
        ("PatientName=" + quote("太郎 山"), ["1.2.3"]),
        ("PatientName=rohe r3", ["1.2.3"]),
        ("PatientName=doe jane smith", []),
        ("PatientName=*", None),
        ("PatientName=%5E", None),
        ("ReferringPhysicianName=a reff", ["1.2.1"]),
    ],
)
def test_fuzzy_names_fit_in_any_order_by_begin_and_by_sound(site: Client, parameters: str, matching: list[str] | None) -> None:
    """Checklist 53: fuzzy matching is done, so no warning tells that it is not (8.3.4.2)."""
    reply = get(site, "/studies?fuzzymatching=true&" + parameters)
    assert "Warning" not in reply.headers
    expected = uids(site, "/studies") if matching is None else matching
    assert uids(site, "/studies?fuzzymatching=true&" + parameters) == expected
    assert uids(site, "/series?fuzzymatching=true&" + parameters) != [] or not expected


def test_names_are_literal_unless_fuzzy_matching_is_asked_for(site: Client) -> None:
    assert uids(site, "/studies?PatientName=jane doe") == uids(site, "/studies?fuzzymatching=false&PatientName=jane doe") == []


@pytest.mark.parametrize(
    ("parameters", "matching"),
    [
        ('StudyDate=""', ["1.2.2"]),
        ('AccessionNumber=""&PatientID=PID-*', [f"1.2.{n}" for n in range(STUDIES, 2, -1)]),
        ('PatientName=""', ["1.2.2"]),
        ('ModalitiesInStudy=""', ["1.2.2"]),
        ('NumberOfStudyRelatedInstances=""', []),
        ('AdditionalPatientHistory=""&StudyInstanceUID=1.2.1,1.2.2', ["1.2.2"]),
        ('00291208=""&00290012=ACME 1&StudyInstanceUID=1.2.1,1.2.2', ["1.2.2"]),
    ],
)
def test_two_quotation_marks_fit_what_has_no_value_when_asked_for(site: Client, parameters: str, matching: list[str]) -> None:
    """Checklist 54: empty values are matched (8.3.4.5, PS3.4 C.2.2.2.7), without a warning."""
    path = "/studies?emptyvaluematching=true&" + parameters
    assert uids(site, path) == matching
    assert "Warning" not in get(site, path).headers


def test_two_quotation_marks_are_literal_otherwise(site: Client) -> None:
    assert uids(site, '/studies?AccessionNumber=""') == []
    assert get(site, '/studies?StudyDate=""').status_code == 400


@pytest.mark.parametrize(
    ("parameters", "matching"),
    [
        ("ModalitiesInStudy=CT,SR", ["1.2.1"]),
        ("ModalitiesInStudy=SR%5CCT", ["1.2.1"]),
        ("ModalitiesInStudy=SR%5CMR", []),
        ("ModalitiesInStudy=SR", ["1.2.1"]),
        ("PatientID=PID-1%5CPID-3", []),
    ],
)
def test_each_of_several_values_has_to_fit_when_asked_for(site: Client, parameters: str, matching: list[str]) -> None:
    """Checklist 54, 71: multiple values are matched (8.3.4.6, PS3.4 C.2.2.2.8); without the parameter any of them does."""
    path = "/studies?multiplevaluematching=true&" + parameters
    assert uids(site, path) == matching
    assert "Warning" not in get(site, path).headers


def test_the_zone_of_the_request_moves_dates_and_times(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checklist 57: TimezoneOffsetFromUTC moves dates and times (8.3.4.1.1)."""
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert uids(site, "/studies?StudyDate=20240102&TimezoneOffsetFromUTC=%2B0500&PatientID=PID-1") == ["1.2.1"]
    assert uids(site, "/studies?StudyDate=20240101&TimezoneOffsetFromUTC=%2B0500&PatientID=PID-1") == []
    assert uids(site, "/studies?StudyDate=20240101&StudyTime=17-18&TimezoneOffsetFromUTC=-0500&PatientID=PID-1") == ["1.2.1"]
    assert uids(site, "/studies?PatientBirthDate=19700131&TimezoneOffsetFromUTC=-0500") == ["1.2.1"]


@pytest.mark.parametrize("accept", ["application/dicom+json", "application/json", "*/*", None, "text/html, */*;q=0.1", "nonsense, */*"])
def test_json_is_the_default(site: Client, accept: str | None) -> None:
    assert get(site, "/studies", accept).headers["Content-Type"] == "application/dicom+json"


def test_xml_has_a_part_for_each_match(site: Client) -> None:
    """Checklist 58: multipart/related of application/dicom+xml."""
    reply = get(site, "/studies?limit=2", 'multipart/related; type="application/dicom+xml"')
    assert reply.status_code == 200
    assert reply.headers["Content-Type"].startswith("multipart/related")
    assert reply.data.count(b"<NativeDicomModel") == 2


def test_other_types_are_not_acceptable(site: Client, catalog: Catalog) -> None:
    assert get(site, "/studies", "image/jpeg").status_code == 406
    assert get(site, "/studies?accept=application/dicom%2Bjson", "image/jpeg").status_code == 200
    assert get(_client(catalog, strict_accept=True), "/studies", None).status_code == 406


def test_case_is_ignored_in_long_and_short_strings_by_setting(site: Client, catalog: Catalog) -> None:
    """Checklist 62: by setting, LO and SH match without regard to case."""
    ignoring = _client(catalog, match_ignore_case=True)
    assert uids(ignoring, "/studies?PatientID=pid-1") == ["1.2.1"]
    assert uids(ignoring, "/studies?AccessionNumber=*CC_1") == ["1.2.1"]


def test_urls_are_those_of_the_public_address(site: Client, catalog: Catalog) -> None:
    """Checklist 49: RetrieveURL has the public base URL."""
    public = _client(catalog, public_url="https://pacs.example/a")
    assert found(public, "/studies?PatientID=PID-1")[0]["00081190"]["Value"] == ["https://pacs.example/a/dicom-web/studies/1.2.1"]


def test_head_is_get_without_a_body(site: Client) -> None:
    reply = site.head("/dicom-web/studies", base_url="http://localhost")
    assert (reply.status_code, reply.data) == (200, b"")
    assert reply.headers["Content-Length"] == str(len(get(site, "/studies").data))


def test_a_page_is_one_statement_and_one_more_to_count_what_is_left(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checklist B7, B10: no round trip per row, and nothing is counted that is not told."""
    statements: list[str] = []
    fetch = search._fetch

    def counted(connection: Any, sql: str, parameters: tuple[object, ...]) -> Any:
        statements.append(sql)
        return fetch(connection, sql, parameters)

    monkeypatch.setattr(search, "_fetch", counted)
    assert len(found(site, "/instances?PatientID=PID-1")) == 5
    assert len(statements) == 1
    assert len(found(site, "/studies?StudyDate=20240101-20240131&limit=3")) == 3
    assert [("COUNT(*)" in sql) for sql in statements[1:]] == [False, True]


@pytest.mark.parametrize("resource", ["/studies", "/series", "/instances", "/studies?PatientName=*o*&fuzzymatching=true"])
def test_the_same_request_has_the_same_answer(site: Client, resource: str) -> None:
    """Checklist 36: an identical request on unchanged data."""
    assert len({get(site, resource).data for _ in range(3)}) == 1


@pytest.mark.parametrize(
    ("written", "answered"),
    [("70.10", 70.10), ("7e1", 70.0), ("+70", "+70"), ("0070", "0070"), ("0.142857142857", 0.142857142857), ("heavy", "heavy")],
)
def test_decimal_strings_are_answered_as_they_were_written(written: str, answered: object) -> None:
    """Checklist B30: no digit is lost; what JSON does not take as a number is a string (Annex F.2.3)."""
    cell = qido_json.encoder_of(BY_KEYWORD["PatientWeight"])(written)
    assert written in cell
    assert json.loads("{" + cell + "}")["00101030"]["Value"] == [answered]


def test_text_of_any_script_is_utf_8(site: Client) -> None:
    """Checklist B29: names beyond Latin are found and answered in UTF-8."""
    reply = get(site, "/studies?StudyInstanceUID=1.2.3")
    assert "山田^太郎".encode() in reply.data
