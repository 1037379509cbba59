"""Small files of patients are written ahead as small instances are: a failure of power takes nothing that was answered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from pacslite import app
from pacslite.app import Pacs
from pacslite.catalog.changes import Origin
from pacslite.catalog.models import blob, written_ahead
from pacslite.core import files
from pacslite.core.erasure import erase_doomed
from pacslite.core.file_types import FileVersionType, MedicalFileType
from pacslite.core.files import Arrived, Description, FileRecord, Owner
from pacslite.settings import load
from tests.support.files import any_photo, new_patient, photo

OWNER, ORIGIN = Owner(None, "anna"), Origin("upload")


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    made = app.build(load(environment={}, data=tmp_path / "data"))
    made.catalog.migrate()
    yield made
    made.close()


@pytest.fixture
def patient(pacs: Pacs) -> int:
    return new_patient(pacs.catalog, "P-1")


def arrived(pacs: Pacs, content: bytes) -> Arrived:
    with pacs.spool.create(".upload") as writer:
        writer.write(content)
        return Arrived(writer.finish(), "a.jpg")


def add(pacs: Pacs, patient: int, *contents: bytes) -> FileRecord:
    kind = MedicalFileType.PHOTO if len(contents) == 1 else MedicalFileType.PHOTO_SERIES
    return files.add(pacs, [arrived(pacs, one) for one in contents], Description(patient, kind), OWNER, ORIGIN)


def waiting(pacs: Pacs) -> int:
    with pacs.catalog.read() as conn:
        return int(conn.execute(select(func.count()).select_from(written_ahead)).scalar_one())


def path_of(pacs: Pacs, content: bytes) -> Path:
    digest = hashlib.sha256(content).hexdigest()
    with pacs.catalog.read() as conn:
        path = pacs.store.local_path(conn.execute(select(blob.c.storage_key).where(blob.c.sha256 == digest)).scalar_one())
    assert path is not None
    return path


def _lose(path: Path) -> None:
    path.unlink()
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _fill_with_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("fail", [_lose, _empty, _fill_with_zeros])
def test_after_a_failure_of_power_the_file_is_written_again(pacs: Pacs, patient: int, fail: Callable[[Path], None]) -> None:
    content = photo()
    add(pacs, patient, content)
    assert waiting(pacs) == 1
    path = path_of(pacs, content)
    fail(path)
    app.recover(pacs.settings)
    assert path.read_bytes() == content
    assert waiting(pacs) == 0


def test_versions_and_pictures_of_a_series_too(pacs: Pacs, patient: int) -> None:
    contents = [any_photo() for _ in range(4)]
    made = add(pacs, patient, contents[0])
    files.add_version(pacs, made.id, [arrived(pacs, contents[1])], FileVersionType.FOLLOWUP, None, OWNER, ORIGIN)
    add(pacs, patient, *contents[2:])
    for content in contents:
        _lose(path_of(pacs, content))
    app.recover(pacs.settings)
    assert [path_of(pacs, content).read_bytes() for content in contents] == contents


def test_who_shares_bytes_that_have_not_settled_loses_nothing(pacs: Pacs, patient: int) -> None:
    """The second file takes a reference and writes nothing: the row of the first one keeps the bytes of both, also without the first."""
    content = photo()
    first = add(pacs, patient, content)
    add(pacs, patient, content)
    assert waiting(pacs) == 1
    files.purge(pacs, first.id, OWNER, ORIGIN)
    path = path_of(pacs, content)
    _lose(path)
    app.recover(pacs.settings)
    assert path.read_bytes() == content


def test_what_was_deleted_meanwhile_is_not_brought_back(pacs: Pacs, patient: int) -> None:
    content = photo()
    made = add(pacs, patient, content)
    path = path_of(pacs, content)
    files.purge(pacs, made.id, OWNER, ORIGIN)
    assert erase_doomed(pacs.catalog, pacs.store, 0) == 1
    assert pacs.ingest.settling.settle(compare=True) == 1
    assert not path.exists()
    assert waiting(pacs) == 0


def test_lost_bytes_that_are_sent_again_are_written_ahead_under_their_new_key(pacs: Pacs, patient: int) -> None:
    content = photo()
    add(pacs, patient, content)
    pacs.ingest.settling.settle()
    old = path_of(pacs, content)
    _lose(old)
    add(pacs, patient, content)
    assert waiting(pacs) == 1
    new = path_of(pacs, content)
    assert new != old
    _lose(new)
    app.recover(pacs.settings)
    assert new.read_bytes() == content
    assert not old.exists()


def test_what_is_refused_leaves_nothing(pacs: Pacs, patient: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise files.Gone("somebody was faster")

    monkeypatch.setattr("pacslite.core.file_arrivals.note_event", refuse)
    with pytest.raises(files.Gone):
        add(pacs, patient, photo())
    assert waiting(pacs) == 0
    assert [path for path in (pacs.settings.data / "storage").rglob("*") if path.is_file()] == []


def test_large_files_and_long_series_are_synced_before_they_are_recorded(pacs: Pacs, patient: int, monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[bool] = []
    real = pacs.store.begin

    def begin(path: Path, *, unsettled: bool = False) -> object:
        settled.append(not unsettled)
        return real(path, unsettled=unsettled)

    monkeypatch.setattr(type(pacs.store), "begin", lambda self, path, *, unsettled=False: begin(path, unsettled=unsettled))
    add(pacs, patient, photo(size=(4000, 3000)))
    add(pacs, patient, *(any_photo() for _ in range(17)))
    assert settled == [True] * 18
    assert waiting(pacs) == 0


def test_whoever_takes_files_in_settles_when_nobody_else_does(pacs: Pacs, patient: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacslite.core.settling._LOOKED_AT_EVERY", 2)
    monkeypatch.setattr("pacslite.core.settling._MOST_WAITING", 3)
    for _ in range(4):
        add(pacs, patient, any_photo())
    assert waiting(pacs) == 0
