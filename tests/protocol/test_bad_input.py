"""Bad input of every kind by every way in: the status and reason it gets, nothing stored, nothing left, the server unharmed.

What one service alone refuses (malformed queries, media types, UIDs of commands) is in the tests of that service.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pydicom.dataset import Dataset

from pacslite.dicom.part10 import encode_preamble_and_meta
from pacslite.dimse import commands
from pacslite.settings import Address
from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.dicom_files import UNDEFINED, element, meta_of
from tests.support.dimse import CT, DEFLATED_LE, EXPLICIT_LE, SECONDARY_CAPTURE, Peer
from tests.support.processes import Server, processor_s, serving

AS_STORED = "application/dicom; transfer-syntax=*"
PROBLEM = "application/problem+json"
SUCCESS = 0x0000


@dataclass
class Site:
    """A server with one instance in it."""

    server: Server
    known: Dataset

    @property
    def instance(self) -> str:
        ds = self.known
        return f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"

    def peer(self) -> Peer:
        host, port = self.server.dicom
        return Peer(Address(host, int(port)))

    def ask(self, method: str, path: str, content: bytes | None = None, **headers: str) -> tuple[int, str, bytes]:
        """Status, content type and body of the answer to a request sent as it is, however malformed its path."""
        with closing(http.client.HTTPConnection(self.server.ready["http"], timeout=60)) as connection:
            connection._validate_path = lambda url: None  # type: ignore[attr-defined]
            connection.request(method, path, content, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Content-Type", ""), answer.read()

    def stow(self, file: bytes, path: str = "/dicom-web/studies") -> tuple[int, dict[str, Any]]:
        """Status of a request with one part, and its answer."""
        status, _, answer = self.ask("POST", path, body([file]), Content_Type=CONTENT_TYPE)
        return status, json.loads(answer)

    def raw(self, head: str, content: bytes) -> bytes:
        """What the web server says to bytes that no HTTP client would send."""
        with socket.create_connection(self.server.ready["http"].split(":"), timeout=60) as connection:
            received = b""
            with contextlib.suppress(ConnectionError):  # closed by a server that has read enough
                connection.sendall(head.replace("\n", "\r\n").encode() + content)
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(65536):
                    received += piece
        return received

    def state(self) -> tuple[dict[str, int], list[Path]]:
        """Rows of every table but the audit log, which tells of refusals, and bytes not settled yet; all files but the journal."""
        with closing(sqlite3.connect(f"file:{self.server.data / 'catalog.db'}?mode=ro", uri=True)) as db:
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            names = [name for name in names if not name.startswith(("audit_", "written_ahead"))]
            rows = {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}
        files = [path for folder in ("storage/radiology", "spool") for path in (self.server.data / folder).rglob("*") if path.is_file()]
        return rows, sorted(path for path in files if path.suffix != ".journal")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    limits = {"PACSLITE_MAX_INFLATED_BYTES": "2000000", "PACSLITE_MAX_HEADER_BYTES": "200000"}
    data = tmp_path_factory.mktemp("bad") / "data"
    with serving(data, "--dimse-processes", "1", "--web-processes", "1", **limits) as server:
        site = Site(server, image())
        site.known.TextValue = "a" * 10_000
        assert site.stow(part10(site.known))[0] == 200
        yield site


@pytest.fixture(autouse=True)
def nothing_changes(site: Site) -> Iterator[None]:
    before, workers = site.state(), [role["pid"] for role in site.server.roles]
    yield
    assert site.state() == before
    assert [role["pid"] for role in site.server.roles] == workers
    assert site.server.health()["status"] == "ready"
    assert "Traceback" not in site.server.logged()


def split(file: bytes) -> bytes:
    return file[meta_of(file).data_set_offset :]


def without(keyword: str) -> Callable[[Dataset], bytes]:
    def make(ds: Dataset) -> bytes:
        del ds[keyword]
        return split(part10(ds))

    return make


def with_uid(keyword: str, uid: str) -> Callable[[Dataset], bytes]:
    """The data set with another text where a UID is; written past any check."""

    def make(ds: Dataset) -> bytes:
        tag = ds[keyword].tag
        old = str(ds[keyword].value).encode()
        new = uid.encode("latin-1")
        pad = [value + b"\0" * (len(value) % 2) for value in (old, new)]
        return split(part10(ds)).replace(element(tag, "UI", pad[0]), element(tag, "UI", pad[1]))

    return make


def deep(ds: Dataset) -> bytes:
    """Sequences in sequences, deeper than any limit."""
    start = element(0x0040A730, "SQ", length=UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    return split(part10(ds)).replace(element(0x00280002, "US", b"\1\0"), element(0x00280002, "US", b"\1\0") + start * 5000)


def long_header(ds: Dataset) -> bytes:
    """More than a header may have, in elements that cannot become bulk data."""
    more = b"".join(element(0x00091001 + number, "LO", b"x" * 60_000) for number in range(10))
    return split(part10(ds)).replace(element(0x00100010, "PN", b"Test^Patient"), more + element(0x00100010, "PN", b"Test^Patient"))


def beyond(ds: Dataset) -> bytes:
    """An element that says it is 4 GB."""
    return split(part10(ds)).replace(element(0x00100020, "LO", b"T-1 "), element(0x00420011, "OB", b"x", length=0xFFFFFFFE))


BROKEN: dict[str, tuple[Callable[[Dataset], bytes], int]] = {
    "no SOP class": (without("SOPClassUID"), 0xA900),
    "no instance UID": (without("SOPInstanceUID"), 0xA900),
    "no study": (without("StudyInstanceUID"), 0xA900),
    "no series": (without("SeriesInstanceUID"), 0xA900),
    "study is a path": (with_uid("StudyInstanceUID", "../../../etc/passwd"), 0xA900),
    "series is absolute": (with_uid("SeriesInstanceUID", "/etc/passwd"), 0xA900),
    "series is a Windows path": (with_uid("SeriesInstanceUID", "..\\..\\boot.ini"), 0xA900),
    "two studies": (with_uid("StudyInstanceUID", "1.2.3\\1.2.4"), 0xA900),
    "NUL inside": (with_uid("StudyInstanceUID", "1.2.3\0.4"), 0xA900),
    "65 characters": (with_uid("StudyInstanceUID", "1." + "2" * 63), 0xA900),
    "Arabic digits": (with_uid("SeriesInstanceUID", "1.2.\xb2"), 0xA900),
    "empty study": (with_uid("StudyInstanceUID", ""), 0xA900),
    "only dots": (with_uid("SeriesInstanceUID", ".."), 0xA900),
    "garbage": (lambda ds: b"\xde\xad\xbe\xef" * 100, 0xC000),
    "nothing": (lambda ds: b"", 0xA900),
    "cut in the pixels": (lambda ds: split(part10(ds))[:-9], 0xC000),
    "cut in the first element": (lambda ds: split(part10(ds))[:5], 0xC000),
    "an element of 4 GB": (beyond, 0xC000),
    "deep sequences": (deep, 0xC000),
    "a long header": (long_header, 0xC000),
    "text": (lambda ds: b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", 0xC000),
}


@pytest.mark.parametrize("broken", sorted(BROKEN))
def test_a_broken_data_set_by_c_store(site: Site, broken: str) -> None:
    make, status = BROKEN[broken]
    ds = image()
    uid = str(ds.SOPInstanceUID)
    with site.peer() as peer:
        peer.associate([(SECONDARY_CAPTURE, [EXPLICIT_LE])])
        answer = peer.store(make(ds), sop_class=SECONDARY_CAPTURE, sop_instance=uid)
        assert (answer.number(commands.STATUS), bool(answer.values[commands.ERROR_COMMENT])) == (status, True)
        peer.release()


@pytest.mark.parametrize("broken", sorted(BROKEN))
def test_a_broken_data_set_by_stow(site: Site, broken: str) -> None:
    make, reason = BROKEN[broken]
    ds = image()
    meta = encode_preamble_and_meta(str(ds.SOPClassUID), str(ds.SOPInstanceUID), EXPLICIT_LE)
    status, answer = site.stow(meta + make(ds))
    assert status == 409
    assert "00081199" not in answer
    [failed] = answer.get("00081198", answer.get("0008119A"))["Value"]
    assert failed["00081197"]["Value"] == [reason]


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"\0" * 132,
        bytes(128) + b"DICM",
        bytes(128) + b"DICM" + element(0x00020010, "UI", b"1.2"),
        bytes(128) + b"DICM" + element(0x00020010, "UI", b"1.2", length=0xFFFF),
        bytes(128) + b"DICM" + element(0x00020102, "OB", b"", length=0xFFFFFFFE),
        bytes(128) + b"DICM" + b"\xff" * 500,
        b"%PDF-1.7\n" + bytes(500),
        b"PK\x03\x04" + bytes(500),
        encode_preamble_and_meta(SECONDARY_CAPTURE, "1.2.3", "../../x") + split(part10(image())),
        encode_preamble_and_meta(SECONDARY_CAPTURE, "1.2.3", DEFLATED_LE) + b"\xff\xfe\xfd not deflated",
        encode_preamble_and_meta(SECONDARY_CAPTURE, "1.2.3", DEFLATED_LE) + zlib.compress(bytes(100))[:-20],
    ],
)
def test_what_is_no_dicom_file_by_stow(site: Site, file: bytes) -> None:
    status, answer = site.stow(file)
    assert status == 409
    assert "00081199" not in answer


def test_a_data_set_that_inflates_beyond_the_limit_is_refused_by_both(site: Site) -> None:
    ds = image()
    ds.PixelData = bytes(5_000_000)
    ds.Rows, ds.Columns = 2500, 1000
    file = part10(ds, DEFLATED_LE)
    assert len(file) < 50_000
    status, answer = site.stow(file)
    assert (status, answer["00081198"]["Value"][0]["00081197"]["Value"]) == (409, [0xC000])
    with site.peer() as peer:
        peer.associate([(SECONDARY_CAPTURE, [DEFLATED_LE])])
        refused = peer.store(split(file), sop_class=SECONDARY_CAPTURE, sop_instance=str(ds.SOPInstanceUID))
        assert refused.number(commands.STATUS) == 0xC000


@pytest.mark.parametrize(
    ("sop_class", "sop_instance", "status"),
    [
        (SECONDARY_CAPTURE, "1.2.3.4.5", 0xA900),
        (CT, None, 0xA900),
        (SECONDARY_CAPTURE, "../../../etc/passwd", 0xA900),
        (SECONDARY_CAPTURE, "1." * 40, 0xA900),
        ("../" + SECONDARY_CAPTURE, None, 0xA900),
    ],
)
def test_a_command_that_does_not_agree_with_its_data_set(site: Site, sop_class: str, sop_instance: str | None, status: int) -> None:
    ds = image()
    with site.peer() as peer:
        peer.associate([(SECONDARY_CAPTURE, [EXPLICIT_LE])])
        answer = peer.store(split(part10(ds)), sop_class=sop_class, sop_instance=sop_instance or str(ds.SOPInstanceUID))
        assert answer.number(commands.STATUS) == status
        assert peer.echo(message_id=2) == SUCCESS


def test_a_url_that_does_not_agree_with_the_data_set(site: Site) -> None:
    ds = image()
    status, answer = site.stow(part10(ds), "/dicom-web/studies/1.2.3.4")
    [failed] = answer["00081198"]["Value"]
    assert (status, failed["00081197"]["Value"], failed["00081155"]["Value"]) == (409, [0xA900], [str(ds.SOPInstanceUID)])


@pytest.mark.parametrize(
    "chunks", [b"zz\r\nabc", b"-5\r\nabc", b"F" * 17 + b"\r\nabc", b"5\r\nab", b"3\r\nabcdef\r\n0\r\n\r\n", b"3;\0=\r\nabc"]
)
@pytest.mark.parametrize("content_type", [CONTENT_TYPE, "application/dicom"])
def test_malformed_chunks_are_400(site: Site, content_type: str, chunks: bytes) -> None:
    head = f"POST /dicom-web/studies HTTP/1.1\nHost: localhost\nContent-Type: {content_type}\nTransfer-Encoding: chunked\n\n"
    assert site.raw(head, chunks).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("chunks", [b"zz\r\nabc", b"5\r\nab"])
def test_malformed_chunks_of_a_form_are_400(site: Site, chunks: bytes) -> None:
    head = "POST /api/v1/peers HTTP/1.1\nHost: localhost\nContent-Type: application/json\nTransfer-Encoding: chunked\n\n"
    assert site.raw(head, chunks).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "head",
    [
        "POST /dicom-web/studies HTTP/1.1\nHost: localhost\nContent-Length: -1\n\n",
        "POST /dicom-web/studies HTTP/1.1\nHost: localhost\nContent-Length: abc\n\n",
        "POST /dicom-web/studies HTTP/1.1\nHost: localhost\nContent-Length: 5\nTransfer-Encoding: chunked\n\n",
        "POST /dicom-web/studies HTTP/1.1\nHost: localhost\nContent-Length: 5\nContent-Length: 6\n\n",
        'GET /dicom-web/studies HTTP/1.1\nHost: a"b<c>\n\n',
        "GET /dicom-web/studies HTTP/1.1\nX: " + "y" * 100_000 + "\n\n",
        "GET  HTTP/1.1\nHost: localhost\n\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_malformed_http_is_refused(site: Site, head: str) -> None:
    answer = site.raw(head, b"")
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:200]


@pytest.mark.parametrize(
    ("part_headers", "status"),
    [
        (b"X: " + b"y" * 20_000 + b"\r\n", 400),
        (b"\0\1: y\r\n", 400),
        (b"no colon\r\n", 400),
        (b"Content-Type: application/dicom\r\nContent-Transfer-Encoding: base64\r\n", 415),
        (b"Content-Type: ;;;\r\n", 415),
        (b"Content-Type: multipart/related; boundary=test-boundary\r\n", 415),
    ],
)
def test_malformed_parts(site: Site, part_headers: bytes, status: int) -> None:
    answer = site.ask("POST", "/dicom-web/studies", body([part10(image())], part_headers), Content_Type=CONTENT_TYPE)
    assert answer[:2] == (status, PROBLEM)


def test_a_body_with_a_content_coding_is_415(site: Site) -> None:
    content = zlib.compress(body([part10(image())]))
    assert site.ask("POST", "/dicom-web/studies", content, Content_Type=CONTENT_TYPE, Content_Encoding="deflate")[0] == 415


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/studies/../../../etc/passwd", 404),
        ("/studies/..%2f..%2f..%2fetc%2fpasswd/metadata", 404),
        ("/studies/%2e%2e/metadata", 400),
        ("/studies/..%5c..%5cboot.ini/metadata", 400),
        ("/studies/1.2%0d%0aX-Evil:%20yes/metadata", 400),
        ("/studies/%ff%fe/series", 400),
        ("/studies/%D9%A1.%D9%A2/metadata", 400),
        (f"/studies/{'1' * 65}/metadata", 400),
        ("/studies/1..2/metadata", 400),
        ("/studies/*/metadata", 400),
        ("/studies/1.2.3'%20OR%201=1/series", 400),
        ("/studies//metadata", 404),
        (f"/{'x' * 9000}", 414),
    ],
)
def test_urls_that_name_no_resource(site: Site, path: str, status: int) -> None:
    assert site.ask("GET", f"/dicom-web{path}", Accept="*/*")[0] == status


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        ("/frames/" + "9" * 4000, 400),
        ("/frames/%D9%A1", 400),
        ("/frames/1%00", 400),
        ("/frames/" + ",".join(map(str, range(1, 1000))), 404),
        ("/bulkdata/..%2f..%2f..%2fetc%2fpasswd", 404),
        ("/bulkdata/00081140/99999999999999999999999/00081155", 404),
        ("/bulkdata/7FE00010/0", 404),
        ("/bulkdata/" + "00081140/1/" * 300 + "00081155", 404),
        ("/bulkdata/%00", 404),
    ],
)
def test_parts_of_an_instance_that_are_none(site: Site, rest: str, status: int) -> None:
    assert site.ask("GET", site.instance + rest, Accept="*/*")[:2] == (status, PROBLEM)


@pytest.mark.parametrize(
    "query",
    [
        "limit=1_0",
        "limit=%2B5",
        "limit=%D9%A5",
        "limit=%205",
        "limit=5%0A",
        "limit=" + "9" * 5000,
        "PatientName=%ff%fe",
        "PatientID=%ED%A0%80",
        "=x",
        "&".join(f"a{n}=1" for n in range(1001)),
        ".".join(["ReferencedStudySequence"] * 50) + "=1",
        "InstanceNumber=NaN",
        "InstanceNumber=1e999999999",
        "PatientID=" + "x" * 2000,
        "TimezoneOffsetFromUTC=%2B9999",
        "AcquisitionDateTime=99991231235959-1200",
        "includefield=..%2f..",
        "includefield=",
    ],
)
def test_absurd_query_parameters(site: Site, query: str) -> None:
    status, kind, _ = site.ask("GET", f"/dicom-web/studies?{query}")
    assert (status, kind) == ((200, "application/dicom+json") if query == "includefield=" else (400, PROBLEM))


@pytest.mark.parametrize(
    "query",
    [
        "PatientName=" + quote("'; DROP TABLE study; --"),
        "PatientName=" + quote("%_[a-z]\\"),
        "StudyInstanceUID=" + ",".join(["1.2.3"] * 1000),
        "PatientName=" + "*T" * 400 + "b",
        "TextValue=" + "*a" * 400 + "b",
        "offset=999999999999999",
        "Rows=99999999999999999999",
    ],
)
def test_absurd_keys_match_nothing_and_soon(site: Site, query: str) -> None:
    begin = processor_s(site.server.pid)
    resource = "instances" if query.startswith(("TextValue", "Rows")) else "studies"
    assert site.ask("GET", f"/dicom-web/{resource}?{query}")[0] == 204
    assert processor_s(site.server.pid) - begin < 5


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ('"' * 4000, 406),
        ("," * 4000, 406),
        ("application/dicom;q=nan", 406),
        ("application/dicom; transfer-syntax=../..", 406),
        ("application/dicom;" + " " * 8000 + "x", 406),
        ("application/dicom; transfer-syntax=1.2.840.10008.1.2.4.100", 406),
        ("application/dicom, image/jpeg", 400),
    ],
)
def test_absurd_accept_headers(site: Site, accept: str, status: int) -> None:
    begin = processor_s(site.server.pid)
    assert site.ask("GET", site.instance, Accept=accept)[:2] == (status, PROBLEM)
    assert processor_s(site.server.pid) - begin < 5


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("bytes=-", 200),
        ("bytes=9-1", 200),
        ("bytes=" + "0-0," * 1000 + "1-1", 200),
        ("bytes=" + "9" * 5000 + "-", 200),
        ("bytes=" + "9" * 99 + "-", 416),
        ("bytes=-0", 416),
        ("lines=1-2", 200),
    ],
)
def test_absurd_ranges(site: Site, asked: str, status: int) -> None:
    assert site.ask("GET", site.instance, Accept=AS_STORED, Range=asked)[0] == status


@pytest.mark.parametrize(
    ("rest", "method"),
    [
        (rest, method)
        for rest in ("", "/metadata", "/frames/1", "/bulkdata/7FE00010")
        for method in ("PUT", "PATCH", "DELETE", "POST", "TRACE", "BREW")
        if (rest, method) != ("", "DELETE")
    ],
)
def test_methods_that_a_resource_has_not_are_405(site: Site, rest: str, method: str) -> None:
    assert site.ask(method, site.instance + rest, b"x")[:2] == (405, PROBLEM)
