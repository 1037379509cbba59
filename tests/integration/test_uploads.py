"""What ends uploads that nobody ends: time, and processes that were killed between two steps; in both databases."""

from __future__ import annotations

import hashlib
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pacslite import app
from pacslite.catalog.database import Catalog
from pacslite.core import patients, quotas, upload_writing, uploads
from pacslite.core.file_types import MedicalFileType
from pacslite.core.files import Description, Origin, Owner, get
from pacslite.core.upload_writing import Receiving
from pacslite.core.uploads import Expected, Upload
from pacslite.errors import BadRequest, Busy, Conflict, Gone, Locked, OutOfSpace, UnsupportedContent
from pacslite.settings import load
from tests.support.processes import until
from tests.support.tus import stl

ANN = Owner(7, "ann")
ORIGIN = Origin("upload", actor="ann")
FILE = stl(300_000)
WHOLE = hashlib.sha256(FILE).hexdigest(), len(FILE)


@pytest.fixture
def parts(catalog: Catalog, tmp_path: Path) -> Iterator[Any]:
    environment = {"PACSLITE_DATA": str(tmp_path), "PACSLITE_DATABASE_URL": catalog.url.render_as_string(hide_password=False)}
    pacs = app.build(load(environment=environment))
    made = patients.create(pacs, "U1", None, patients.About({"name": "Upload^Test"}), patients.Cause(ORIGIN))
    yield SimpleNamespace(
        settings=pacs.settings,
        catalog=pacs.catalog,
        store=pacs.store,
        stores=pacs.stores,
        spool=pacs.spool,
        ingest=pacs.ingest,
        about=Description(made.id, MedicalFileType.STL_MODEL),
    )
    pacs.close()


def begun(parts: Any, length: int | None = len(FILE), kind: str = uploads.WHOLE) -> Upload:
    return uploads.begin(parts, ANN, Expected(kind, length, parts.about if kind != uploads.PARTIAL else None, "jaw.stl"))


def sent(parts: Any, upload: Upload, data: bytes) -> Upload:
    return uploads.receive(parts, ANN, ORIGIN, upload, Receiving(upload.offset, len(data)), BytesIO(data))


def bytes_of(parts: Any, upload: Upload) -> Path:
    return Path(uploads.upload_files(parts).path(upload.uid))


def kept(parts: Any, upload: Upload) -> tuple[str, int]:
    """Digest and size of the file that an upload became."""
    assert upload.file_uid is not None
    (part,) = get(parts, upload.file_uid).version.parts
    return part.sha256, part.size_bytes


def test_an_upload_that_expired_is_gone_at_once_and_its_bytes_with_the_next_round(parts: Any) -> None:
    parts.settings = replace(parts.settings, upload_expiry_s=1)
    upload = sent(parts, begun(parts), FILE[:1000])

    def is_gone() -> bool:
        try:
            uploads.get(parts, ANN, upload.uid)
        except Gone:
            return True
        return False

    until(is_gone)
    assert uploads.expire(parts) == (1, 1000)
    assert not list(bytes_of(parts, upload).parent.iterdir())
    with pytest.raises(Gone, match="expired"):
        uploads.get(parts, ANN, upload.uid)
    assert quotas.total_state(parts).used_bytes == 0


def test_clean_up_ends_uploads_of_an_age_and_of_one_patient(parts: Any) -> None:
    upload, part = sent(parts, begun(parts), FILE[:10]), sent(parts, begun(parts, 20, uploads.PARTIAL), FILE[:5])
    assert uploads.expire(parts, 3600) == (0, 0)
    assert uploads.expire(parts, 0, patient_id=parts.about.patient_id + 1) == (0, 0)
    assert uploads.expire(parts, 0, patient_id=parts.about.patient_id) == (1, 10)
    with pytest.raises(Gone):
        sent(parts, upload, FILE[10:])
    assert uploads.expire(parts, 0) == (1, 5)
    with pytest.raises(Gone):
        uploads.get(parts, ANN, part.uid)


def test_the_sweep_of_the_spool_leaves_uploads_alone_and_theirs_takes_what_no_upload_has(parts: Any) -> None:
    upload = sent(parts, begun(parts), FILE[:10])
    stray = bytes_of(parts, upload).with_name("11111111-1111-4111-8111-111111111111")
    for path in (stray, stray.with_name(stray.name + ".lock"), stray.with_name(stray.name + ".0123456789ab"), bytes_of(parts, upload)):
        path.touch()
        os.utime(path, (1, 1))
    os.utime(bytes_of(parts, upload).parent, (1, 1))
    assert parts.spool.sweep() == 0
    uploads.expire(parts)
    uploads.expire(parts)  # what a killed process left beside the bytes
    left = {path.name for path in stray.parent.iterdir()}
    assert not {name for name in left if name.startswith(stray.name)}
    assert upload.uid in left


def test_bytes_beyond_the_told_offset_are_not_believed(parts: Any) -> None:
    """What a process that was killed had written and not yet told."""
    upload = sent(parts, begun(parts), FILE[:1000])
    with bytes_of(parts, upload).open("ab") as file:
        file.write(b"torn" * 100_000)  # further than the end of the file
    upload_writing.forget_digests(upload.uid)
    made = sent(parts, upload, FILE[1000:])
    assert kept(parts, made) == WHOLE


def test_lost_bytes_are_gone_not_zeros(parts: Any) -> None:
    upload = sent(parts, begun(parts), FILE[:1000])
    os.truncate(bytes_of(parts, upload), 500)
    with pytest.raises(Gone):
        sent(parts, upload, FILE[1000:])
    bytes_of(parts, upload).unlink()
    with pytest.raises(Gone):
        sent(parts, upload, FILE[1000:])


def test_a_whole_upload_that_is_no_file_yet_becomes_one_when_asked(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends between the last byte and the file, or a catalog that is busy just then, costs no byte."""
    upload = begun(parts)

    def busy(_: object, arrived: Any, *more: object) -> None:
        arrived[0].file.discard()
        raise Busy("not now")

    with monkeypatch.context() as patched:
        patched.setattr(uploads.files, "add", busy)
        with pytest.raises(Busy):
            sent(parts, upload, FILE)
    found = uploads.get(parts, ANN, upload.uid)
    assert (found.state, found.offset) == ("open", len(FILE))
    made = uploads.finish(parts, ANN, ORIGIN, found)
    assert kept(parts, made) == WHOLE
    assert uploads.finish(parts, ANN, ORIGIN, made).file_uid == made.file_uid
    assert not list(parts.spool.directory.glob("*.upload"))


def test_a_file_and_the_end_of_its_upload_are_one_transaction(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = begun(parts)
    with monkeypatch.context() as patched:
        patched.setattr(uploads.rows, "complete", lambda *_: False)
        with pytest.raises(Conflict):
            sent(parts, upload, FILE)
    assert not list((parts.settings.data / "storage").rglob("*.stl"))
    assert quotas.total_state(parts).used_bytes == 0


def test_a_refusal_ends_the_upload(parts: Any) -> None:
    upload = begun(parts, 100)
    with pytest.raises(UnsupportedContent):
        sent(parts, upload, b"MZ" + bytes(98))
    with pytest.raises(Gone, match="refused"):
        uploads.get(parts, ANN, upload.uid)
    assert not list(bytes_of(parts, upload).parent.iterdir())


def test_what_came_before_the_disk_was_full_is_kept(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = begun(parts, 100_000_000)
    rooms = iter([None, None])

    def full(wanted_bytes: int = 0) -> None:
        if next(rooms, "full") == "full":
            raise OutOfSpace("no room")

    monkeypatch.setattr(type(parts.spool), "check_space", lambda self, wanted_bytes=0: full())
    with pytest.raises(OutOfSpace):
        sent(parts, upload, bytes(60_000_000))
    monkeypatch.undo()
    found = uploads.get(parts, ANN, upload.uid)
    assert 30_000_000 < found.offset < 60_000_000
    assert bytes_of(parts, upload).stat().st_size == found.offset


@contextmanager
def full_disk() -> Iterator[None]:
    """Nothing can be written to any file (setrlimit(2): EFBIG, which counts as no room here)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_writer_that_finds_the_disk_full_leaves_nothing_open(parts: Any) -> None:
    upload, store = begun(parts), uploads.upload_files(parts)
    upload = sent(parts, upload, FILE[:1000])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with full_disk(), pytest.raises(OutOfSpace):
            store.claim(upload.uid)
    assert len(os.listdir("/proc/self/fd")) == before
    beside = {path.name for path in bytes_of(parts, upload).parent.iterdir() if path.name.startswith(upload.uid)}
    assert beside == {upload.uid, f"{upload.uid}.lock"}
    assert sent(parts, upload, FILE[1000:]).file_uid


def test_an_upload_can_be_removed_from_a_full_disk(parts: Any) -> None:
    upload, store = begun(parts), uploads.upload_files(parts)
    sent(parts, upload, FILE[:1000])
    with store.claim(upload.uid) as writer:
        with full_disk():
            assert store.remove(upload.uid) == 1000
        with pytest.raises(Locked):
            writer.write(b"more")
    assert not [path for path in bytes_of(parts, upload).parent.iterdir() if path.name.startswith(upload.uid)]


def test_a_writer_that_was_replaced_tells_nothing(parts: Any) -> None:
    upload = begun(parts)
    store = uploads.upload_files(parts)
    other: list[Any] = []

    class Slow(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                other.append(store.claim(upload.uid, force=True))
                parts.catalog.write(lambda conn: uploads.rows.claim(conn, upload.uid, other[-1].token))
                raise ConnectionResetError
            return super().read(1000)

    with pytest.raises((Locked, BadRequest)):
        uploads.receive(parts, ANN, ORIGIN, upload, Receiving(0, len(FILE)), Slow(FILE))
    assert uploads.get(parts, ANN, upload.uid).offset == 0
    other[0].release()
    assert sent(parts, upload, FILE).file_uid


def test_a_writer_of_a_process_that_was_killed_holds_up_nobody(parts: Any) -> None:
    upload = begun(parts)
    child = os.fork()
    if child == 0:
        uploads.upload_files(parts).claim(upload.uid)
        os._exit(0)
    os.waitpid(child, 0)
    assert sent(parts, upload, FILE).file_uid


def test_digests_go_on_from_request_to_request_and_are_made_anew_elsewhere(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(uploads, "digests_of", lambda stream, make=uploads.digests_of: read.append(1) or make(stream))
    seen, other = begun(parts), begun(parts)
    for start in range(0, len(FILE), 100_000):
        seen = sent(parts, seen, FILE[start : start + 100_000])
    assert not read
    other = sent(parts, other, FILE[:200_000])
    upload_writing.forget_digests(other.uid)  # as in another process
    other = sent(parts, other, FILE[200_000:])
    assert len(read) == 1
    assert [kept(parts, one) for one in (seen, other)] == [WHOLE, WHOLE]
