"""HTTP itself over the wire: methods, conditions, ranges, codings, hosts, errors (RFC 9110; PS3.18 8.5, 8.6)."""

from __future__ import annotations

import email.utils
import gzip
import json
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from pydicom.dataset import Dataset

from pacslite.app import routes
from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.http import Answer, WebServer, running

DICOM_JSON = "application/dicom+json"
DICOM = "application/dicom"
OCTETS = "application/octet-stream"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with running(tmp_path_factory.mktemp("http"), busy_timeout_s="1") as it:
        yield it


@pytest.fixture(scope="module")
def instance(server: WebServer) -> Dataset:
    ds = image()
    store(server, ds)
    return ds


def store(server: WebServer, *data_sets: Dataset) -> None:
    answer = server.request("POST", "/studies", body([part10(ds) for ds in data_sets]), {"Content-Type": CONTENT_TYPE})
    assert answer.status == 200, answer.body


def raw(server: WebServer, request: bytes) -> bytes:
    """All that is answered to bytes until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def path_of(ds: Dataset) -> str:
    return f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"


def study_of(ds: Dataset) -> str:
    return f"/studies/{ds.StudyInstanceUID}"


def representations(ds: Dataset) -> list[tuple[str, str]]:
    """Path and Accept of what has a strong ETag."""
    path, series = path_of(ds), path_of(ds).partition("/instances")[0]
    return [
        (path, DICOM),
        (path + "/metadata", DICOM_JSON),
        (series + "/metadata", DICOM_JSON),
        (path + "/frames/1", OCTETS),
        (path + "/bulkdata/7FE00010", OCTETS),
    ]


def without_time(answer: Answer) -> dict[str, str]:
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
    if headers.pop("transfer-encoding", None):  # which HEAD may leave out (RFC 9112 6.1)
        assert "content-length" not in headers
    headers["content-type"] = headers.get("content-type", "").partition("; boundary=")[0]
    return headers


# Methods


def test_head_is_get_without_a_body(server: WebServer, instance: Dataset) -> None:
    """Checklist 32: HEAD equals GET without body, on every resource."""
    paths = [
        *representations(instance),
        ("/studies", DICOM_JSON),
        ("/studies?PatientID=none", DICOM_JSON),
        *((study_of(instance) + resource, "*/*") for resource in ("", "/rendered", "/pixeldata", "/thumbnail", "/bulkdata")),
        ("/nothing", "*/*"),
        ("/", "*/*"),
    ]
    for path, accept in paths:
        got, head = server.get(path, accept), server.request("HEAD", path, headers={"Accept": accept})
        assert (head.status, head.body) == (got.status, b""), path
        assert without_time(head) == without_time(got), path


def test_options_tells_the_methods_of_every_route(server: WebServer, instance: Dataset) -> None:
    """Checklist 25: a wrong method is 405 with Allow, and OPTIONS tells the same beforehand."""
    methods: dict[str, set[str]] = {}
    for route in routes():
        methods.setdefault(route.rule, set()).add(route.method)
    for rule, known in methods.items():
        path = rule.replace("<path:path>", "x.js").replace("<path:bulk_path>", "7FE00010")
        for name in ("study", "series", "instance"):
            path = path.replace(f"<{name}>", "1.2.3")
        path = path.replace("<frame_list>", "1").replace("<", "").replace(">", "")
        whole = WebServer(server.data, server.port, server.process, server.log, root="")
        answer = whole.request("OPTIONS", path)
        assert answer.status in (200, 204), (rule, answer.body)
        allowed = set(answer.headers["allow"].split(", "))
        if "GET" in known:
            assert "HEAD" in allowed, rule
        assert known <= allowed | {"OPTIONS"}, rule
        refused = whole.request("TRACE", path)
        assert refused.status == 405, rule
        assert set(refused.headers["allow"].split(", ")) >= known - {"OPTIONS"}


def test_options_of_nothing_is_404(server: WebServer) -> None:
    assert server.request("OPTIONS", "/nothing").status == 404


# Conditions


def test_what_the_caller_has_is_not_sent_again(server: WebServer, instance: Dataset) -> None:
    """Checklist 32: a conditional GET gives 304."""
    for path, accept in representations(instance):
        etag = server.get(path, accept).headers["etag"]
        assert not etag.startswith("W/")
        again = server.get(path, accept, If_None_Match=f'"other", {etag}')
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag), path
        assert server.get(path, accept, If_None_Match='"other"').status == 200
        assert server.get(path, accept, If_Match=etag).status == 200
        assert server.get(path, accept, If_Match='"other"').status == 412


def test_representations_have_etags_of_their_own(server: WebServer, instance: Dataset) -> None:
    path = path_of(instance)
    accepts = [DICOM, f"{DICOM}; transfer-syntax=1.2.840.10008.1.2.1.99", "multipart/related; type=application/dicom"]
    tags = [server.get(path, accept).headers["etag"] for accept in accepts]
    assert len(set(tags)) == len(tags)


def test_etags_change_with_every_version_and_come_back_with_the_same_bytes(server: WebServer) -> None:
    """Checklist 32: the ETag changes on any version change, and is restored only if the bytes are equal."""
    first = image()
    store(server, first)
    before = {path: server.get(path, accept).headers["etag"] for path, accept in representations(first)}
    second = image(study=first.StudyInstanceUID, series=first.SeriesInstanceUID, instance=first.SOPInstanceUID)
    second.PatientComments = "changed"
    store(server, second)
    after = {path: server.get(path, accept).headers["etag"] for path, accept in representations(first)}
    assert all(after[path] != before[path] for path in before)
    store(server, first)
    path = path_of(first)
    back = server.get(path, DICOM)
    assert (back.headers["etag"] == before[path]) is (back.body == part10(first))


def test_last_modified_of_an_instance_and_what_is_in_it(server: WebServer, instance: Dataset) -> None:
    for path, accept in representations(instance):
        if path.endswith("metadata"):
            continue
        changed = server.get(path, accept).headers["last-modified"]
        when = email.utils.parsedate_to_datetime(changed)
        earlier = email.utils.formatdate(when.timestamp() - 1, usegmt=True)
        assert server.get(path, accept, If_Modified_Since=changed).status == 304
        assert server.get(path, accept, If_Modified_Since=earlier).status == 200
        assert server.get(path, accept, If_Modified_Since="yesterday").status == 200
        # If-None-Match goes before it (RFC 9110 13.2.2).
        assert server.get(path, accept, If_Modified_Since=changed, If_None_Match='"other"').status == 200


def test_a_deletion_can_be_bound_to_what_was_seen(server: WebServer) -> None:
    for levels in (2, 4, 6):
        ds = image()
        store(server, ds)
        path = "/".join(path_of(ds).split("/")[: levels + 1])
        etag = server.get(path + "/metadata", DICOM_JSON).headers["etag"]
        assert server.request("DELETE", path, headers={"If-Match": '"other"'}).status == 412
        assert server.get(path + "/metadata", DICOM_JSON).status == 200
        assert server.request("DELETE", path, headers={"If-Match": etag}).status == 204
        assert server.request("DELETE", path, headers={"If-Match": etag}).status == 410


def test_deleted_is_410_and_unknown_is_404(server: WebServer) -> None:
    """Checklist 24, 31: 404 unknown, 410 when the server knows of the deletion, 400 malformed; restored objects return to 200."""
    ds = image()
    store(server, ds)
    assert server.request("DELETE", path_of(ds)).status == 204
    for path, accept in representations(ds):
        assert server.get(path, accept).status == 410
        assert server.get(path.replace(ds.StudyInstanceUID, "1.2.3.4"), accept).status == 404
        assert server.get(path.replace(ds.StudyInstanceUID, "1.x.3"), accept).status == 400
    store(server, ds)
    for path, accept in representations(ds):
        assert server.get(path, accept).status == 200


# Ranges


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=40-", 206, slice(40, None)),
        ("bytes=-8", 206, slice(-8, None)),
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=48-", 416, None),
        ("bytes=-0", 416, None),
        # Several ranges are answered whole (RFC 9110 14.2).
        ("bytes=0-1,4-5", 200, slice(None)),
        ("bytes=5-1", 200, slice(None)),
    ],
)
def test_ranges_of_single_part_bodies(server: WebServer, instance: Dataset, asked: str, status: int, part: slice | None) -> None:
    """Checklist 22: 206 with Content-Range, 416 when unsatisfiable, suffix ranges."""
    for rest in ("/frames/1", "/bulkdata/7FE00010"):
        whole = server.get(path_of(instance) + rest, OCTETS)
        assert whole.headers["accept-ranges"] == "bytes"
        answer = server.get(path_of(instance) + rest, OCTETS, Range=asked)
        assert answer.status == status
        if part is None:
            assert answer.headers["content-range"] == f"bytes */{len(whole.body)}"
            continue
        assert answer.body == whole.body[part]
        if status == 206:
            first = range(len(whole.body))[part][0]
            assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.body) - 1}/{len(whole.body)}"
            assert answer.headers["etag"] == whole.headers["etag"]


def test_a_range_of_what_has_changed_is_the_whole(server: WebServer, instance: Dataset) -> None:
    path = path_of(instance)
    whole = server.get(path, DICOM)
    for name in ("etag", "last-modified"):
        assert server.get(path, DICOM, Range="bytes=0-9", If_Range=whole.headers[name]).status == 206
    for other in ('"other"', "Thu, 01 Jan 1970 00:00:00 GMT"):
        assert server.get(path, DICOM, Range="bytes=0-9", If_Range=other).status == 200


def test_a_multipart_answer_has_no_ranges(server: WebServer, instance: Dataset) -> None:
    """Checklist 22: its boundary is another each time, so a range of it would mean nothing."""
    answer = server.get(path_of(instance), "multipart/related; type=application/dicom", Range="bytes=0-9")
    assert (answer.status, answer.headers.get("accept-ranges")) == (200, None)
    assert answer.headers["etag"].startswith('W/"')


def test_206_is_for_ranges_only(server: WebServer, instance: Dataset) -> None:
    """Checklist 23: a retrieve with an instance that cannot be given is 406, never 200 or 206 with something missing."""
    study = f"/studies/{instance.StudyInstanceUID}"
    assert server.get(study, "multipart/related; type=application/dicom; transfer-syntax=1.2.840.10008.1.2.4.102").status == 406


# Codings


def test_json_is_compressed_for_those_who_take_it(server: WebServer, instance: Dataset) -> None:
    series = path_of(instance).partition("/instances")[0]
    for path in (path_of(instance) + "/metadata", series + "/metadata", "/studies?includefield=all", "/instances?includefield=all"):
        plain = server.get(path, DICOM_JSON)
        assert "Accept-Encoding" in plain.headers["vary"] or len(plain.body) < 1400
        for accepted in ("gzip, deflate, br", "*", "gzip;q=0.5"):
            packed = server.get(path, DICOM_JSON, Accept_Encoding=accepted)
            if len(plain.body) < 1400 and "content-encoding" not in packed.headers:
                continue
            assert packed.headers["content-encoding"] == "gzip", (path, accepted)
            assert gzip.decompress(packed.body) == plain.body
            if "etag" in plain.headers:
                assert packed.headers["etag"] != plain.headers["etag"]
                again = server.get(path, DICOM_JSON, Accept_Encoding=accepted, If_None_Match=packed.headers["etag"])
                assert (again.status, again.headers["etag"]) == (304, packed.headers["etag"])
        for refused in ("gzip;q=0", "br", "identity"):
            assert "content-encoding" not in server.get(path, DICOM_JSON, Accept_Encoding=refused).headers


@pytest.mark.parametrize("accepted", ["gzip", "identity"])
def test_vary_names_each_header_once(server: WebServer, accepted: str) -> None:
    """RFC 9110 12.5.5: a list of names, here over all lines of it."""
    long = image()
    long.ImageComments = "long enough to be compressed. " * 100
    store(server, long)
    series = path_of(long).partition("/instances")[0]
    for path, accept in (
        *representations(long),
        (series + "/metadata", "multipart/related; type=application/dicom+xml"),
        ("/instances?includefield=all", DICOM_JSON),
        ("/studies?" + "x" * 2000 + "=1", DICOM_JSON),
        ("/nothing", DICOM_JSON),
    ):
        etag = server.get(path, accept, Accept_Encoding=accepted).headers.get("etag", '"none"')
        for more in (b"", f"If-None-Match: {etag}\r\n".encode()):
            asked = f"GET /dicom-web{path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nAccept-Encoding: {accepted}\r\n".encode()
            head = raw(server, asked + more + b"Connection: close\r\n\r\n").partition(b"\r\n\r\n")[0].decode()
            lines = [value for name, _, value in (line.partition(": ") for line in head.splitlines()) if name.lower() == "vary"]
            named = [name.strip().lower() for value in lines for name in value.split(",")]
            assert len(named) == len(set(named)), (path, head)


def test_long_problems_are_compressed_too(server: WebServer) -> None:
    path = "/studies?" + "x" * 2000 + "=1"
    packed = server.get(path, "application/json", Accept_Encoding="gzip")
    assert packed.status == 400
    if packed.headers.get("content-encoding") == "gzip":
        assert json.loads(gzip.decompress(packed.body))["status"] == 400


@pytest.mark.parametrize(
    ("accepted", "status"),
    [
        ("utf-8", 200),
        ("iso-8859-5, unicode-1-1;q=0.8, *;q=0.1", 200),
        ("klingon", 200),
        ("klingon, utf-8;q=0.5", 200),
        ("iso-8859-1", 200),  # a document of ASCII is that, too
        ("utf-16", 406),
        ("utf-8;q=0, utf-16", 406),
    ],
)
def test_text_is_utf_8(server: WebServer, instance: Dataset, accepted: str, status: int) -> None:
    """Checklist 30: Accept-Charset counts, unknown charsets are ignored, an impossible conversion is 406."""
    assert server.get(path_of(instance) + "/metadata", DICOM_JSON, Accept_Charset=accepted).status == status
    assert server.get(path_of(instance) + "/frames/1", OCTETS, Accept_Charset=accepted).status == 200


def test_text_beyond_ascii_is_utf_8_or_nothing(server: WebServer) -> None:
    """Checklist 30: all DICOM media types are UTF-8."""
    ds = image()
    ds.SpecificCharacterSet, ds.PatientName = "ISO_IR 100", "Müller^Jörg"
    store(server, ds)
    answer = server.get(path_of(ds) + "/metadata", DICOM_JSON)
    assert json.loads(answer.body.decode("utf-8"))[0]["00100010"]["Value"] == [{"Alphabetic": "Müller^Jörg"}]
    assert server.get(path_of(ds) + "/metadata", DICOM_JSON, Accept_Charset="iso-8859-1").status == 406


# Errors


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/problem+json"),
        ("*/*", "application/problem+json"),
        (DICOM_JSON, "application/problem+json"),
        ("application/json, text/plain, */*", "application/problem+json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
        ("text/plain", "text/plain; charset=utf-8"),
        ('multipart/related; type="application/dicom+xml", application/dicom+xml', "application/problem+xml"),
        ("image/jpeg", "application/problem+json"),
    ],
)
def test_an_error_is_a_status_report_that_the_caller_reads(server: WebServer, accept: str | None, kind: str) -> None:
    """Checklist 29: error bodies are status reports in an acceptable type, without traces."""
    answer = server.get("/studies/1.2.3.4.5/metadata?x=<b>", accept, X_Request_ID="mine-1")
    assert answer.headers["content-type"] == kind
    assert answer.headers["x-request-id"] == "mine-1"
    assert b"mine-1" in answer.body
    assert str(answer.status).encode() in answer.body
    assert b"Traceback" not in answer.body
    assert b"<b>" not in answer.body
    if kind.endswith("xml"):
        assert ElementTree.fromstring(answer.body).findtext("{urn:ietf:rfc:7807}status") == str(answer.status)


def test_the_rest_interface_answers_problems_in_json_always(server: WebServer) -> None:
    whole = WebServer(server.data, server.port, server.process, server.log, root="/api/v1")
    assert whole.get("/nothing", "text/html").headers["content-type"] == "application/problem+json"


def test_in_strict_mode_the_fallback_of_errors_is_a_page(tmp_path: Path) -> None:
    """Checklist 1, 29: with strict_accept a request without Accept is 406, and errors nobody can read are text/html (8.6.3)."""
    with running(tmp_path, strict_accept="1") as server:
        answer = server.get("/studies")
        assert answer.status == 406
        assert server.get("/studies", DICOM_JSON).status == 204
        assert server.get("/studies/1.2.3", "image/jpeg").headers["content-type"] == "text/html; charset=utf-8"


def test_a_locked_catalog_is_503_and_says_when_to_come_again(server: WebServer) -> None:
    """Checklist 28: 503 when locked, with Retry-After."""
    with sqlite3.connect(server.data / "catalog.db", isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        answer = server.request("POST", "/studies", body([part10(image())]), {"Content-Type": CONTENT_TYPE})
        holder.execute("ROLLBACK")
    holder.close()
    assert answer.status in (503, 409), answer.body
    if answer.status == 503:
        assert int(answer.headers["retry-after"]) > 0


def test_wrong_types_are_415_with_what_is_taken(server: WebServer, instance: Dataset) -> None:
    """Checklist 27: 415 lists the supported types; 406 is for what is asked, 415 for what is sent."""
    sent = server.request("POST", "/studies", b"x", {"Content-Type": "text/plain"})
    assert (sent.status, DICOM in sent.headers["accept"]) == (415, True)
    asked = server.get(path_of(instance) + "/metadata", "text/css")
    assert asked.status == 406
    form = WebServer(server.data, server.port, server.process, server.log, root="/api/v1").request(
        "POST", "/peers", b"{}", {"Content-Type": "x/y"}
    )
    assert (form.status, form.headers["accept"]) == (415, "application/json")


def test_what_is_too_long_is_told_apart(server: WebServer) -> None:
    """Checklist 26: 414 for a long URI; a body without a length is chunked or empty, so nothing needs 411."""
    assert server.get("/studies?PatientID=" + "x" * 9000).status == 414
    assert server.get("/studies", "x" * 9000).status in (400, 431)
    assert server.request("POST", "/studies", iter([body([part10(image())])]), {"Content-Type": CONTENT_TYPE}).status == 200
    assert server.request("POST", "/studies", None, {"Content-Type": CONTENT_TYPE, "Content-Length": "0"}).status == 400


@pytest.mark.parametrize(("given", "kept"), [("a.B_c-1", True), ("x" * 128, True), ("x" * 129, False), ("a b", False)])
def test_every_answer_has_a_request_id(server: WebServer, instance: Dataset, given: str, kept: bool) -> None:
    for path in (path_of(instance) + "/frames/1", "/nothing", "/studies"):
        answer = server.get(path, "*/*", X_Request_ID=given)
        assert (answer.headers["x-request-id"] == given) is kept
        assert answer.headers["x-request-id"]


# Hosts


def test_a_server_on_a_loopback_address_answers_only_to_its_own_names(server: WebServer, instance: Dataset) -> None:
    """A page whose name was made to resolve to this machine reads nothing (DNS rebinding)."""
    for path in (path_of(instance) + "/frames/1", "/studies", path_of(instance) + "/metadata"):
        for host in ("localhost", f"127.0.0.1:{server.port}", "[::1]:80", "LOCALHOST."):
            assert server.get(path, "*/*", Host=host).status == 200
        for host in ("evil.example", f"evil.example:{server.port}", "localhost.evil.example", "10.0.0.1"):
            answer = server.get(path, "application/json", Host=host)
            assert answer.status == 421
            assert "PACSLITE_ALLOWED_HOSTS" in json.loads(answer.body)["detail"]


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [
        ("1.1", [], 400),
        ("1.1", ["localhost"], 204),
        ("1.1", ["localhost", "localhost"], 400),
        ("1.1", ["localhost", "evil.example"], 400),
        ("1.1", ["localhost", ""], 400),
        ("1.0", [], 204),
        ("1.0", ["localhost"], 204),
        ("1.0", ["localhost", "evil.example"], 400),
    ],
)
def test_a_request_names_one_host(server: WebServer, version: str, hosts: list[str], status: int) -> None:
    """RFC 9112 3.2: 400 for a request of HTTP/1.1 without Host, and for any with several; the connection is closed."""
    lines = [f"GET /dicom-web/studies?PatientID=none HTTP/{version}", *(f"Host: {host}" for host in hosts)]
    answer = raw(server, "\r\n".join([*lines, *(["Connection: close"] if status != 400 else []), "", ""]).encode())
    assert answer.split(b" ")[1] == str(status).encode(), answer
    if status == 400:
        head, _, content = answer.partition(b"\r\n\r\n")
        assert b"application/problem+json" in head
        assert json.loads(content)["status"] == 400
        assert b"evil" not in answer


def test_hosts_can_be_named(tmp_path: Path) -> None:
    def statuses(**settings: str) -> list[int]:
        with running(tmp_path, **settings) as server:
            return [server.get("/studies", Host=host).status for host in ("pacs.example:8080", "10.0.0.7", "localhost")]

    assert statuses(allowed_hosts="pacs.example") == [204, 421, 204]
    assert statuses(public_url="https://pacs.example/x") == [204, 421, 204]
    assert statuses(allowed_hosts="*") == [204, 204, 204]


def test_an_address_that_others_reach_serves_every_host_unless_some_are_named() -> None:
    from pacslite.settings import load
    from pacslite.web.addresses import host_check

    assert host_check(load(environment={}, http="0.0.0.0:8080")) is None
    assert host_check(load(environment={}, http="0.0.0.0:8080", allowed_hosts="a")) is not None
    assert host_check(load(environment={}, http="127.0.0.1:8080")) is not None


def test_the_description_of_rest_lists_every_route(server: WebServer) -> None:
    """openapi.json is made from the table of operations, and leaves none out."""
    whole = WebServer(server.data, server.port, server.process, server.log, root="/api/v1")
    described: dict[str, Any] = json.loads(whole.get("/openapi.json").body)["paths"]
    listed = {(method.upper(), "/api/v1" + path) for path, methods in described.items() for method in methods}
    for route in routes():
        if route.rule.startswith("/api/v1/") and route.method != "OPTIONS":
            rule = route.rule.replace("<path:", "{").replace("<", "{").replace(">", "}")
            assert (route.method, rule) in listed
