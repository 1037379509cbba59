"""A backup restored elsewhere is the archive that it was made of, whatever database and storage there are on either side."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from sqlalchemy import select, text

from pacslite.catalog import holds, snapshots
from pacslite.catalog.changes import Origin
from pacslite.catalog.database import Catalog
from pacslite.catalog.models import SCHEMA, blob, job, patient
from pacslite.core import audit_chain, backup, backup_restore, files, lookahead
from pacslite.core.audit_verify import verify as verify_audit
from pacslite.core.backup_repository import Repository
from pacslite.core.erasure import erase_doomed
from pacslite.core.file_types import FileVersionType, MedicalFileType
from pacslite.core.files import Arrived, Description, Owner
from pacslite.core.journal import Journal
from pacslite.core.relocation import relocate
from pacslite.core.removal import Target, remove
from pacslite.core.restoration import undelete
from pacslite.core.stocktaking import rows_of as rows_of_blobs
from pacslite.errors import BackupDamaged, BadRequest, Busy, Conflict, NotFound, StorageError
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.s3 import S3Options, S3Store
from tests.support.archive import Archive, archive, slice_of
from tests.support.databases import PostgresServer
from tests.support.files import new_patient, photo
from tests.support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY

ADMIN = Origin("api", actor="admin")


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str, str, str], Archive]]:
    """Makes empty archives without a schema, by name, kind of database and kind of storage."""
    catalogs: list[Catalog] = []
    stores: list[S3Store] = []

    def make(name: str, database: str, storage: str) -> Archive:
        if database == "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres")
            url = server.new_database()
        else:
            url = f"sqlite:///{tmp_path / name / 'catalog.db'}"
        catalogs.append(Catalog(url, pool_size=4))
        (tmp_path / name).mkdir(exist_ok=True)
        if storage == "filesystem":
            return archive(tmp_path / name, catalogs[-1], FilesystemStore(tmp_path / name / "storage"))
        endpoint = request.getfixturevalue("s3_endpoint")
        stores.append(S3Store(S3Options(BUCKET, endpoint, None, ACCESS_KEY, SECRET_KEY, None, f"{tmp_path.name}/{name}")))
        return archive(tmp_path / name, catalogs[-1], stores[-1])

    yield make
    for catalog in catalogs:
        catalog.close()
    for store in stores:
        store.close()


@pytest.fixture
def old(place: Callable[[str, str, str], Archive]) -> Archive:
    """A small archive on SQLite and files."""
    made = place("old", "sqlite", "filesystem")
    made.catalog.migrate()
    _live(made)
    return made


@pytest.fixture
def new(place: Callable[[str, str, str], Archive]) -> Archive:
    """An empty place for it."""
    return place("new", "sqlite", "filesystem")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where backups go."""
    return tmp_path / "target"


def _live(of: Archive) -> None:
    """Versions, a conflict, deletions that can be undone and one that cannot, entries of the audit log."""
    for number in range(1, 4):
        of.accept(slice_of("1.1", "1.1.1", f"1.1.1.{number}", PatientID="A", PatientName="Ärztin^Ada"))
    of.accept(slice_of("1.1", "1.1.2", "1.1.2.1", PatientID="A", SeriesDescription="first"))
    of.accept(slice_of("1.1", "1.1.2", "1.1.2.1", PatientID="A", SeriesDescription="second"))
    of.accept(slice_of("1.2", "1.2.1", "1.1.1.1", PatientID="B"))
    of.accept(slice_of("1.4", "1.4.1", "1.4.1.1", PatientID="C"))
    remove(of.catalog, Target("1.4"), ADMIN)
    erase_doomed(of.catalog, of.store, grace_s=-1)
    remove(of.catalog, Target("1.1", "1.1.1", "1.1.1.2"), ADMIN)
    audit_chain.advance(of.catalog, audit_chain.anchor_of(of.settings.data))
    Journal(of.store, of.spool).write_new(of.catalog)


def rows(of: Archive) -> dict[str, list[Any]]:
    """Everything the catalog says, its numbers too; but for what belongs to its database and its storage alone."""
    found = {}
    with of.catalog.read() as conn:
        for table in SCHEMA.sorted_tables:
            if table.name == "written_ahead":  # only until the storage has synced
                continue
            columns = [column for column in table.columns if column.name not in ("transaction_id", "store_name")]
            found[table.name] = [tuple(row) for row in conn.execute(select(*columns).order_by(*table.primary_key.columns))]
    return found


def contents(of: Archive) -> dict[str, str]:
    """Every stored blob, by its SHA-256."""
    return {info.key: _sha256(of.store.open(info.key)) for prefix in ("radiology/", "patients/") for info in of.store.list(prefix)}


def without_bytes(of: Archive) -> list[str]:
    """Keys of live blobs whose bytes are not in the storage as the catalog tells of them."""
    stored = contents(of)
    with of.catalog.read() as conn:
        told = conn.execute(select(blob.c.storage_key, blob.c.sha256).where(blob.c.state == "live")).all()
    return sorted(key for key, sha256 in told if stored.get(key) != sha256)


def _sha256(stream: BinaryIO) -> str:
    with stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@pytest.mark.parametrize(
    ("of", "to"),
    [
        ("sqlite filesystem", "sqlite filesystem"),
        ("sqlite filesystem", "postgresql s3"),
        ("postgresql s3", "postgresql filesystem"),
        ("postgresql filesystem", "sqlite s3"),
    ],
)
def test_the_restored_archive_is_the_one_backed_up(place: Callable[[str, str, str], Archive], of: str, to: str, target: Path) -> None:
    old, new = place("old", *of.split()), place("new", *to.split())
    old.catalog.migrate()
    _live(old)
    before, told = rows(old), []
    report = backup.make(old, target, progress=lambda done, total: told.append((done, total)))
    assert (report.blobs, report.copied, report.missing_count) == (6, 6, 0)
    assert told[-1][0] == told[-1][1]
    assert backup_restore.verify(target).damaged_count == 0
    restored = backup_restore.restore(new, target)
    assert restored.files == 7  # and the anchor of the audit log
    assert rows(new) == before
    assert contents(new) == contents(old)
    assert without_bytes(new) == []
    assert verify_audit(new.catalog, audit_chain.anchor_of(new.settings.data)).problems == []
    assert list(Journal(new.store, new.spool).entries())  # the journal is there, whole, without the old one
    assert Journal(new.store, new.spool).is_continued_by(new.catalog)


def test_life_goes_on_in_the_restored_archive(place: Callable[[str, str, str], Archive], target: Path) -> None:
    """Numbers go on where they stopped, deletions can be undone, changes are seen, versions are added."""
    old, new = place("old", "postgresql", "filesystem"), place("new", "postgresql", "filesystem")
    old.catalog.migrate()
    _live(old)
    with old.catalog.read() as conn:
        last = conn.execute(text("SELECT max(pk) FROM patient")).scalar_one()
    old.catalog.write(lambda conn: conn.execute(text("SELECT setval(pg_get_serial_sequence('patient', 'pk'), 70)")))
    backup.make(old, target)
    backup_restore.restore(new, target)
    new.accept(slice_of("1.9", "1.9.1", "1.9.1.1", PatientID="NEW"))
    with new.catalog.read() as conn:
        assert conn.execute(select(patient.c.pk).where(patient.c.identity_id == "NEW")).scalar_one() == 71
        assert last < 70
    assert new.accept(slice_of("1.1", "1.1.1", "1.1.1.1", PatientID="A", PatientName="Ärztin^Ada")).outcome == "duplicate"
    assert undelete(new, Target("1.1", "1.1.1", "1.1.1.2"), ADMIN).instances == 1
    assert new.accept(slice_of("1.1", "1.1.2", "1.1.2.1", PatientID="A", SeriesDescription="third")).outcome == "new_version"


def test_the_next_backup_copies_what_is_new_and_each_is_whole(old: Archive, new: Archive, target: Path) -> None:
    first = backup.make(old, target)
    kept = _states(target)
    old.accept(slice_of("1.5", "1.5.1", "1.5.1.1", PatientID="E"))
    before = rows(old)
    second = backup.make(old, target)
    assert (second.blobs, second.copied) == (first.blobs + 1, 1)
    assert kept.items() <= _states(target).items()  # nothing that was there was touched
    found, _ = Repository(target).descriptions()
    assert [one.id for one in found] == [first.id, second.id]
    assert [one.previous != "" for one in found] == [False, True]
    backup_restore.restore(new, target)
    assert rows(new) == before


def _states(target: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in target.rglob("*") if path.is_file() and path.name != ".lock"}


def test_an_earlier_backup_can_be_restored_too(old: Archive, new: Archive, target: Path) -> None:
    before = rows(old)
    first = backup.make(old, target)
    remove(old.catalog, Target("1.1"), ADMIN)
    backup.make(old, target)
    backup_restore.restore(new, target, first.id)
    assert rows(new) == before


def test_a_full_backup_mends_what_was_damaged_in_the_directory(old: Archive, target: Path) -> None:
    backup.make(old, target)
    damaged = _some_content(target)
    damaged.write_bytes(_flipped(damaged.read_bytes()))
    assert backup.make(old, target).copied == 0
    assert [problem for _, problem in backup_restore.verify(target).damaged] == ["hash"]
    assert backup.make(old, target, full=True).copied == 1
    assert backup_restore.verify(target).damaged_count == 0


def _some_content(target: Path) -> Path:
    """A content that is an instance's."""
    repository = Repository(target)
    files = repository.files(repository.description())
    return next(repository.path_of(file.sha256) for file in files if file.kind == "blob")


def _flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("problem", ["hash", "size", "missing"])
def test_a_damaged_backup_is_refused_by_name(old: Archive, new: Archive, target: Path, problem: str) -> None:
    backup.make(old, target)
    content = _some_content(target)
    if problem == "missing":
        content.unlink()
    else:
        content.write_bytes(_flipped(content.read_bytes()) + (b"x" if problem == "size" else b""))
    named = [(name, what) for name, what in backup_restore.verify(target).damaged]
    assert [what for _, what in named] == [problem]
    with pytest.raises(BackupDamaged, match=named[0][0].replace(".", r"\.")) as refused:
        backup_restore.restore(new, target)
    assert refused.value.damaged == (named[0][0],)
    assert new.catalog.revision() is None
    # Mended from the storage, it goes on where it stopped.
    before = rows(old)
    backup.make(old, target, full=True)
    first = Repository(target).descriptions()[0][0]
    backup_restore.restore(new, target, first.id)
    assert rows(new).keys() == before.keys()
    assert contents(new) == contents(old)


def test_what_is_whole_comes_back_without_what_is_damaged(old: Archive, new: Archive, target: Path) -> None:
    backup.make(old, target)
    content = _some_content(target)
    content.write_bytes(_flipped(content.read_bytes()))
    report = backup_restore.restore(new, target, without_damaged=True)
    assert report.damaged_count == 1
    assert without_bytes(new) == [report.damaged[0][0]]


@pytest.mark.parametrize("name", ["catalog.jsonl.gz", "manifest.jsonl.gz", "backup.json"])
@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_a_damaged_list_is_refused_by_name(old: Archive, new: Archive, target: Path, name: str, how: str) -> None:
    report = backup.make(old, target)
    path = target / "backups" / report.id / name
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + (_flipped(content[middle : middle + 1]) + content[middle + 1 :] if how == "flipped" else b""))
    for work in (lambda: backup_restore.verify(target), lambda: backup_restore.restore(new, target)):
        with pytest.raises(BackupDamaged, match=f"{report.id}/{name}"):
            work()
    assert new.catalog.revision() is None


def test_an_interrupted_backup_is_never_taken_for_whole(old: Archive, new: Archive, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(old)
    first = backup.make(old, target)
    for number in range(4):
        old.accept(slice_of("1.6", "1.6.1", f"1.6.1.{number}", PatientID="F"))
    with monkeypatch.context() as patch:
        put, copied = Repository.put, []

        def cut_off(self: Repository, stream: BinaryIO, sha256: str, size_bytes: int) -> bool:
            if len(copied) == 2:
                raise StorageError("cut off")
            copied.append(sha256)
            return put(self, stream, sha256, size_bytes)

        patch.setattr(Repository, "put", cut_off)
        patch.setattr(lookahead, "_THREADS", 1)
        with pytest.raises(StorageError, match="cut off"):
            backup.make(old, target)
    assert [one.id for one in Repository(target).descriptions()[0]] == [first.id]
    with old.catalog.read() as conn:
        assert not holds.is_held(conn)
    backup_restore.restore(new, target)
    assert rows(new) == before
    assert backup.make(old, target).copied == 2  # the two that were whole are found
    assert len(list((target / "backups").iterdir())) == 2
    assert not list(target.rglob(".*.*"))


def test_bytes_that_are_not_there_are_told_and_the_rest_is_backed_up(old: Archive, new: Archive, target: Path) -> None:
    missing, _, damaged = sorted(contents(old))[:3]  # the one between was deleted
    old.store.delete(missing)
    path = old.store.local_path(damaged)
    assert path is not None
    path.write_bytes(_flipped(path.read_bytes()))
    report = backup.make(old, target)
    assert sorted(report.missing) == [(missing, "missing"), (damaged, "hash")]
    restored = backup_restore.restore(new, target)
    assert restored.missing_count == 2
    assert without_bytes(new) == sorted([missing, damaged])
    assert new.accept(slice_of("1.1", "1.1.1", "1.1.1.1", PatientID="A", PatientName="Ärztin^Ada")).outcome == "repaired"


def test_nothing_is_erased_while_a_backup_runs(old: Archive, new: Archive, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deletion and the erasure of what was deleted, between the snapshot and the copy of the bytes."""
    before, snapshot_lines, erased = rows(old), snapshots.lines, []

    def lines(conn: Any) -> Iterator[Any]:
        yield from snapshot_lines(conn)
        remove(old.catalog, Target("1.1"), ADMIN)
        erased.append(erase_doomed(old.catalog, old.store, grace_s=-1))

    monkeypatch.setattr("pacslite.core.backup.snapshots.lines", lines)
    assert backup.make(old, target).missing_count == 0
    assert erased == [0]
    assert erase_doomed(old.catalog, old.store, grace_s=-1) > 0
    backup_restore.restore(new, target)
    assert rows(new) == before


def test_a_hold_ends_by_itself_when_its_backup_was_killed(old: Archive) -> None:
    old.catalog.write(lambda conn: holds.place(conn, "killed"))
    assert erase_doomed(old.catalog, old.store, grace_s=-1) == 0
    old.catalog.write(lambda conn: conn.execute(job.update().where(job.c.uid == "killed").values(lease_until_at="2020")))
    assert not old.catalog.write(lambda conn: holds.renew(conn, "killed"))
    assert erase_doomed(old.catalog, old.store, grace_s=-1) == 1


def test_bytes_that_move_to_another_key_meanwhile_are_found(old: Archive, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot_lines = snapshots.lines
    key = min(contents(old))
    moved = f"{key.rpartition('/')[0]}/0190a5e0-0000-7000-8000-000000000000.dcm"

    def lines(conn: Any) -> Iterator[Any]:
        yield from snapshot_lines(conn)
        old.store.move(key, moved)
        old.catalog.write(lambda conn: conn.execute(blob.update().where(blob.c.storage_key == key).values(storage_key=moved)))

    monkeypatch.setattr("pacslite.core.backup.snapshots.lines", lines)
    assert backup.make(old, target).missing_count == 0


def test_a_backup_is_restored_to_an_empty_place_only(old: Archive, new: Archive, target: Path) -> None:
    backup.make(old, target)
    stranger = new.settings.data / "notes.txt"
    stranger.write_text("mine")
    with pytest.raises(Conflict, match=r"notes\.txt"):
        backup_restore.restore(new, target)
    stranger.unlink()
    new.store.put(_file(new.settings.data), "radiology/1/2/3/x.dcm")
    with pytest.raises(Conflict, match="storage is not empty"):
        backup_restore.restore(new, target)
    new.store.delete("radiology/1/2/3/x.dcm")
    with pytest.raises(Conflict, match="catalog is not empty"):
        backup_restore.restore(replace(new, catalog=old.catalog), target)
    backup_restore.restore(new, target)
    with pytest.raises(Conflict, match="catalog is not empty"):
        backup_restore.restore(new, target)


def _file(directory: Path) -> Path:
    path = directory / ".file"
    path.write_bytes(b"x")
    return path


def test_an_interrupted_restoration_goes_on(old: Archive, new: Archive, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(old)
    first = backup.make(old, target)
    other = backup.make(old, target)
    with monkeypatch.context() as patch:
        patch.setattr("pacslite.core.backup_restore.snapshots.restore", _cut_off)
        with pytest.raises(StorageError, match="cut off"):
            backup_restore.restore(new, target, first.id)
    torn = new.store.local_path(min(contents(new)))
    assert torn is not None
    torn.write_bytes(b"torn")
    with pytest.raises(Conflict, match=first.id):
        backup_restore.restore(new, target, other.id)
    backup_restore.restore(new, target, first.id)
    assert rows(new) == before
    assert contents(new) == contents(old)


def _cut_off(*_: object) -> int:
    raise StorageError("cut off")


def test_old_backups_go_and_what_the_others_need_stays(old: Archive, new: Archive, target: Path) -> None:
    backup.make(old, target)
    remove(old.catalog, Target("1.2"), ADMIN)
    erase_doomed(old.catalog, old.store, grace_s=-1)
    before = rows(old)
    last = backup.make(old, target)
    repository = Repository(target)
    with repository.locked():
        removed, freed = repository.prune(1)
    assert len(removed) == 1
    assert freed > 0
    assert backup_restore.verify(target).damaged_count == 0
    needed = {file.sha256 for file in repository.files(repository.description(last.id))}
    assert {path.name for path in (target / "contents").rglob("*") if path.is_file()} == needed
    backup_restore.restore(new, target)
    assert rows(new) == before


def test_the_secret_key_is_in_a_backup_only_when_asked_for(old: Archive, new: Archive, target: Path) -> None:
    data = old.settings.data
    (data / "secret.key").write_text("s" * 40)
    (data / "audit").mkdir()
    (data / "audit" / "audit-000000000001-000000000009.jsonl.gz").write_bytes(b"segment")
    backup.make(old, target)
    names = {file.name for file in Repository(target).files(Repository(target).description()) if file.kind == "data"}
    assert names == {"audit.anchor", "audit/audit-000000000001-000000000009.jsonl.gz"}
    assert not [path for path in target.rglob("*") if path.is_file() and b"s" * 40 in path.read_bytes()]
    backup.make(old, target, with_secret_key=True)
    backup_restore.restore(new, target)
    restored = new.settings.data / "secret.key"
    assert restored.read_text() == "s" * 40
    assert restored.stat().st_mode & 0o777 == 0o600
    assert (new.settings.data / "audit" / "audit-000000000001-000000000009.jsonl.gz").read_bytes() == b"segment"
    assert not [path for path in target.rglob("*") if path.stat().st_mode & 0o077]  # nobody else's to read


def test_a_backup_has_a_place_of_its_own(old: Archive, target: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="is lost with it"):
        backup.make(old, old.settings.data / "backup")
    with pytest.raises(BadRequest, match="is lost with it"):
        backup.make(old, old.settings.resolved_storage_root)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(BadRequest, match="neither empty nor"):
        backup.make(old, tmp_path / "full")
    with pytest.raises(BadRequest, match="no directory of backups"):
        backup_restore.verify(tmp_path / "full")
    repository = Repository(target)
    repository.create()
    with pytest.raises(NotFound):
        backup_restore.verify(target)
    with pytest.raises(NotFound):
        backup_restore.verify(target, "../../etc")
    with repository.locked(), pytest.raises(Busy, match="another process"):
        backup.make(old, target)


def test_a_backup_of_an_older_schema_is_restored_and_migrated(
    old: Archive, new: Archive, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a release of schema 0006 would have written: its tables and columns."""
    past = old.settings.data.parent / "past.db"
    catalog = Catalog(f"sqlite:///{past}")
    catalog.migrate("0006")
    catalog.close()
    with sqlite3.connect(past) as conn:
        names = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {name: {row[1] for row in conn.execute(f"PRAGMA table_info({name})")} for name in names}
    conn.close()
    snapshot_lines = snapshots.lines

    def lines(conn: Any) -> Iterator[Any]:
        kept: list[int] | None = None
        for line in snapshot_lines(conn):
            if isinstance(line, list):
                if kept is not None:
                    yield [line[number] for number in kept]
            elif "table" in line:
                known = columns.get(line["table"])
                kept = None if known is None else [n for n, name in enumerate(line["columns"]) if name in known]
                if kept is not None:
                    yield {**line, "columns": [line["columns"][n] for n in kept]}
            else:
                yield {**line, "revision": "0006"} if "revision" in line else line

    with monkeypatch.context() as patch:
        patch.setattr("pacslite.core.backup.snapshots.lines", lines)
        patch.setattr("pacslite.core.backup.REVISION", "0006")
        backup.make(old, target)
    backup_restore.restore(new, target)
    new.catalog.check_revision()
    assert rows(new) == rows(old)


def test_a_backup_of_a_newer_schema_is_refused(old: Archive, new: Archive, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("pacslite.core.backup.REVISION", "9999")
        backup.make(old, target)
    with pytest.raises(Conflict, match="newer"):
        backup_restore.restore(new, target)


def test_a_snapshot_without_its_end_is_no_catalog(old: Archive, new: Archive) -> None:
    with old.catalog.read() as conn:
        lines = list(snapshots.lines(conn))
    new.catalog.migrate()
    with pytest.raises(StorageError, match="no end"):
        new.catalog.write(lambda conn: snapshots.restore(conn, lines[:-1], lambda table, row: True))
    with new.catalog.read() as conn:
        assert snapshots.is_empty(conn)
    assert json.loads(json.dumps(lines)) == lines


def test_packed_bytes_are_backed_up_as_they_were_sent_and_nothing_is_left_behind(old: Archive, new: Archive, target: Path) -> None:
    before = contents(old)
    for row in list(rows_of_blobs(old.catalog)):
        if row.state == "live":
            relocate(old, row, None)
    assert any(key.endswith("_packed.gz") for key in contents(old))
    backup.make(old, target)
    backup_restore.restore(new, target)
    assert contents(new) == {key: sha256 for key, sha256 in before.items() if key in contents(new)}
    assert without_bytes(new) == []
    assert erase_doomed(new.catalog, new.store, grace_s=-1) == 1  # what was deleted, and nothing of what was moved
    assert without_bytes(new) == []


@pytest.mark.parametrize(("of", "to"), [("sqlite filesystem", "postgresql s3"), ("postgresql s3", "sqlite filesystem")])
def test_files_come_back_with_versions_trash_and_shared_bytes(
    place: Callable[[str, str, str], Archive], of: str, to: str, target: Path
) -> None:
    old, new = place("old", *of.split()), place("new", *to.split())
    old.catalog.migrate()
    owner, about = Owner(None, "anna"), Description(new_patient(old.catalog, "4711"), MedicalFileType.PHOTO)
    first = files.add(old, [_arrived(old, photo((1, 2, 3)))], about, owner, ADMIN)
    files.add_version(old, first.id, [_arrived(old, photo((4, 5, 6)))], FileVersionType.FINAL, "später", owner, ADMIN)
    files.add(old, [_arrived(old, photo((1, 2, 3)))], about, owner, ADMIN)
    trash = files.add(old, [_arrived(old, photo((7, 8, 9)))], about, owner, ADMIN)
    files.delete(old, trash.id, owner, ADMIN)
    before = rows(old)
    assert backup.make(old, target).blobs == 3
    backup_restore.restore(new, target)
    assert rows(new) == before
    assert contents(new) == contents(old)
    assert [one.number for one in files.versions(new, first.id)[1]] == [2, 1]
    assert files.undelete(new, trash.id, owner, ADMIN).id == trash.id


def _arrived(of: Archive, data: bytes) -> Arrived:
    with of.spool.create() as writer:
        writer.write(data)
        return Arrived(writer.finish(), "Bild ä.jpg")
