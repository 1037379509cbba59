"""STOW-RS over the wire: PS3.18 10.5 and Annex I, against a real gunicorn."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.support.data_sets import BOUNDARY, CONTENT_TYPE, body, image, new_uid, part10, read
from tests.support.http import Answer, WebServer, running

LIMIT = 3_000_000
DICOM_JSON = "application/dicom+json"
AS_STORED = "application/dicom; transfer-syntax=*"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with running(tmp_path_factory.mktemp("stow"), max_upload_bytes=str(LIMIT), max_stow_parts="20") as started:
        yield started


@pytest.fixture(autouse=True)
def nothing_left_in_the_spool(server: WebServer) -> Iterator[None]:
    yield
    assert list((server.data / "spool").iterdir()) == []


def post(
    server: WebServer, content: bytes | Iterator[bytes], path: str = "/studies", content_type: str | None = CONTENT_TYPE, **headers: str
) -> Answer:
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    return server.request("POST", path, content, {**named, **({"Content-Type": content_type} if content_type else {})})


def module(answer: Answer) -> dict[str, Any]:
    assert answer.headers["content-type"] == DICOM_JSON
    found: dict[str, Any] = json.loads(answer.body)
    return found


def items(response: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    return [{k: v.get("Value", [None])[0] for k, v in item.items()} for item in response.get(tag, {}).get("Value", [])]


def path_of(ds: Any) -> str:
    return f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"


def test_an_instance_is_stored_and_comes_back_byte_for_byte(server: WebServer) -> None:
    ds = image()
    file = part10(ds)
    answer = post(server, body([file]))
    assert answer.status == 200, answer.body
    response = module(answer)
    url = f"http://127.0.0.1:{server.port}/dicom-web"
    assert response["00081190"] == {"vr": "UR", "Value": [f"{url}/studies/{ds.StudyInstanceUID}"]}
    assert items(response, "00081199") == [{"00081150": ds.SOPClassUID, "00081155": ds.SOPInstanceUID, "00081190": url + path_of(ds)}]
    assert set(response) == {"00081190", "00081199"}  # sequences only when they have items
    assert server.get(path_of(ds), AS_STORED).body == file
    # Found at once.
    found = server.get(f"/studies?StudyInstanceUID={ds.StudyInstanceUID}", DICOM_JSON)
    assert [study["0020000D"]["Value"] for study in json.loads(found.body)] == [[ds.StudyInstanceUID]]


def test_many_parts_are_answered_in_their_order(server: WebServer) -> None:
    study, series = new_uid(), new_uid()
    sent = [image(study=study, series=series, number=n) for n in range(12)]
    answer = post(server, body([part10(ds) for ds in sent]))
    assert answer.status == 200
    assert [item["00081155"] for item in items(module(answer), "00081199")] == [ds.SOPInstanceUID for ds in sent]


def test_the_same_instance_again_is_success_and_no_second_copy(server: WebServer) -> None:
    file = part10(image())
    assert [post(server, body([file])).status for _ in range(2)] == [200, 200]
    stored = [path for path in (server.data / "storage").rglob("*.dcm") if path.read_bytes() == file]
    assert len(stored) == 1


def test_a_single_part_body_is_one_instance(server: WebServer) -> None:
    ds = image()
    assert post(server, part10(ds), content_type="application/dicom").status == 200
    assert server.get(path_of(ds), AS_STORED).status == 200


def test_chunked_bodies_are_taken(server: WebServer) -> None:
    ds = image()
    whole = body([part10(ds)])
    pieces = (whole[at : at + 100] for at in range(0, len(whole), 100))
    assert post(server, pieces).status == 200
    assert server.get(path_of(ds), AS_STORED).status == 200


def test_lf_only_lines_lower_case_headers_preamble_and_epilogue_are_taken(server: WebServer) -> None:
    file = part10(image())
    content = b"preamble\n" + body([file], b"content-type: application/dicom\n", b"\n") + b"epilogue"
    assert post(server, content).status == 200


def test_an_unquoted_type_and_boundary_are_taken(server: WebServer) -> None:
    unquoted = f"multipart/related; type=application/dicom; boundary={BOUNDARY}"
    assert post(server, body([part10(image())]), content_type=unquoted).status == 200


@pytest.mark.parametrize("accept", [None, "*/*", DICOM_JSON, "application/json"])
def test_the_answer_is_json_unless_asked_otherwise(server: WebServer, accept: str | None) -> None:
    headers = {"Accept": accept} if accept else {}
    assert module(post(server, body([part10(image())]), **headers))["00081199"]


def test_the_answer_is_xml_when_asked(server: WebServer) -> None:
    answer = post(server, body([part10(image())]), Accept="application/dicom+xml")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/dicom+xml")
    root = ElementTree.fromstring(answer.body)
    assert [e.get("keyword") for e in root] == ["RetrieveURL", "ReferencedSOPSequence"]


def test_an_answer_that_is_not_acceptable_stores_nothing(server: WebServer) -> None:
    ds = image()
    assert post(server, body([part10(ds)]), Accept="image/png").status == 406
    assert server.get(path_of(ds), AS_STORED).status == 404


def test_some_stored_is_202_and_says_which(server: WebServer) -> None:
    good, other = image(), image()
    answer = post(server, body([part10(other), b"no DICOM at all", part10(good)]), f"/studies/{good.StudyInstanceUID}")
    response = module(answer)
    assert answer.status == 202
    assert [i["00081155"] for i in items(response, "00081199")] == [good.SOPInstanceUID]
    assert items(response, "00081198") == [{"00081150": other.SOPClassUID, "00081155": other.SOPInstanceUID, "00081197": 0xA900}]
    assert items(response, "0008119A") == [{"00081197": 0xC000}]
    assert "299" in answer.headers["warning"]
    assert server.get(path_of(other), AS_STORED).status == 404


def test_none_stored_is_409_with_reasons(server: WebServer) -> None:
    unreadable = post(server, body([b"no DICOM at all"]))
    assert (unreadable.status, set(module(unreadable))) == (409, {"00081190", "0008119A"})
    assert module(unreadable)["00081190"] == {"vr": "UR"}
    lacking = image()
    del lacking.StudyInstanceUID
    refused = post(server, body([part10(lacking)]))
    assert refused.status == 409
    assert items(module(refused), "00081198")[0]["00081197"] == 0xA900
    truncated = post(server, body([part10(image())[:-10]]))
    assert truncated.status == 409
    assert items(module(truncated), "00081198")[0]["00081197"] == 0xC000


@pytest.mark.parametrize("spoil", [lambda u: "../" + u[3:], lambda u: u[:-1] + ".", lambda u: u[:4] + ".." + u[6:], lambda u: u[:-1] + "a"])
@pytest.mark.parametrize("attribute", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_an_instance_with_a_malformed_uid_is_refused(server: WebServer, attribute: str, spoil: Callable[[str], str]) -> None:
    ds = image()
    uid = str(ds[attribute].value)
    answer = post(server, body([part10(ds).replace(uid.encode(), spoil(uid).encode())]))
    assert answer.status == 409
    assert b'"00081197"' in answer.body


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 415),
        ("text/plain", 415),
        ("multipart/form-data; boundary=test-boundary", 415),
        ('multipart/related; type="application/pdf"; boundary=test-boundary', 415),
        ('multipart/related; type="application/dicom+json"; boundary=test-boundary', 400),
        ('multipart/related; type="application/dicom"', 400),
        ('multipart/related; type="application/dicom"; boundary="' + "x" * 71 + '"', 400),
        ('multipart/related; type="application/dicom"; boundary=another', 400),
        ("nonsense", 400),
    ],
)
def test_a_wrong_content_type_is_told_apart_from_a_malformed_one(server: WebServer, content_type: str | None, status: int) -> None:
    ds = image()
    answer = post(server, body([part10(ds)]), content_type=content_type)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    if status == 415:
        assert "application/dicom" in answer.headers["accept"]  # says what is taken
    assert server.get(path_of(ds), AS_STORED).status == 404


@pytest.mark.parametrize(
    "content",
    [b"", b"--test-boundary--\r\n", b"no multipart body", b"--test-boundary\r\nA: b\r\n\r\n", body([b"x"])[:-20]],
)
def test_a_body_without_a_whole_part_is_400(server: WebServer, content: bytes) -> None:
    assert post(server, content).status == 400


def test_an_empty_single_part_body_is_400(server: WebServer) -> None:
    assert post(server, b"", content_type="application/dicom").status == 400


def test_parts_of_another_type_are_415_alone_and_failures_among_others(server: WebServer) -> None:
    text = b"--test-boundary\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
    assert post(server, text + b"--test-boundary--").status == 415
    answer = post(server, text + body([part10(image())]))
    assert answer.status == 202
    assert len(items(module(answer), "0008119A")) == 1


def test_what_came_whole_before_a_body_breaks_off_is_stored_and_said(server: WebServer) -> None:
    first, second = image(), image()
    answer = post(server, body([part10(first), part10(second)])[:-200])
    assert answer.status == 202
    assert [i["00081155"] for i in items(module(answer), "00081199")] == [first.SOPInstanceUID]
    assert server.get(path_of(second), AS_STORED).status == 404


def test_a_malformed_study_in_the_url_is_400(server: WebServer) -> None:
    assert post(server, body([part10(image())]), "/studies/1.2.x").status == 400


def test_too_large_a_body_is_413_by_its_length_or_when_it_is_reached(server: WebServer) -> None:
    large = body([b"x" * (LIMIT + 1)])
    assert post(server, iter([large[:2_000_000], large[2_000_000:]])).status == 413
    assert post(server, large).status == 413


def test_too_many_parts_are_413(server: WebServer) -> None:
    assert post(server, body([b"x"] * 25)).status == 413


def test_a_client_that_vanishes_leaves_nothing(server: WebServer) -> None:
    content = body([part10(image())])
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: h\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content[:-100])
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def test_private_content_and_other_sop_classes_are_kept(server: WebServer) -> None:
    ds = image()
    ds.SOPClassUID = "1.2.276.0.7230010.3.1.0.1"
    block = ds.private_block(0x0043, "A PRIVATE CREATOR", create=True)
    block.add_new(0x01, "LO", "kept")
    assert post(server, body([part10(ds)])).status == 200
    assert read(server.get(path_of(ds), AS_STORED).body).private_block(0x0043, "A PRIVATE CREATOR")[0x01].value == "kept"


def test_other_content_under_a_known_uid_becomes_the_newest_version(server: WebServer) -> None:
    ds = image()
    post(server, body([part10(ds)]))
    before = server.get(path_of(ds), AS_STORED).headers["etag"]
    ds.PatientComments = "changed"
    assert post(server, body([part10(ds)])).status == 200
    after = server.get(path_of(ds), AS_STORED)
    assert read(after.body).PatientComments == "changed"
    assert after.headers["etag"] != before


def test_other_content_is_refused_when_the_policy_says_so(tmp_path: Path) -> None:
    with running(tmp_path / "data", duplicate_policy="refuse") as strict:
        ds = image()
        assert post(strict, body([part10(ds)])).status == 200
        assert post(strict, body([part10(ds)])).status == 200
        ds.PatientComments = "changed"
        answer = post(strict, body([part10(ds)]))
        assert answer.status == 409
        assert items(module(answer), "00081198")[0]["00081197"] == 0x0111


def test_one_connection_carries_many_requests_read_or_not(server: WebServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        for content_type, status in ((CONTENT_TYPE, 200), ("text/plain", 415), (CONTENT_TYPE, 200), ("nonsense", 400), (CONTENT_TYPE, 200)):
            content = body([part10(image(np.zeros((1, 500, 500), dtype=np.uint16)))])
            connection.request("POST", "/dicom-web/studies", content, {"Content-Type": content_type})
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (status, True)
    finally:
        connection.close()


def test_a_request_behind_a_body_in_one_packet_is_answered(server: WebServer) -> None:
    content = body([part10(image())])
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: h\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(content)}\r\n\r\n"
    following = b"GET /dicom-web/nothing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + content + following)
        received = b""
        while data := connection.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 404" in received
