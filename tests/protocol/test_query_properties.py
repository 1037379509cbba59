"""Query strings that nobody thought of: every answer of DICOMweb is a result or a problem, and never a fault of the server.

Strings are put together from what the resources know and from anything else (PS3.18 8.3.4, 8.7, 10.6; RFC 9457).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.data_sets import CONTENT_TYPE, body, image, new_uid, part10
from tests.support.http import Answer, WebServer, running

STUDY, SERIES, INSTANCE = new_uid(), new_uid(), new_uid()
_SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with running(tmp_path_factory.mktemp("queries")) as started:
        files = [part10(image(study=STUDY, series=SERIES, instance=INSTANCE)), part10(image())]
        assert started.request("POST", "/studies", body(files), {"Content-Type": CONTENT_TYPE}).status == 200
        yield started


NAMES = st.sampled_from(
    [
        *(
            "limit",
            "offset",
            "fuzzymatching",
            "emptyvaluematching",
            "multiplevaluematching",
            "includefield",
            "orderby",
            "accept",
            "charset",
        ),
        *(
            "PatientName",
            "00100010",
            "patientid",
            "StudyDate",
            "00080020",
            "StudyTime",
            "StudyInstanceUID",
            "ModalitiesInStudy",
            "Modality",
        ),
        *("SeriesInstanceUID", "SOPInstanceUID", "InstanceNumber", "Rows", "NumberOfFrames", "SliceThickness", "TimezoneOffsetFromUTC"),
        *("RequestAttributesSequence", "RequestAttributesSequence.ScheduledProcedureStepID", "00400275.00400009", "00091001", "7FE00010"),
        *("SpecificCharacterSet", "FFFEE000", "00020010", "version", "transferSyntax", "window", "quality", "viewport", "annotation"),
    ]
)
VALUES = st.sampled_from(
    [
        *(
            "",
            "*",
            "?",
            "-",
            "--",
            "%",
            "_",
            "'",
            '"',
            "\\",
            "0",
            "1",
            "-1",
            "+1",
            "1e9",
            "99999999999999999999",
            "true",
            "false",
            "all",
            "nan",
        ),
        *("20260102", "20260102-", "-20260102", "20260102-20250101", "20261399", "030405", "2359-0100", "20260102030405+0100", "+0100"),
        *(STUDY, f"{STUDY},{SERIES}", f"{STUDY}\\{SERIES}", "1.2..3", "Test^Patient", "T*^?a=", "=", "^^^^^^", "山田", "CT,MR", "OT\\"),
        *(
            "application/dicom+json",
            "multipart/related; type=application/dicom+xml",
            "image/png;q=2",
            "*/*;q=0",
            "00100010,PatientID",
            "-StudyDate",
        ),
    ]
)
ANY_TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)
PAIRS = st.tuples(NAMES | ANY_TEXT, VALUES | ANY_TEXT).map(lambda pair: f"{quote(pair[0], safe='')}={quote(pair[1], safe='')}")
RAW = st.text([chr(c) for c in range(0x21, 0x7F) if chr(c) != "#"], max_size=20)
QUERIES = st.lists(PAIRS | RAW, max_size=5).map("&".join)
SEARCHES = st.sampled_from(
    [
        "/studies",
        "/series",
        "/instances",
        f"/studies/{STUDY}/series",
        f"/studies/{STUDY}/instances",
        f"/studies/{STUDY}/series/{SERIES}/instances",
    ]
)
_OBJECT = f"/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}"
RETRIEVALS = st.sampled_from(
    [
        f"/studies/{STUDY}",
        f"/studies/{STUDY}/metadata",
        _OBJECT,
        f"{_OBJECT}/metadata",
        f"{_OBJECT}/frames/1",
        f"{_OBJECT}/bulkdata/7FE00010",
        f"{_OBJECT}/rendered",
        f"{_OBJECT}/thumbnail",
    ]
)
ACCEPTS = st.sampled_from([None, "*/*", "application/dicom+json", 'multipart/related; type="application/dicom+xml"']) | st.text(
    [chr(c) for c in range(0x20, 0x7F)], max_size=30
)


def check_problem(answer: Answer) -> None:
    """RFC 9457, and nothing of the inside of the program."""
    assert 400 <= answer.status < 500, answer
    assert answer.headers["content-type"] == "application/problem+json"
    problem = json.loads(answer.body)
    assert problem["status"] == answer.status
    assert problem["title"]
    assert b"Traceback" not in answer.body


@_SETTINGS
@given(path=SEARCHES, query=QUERIES)
def test_any_query_of_a_search_is_answered_or_refused(server: WebServer, path: str, query: str) -> None:
    answer = server.get(f"{path}?{query}", "application/dicom+json")
    if answer.status == 204:
        assert answer.body == b""
    elif answer.status != 200:
        check_problem(answer)
    elif answer.headers["content-type"] == "application/dicom+json":  # `accept` in the query goes before the header
        found = json.loads(answer.body)
        assert found
        assert all(list(match) == sorted(match) and all(len(element["vr"]) == 2 for element in match.values()) for match in found)


@_SETTINGS
@given(path=RETRIEVALS, query=QUERIES, accept=ACCEPTS)
def test_any_query_of_a_retrieval_is_answered_or_refused(server: WebServer, path: str, query: str, accept: str | None) -> None:
    answer = server.get(f"{path}?{query}" if query else path, accept)
    if answer.status != 200:
        check_problem(answer)


@_SETTINGS
@given(
    path=st.lists(
        st.sampled_from(
            ["studies", "series", "instances", "metadata", "frames", "bulkdata", STUDY, SERIES, INSTANCE, "1", "0", "..", "%2e%2e", "%00"]
        )
        | ANY_TEXT.map(lambda t: quote(t, safe="")),
        max_size=8,
    ),
)
def test_any_path_is_answered_or_refused(server: WebServer, path: list[str]) -> None:
    answer = server.get("/" + "/".join(path), "*/*")
    if answer.status not in (200, 204, 301, 308):
        check_problem(answer)


@_SETTINGS
@given(
    content_type=st.sampled_from(
        [
            CONTENT_TYPE,
            "application/dicom",
            "application/dicom+json",
            "application/dicom+xml",
            'multipart/related; type="application/dicom+json"; boundary=test-boundary',
        ]
    )
    | st.text([chr(c) for c in range(0x20, 0x7F)], max_size=40),
    pieces=st.lists(
        st.sampled_from(
            [
                b"--test-boundary",
                b"--",
                b"\r\n",
                b"\r\n\r\n",
                b"Content-Type: application/dicom+json\r\n",
                b"Content-Location: a\r\n",
                b"[{}]",
                b"[",
                b'{"7FE00010":{"vr":"OB","BulkDataURI":"a"}}',
                b"\0" * 128 + b"DICM",
            ]
        )
        | st.binary(max_size=10),
        max_size=12,
    ),
)
def test_any_body_of_a_store_is_stored_or_refused(server: WebServer, content_type: str, pieces: list[bytes]) -> None:
    answer = server.request("POST", "/studies", b"".join(pieces), {"Content-Type": content_type})
    if answer.headers["content-type"] == "application/dicom+json":
        assert answer.status == 409
        assert set(json.loads(answer.body)) <= {"00081190", "00081198", "0008119A"}
    else:
        check_problem(answer)
    assert list((server.data / "spool").iterdir()) == []
