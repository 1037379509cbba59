"""Forms that carry files: what is refused, and that nothing stays of what is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.file_site import FILES, Site, file_site
from tests.support.files import any_photo, form, of_json
from tests.support.processes import until

MOST = 200_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with file_site(tmp_path_factory.mktemp("forms"), max_upload_bytes=str(MOST)) as found:
        yield found


@pytest.fixture(autouse=True)
def _leaves_nothing(site: Site) -> Iterator[None]:
    """Whatever a test sends, the spool is empty afterwards."""
    yield
    until(lambda: not site.spooled(), what="an empty spool")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"patient_id": None}, "patient_id"),
        ({"patient_id": "999999"}, "patient_id"),
        ({"patient_id": "0"}, "patient_id"),
        ({"patient_id": "x"}, "patient_id"),
        ({"patient_id": "9" * 40}, "patient_id"),
        ({"file_type": None}, "file_type"),
        ({"file_type": "sound"}, "file_type"),
        ({"medical_category": "other"}, "medical_category"),
        ({"study_date": "2024-02-30"}, "study_date"),
        ({"study_date": "20240228"}, "study_date"),
        ({"study_instance_uid": "1..2"}, "study_instance_uid"),
        ({"body_part": "x" * 201}, "body_part"),
        ({"owner": "me"}, "owner"),
    ],
)
def test_a_field_that_is_wrong_is_named(site: Site, fields: dict[str, Any], field: str) -> None:
    given = {"patient_id": site.patient, "file_type": "photo", **fields}
    answer = site.post({name: value for name, value in given.items() if value is not None}, [("a.jpg", any_photo())])
    problem = of_json(answer, 400)
    assert answer.headers["content-type"] == "application/problem+json"
    assert [one["field"] for one in problem["errors"]] == [field]


def test_what_is_commonly_mistaken_is_said_in_words(site: Site) -> None:
    about = {"patient_id": site.patient, "file_type": "photo"}
    unknown = of_json(site.post({**about, "patient_id": "999999"}, [("a.jpg", any_photo())]), 400)
    assert "not the mrn" in unknown["detail"]
    dated = of_json(site.post({**about, "study_date": "28.2.2024"}, [("a.jpg", any_photo())]), 400)
    assert dated["detail"] == "study_date: is no date (YYYY-MM-DD)"


def test_all_wrong_fields_are_named_at_once(site: Site) -> None:
    answer = site.post({"file_type": "sound", "medical_category": "other", "owner": "me"}, [("a.jpg", any_photo())])
    named = {one["field"] for one in of_json(answer, 400)["errors"]}
    assert named == {"patient_id", "file_type", "medical_category", "owner"}


def test_empty_fields_are_as_if_left_out(site: Site) -> None:
    made = site.upload(any_photo(), medical_category="", study_date="", description="", study_instance_uid="")
    assert (made["medical_category"], made["study_date"], made["description"]) == (None, None, None)


def test_a_form_without_a_file_is_refused(site: Site) -> None:
    answer = site.post({"patient_id": site.patient, "file_type": "photo"}, [])
    assert of_json(answer, 400)["errors"][0]["field"] == "file"


def raw(site: Site, body: bytes, content_type: str = "multipart/form-data; boundary=b", method: str = "POST") -> int:
    return site.ask(method, "upload", body, {"Content-Type": content_type}).status


def test_only_forms_are_taken(site: Site) -> None:
    for content_type in ("application/json", "text/plain", "multipart/related; boundary=b"):
        assert raw(site, b"{}", content_type) == 415
    assert raw(site, b"patient_id=1&file_type=photo", "application/x-www-form-urlencoded") == 400  # a form without its file
    for content_type in ("multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'b' * 300}"):
        assert raw(site, b"--b--", content_type) == 400


def part(name: str, data: bytes, more: str = "") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data + b"\r\n"


END = b"--b--\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        END,
        part("patient_id", b"1"),  # no end
        part("patient_id", b"1") * 2 + END,
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END,
        b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n" + END,
        b'--b\r\nContent-Disposition: attachment; name="file"\r\n\r\nx\r\n' + END,
        b"--b\r\nno header\r\n\r\nx\r\n" + END,
        b"--b\r\n" + b"X-Y: z\r\n" * 5000 + b"\r\nx\r\n" + END,
        part("description", b"\xff\xfe") + END,
        part("description", b"a\0b") + END,
        part("description", b"x" * 70_000) + END,
        part("d" * 5000, b"x") + END,
        part("other", b"x", '; filename="a.jpg"') + END,
        part("patient_id", b"1", '; filename="a.jpg"') + END,
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n' + END,
    ],
    ids=range(17),
)
def test_hostile_forms_are_refused(site: Site, body: bytes) -> None:
    assert raw(site, body) == 400


def test_forms_of_thousands_of_parts_are_refused(site: Site) -> None:
    assert raw(site, b"".join(part(f"f{number}", b"x") for number in range(2000)) + END) == 413
    files = b"".join(part("file", b"x", '; filename="a.jpg"') for _ in range(1200))
    assert raw(site, files + END) == 413


def test_a_file_over_the_limit_is_refused_whatever_its_length_is_said_to_be(site: Site) -> None:
    fields = {"patient_id": site.patient, "file_type": "photo"}
    body, headers = form(fields, [("a.jpg", b"x" * (MOST + 1))])
    assert site.ask("POST", "upload", body, headers).status == 413
    sent = {"Authorization": f"Bearer {site.bearer}", **headers}
    chunks = (body[at : at + 10_000] for at in range(0, len(body), 10_000))
    assert site.guarded.server.request("POST", f"{FILES}/upload", chunks, sent).status == 413


def test_a_body_announced_to_be_too_long_is_refused_unread(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.guarded.server.port), timeout=20) as sock:
        head = f"POST {FILES}/upload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {site.bearer}\r\n"
        sock.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 99999999999\r\n\r\n".encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 413")


def test_a_client_that_vanishes_leaves_nothing(site: Site) -> None:
    body, headers = form({"patient_id": site.patient, "file_type": "photo"}, [("a.jpg", any_photo() * 50)])
    before = site.json("GET", f"patient/{site.patient}/files")["total"]
    for sent in (len(body) - 10, len(body) // 2, 300):
        with socket.create_connection(("127.0.0.1", site.guarded.server.port), timeout=20) as sock:
            head = f"POST {FILES}/upload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {site.bearer}\r\n"
            head += f"Content-Type: {headers['Content-Type']}\r\nContent-Length: {len(body)}\r\n\r\n"
            sock.sendall(head.encode() + body[:sent])
    assert site.json("GET", f"patient/{site.patient}/files")["total"] == before


def test_names_may_come_quoted_encoded_or_not_at_all(site: Site) -> None:
    data = any_photo()
    named = {
        '; filename="a \\"b\\".jpg"': 'a "b".jpg',
        "; filename=plain.jpg": "plain.jpg",
        "; filename*=UTF-8''na%C3%AFve.jpg": "naïve.jpg",
        "; filename=\"x.jpg\"; filename*=utf-8'de'%E5%86%99.jpg": "写.jpg",
        '; filename=""': "file",
        "": "file",
    }
    fields = part("patient_id", str(site.patient).encode()) + part("file_type", b"photo")
    for more, name in named.items():
        answer = site.ask("POST", "upload", fields + part("file", data, more) + END, {"Content-Type": "multipart/form-data; boundary=b"})
        assert of_json(answer, 201)["original_filename"] == name, more


def test_a_full_disk_is_told_before_the_body_is_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    with file_site(tmp_path_factory.mktemp("full"), free_space_reserve_bytes=str(10**15)) as full:
        answer = full.post({"patient_id": full.patient, "file_type": "photo"}, [("a.jpg", any_photo())])
        assert answer.status == 507
        assert full.spooled() == []
