"""Resumable uploads over the wire, clause by clause of tus 1.0.0 (https://tus.io/protocols/resumable-upload)."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacslite.core.access import Role
from tests.support.accounts import Guarded, guarded
from tests.support.http import Answer, running
from tests.support.processes import until
from tests.support.tus import OCTETS, UPLOADS, Tus, client, encoded, local, path_of, stl

FILE = stl(200_000)


@pytest.fixture(scope="module")
def tus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tus]:
    """Two web processes, so that one upload is seen by several."""
    more = {"web_processes": "2", "max_upload_bytes": "50000000", "network_timeout_s": "5"}
    with running(tmp_path_factory.mktemp("tus"), **more) as server:
        yield client(server)


def upload_directory(tus: Tus) -> Path:
    return tus.server.data / "spool" / "uploads"


def left_of(tus: Tus, path: str) -> list[str]:
    return [one.name for one in upload_directory(tus).glob(path.rpartition("/")[2] + "*")]


def is_written(tus: Tus, path: str) -> bool:
    """Whether a request writes the upload now."""
    return any("." in name and not name.endswith(".lock") for name in left_of(tus, path))


# Core protocol


def test_core_a_file_comes_in_pieces_and_is_a_file_with_the_last(tus: Tus) -> None:
    path = tus.begun(len(FILE))
    assert tus.patch(path, 0, FILE[:70_000]).headers["upload-offset"] == "70000"
    assert tus.offset(path) == 70_000
    assert tus.patch(path, 70_000, FILE[70_000:150_000]).status == 204
    last = tus.patch(path, 150_000, FILE[150_000:])
    assert (last.status, last.headers["upload-offset"]) == (204, str(len(FILE)))
    assert tus.content(last) == FILE
    head = tus.head(path)
    assert head.headers["content-location"] == last.headers["content-location"]
    record = json.loads(tus.server.request("GET", local(last.headers["content-location"])).body)
    assert record["file_hash"] == hashlib.sha256(FILE).hexdigest()
    assert (record["original_filename"], record["file_type"], record["patient_id"]) == ("jaw.stl", "stl_model", tus.patient_id)
    assert left_of(tus, path) == []


def test_core_head_tells_offset_and_length_and_is_kept_by_no_cache(tus: Tus) -> None:
    path = tus.begun(12)
    head = tus.head(path)
    assert (head.status, head.headers["upload-offset"], head.headers["upload-length"]) == (200, "0", "12")
    assert head.headers["cache-control"] == "no-store"
    assert head.headers["tus-resumable"] == "1.0.0"
    assert head.headers["upload-metadata"] == encoded(tus.metadata)
    assert head.body == b""


@pytest.mark.parametrize("offset", [0, 9, 11, 1000])
def test_core_another_offset_is_409_and_changes_nothing(tus: Tus, offset: int) -> None:
    path = tus.begun(100)
    tus.patch(path, 0, FILE[:10])
    assert tus.patch(path, offset, b"x").status == 409
    assert tus.offset(path) == 10


@pytest.mark.parametrize("content_type", ["application/octet-stream", None, "text/plain"])
def test_core_another_content_type_is_415(tus: Tus, content_type: str | None) -> None:
    path = tus.begun(100)
    assert tus.patch(path, 0, FILE[:10], Content_Type=content_type).status == 415
    assert tus.offset(path) == 0


@pytest.mark.parametrize("offset", [None, "-1", "1.5", "x", "9" * 30])
def test_core_an_offset_that_is_none_is_400(tus: Tus, offset: str | None) -> None:
    path = tus.begun(100)
    assert tus.patch(path, 0, FILE[:10], Upload_Offset=offset).status == 400


def test_core_a_patch_without_bytes_tells_the_offset(tus: Tus) -> None:
    path = tus.begun(100)
    answer = tus.patch(path, 0, b"")
    assert (answer.status, answer.headers["upload-offset"]) == (204, "0")


def test_core_more_bytes_than_announced_are_413_and_not_kept(tus: Tus) -> None:
    path = tus.begun(100)
    assert tus.patch(path, 0, FILE[:101]).status == 413
    assert tus.offset(path) == 0
    chunked = tus.server.request(
        "PATCH", path, iter([FILE[:60], FILE[60:120]]), {"Tus-Resumable": "1.0.0", "Content-Type": OCTETS, "Upload-Offset": "0"}
    )
    assert chunked.status == 413
    assert tus.offset(path) <= 100


def test_core_a_body_in_chunks_is_taken(tus: Tus) -> None:
    path = tus.begun(len(FILE))
    pieces = iter([FILE[:1000], FILE[1000:]])
    answer = tus.server.request("PATCH", path, pieces, {"Tus-Resumable": "1.0.0", "Content-Type": OCTETS, "Upload-Offset": "0"})
    assert answer.status == 204, answer.body
    assert tus.content(answer) == FILE


@pytest.mark.parametrize("version", [None, "0.2.2", "1.0.1", ""])
@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE", "POST"])
def test_core_another_version_is_412_and_told_which_one_is_spoken(tus: Tus, method: str, version: str | None) -> None:
    path = UPLOADS if method == "POST" else tus.begun(10)
    answer = tus.ask(method, path, Tus_Resumable=version, Upload_Length="5", Upload_Metadata=encoded(tus.metadata))
    assert (answer.status, answer.headers["tus-version"]) == (412, "1.0.0")


@pytest.mark.parametrize("path", [UPLOADS, UPLOADS + "/00000000-0000-4000-8000-000000000000"])
def test_core_options_tells_what_is_spoken_without_a_version(tus: Tus, path: str) -> None:
    answer = tus.ask("OPTIONS", path, Tus_Resumable=None)
    assert answer.status == 204
    told = {name: value for name, value in answer.headers.items() if name.startswith("tus-")}
    assert told == {
        "tus-resumable": "1.0.0",
        "tus-version": "1.0.0",
        "tus-max-size": "50000000",
        "tus-checksum-algorithm": "sha1,sha256,md5",
        "tus-extension": "creation,creation-with-upload,creation-defer-length,checksum,expiration,termination,concatenation",
    }


@pytest.mark.parametrize("status", [404, 409, 412, 415])
def test_core_answers_that_refuse_carry_tus_resumable(tus: Tus, status: int) -> None:
    path = tus.begun(10)
    answers = {
        404: lambda: tus.head(UPLOADS + "/00000000-0000-4000-8000-000000000000"),
        409: lambda: tus.patch(path, 5, b"x"),
        412: lambda: tus.ask("HEAD", path, Tus_Resumable="2.0.0"),
        415: lambda: tus.patch(path, 0, b"x", Content_Type="text/plain"),
    }
    answer = answers[status]()
    assert (answer.status, answer.headers["tus-resumable"]) == (status, "1.0.0")


def test_core_post_stands_for_other_methods(tus: Tus) -> None:
    path = tus.begun(len(FILE))
    answer = tus.ask("POST", path, FILE, X_HTTP_Method_Override="PATCH", Upload_Offset="0", Content_Type=OCTETS)
    assert (answer.status, answer.headers["upload-offset"]) == (204, str(len(FILE)))
    assert tus.ask("POST", path, X_HTTP_Method_Override="HEAD").headers["upload-offset"] == str(len(FILE))
    other = tus.begun(5)
    assert tus.ask("POST", other, X_HTTP_Method_Override="delete").status == 204
    assert tus.head(other).status == 410
    assert tus.ask("POST", path).status == 405


@pytest.mark.parametrize("uid", ["x", "00000000-0000-4000-8000-000000000000", "..%2f..%2fcatalog.db", "%00"])
@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
def test_core_what_never_was_is_404(tus: Tus, method: str, uid: str) -> None:
    assert tus.ask(method, f"{UPLOADS}/{uid}", b"" if method == "PATCH" else None, Content_Type=OCTETS, Upload_Offset="0").status == 404


# A connection that is cut; two that write


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, len(FILE) - 1), min_size=1, max_size=4))
def test_resume_a_connection_cut_at_any_byte_goes_on_where_it_was_told(tus: Tus, cuts: list[int]) -> None:
    path, offset = tus.begun(len(FILE)), 0
    for cut in sorted(cuts):
        if cut <= offset:
            continue
        with tus.sending(path, offset, len(FILE) - offset, FILE[offset:cut]):
            pass
        # What was sent in full before the connection was closed in good order is kept to the last byte.
        until(lambda cut=cut: tus.offset(path) == cut)
        offset = cut
    answer = until(lambda: (found := tus.patch(path, offset, FILE[offset:])).status != 423 and found)
    assert answer.status == 204
    assert tus.content(answer) == FILE


def test_resume_at_once_after_a_cut_is_right(tus: Tus) -> None:
    """A client that was cut off asks once and goes on there, as tuspy does: what it is told is not overtaken by what it sent before."""
    path, offset = tus.begun(len(FILE)), 0
    for sent in range(10_000, len(FILE) - 10_000, 20_000):
        with tus.sending(path, offset, len(FILE) - offset, FILE[offset:sent]):
            pass
        offset = tus.offset(path)
        answer = tus.patch(path, offset, FILE[offset : offset + 1000])
        assert (answer.status, offset) == (204, sent)
        offset += 1000
    assert tus.content(tus.patch(path, offset, FILE[offset:])) == FILE


def test_resume_a_connection_that_is_reset_costs_no_told_byte(tus: Tus) -> None:
    path = tus.begun(len(FILE))
    connection = tus.sending(path, 0, len(FILE), FILE[:50_000])
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()

    def resumed() -> Answer | None:
        offset = tus.offset(path)
        answer = tus.patch(path, offset, FILE[offset:])
        return answer if answer.status == 204 else None

    assert tus.content(until(resumed)) == FILE


def test_writers_while_one_writes_another_is_423_and_goes_on_afterwards(tus: Tus) -> None:
    path = tus.begun(len(FILE))
    with tus.sending(path, 0, len(FILE), FILE[:1000]) as first:
        until(lambda: is_written(tus, path))
        answer = tus.patch(path, 0, FILE)
        assert answer.status == 423
        first.sendall(FILE[1000:])
        assert b" 204 " in first.recv(4096).split(b"\r\n")[0]
    assert tus.content(tus.head(path)) == FILE


def test_writers_one_who_fell_silent_is_replaced_and_writes_nothing_more(tus: Tus) -> None:
    path, other = tus.begun(len(FILE)), stl(200_000, seed=2)
    assert len(other) == len(FILE)
    with tus.sending(path, 0, len(FILE), other[:1000]) as silent:
        until(lambda: is_written(tus, path))
        answer = until(lambda: (found := tus.patch(path, 0, FILE[:150_000])).status != 423 and found)
        assert answer.headers["upload-offset"] == "150000"
        silent.sendall(other[1000:])
        assert b" 423 " in silent.recv(4096).split(b"\r\n")[0]
    assert tus.content(tus.patch(path, 150_000, FILE[150_000:])) == FILE


def test_writers_of_many_at_once_one_wins(tus: Tus) -> None:
    path = tus.begun(len(FILE))
    gate = threading.Barrier(6)

    def write(_: int) -> Answer:
        gate.wait()
        return tus.patch(path, 0, FILE)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(write, range(6)))
    statuses = sorted(answer.status for answer in answers)
    assert statuses[0] == 204
    assert set(statuses[1:]) <= {409, 423}
    won = [answer for answer in answers if answer.status == 204]
    assert len({answer.headers["content-location"] for answer in won}) == 1
    assert tus.content(won[0]) == FILE


def test_writers_deleting_stops_the_one_who_writes(tus: Tus) -> None:
    path = tus.begun(len(FILE))
    with tus.sending(path, 0, len(FILE), FILE[:1000]) as writing:
        until(lambda: is_written(tus, path))
        assert tus.ask("DELETE", path).status == 204
        writing.sendall(FILE[1000:])
        assert writing.recv(4096).split(b"\r\n")[0].split()[1] in (b"410", b"423")
    assert tus.head(path).status == 410
    until(lambda: left_of(tus, path) == [])


# Creation, creation-with-upload, creation-defer-length


def test_creation_tells_where_and_until_when(tus: Tus) -> None:
    answer = tus.create(10)
    assert answer.status == 201
    assert answer.headers["location"].startswith(f"http://127.0.0.1:{tus.server.port}{UPLOADS}/")
    left_s = parsedate_to_datetime(answer.headers["upload-expires"]).timestamp() - time.time()
    assert 86000 < left_s <= 86400
    assert "upload-offset" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Upload_Length": None},
        {"Upload_Length": "-5"},
        {"Upload_Length": "five"},
        {"Upload_Defer_Length": "1"},
        {"Upload_Length": None, "Upload_Defer_Length": "2"},
        {"Upload_Concat": "whole"},
        {"Upload_Concat": "final"},
        {"Upload_Concat": "partial;/x"},
    ],
)
def test_creation_of_what_is_not_announced_well_is_400(tus: Tus, headers: dict[str, str | None]) -> None:
    assert tus.create(10, **headers).status == 400


def test_creation_above_the_limit_is_413(tus: Tus) -> None:
    assert tus.create(50_000_001).status == 413


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"patient_id": None}, "patient_id"),
        ({"patient_id": "999999"}, "patient_id"),
        ({"patient_id": "me"}, "patient_id"),
        ({"file_type": None}, "file_type"),
        ({"file_type": "hologram"}, "file_type"),
        ({"study_date": "2024-02-30"}, "study_date"),
        ({"medical_category": "x"}, "medical_category"),
        ({"study_instance_uid": "1..2"}, "study_instance_uid"),
        ({"expand": "true"}, "expand"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_creation_with_metadata_that_are_wrong_is_400_and_names_the_field(tus: Tus, change: dict[str, str | None], field: str) -> None:
    said = {name: value for name, value in {**tus.metadata, **change}.items() if value is not None}
    answer = tus.create(10, metadata=said)
    assert answer.status == 400
    assert field in {one["field"] for one in json.loads(answer.body)["errors"]}


@pytest.mark.parametrize("header", ["patient_id !!!", "a b c", "x YQ==,x YQ==", "filename /w==", "k AA==", "é YQ==", ",,"])
def test_creation_with_malformed_metadata_is_400(tus: Tus, header: str) -> None:
    assert tus.create(10, Upload_Metadata=f"{encoded(tus.metadata)},{header}".encode().decode("latin-1")).status == 400


def test_creation_takes_the_names_that_clients_add(tus: Tus) -> None:
    """Those of Uppy and tus-js-client; `filename` goes before `name`."""
    said = {"patient_id": str(tus.patient_id), "file_type": "stl_model", "name": "Kiefer 歯.stl", "type": "model/stl"}
    said |= {"filetype": "model/stl", "relativePath": "null"}
    path = tus.begun(len(FILE), Upload_Metadata=f"{encoded(said)},body_part")
    answer = tus.patch(path, 0, FILE)
    record = json.loads(tus.server.request("GET", local(answer.headers["content-location"])).body)
    assert record["original_filename"] == "Kiefer 歯.stl"


def test_creation_with_upload_takes_the_first_bytes(tus: Tus) -> None:
    answer = tus.create(len(FILE), FILE[:1000])
    assert (answer.status, answer.headers["upload-offset"]) == (201, "1000")
    assert tus.content(tus.patch(path_of(answer), 1000, FILE[1000:])) == FILE


def test_creation_with_upload_of_all_bytes_makes_the_file(tus: Tus) -> None:
    answer = tus.create(len(FILE), FILE)
    assert (answer.status, answer.headers["upload-offset"]) == (201, str(len(FILE)))
    assert tus.content(answer) == FILE


def test_creation_with_upload_that_is_refused_leaves_no_upload(tus: Tus) -> None:
    before = set(upload_directory(tus).glob("*"))
    assert tus.create(20, b"MZ not a model at all"[:20]).status == 415
    assert tus.create(len(FILE), FILE, Upload_Checksum="md5 " + base64.b64encode(b"x" * 16).decode()).status == 460
    assert set(upload_directory(tus).glob("*")) == before


def test_creation_of_nothing_is_refused_at_once(tus: Tus) -> None:
    assert tus.create(0).status in (400, 415)


def test_creation_defer_length_is_told_until_it_is_known(tus: Tus) -> None:
    path = tus.begun(None, Upload_Defer_Length="1")
    head = tus.head(path)
    assert (head.headers["upload-defer-length"], "upload-length" in head.headers) == ("1", False)
    assert tus.patch(path, 0, FILE[:500]).headers["upload-offset"] == "500"
    assert tus.patch(path, 500, FILE[500:], Upload_Length=str(len(FILE) - 1)).status == 413
    last = tus.patch(path, 500, FILE[500:], Upload_Length=str(len(FILE)))
    assert tus.content(last) == FILE


def test_creation_defer_length_is_said_once_and_not_below_what_has_come(tus: Tus) -> None:
    path = tus.begun(None, Upload_Defer_Length="1")
    tus.patch(path, 0, FILE[:500])
    assert tus.patch(path, 500, b"", Upload_Length="400").status == 400
    assert tus.patch(path, 500, b"", Upload_Length="50000001").status == 413
    assert tus.patch(path, 500, b"", Upload_Length="600").status == 204
    assert tus.patch(path, 500, b"", Upload_Length="700").status == 400
    assert tus.head(path).headers["upload-length"] == "600"


# Checksum


@pytest.mark.parametrize("name", ["sha1", "sha256", "md5"])
def test_checksum_that_fits_passes_and_one_that_does_not_is_460_and_nothing_is_kept(tus: Tus, name: str) -> None:
    path = tus.begun(len(FILE))

    def checksum(data: bytes) -> str:
        return f"{name} {base64.b64encode(hashlib.new(name, data).digest()).decode()}"

    assert tus.patch(path, 0, FILE[:100], Upload_Checksum=checksum(FILE[:100])).headers["upload-offset"] == "100"
    wrong = tus.patch(path, 100, FILE[100:200], Upload_Checksum=checksum(FILE[:100]))
    assert (wrong.status, json.loads(wrong.body)["type"]) == (460, "checksum-mismatch")
    assert tus.offset(path) == 100
    assert tus.content(tus.patch(path, 100, FILE[100:], Upload_Checksum=checksum(FILE[100:]))) == FILE


@pytest.mark.parametrize("header", ["crc32 AAAA", "sha1", "sha1 !", "sha1 AAAA", "SHA1 2jmj7l5rSw0yVb/vlWAYkK/YBwk="])
def test_checksum_of_another_kind_is_400(tus: Tus, header: str) -> None:
    path = tus.begun(100)
    assert tus.patch(path, 0, b"abc", Upload_Checksum=header).status == 400
    assert tus.offset(path) == 0


def test_checksum_of_a_body_that_breaks_off_keeps_nothing(tus: Tus) -> None:
    path = tus.begun(len(FILE))
    digest = base64.b64encode(hashlib.sha1(FILE, usedforsecurity=False).digest()).decode()
    tus.headers["Upload-Checksum"] = f"sha1 {digest}"
    try:
        with tus.sending(path, 0, len(FILE), FILE[:5000]):
            until(lambda: (upload_directory(tus) / path.rpartition("/")[2]).stat().st_size == 5000)
    finally:
        del tus.headers["Upload-Checksum"]
    until(lambda: not is_written(tus, path))
    assert tus.offset(path) == 0
    assert tus.content(tus.patch(path, 0, FILE)) == FILE


# Expiration, termination


def test_expiration_is_told_while_there_is_something_to_expire(tus: Tus) -> None:
    path = tus.begun(len(FILE))
    assert "upload-expires" in tus.patch(path, 0, FILE[:10]).headers
    assert "upload-expires" in tus.head(path).headers
    assert "upload-expires" not in tus.patch(path, 10, FILE[10:]).headers


def test_termination_frees_the_bytes_and_is_gone(tus: Tus) -> None:
    path = tus.begun(len(FILE))
    tus.patch(path, 0, FILE[:100])
    assert tus.ask("DELETE", path).status == 204
    assert left_of(tus, path) == []
    for answer in (tus.head(path), tus.patch(path, 100, FILE[100:]), tus.ask("DELETE", path)):
        assert answer.status == 410


def test_termination_of_what_became_a_file_leaves_the_file(tus: Tus) -> None:
    done = tus.create(len(FILE), FILE)
    assert tus.ask("DELETE", path_of(done)).status == 204
    assert tus.head(path_of(done)).status == 404
    assert tus.content(done) == FILE


# Concatenation


def test_concatenation_of_parts_that_came_in_any_order(tus: Tus) -> None:
    cuts = [0, 60_000, 60_001, 130_000, len(FILE)]
    pieces = [FILE[start:end] for start, end in pairwise(cuts)]
    paths: dict[int, str] = {}
    for number in (3, 0, 2, 1):
        answer = tus.create(len(pieces[number]), metadata={}, Upload_Concat="partial")
        assert answer.status == 201, answer.body
        paths[number] = path_of(answer)
    for number in (2, 0, 3, 1):
        assert tus.patch(paths[number], 0, pieces[number]).headers["upload-offset"] == str(len(pieces[number]))
        assert tus.head(paths[number]).headers["upload-concat"] == "partial"
    urls = " ".join(f"http://127.0.0.1:{tus.server.port}{paths[n]}" if n % 2 else paths[n] for n in range(4))
    made = tus.create(None, Upload_Concat=f"final;{urls}")
    assert made.status == 201, made.body
    assert tus.content(made) == FILE
    head = tus.head(path_of(made))
    assert head.headers["upload-concat"] == "final;" + " ".join(paths[n] for n in range(4))
    assert (head.headers["upload-length"], head.headers["content-location"]) == (str(len(FILE)), made.headers["content-location"])
    assert tus.patch(path_of(made), len(FILE), b"x").status == 403
    for path in paths.values():
        assert tus.head(path).status in (404, 410)
        assert left_of(tus, path) == []


def test_concatenation_of_partial_uploads_makes_no_file_by_itself(tus: Tus) -> None:
    answer = tus.create(len(FILE), FILE, metadata={}, Upload_Concat="partial")
    assert "content-location" not in answer.headers
    assert tus.head(path_of(answer)).headers["upload-offset"] == str(len(FILE))


@pytest.mark.parametrize("case", ["unfinished", "whole", "unknown", "foreign", "none", "length"])
def test_concatenation_of_what_does_not_fit_is_refused(tus: Tus, case: str) -> None:
    part = path_of(tus.create(10, FILE[:10], metadata={}, Upload_Concat="partial"))
    unfinished = path_of(tus.create(10, metadata={}, Upload_Concat="partial"))
    urls, status = {
        "unfinished": (f"{part} {unfinished}", 409),
        "whole": (tus.begun(10), 400),
        "unknown": (f"{part} {UPLOADS}/00000000-0000-4000-8000-000000000000", 404),
        "foreign": ("http://elsewhere.example/files/00000000-0000-4000-8000-000000000000", 400),
        "none": ("", 400),
        "length": (part, 400),
    }[case]
    assert tus.create(10 if case == "length" else None, Upload_Concat=f"final;{urls}").status == status
    assert tus.offset(part) == 10


def test_concatenation_that_is_refused_leaves_the_parts(tus: Tus) -> None:
    part = path_of(tus.create(10, b"MZ" + b"x" * 8, metadata={}, Upload_Concat="partial"))
    assert tus.create(None, Upload_Concat=f"final;{part}").status == 415
    assert tus.offset(part) == 10


# What becomes of it


def test_a_file_that_is_refused_answers_the_last_bytes_with_that_problem(tus: Tus) -> None:
    """The contract: a completed file that is refused answers the last PATCH with that problem."""
    body = b"MZ" + b"\0" * 998
    path = tus.begun(1000)
    assert tus.patch(path, 0, body[:500]).status == 204
    answer = tus.patch(path, 500, body[500:])
    assert (answer.status, answer.headers["content-type"]) == (415, "application/problem+json")
    assert tus.head(path).status == 410
    assert left_of(tus, path) == []


def test_a_dicom_file_goes_into_the_dicom_catalog(tus: Tus) -> None:
    from tests.support.data_sets import image, part10

    ds = image(study="1.2.3.77", series="1.2.3.77.1", instance="1.2.3.77.1.1")
    ds.PatientID = "TUS-1"
    data = part10(ds)
    said = {**tus.metadata, "file_type": "dicom", "filename": "a.dcm"}
    answer = tus.create(len(data), data, said)
    assert answer.status == 201, answer.body
    record = json.loads(tus.server.request("GET", local(answer.headers["content-location"])).body)
    assert record["sop_instance_uid"] == "1.2.3.77.1.1"


def test_what_is_uploaded_twice_at_once_is_kept_once(tus: Tus) -> None:
    data = stl(150_000, seed=9)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: tus.create(len(data), data), range(8)))
    assert {answer.status for answer in answers} == {201}
    keys = [one for one in (tus.server.data / "storage").rglob("*.stl") if one.stat().st_size == len(data)]
    assert len(keys) == 1


# Whose it is; how many; how much


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    more = {"max_open_uploads": "3", "default_quota_bytes": "1000000", "total_quota_bytes": "2000000", "upload_expiry_s": "86400"}
    with guarded(tmp_path_factory.mktemp("owners"), **more) as found:
        found.user("colleague", Role.CLINICIAN)
        yield found


def of(site: Guarded, name: str, mrn: str) -> Tus:
    bearer = site.bearer(name)
    maker = client(site.server, mrn, Authorization=f"Bearer {site.bearer('admin')}")
    return Tus(site.server, maker.patient_id, {"Authorization": f"Bearer {bearer}"})


def test_somebody_elses_upload_is_404(site: Guarded) -> None:
    mine, theirs = of(site, "clinician", "A1"), of(site, "colleague", "A2")
    path = mine.begun(100)
    part = path_of(mine.create(10, FILE[:10], metadata={}, Upload_Concat="partial"))
    assert theirs.head(path).status == 404
    assert theirs.patch(path, 0, b"x").status == 404
    assert theirs.ask("DELETE", path).status == 404
    assert theirs.create(None, Upload_Concat=f"final;{part}").status == 404
    assert mine.offset(path) == 0
    for one in (path, part):
        assert mine.ask("DELETE", one).status == 204


def test_who_may_not_write_may_not_begin(site: Guarded) -> None:
    assert of(site, "viewer", "B1").create(10).status == 403


def test_only_so_many_uploads_are_under_way_for_one(site: Guarded) -> None:
    mine = of(site, "clinician", "C1")
    paths = [mine.begun(10) for _ in range(3)]
    refused = mine.create(10)
    assert (refused.status, "retry-after" in refused.headers) == (429, True)
    assert of(site, "colleague", "C2").create(10).status == 201
    for path in paths:
        mine.ask("DELETE", path)
    mine.ask("DELETE", mine.begun(10))


def quota(site: Guarded, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.ask("GET", f"/api/v1/users/{site.ids[name]}/quota", site.bearer("admin")).body)
    return found


def test_quota_is_charged_when_it_is_announced_and_given_back(site: Guarded) -> None:
    site.user("keeper", Role.CLINICIAN)
    mine = of(site, "keeper", "D1")
    path = mine.begun(700_000)
    assert quota(site, "keeper") == {"quota_bytes": None, "used_bytes": 700_000}
    refused = mine.create(300_001)
    assert (refused.status, json.loads(refused.body)["type"]) == (507, "quota-exceeded")
    mine.ask("DELETE", path)
    assert quota(site, "keeper")["used_bytes"] == 0
    assert mine.create(len(FILE), FILE).status == 201
    assert quota(site, "keeper")["used_bytes"] == len(FILE)


def test_quota_of_a_user_is_set_and_taken_away(site: Guarded) -> None:
    number = site.user("limited", Role.CLINICIAN)
    mine, admin = of(site, "limited", "E1"), site.bearer("admin")
    answer = site.ask("PUT", f"/api/v1/users/{number}/quota", admin, {"quota_bytes": 100})
    assert (answer.status, json.loads(answer.body)) == (200, {"quota_bytes": 100, "used_bytes": 0})
    assert mine.create(101).status == 507
    mine.ask("DELETE", mine.begun(100))
    assert site.ask("PUT", f"/api/v1/users/{number}/quota", admin, {"quota_bytes": None}).status == 200
    mine.ask("DELETE", mine.begun(101))
    for wrong in ({"quota_bytes": -1}, {"quota_bytes": "1"}, {}, {"quota_bytes": 1, "x": 1}):
        assert site.ask("PUT", f"/api/v1/users/{number}/quota", admin, wrong).status == 400
    assert site.ask("GET", "/api/v1/users/999/quota", admin).status == 404
    assert site.ask("GET", f"/api/v1/users/{number}/quota", site.bearer("limited")).status == 403


def test_quota_counts_while_bytes_of_unknown_number_come(site: Guarded) -> None:
    site.user("deferring", Role.CLINICIAN)
    mine = of(site, "deferring", "F1")
    path = mine.begun(None, Upload_Defer_Length="1")
    assert mine.patch(path, 0, b"x" * 600_000).status == 204
    assert quota(site, "deferring")["used_bytes"] == 600_000
    assert mine.patch(path, 600_000, b"x" * 400_001).status == 507
    assert mine.patch(path, 600_000, b"", Upload_Length="1000001").status == 507
    assert mine.offset(path) == 600_000
    mine.ask("DELETE", path)


def test_the_total_quota_is_of_all_and_told_by_health_and_metrics(site: Guarded) -> None:
    paths = []
    for number in range(2):
        name = f"many{number}"
        site.user(name, Role.CLINICIAN)
        paths.append((of(site, name, f"G{number}"), name))
    begun = [mine.begun(850_000) for mine, _ in paths]
    refused = paths[0][0].create(150_000)
    assert (refused.status, b"in all" in refused.body) == (507, True)
    ready = json.loads(site.server.request("GET", "/health/ready").body)
    assert ready["checks"]["quota"]["state"] == "warning"
    metrics = site.ask("GET", "/metrics", site.bearer("admin")).body.decode()
    assert "pacslite_quota_bytes 2e+06" in metrics
    for (mine, _), path in zip(paths, begun, strict=True):
        mine.ask("DELETE", path)


def test_a_full_disk_is_507_and_keeps_its_reserve(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    reserve = free.f_bavail * free.f_frsize + 2**40
    with running(tmp_path, free_space_reserve_bytes=str(reserve)) as server:
        answer = client(server).create(10)
    assert (answer.status, json.loads(answer.body)["type"]) == (507, "out-of-space")
