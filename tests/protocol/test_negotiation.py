"""Content negotiation over the wire: PS3.18 8.7, checklist lines 1 to 21."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacslite.dicomweb.media_types import DEFAULT_SYNTAX, MEDIA_TYPE_OF_SYNTAX, parse_media_type
from tests.support.data_sets import CONTENT_TYPE, body, image, part10, read
from tests.support.http import Answer, WebServer, running

JSON, XML, DICOM, OCTETS = "application/dicom+json", "application/dicom+xml", "application/dicom", "application/octet-stream"
EXPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4."
MPEG4, RLE, JLS, JPEG_LOSSLESS, J2K = JPEG + "102", "1.2.840.10008.1.2.5", JPEG + "80", JPEG + "70", JPEG + "91"
CODE_STREAM = b"\xff\x4f\xff\x51code stream\0"
PIXELS = np.arange(600, dtype=np.uint16).reshape(1, 20, 30)


def rel(name: str, **parameters: str) -> str:
    return f'multipart/related; type="{name}"' + "".join(f"; {k.replace('_', '-')}={v}" for k, v in parameters.items())


@dataclass(frozen=True)
class Site:
    server: WebServer
    native: Dataset
    implicit: Dataset
    big: Dataset
    lossy: Dataset

    def get(self, ds: Dataset, rest: str = "", accept: str | None = None, query: str = "", **headers: str) -> Answer:
        return self.server.get(path_of(ds) + rest + (f"?accept={quote(query)}" if query else ""), accept, **headers)


def path_of(ds: Dataset) -> str:
    return f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("negotiation")) as server:
        made = Site(server, image(PIXELS), image(PIXELS), image(PIXELS), image(PIXELS, compressed=[CODE_STREAM]))
        syntaxes = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, J2K)
        files = [part10(ds, syntax) for ds, syntax in zip((made.native, made.implicit, made.big, made.lossy), syntaxes, strict=True)]
        answer = server.request("POST", "/studies", body(files), {"Content-Type": CONTENT_TYPE})
        assert answer.status == 200, answer.body
        yield made


def kind(answer: Answer) -> str:
    """Media type, the type of the parts for a multipart body."""
    assert answer.status == 200, answer.body
    media = parse_media_type(answer.headers["content-type"])
    return f"multipart {media.parameter('type')}" if media.name == "multipart/related" else media.name


def test_a_request_without_accept_is_answered_unless_strict(site: Site, tmp_path: Path) -> None:
    """Checklist 1: no Accept is 406 in strict mode; the documented default is lenient."""
    for path in ("/studies", path_of(site.native), path_of(site.native) + "/metadata", path_of(site.native) + "/frames/1"):
        assert site.server.get(path).status == 200
    with running(tmp_path, strict_accept="1") as strict:
        content = body([part10(site.native)])
        sent = strict.request("POST", "/studies", content, {"Content-Type": CONTENT_TYPE})
        assert sent.status == 406
        assert strict.request("POST", "/studies", content, {"Content-Type": CONTENT_TYPE, "Accept": JSON}).status == 200
        for path in ("/studies", path_of(site.native), path_of(site.native) + "/metadata", path_of(site.native) + "/frames/1"):
            assert strict.get(path).status == 406
            assert strict.get(path, "*/*").status == 200
            assert strict.get(path + "?accept=*/*").status == 200


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (f"nonsense, {JSON}", 200),
        (f"a/b;q=7, {JSON}", 200),
        (f"/, ;, =, {JSON};q=0.4", 200),
        (f"x-unknown/y, {JSON}", 200),
        ("nonsense", 406),
        ("x-unknown/y", 406),
        ("a/b;q=7", 406),
    ],
)
def test_unknown_and_invalid_members_are_skipped(site: Site, accept: str, status: int) -> None:
    """Checklist 2: they are not fatal; 406 only when nothing remains."""
    assert site.get(site.native, "/metadata", accept).status == status


@pytest.mark.parametrize("accept", ["*/*", None, "*/*;q=0.1", "application/xhtml+xml, */*"])
def test_anything_is_the_default_of_the_resource(site: Site, accept: str | None) -> None:
    """Checklist 3: JSON for metadata and search, multipart application/dicom for instances, octets for bulk data."""
    assert kind(site.get(site.native, "/metadata", accept)) == JSON
    assert kind(site.server.get("/studies", accept)) == JSON
    assert kind(site.get(site.native, "", accept)) == f"multipart {DICOM}"
    assert kind(site.get(site.native, "/bulkdata/7FE00010", accept)) == OCTETS
    assert kind(site.get(site.native, "/frames/1", accept)) == f"multipart {OCTETS}"


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (f"{JSON}, image/jpeg", 400),
        (f"{DICOM}, text/html", 400),
        (f"{rel(DICOM)}, image/png", 400),
        (f"{JSON}, {rel(OCTETS)}", 200),
        ("application/json, text/plain, */*", 200),
    ],
)
def test_dicom_and_rendered_types_do_not_mix(site: Site, accept: str, status: int) -> None:
    """Checklist 4: a list that mixes them is 400; JSON beside multipart octets is no such mix."""
    for path in (path_of(site.native) + "/metadata", "/studies"):
        assert site.server.get(path, accept).status == status


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (f"{JSON};q=0.5, {rel(XML)};q=0.6", f"multipart {XML}"),
        (f"{JSON};q=0.5, {rel(XML)}", f"multipart {XML}"),
        (f"{JSON};q=0, */*", f"multipart {XML}"),
        (f"*/*;q=0.9, {rel(XML)};q=0.1, {JSON};q=0.2", JSON),
        (f"application/*;q=0.1, {rel(XML)};q=0.2", f"multipart {XML}"),
        (f"{JSON};q=0.001", JSON),
        (f"{JSON};q=0", None),
        ("*/*;q=0", None),
        (f"*/*, {JSON};q=0, {rel(XML)};q=0", None),
    ],
)
def test_the_most_specific_range_gives_the_quality(site: Site, accept: str, expected: str | None) -> None:
    """Checklist 5: an absent q is 1, q=0 excludes."""
    answer = site.get(site.native, "/metadata", accept)
    assert answer.status == 406 if expected is None else kind(answer) == expected


def test_the_parameter_goes_before_the_header(site: Site) -> None:
    """Checklist 6: `accept` in the query is tried first, then the header."""
    assert kind(site.get(site.native, "/metadata", JSON, query=rel(XML))) == f"multipart {XML}"
    assert kind(site.get(site.native, "/metadata", rel(XML), query="image/gif")) == f"multipart {XML}"
    assert kind(site.get(site.native, "", rel(DICOM), query=DICOM)) == DICOM
    assert kind(site.server.get(f"/studies?accept={JSON}", rel(XML))) == JSON  # the plus sign has become a space
    assert site.get(site.native, "/metadata", "image/gif", query="image/png").status == 406


@pytest.mark.parametrize(
    "form", ["multipart/related; type={}", 'multipart/related; type="{}"', "Multipart/Related;TYPE={}", 'multipart/related ; type = "{}"']
)
def test_the_type_is_taken_with_and_without_quotes(site: Site, form: str) -> None:
    """Checklist 7: quotes around type are optional on input."""
    assert kind(site.get(site.native, "", form.format(DICOM))) == f"multipart {DICOM}"
    assert kind(site.get(site.native, "/frames/1", form.format(OCTETS))) == f"multipart {OCTETS}"
    assert kind(site.get(site.native, "/metadata", form.format(XML))) == f"multipart {XML}"


@pytest.mark.parametrize(
    "syntaxes", [f"transfer-syntax={EXPLICIT}; transfer-syntax={DEFLATED}", f'transfer-syntax="{EXPLICIT},{DEFLATED}"', "transfer-syntax=x"]
)
def test_one_transfer_syntax_at_most(site: Site, syntaxes: str) -> None:
    """Checklist 8: a repeated transfer-syntax, or a list in one, is invalid; the member is skipped."""
    assert site.get(site.native, "", f"{DICOM}; {syntaxes}").status == 406
    assert site.get(site.native, "", f"{DICOM}; {syntaxes}, {DICOM}").status == 200


def test_any_transfer_syntax_is_the_stored_form(site: Site) -> None:
    """Checklist 9, 12: transfer-syntax=* gives what is stored, in any syntax."""
    for ds, syntax in (
        (site.native, EXPLICIT),
        (site.implicit, ImplicitVRLittleEndian),
        (site.big, ExplicitVRBigEndian),
        (site.lossy, J2K),
    ):
        answer = site.get(ds, "", f"{DICOM}; transfer-syntax=*")
        assert kind(answer) == DICOM
        assert answer.body == part10(ds, syntax)


def test_without_a_syntax_it_is_explicit_little_endian(site: Site) -> None:
    """Checklist 10: Explicit VR Little Endian by default, except for what is stored lossy."""
    for ds in (site.native, site.implicit, site.big):
        answer = site.get(ds, "", DICOM)
        assert f"transfer-syntax={EXPLICIT}" in answer.headers["content-type"]
        assert read(answer.body).file_meta.TransferSyntaxUID == EXPLICIT
        assert site.get(ds, "", f"{DICOM}; transfer-syntax={EXPLICIT}").status == 200


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_implicit_and_big_endian_never_appear(site: Site, syntax: str) -> None:
    """Checklist 12: they cannot be named, and frames are little endian however they are stored."""
    for ds in (site.native, site.implicit, site.big):
        assert site.get(ds, "", f"{DICOM}; transfer-syntax={syntax}").status == 406
        assert site.get(ds, "/frames/1", f"{OCTETS}; transfer-syntax={syntax}").status == 406
        assert site.get(ds, "/frames/1", OCTETS).body == PIXELS.astype("<u2").tobytes()
        assert f"transfer-syntax={syntax}\r" not in site.get(ds, "", "*/*").body.decode("latin-1").partition("\r\n\r\n")[0]


def test_defaults_of_compressed_types() -> None:
    """Checklist 13: the default transfer syntax of each media type (Table 8.7.3-5)."""
    wanted = {"image/jpeg": "70", "image/jls": "80", "image/jp2": "90", "image/jpx": "92", "image/jphc": "201", "image/jxl": "110"}
    assert {name: JPEG + number for name, number in wanted.items()}.items() <= DEFAULT_SYNTAX.items()
    assert DEFAULT_SYNTAX["image/dicom-rle"] == RLE
    assert (DEFAULT_SYNTAX["video/mpeg"], DEFAULT_SYNTAX["video/mp4"]) == (JPEG + "101", JPEG + "102")
    assert all(MEDIA_TYPE_OF_SYNTAX[syntax] == name for name, syntax in DEFAULT_SYNTAX.items())


@pytest.mark.parametrize("name", ["image/jp2", "image/dicom+jp2", "image/j2c"])
def test_legacy_names_are_understood_and_current_ones_sent(site: Site, name: str) -> None:
    """Checklist 14: names of older editions on input, current names in the answer."""
    for accept, expected in ((f"{name}; transfer-syntax={J2K}", "image/jp2"), (rel(name, transfer_syntax=J2K), "multipart image/jp2")):
        assert kind(site.get(site.lossy, "/frames/1", accept)) == expected


@pytest.mark.parametrize(
    "accept", [rel(DICOM, transfer_syntax=MPEG4), f"{DICOM}; transfer-syntax=1.2.3.4", f"{DICOM}; transfer-syntax={JPEG}104"]
)
def test_an_unsupported_transfer_syntax_is_406(site: Site, accept: str) -> None:
    """Checklist 16: nothing is silently substituted."""
    assert site.get(site.native, "", accept).status == 406


def test_a_single_part_is_one_instance(site: Site) -> None:
    """Checklist 17: application/dicom alone is 406 on studies and series, and is ignored beside others."""
    path = path_of(site.native)
    assert kind(site.server.get(path, DICOM)) == DICOM
    for above in (path.partition("/instances")[0], path.partition("/series")[0]):
        assert site.server.get(above, DICOM).status == 406
        assert kind(site.server.get(above, f"{DICOM}, {rel(DICOM)};q=0.1")) == f"multipart {DICOM}"


def test_parts_say_what_they_are(site: Site) -> None:
    """Checklist 18: each part has Content-Type with its own transfer syntax, Content-Length and Content-Location."""
    answer = site.get(site.lossy, "/frames/1", rel("image/jp2", transfer_syntax="*"))
    head = answer.body.partition(b"\r\n\r\n")[0].decode()
    assert re.search(rf"Content-Type: image/jp2; ?transfer-syntax={re.escape(J2K)}", head)
    assert re.search(r"Content-Length: \d+", head)
    assert f"Content-Location: {site.server.url}{path_of(site.lossy)}/frames/1" in head


def test_the_file_tells_its_syntax_better_than_the_header(site: Site) -> None:
    """Checklist 19: on conflict the transfer syntax of the file meta information counts."""
    ds = image(PIXELS)
    content_type = f'multipart/related; type="{DICOM}"; boundary=b; transfer-syntax={DEFLATED}'
    content = b"--b\r\nContent-Type: application/dicom; transfer-syntax=" + DEFLATED.encode() + b"\r\n\r\n" + part10(ds) + b"\r\n--b--\r\n"
    assert site.server.request("POST", "/studies", content, {"Content-Type": content_type}).status == 200
    assert site.get(ds, "", f"{DICOM}; transfer-syntax=*").body == part10(ds)


def test_boundaries_are_short_legal_and_absent_from_the_data(site: Site) -> None:
    """Checklist 20: at most 70 legal characters, and another for each answer."""
    seen = set()
    for _ in range(3):
        answer = site.get(site.native, "", rel(DICOM))
        boundary = parse_media_type(answer.headers["content-type"]).parameter("boundary")
        assert boundary is not None
        assert re.fullmatch(r"[0-9A-Za-z'()+_,./:=?-]{1,70}", boundary)
        assert answer.body.count(f"--{boundary}".encode()) == 2
        seen.add(boundary)
    assert len(seen) == 3


def test_a_quoted_boundary_is_read(site: Site) -> None:
    """Checklist 20: quoted boundaries are parsed."""
    ds = image(PIXELS)
    for boundary in ("a b'c", "x" * 70):
        content = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode() + part10(ds) + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f'multipart/related; type="{DICOM}"; boundary="{boundary}"'}
        assert site.server.request("POST", "/studies", content, headers).status == 200


def test_metadata_names_bulk_data_where_it_is(site: Site) -> None:
    """Checklist 21: the Content-Location of bulk data is the BulkDataURI of the metadata."""
    (found,) = json.loads(site.get(site.native, "/metadata", JSON).body)
    url = found["7FE00010"]["BulkDataURI"]
    answer = site.server.get(url.removeprefix(site.server.url), rel(OCTETS))
    assert f"Content-Location: {url}\r\n".encode() in answer.body


@pytest.mark.parametrize(
    ("rest", "accept", "expected"),
    [
        # What OHIF, dicomweb-client and dcm4che really send.
        ("/frames/1", "multipart/related; type=application/octet-stream; transfer-syntax=*", f"multipart {OCTETS}"),
        ("/frames/1", 'multipart/related; type="application/octet-stream"; transfer-syntax=*, */*;q=0.1', f"multipart {OCTETS}"),
        ("", 'multipart/related; type="application/dicom"; transfer-syntax=*', f"multipart {DICOM}"),
        ("", "multipart/related; type=application/dicom; transfer-syntax=*; boundary=x", f"multipart {DICOM}"),
        ("/metadata", "application/dicom+json, application/json", JSON),
        ("/metadata", "application/json", JSON),
        ("/bulkdata/7FE00010", 'multipart/related; type="application/octet-stream"', f"multipart {OCTETS}"),
    ],
)
def test_what_real_clients_send(site: Site, rest: str, accept: str, expected: str) -> None:
    assert kind(site.get(site.native, rest, accept)) == expected
