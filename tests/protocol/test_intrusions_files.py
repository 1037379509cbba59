"""What somebody who tries to break in by way of files found, and finds no more: each test is a way in, or a way to keep others out."""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pacslite import app, job_kinds, worker
from pacslite.catalog.jobs import SUCCEEDED
from pacslite.codec import apart
from pacslite.codec.apart import Bounds
from pacslite.core import import_sources, inspection_ply, jobs, uploads
from pacslite.core.access import Role
from pacslite.core.file_inspection import inspect
from pacslite.core.file_types import MedicalFileType
from pacslite.core.files import Description, Origin, Owner
from pacslite.core.import_sources import Source
from pacslite.core.jobs import Handler, Run
from pacslite.core.upload_writing import Receiving
from pacslite.core.uploads import PARTIAL, Expected
from pacslite.errors import OutOfSpace, RefusedContent
from pacslite.settings import Settings, load
from pacslite.storage.spool import Spool
from pacslite.storage.upload_files import UploadFiles, UploadWriter
from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.databases import postgres
from tests.support.file_site import Site, file_site
from tests.support.files import any_photo, new_patient
from tests.support.processes import until
from tests.support.tus import OCTETS, Tus, path_of

__all__ = ["postgres"]
QUOTA = 1_000_000
NOBODY = Owner(None, "local")
FROM_TESTS = Origin("upload")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with file_site(tmp_path_factory.mktemp("site")) as found:
        yield found


def test_a_file_does_not_leave_its_legal_hold_by_leaving_its_study(site: Site) -> None:
    """A clinician may say to which study a file belongs, and may not lift a hold: untied from a study on hold it could be erased."""
    headers = {"Authorization": f"Bearer {site.admin}", "Content-Type": CONTENT_TYPE}
    for study in ("1.7.1", "1.7.2"):
        stored = site.guarded.server.request("POST", "/dicom-web/studies", body([part10(image(study=study))]), headers)
        assert stored.status == 200
    tied = site.upload(any_photo(), study_instance_uid="1.7.1")["id"]
    site.json("PUT", "/api/v1/studies/1.7.1/legal-hold", {"legal_hold": True}, bearer=site.admin)
    for study_uid in (None, "1.7.2"):
        assert site.json("PATCH", tied, {"study_instance_uid": study_uid}, status=409)["type"] == "conflict"
    assert site.json("PATCH", tied, {"description": "seen", "study_instance_uid": "1.7.1"})["description"] == "seen"
    assert site.status("DELETE", tied) == 409
    site.json("PUT", "/api/v1/studies/1.7.1/legal-hold", {"legal_hold": False}, bearer=site.admin)
    assert site.json("PATCH", tied, {"study_instance_uid": None})["study_instance_uid"] is None


# Room


def test_bytes_whose_number_nobody_tells_stay_within_the_quota(site: Site) -> None:
    """Of an upload without a length, chunked requests of less than what is looked at in between went on beyond any quota."""
    number = site.guarded.user("short of room", Role.CLINICIAN)
    site.json("PUT", f"/api/v1/users/{number}/quota", {"quota_bytes": QUOTA}, bearer=site.admin)
    server = site.guarded.server
    mine = Tus(server, site.patient, {"Authorization": f"Bearer {site.guarded.bearer('short of room')}"})
    path = path_of(mine.create(None, Upload_Defer_Length="1"))

    def sent(offset: int) -> int:
        """The status of a request that does not say how many bytes it has."""
        headers = {**mine.headers, "Tus-Resumable": "1.0.0", "Content-Type": OCTETS, "Upload-Offset": str(offset)}
        return server.request("PATCH", path, iter([b"x" * QUOTA]), headers).status

    assert sent(0) == 204
    assert sent(QUOTA) == 507
    assert mine.offset(path) == QUOTA


def test_a_form_beyond_the_quota_is_refused_before_its_body(site: Site) -> None:
    """Who had no quota left filled the spool all the same, as long as the form took to come."""
    number = site.guarded.user("without room", Role.CLINICIAN)
    site.json("PUT", f"/api/v1/users/{number}/quota", {"quota_bytes": QUOTA}, bearer=site.admin)
    server, length = site.guarded.server, 4 * QUOTA
    lines = ["POST /api/v1/files/upload HTTP/1.1", f"Host: 127.0.0.1:{server.port}", "Content-Type: multipart/form-data; boundary=b"]
    lines += [f"Authorization: Bearer {site.guarded.bearer('without room')}", f"Content-Length: {length}", "Connection: close", "", ""]
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode())  # and nothing of the body
        assert connection.recv(12) == b"HTTP/1.1 507"


@contextmanager
def parts(data: Path, free_space_reserve_bytes: int = 0) -> Iterator[app.Pacs]:
    """The parts of a process over this data directory."""
    pacs = app.build(load(environment={}, data=data, free_space_reserve_bytes=free_space_reserve_bytes, job_threads=1))
    pacs.catalog.migrate()
    try:
        yield pacs
    finally:
        pacs.close()


def test_requests_of_few_bytes_stop_at_the_reserve_of_the_disk(tmp_path: Path) -> None:
    """Uploads that were announced while there was room do not fill the disk, in however small pieces they come."""
    with parts(tmp_path) as pacs:
        about = Description(new_patient(pacs.catalog, "P-1"), MedicalFileType.STL_MODEL)
        begun = uploads.begin(pacs, NOBODY, Expected(length=1000, about=about, filename="a.stl"))
    with parts(tmp_path, free_space_reserve_bytes=10**15) as full:
        with pytest.raises(OutOfSpace):
            uploads.receive(full, NOBODY, FROM_TESTS, begun, Receiving(0, 10), io.BytesIO(b"0123456789"))
        assert uploads.get(full, NOBODY, begun.uid).offset == 0


def test_joining_parts_stops_at_the_reserve_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many who join the same parts at once each find room when they begin; together they would fill the disk."""
    with parts(tmp_path) as pacs:
        about = Description(new_patient(pacs.catalog, "P-1"), MedicalFileType.STL_MODEL)
        part = uploads.begin(pacs, NOBODY, Expected(PARTIAL, 10))
        uploads.receive(pacs, NOBODY, FROM_TESTS, part, Receiving(0, 10), io.BytesIO(b"0123456789"))

        create = UploadFiles.create

        def create_while_others_fill_the_disk(self: UploadFiles, name: str) -> None:
            create(self, name)
            monkeypatch.setattr(pacs.spool, "_reserve_bytes", 10**15)

        copied: list[bytes] = []
        monkeypatch.setattr(UploadWriter, "write", lambda self, piece: copied.append(piece))
        monkeypatch.setattr(UploadFiles, "create", create_while_others_fill_the_disk)
        with pytest.raises(OutOfSpace):
            uploads.join(pacs, NOBODY, FROM_TESTS, [part.uid], Expected("final", about=about, filename="a.stl"))
        assert not copied
        assert {path.stem for path in (pacs.spool.directory / "uploads").iterdir()} == {part.uid}


# Looking into files


def test_walking_a_ply_one_by_one_is_bounded_over_all_its_elements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty-four elements of lists of changing lengths kept a thread busy sixty-four times as long as one may."""
    monkeypatch.setattr(inspection_ply, "_MOST_WALKED", 150)
    rows = b"\0" + struct.pack("BB", 1, 7)

    def ply(elements: int) -> bytes:
        lists = "".join(f"element e{n} 100\nproperty list uchar uchar a\n" for n in range(elements))
        head = f"ply\nformat binary_little_endian 1.0\nelement vertex 0\nproperty float x\n{lists}end_header\n"
        return head.encode() + rows * 50 * elements

    path = tmp_path / "a.ply"
    path.write_bytes(ply(1))
    assert inspect(path, "a.ply", MedicalFileType.PLY_MODEL, Settings(data=tmp_path)).media_type == "model/ply"
    path.write_bytes(ply(2))
    with pytest.raises(RefusedContent, match="faces of changing"):
        inspect(path, "a.ply", MedicalFileType.PLY_MODEL, Settings(data=tmp_path))


# Trees of others


@pytest.mark.parametrize(
    "take", [lambda source, spool: import_sources.read(source, spool, 100), lambda source, spool: import_sources.digest(source)]
)
def test_a_folder_that_becomes_a_link_while_a_tree_is_imported_leads_nowhere(
    tmp_path: Path, take: Callable[[Source, Spool], object]
) -> None:
    """Whoever may write to the tree had files from elsewhere taken in by who imports it, and with `--move` erased there."""
    tree, elsewhere, spool = tmp_path / "tree", tmp_path / "elsewhere", Spool(tmp_path / "spool")
    for folder in (tree / "patient_1", elsewhere):
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text(folder.name)
    (tmp_path / "link").symlink_to(tmp_path)  # above the tree are those whom the administrator named
    (source,) = import_sources.walk(tmp_path / "link" / "tree")
    assert take(source, spool)
    (tree / "patient_1").rename(tree / "patient_2")
    (tree / "patient_1").symlink_to(elsewhere)
    with pytest.raises(import_sources.Unusable, match="became a link"):
        take(source, spool)


# What is made of files

_begun, _ended = threading.Event(), threading.Event()


def _endless(pacs: object, run: Run) -> dict[str, str]:
    _begun.set()
    _ended.wait(60)
    return {}


ENDLESS = Handler(_endless)


def test_files_that_take_long_to_draw_hold_up_no_other_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take minutes, a video hours: as many of them as there are threads kept everybody's retrievals and verifications waiting."""
    monkeypatch.setitem(job_kinds.KINDS, "files.renditions", f"{__name__}:ENDLESS")
    stop = threading.Event()
    with parts(tmp_path) as pacs:
        for number in range(3):
            jobs.queue(pacs.catalog, "files.renditions", {"blob": str(number)}, ENDLESS)
        threads = worker._job_threads(pacs, stop)
        for thread in threads:
            thread.start()
        try:
            assert _begun.wait(30)
            queued = jobs.queue(pacs.catalog, "audit.verify", {}, ENDLESS)
            until(lambda: jobs.get(pacs.catalog, queued.uid).state == SUCCEEDED)
        finally:
            stop.set()
            _ended.set()
            for thread in threads:
                thread.join(30)


def test_what_reads_hostile_files_is_the_first_to_go_when_memory_ends() -> None:
    """Its bounds are those of one process, and a machine may have less than all of them together: the kernel chooses well then."""
    bounds = Bounds(seconds=30, memory_bytes=1024**3, file_bytes=1)
    assert apart.run(f"{__name__}:oom_score", bounds=bounds) == "1000"


def oom_score() -> str:
    """Of the process that asks."""
    return Path("/proc/self/oom_score_adj").read_text().strip()


# Text that a database cannot hold


@pytest.fixture(scope="module")
def over_postgresql(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Site]:
    with file_site(tmp_path_factory.mktemp("postgresql"), database_url=request.getfixturevalue("postgres").new_database()) as found:
        yield found


def test_no_route_fails_by_a_nul(over_postgresql: Site) -> None:
    """PostgreSQL holds none: in a path, a query or a body each made the server fail (503) and say so in its log, some for everybody."""
    site, json_body = over_postgresql, {"Content-Type": "application/json"}
    file_id = site.upload(any_photo())["id"]
    for path in ("/api/v1/jobs/%00", "/api/v1/jobs/a%00b/items", "/api/v1/peers/%00", f"{file_id}%00", f"{file_id}/versions/%00/restore"):
        method = "POST" if path.endswith("restore") else "GET"
        assert site.ask(method, path, bearer=site.admin).status == 404, path
    for query in (
        "/api/v1/jobs?kind=%00",
        "/api/v1/audit?actor=a%00b",
        "/api/v1/patients?q=%00",
        f"patient/{site.patient}/files?cursor=AA",
    ):
        assert site.ask("GET", query, bearer=site.admin).status == 400, query
    for method, path, told in (
        ("PATCH", file_id, {"description": "a\0b"}),
        ("POST", "/api/v1/tokens", {"name": "\0", "scopes": ["files:read"], "expires_in": 60}),
        ("POST", "/api/v1/shares", {"file_id": "\0", "expires_in": 60}),
        ("PUT", f"{file_id}/access", {"groups": None, "labels": ["\0"]}),
        ("POST", "/api/v1/auth/login", {"username": "\0", "password": "x"}),
    ):
        assert site.ask(method, path, json.dumps(told).encode(), json_body, bearer=site.admin).status == 400, path
    assert site.json("PATCH", file_id, {"description": "a\\u0000b"})["description"] == "a\\u0000b"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert site.guarded.server.request("POST", "/login", b"username=%00&password=x", form).status == 401
    assert "cannot be used" not in site.guarded.server.log.read_text()
