"""STOW-RS over the wire: PS3.18 10.5 and Annex I, against a real gunicorn."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import socket
import subprocess
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


def test_a_new_resource_is_named_by_the_answer(server: WebServer) -> None:
    """Checklist 110: Location and Content-Location when resources are new."""
    study = new_uid()
    one, two, three = image(study=study), image(study=study), image()
    root = f"http://127.0.0.1:{server.port}/dicom-web"
    first = post(server, body([part10(one)]))
    assert first.headers["location"] == first.headers["content-location"] == root + path_of(one)
    again = post(server, body([part10(one), part10(two)]))
    assert again.headers["location"] == root + path_of(two)  # only that is new
    assert "location" not in post(server, body([part10(one), part10(two)])).headers
    both = post(server, body([part10(image(study=study)), part10(image(study=study))]))
    assert both.headers["location"] == f"{root}/studies/{study}"
    assert "location" not in post(server, body([part10(three), part10(image())])).headers  # no URL names both


def test_many_parts_are_answered_in_their_order(server: WebServer) -> None:
    study, series = new_uid(), new_uid()
    sent = [image(study=study, series=series, number=n) for n in range(12)]
    answer = post(server, body([part10(ds) for ds in sent]))
    assert answer.status == 200
    assert [item["00081155"] for item in items(module(answer), "00081199")] == [ds.SOPInstanceUID for ds in sent]


def test_the_same_instance_again_is_success_and_no_second_copy(server: WebServer) -> None:
    """Checklist 115: the same again is success without a second copy."""
    file = part10(image())
    assert [post(server, body([file])).status for _ in range(2)] == [200, 200]
    stored = [path for path in (server.data / "storage").rglob("*.dcm") if path.read_bytes() == file]
    assert len(stored) == 1


def test_a_single_part_body_is_one_instance(server: WebServer) -> None:
    ds = image()
    assert post(server, part10(ds), content_type="application/dicom").status == 200
    assert server.get(path_of(ds), AS_STORED).status == 200


def test_chunked_bodies_are_taken(server: WebServer) -> None:
    """Checklist 113, B15: chunked bodies store what they bring."""
    ds = image()
    whole = body([part10(ds)])
    pieces = (whole[at : at + 100] for at in range(0, len(whole), 100))
    assert post(server, pieces).status == 200
    assert server.get(path_of(ds), AS_STORED).status == 200


def test_lf_only_lines_lower_case_headers_preamble_and_epilogue_are_taken(server: WebServer) -> None:
    """Checklist 113: preamble, epilogue, lower-case headers and LF-only lines."""
    file = part10(image())
    content = b"preamble\n" + body([file], b"content-type: application/dicom\n", b"\n") + b"epilogue"
    assert post(server, content).status == 200


@pytest.mark.parametrize(
    ("type_text", "boundary"),
    [
        ("application/dicom", BOUNDARY),
        ('"application/dicom"', f'"{BOUNDARY}"'),
        ('"application/dicom"; transfer-syntax=1.2.840.10008.1.2.1', BOUNDARY),
        ('"APPLICATION/DICOM"', '"' + "x" * 70 + '"'),
        ('"application/dicom"', '"a b:(c)=d"'),
    ],
)
def test_boundaries_and_types_of_every_legal_form_are_taken(server: WebServer, type_text: str, boundary: str) -> None:
    """Checklist 20, B17: quoted and unquoted boundaries of up to 70 characters; CRLFCRLF and the like inside the data."""
    ds = image()
    block = ds.private_block(0x0099, "NASTY", create=True)
    block.add_new(0x01, "OB", b"\r\n\r\n--" + boundary.strip('"').encode() + b"x\r\n--\r\n")
    content = body([part10(ds)]).replace(b"--test-boundary", b"--" + boundary.strip('"').encode())
    assert post(server, content, content_type=f"multipart/related; type={type_text}; boundary={boundary}").status == 200
    assert server.get(path_of(ds), AS_STORED).body == part10(ds)


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
    """Checklist 104, 106, 107, 108, B16: 202, a reason for each failure, those without UIDs among Other Failures."""
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
    """Checklist 104, 105, 107: 409 with reasons, RetrieveURL there and empty."""
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
    """Checklist 104, B15: no part is an error."""
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
    """Checklist B18: an explicit limit, held by the announced length and by what comes."""
    large = body([b"x" * (LIMIT + 1)])
    assert post(server, iter([large[:2_000_000], large[2_000_000:]])).status == 413
    assert post(server, large).status == 413


def test_too_many_parts_are_413(server: WebServer) -> None:
    assert post(server, body([b"x"] * 25)).status == 413


def test_a_client_that_vanishes_leaves_nothing(server: WebServer) -> None:
    content = body([part10(image())])
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = (
            f"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
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


def test_a_body_with_a_content_coding_is_415_whatever_it_inflates_to(server: WebServer) -> None:
    """Checklist B41: forged gzip is not inflated at all."""
    answer = post(server, gzip.compress(b"x" * 1_000_000), Content_Encoding="gzip")
    assert (answer.status, answer.headers["content-type"]) == (415, "application/problem+json")
    assert "application/dicom+json" in answer.headers["accept"]


def test_nothing_is_taken_that_would_use_up_the_last_of_the_disk(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with running(tmp_path / "data", free_space_reserve_bytes=str(free * 2)) as full:
        for content in (body([part10(image())]), iter([body([part10(image())])])):
            assert post(full, content).status == 507
        assert list((full.data / "spool").iterdir()) == []
    with running(tmp_path / "more", free_space_reserve_bytes=str(free - 4 * 1024**3), max_upload_bytes=str(2**60)) as room:
        assert post(room, body([part10(image())])).status == 200
        # Refused by its announced length, before anything of it has come.
        with socket.create_connection(("127.0.0.1", room.port)) as connection:
            head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {free}\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 507")


def test_another_class_in_the_file_meta_is_warned_of_when_warnings_are_wanted(tmp_path: Path) -> None:
    """Checklist 107, 109: B007 and B000 with 202; nothing is coerced, so there is no Original Attributes Sequence."""
    with running(tmp_path / "data", coercion_warnings="1") as warning:
        ds = image()
        file = part10(ds)
        other = file[:400].replace(b"1.2.840.10008.5.1.4.1.1.7\0", b"1.2.840.10008.5.1.4.1.1.2\0", 1) + file[400:]
        answer = post(warning, body([other]))
        assert (answer.status, items(module(answer), "00081199")[0]["00081196"]) == (202, 0xB007)
        few = image()
        few.NumberOfFrames = 3
        answer = post(warning, body([part10(few)]))
        assert (answer.status, items(module(answer), "00081199")[0]["00081196"]) == (202, 0xB000)
        assert b"OriginalAttributes" not in warning.get(path_of(few) + "/metadata", "multipart/related; type=application/dicom+xml").body


def test_curl_stores_a_file_of_unknown_length(server: WebServer, tmp_path: Path) -> None:
    """Checklist B15: what curl sends from a pipe, chunked."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    ds = image()
    command = [curl, "-sS", "-o", str(tmp_path / "answer"), "-w", "%{http_code}", "-H", f"Content-Type: {CONTENT_TYPE}"]
    sent = subprocess.run(
        [*command, "-H", "Transfer-Encoding: chunked", "--data-binary", "@-", f"{server.url}/studies"],
        input=body([part10(ds)]),
        capture_output=True,
        check=True,
    )
    assert sent.stdout == b"200"
    assert server.get(path_of(ds), AS_STORED).body == part10(ds)


def test_a_request_behind_a_body_in_one_packet_is_answered(server: WebServer) -> None:
    content = body([part10(image())])
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(content)}\r\n\r\n"
    following = b"GET /dicom-web/nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + content + following)
        received = b""
        while data := connection.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 404" in received
