"""Files, patients made by hand and merges come back from storage and journal alone, with the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from pacslite.catalog import quotas
from pacslite.catalog.blobs import StoredBlob
from pacslite.catalog.changes import Origin
from pacslite.catalog.file_models import quota, rendition
from pacslite.catalog.models import job, patient
from pacslite.core import file_content, files, patients
from pacslite.core.erasure import erase_doomed
from pacslite.core.file_content import Which
from pacslite.core.file_types import FileVersionType, MedicalFileType
from pacslite.core.files import Arrived, Description, FileRecord, Owner
from pacslite.core.journal import Journal
from pacslite.core.patients import About, Cause
from pacslite.core.reindex import reindex
from pacslite.core.relocation import relocate
from pacslite.core.removal import Target, remove
from pacslite.core.stocktaking import rows_of
from pacslite.errors import Gone
from tests.support.archive import Archive, slice_of
from tests.support.catalog_dump import dump
from tests.support.data_sets import part10
from tests.support.files import photo
from tests.support.rebuilding import Empty

ANNA, BEN = Owner(3, "anna"), Owner(None, "ben")
ORIGIN = Origin("upload", actor="anna", address="10.0.0.1", request_id="r1")
CAUSE = Cause(Origin("api", actor="anna"))
# Times of rows that the journal tells of only nearly: those of its own entries stand for them.
_NEARLY = {"blob": ("created_at", "doomed_at"), "purged_file": ("purged_at",)}
# Made again, by jobs.
_MADE = ("rendition", "blob_info")


def _arrived(of: Archive, data: bytes, name: str = "Bild.jpg") -> Arrived:
    with of.spool.create() as writer:
        writer.write(data)
        return Arrived(writer.finish(), name)


def _add(of: Archive, about: Description, *data: bytes, owner: Owner = ANNA, name: str = "Bild.jpg") -> FileRecord:
    return files.add(of, [_arrived(of, one, name) for one in data], about, owner, ORIGIN)


def _blob(of: Archive, file_id: str) -> StoredBlob:
    return file_content.find(of, file_id, Which()).blob


def _patient(of: Archive, mrn: str) -> int:
    with of.catalog.read() as conn:
        return int(conn.execute(select(patient.c.pk).where(patient.c.identity_id == mrn)).scalar_one())


def _live(of: Archive) -> dict[str, FileRecord]:
    """Patients by hand, by DICOM, gone again, changed and merged; files of every fate."""
    gone = of.accept(slice_of("1.9", "1.9.1", "1.9.1.1", PatientID="GONE"))
    of.accept(slice_of("1.1", "1.1.1", "1.1.1.1", PatientID="A", PatientName="Arzt^Ada"))
    remove(of.catalog, Target(gone.study_instance_uid), ORIGIN)  # its number is nobody's any more
    of.accept(slice_of("1.2", "1.2.1", "1.2.1.1", PatientID="B"))
    by_hand = patients.create(of, "HAND", None, About({"name": "Müller^Eva", "birth_date": "1980-02-03", "sex": "F"}), CAUSE).id
    patients.update(of, by_hand, About({"name": "Maier^Eva", "sex": None}), CAUSE)
    a, b = _patient(of, "A"), _patient(of, "B")
    red, blue, green = photo((200, 0, 0)), photo((0, 0, 200)), photo((0, 200, 0))
    described = Description(a, MedicalFileType.PHOTO, study_date="2026-01-02", body_part="hand", description="wie gesehen")
    made = {"versions": _add(of, described, red, name="手のひら.jpg")}
    uid = made["versions"].id
    files.add_version(of, uid, [_arrived(of, blue)], FileVersionType.FOLLOWUP, "später", BEN, ORIGIN)
    files.restore(of, uid, 1, ANNA, ORIGIN)
    files.update(of, uid, {"description": "anders", "study_instance_uid": "1.1"}, ANNA, ORIGIN)
    made["shared"] = _add(of, Description(b, MedicalFileType.PHOTO), red, owner=BEN)
    made["series"] = _add(of, Description(by_hand, MedicalFileType.PHOTO_SERIES), red, green, blue)
    made["trash"] = _add(of, Description(by_hand, MedicalFileType.PHOTO), photo((1, 2, 3)))
    files.delete(of, made["trash"].id, ANNA, ORIGIN)
    made["back"] = _add(of, Description(by_hand, MedicalFileType.PHOTO), photo((4, 5, 6)))
    files.delete(of, made["back"].id, ANNA, ORIGIN)
    files.undelete(of, made["back"].id, ANNA, ORIGIN)
    made["purged"] = _add(of, Description(by_hand, MedicalFileType.PHOTO), photo((7, 8, 9)))
    files.purge(of, made["purged"].id, ANNA, ORIGIN)
    made["again"] = _add(of, Description(by_hand, MedicalFileType.PHOTO), photo((7, 8, 9)))  # the bytes of the purged one, with a new key
    instance = part10(slice_of("1.3", "1.3.1", "1.3.1.1", PatientID="A", PatientName="Arzt^Ada"))
    made["dicom"] = _add(of, Description(a, MedicalFileType.DICOM), instance, name="one.dcm")
    merged = patients.create(of, "TWICE", None, About({"name": "Maier^Eva"}), CAUSE).id
    made["merged"] = _add(of, Description(merged, MedicalFileType.PHOTO), photo((9, 9, 9)))
    patients.merge(of, merged, by_hand, CAUSE)
    patients.merge(of, b, a, CAUSE)
    of.accept(slice_of("1.4", "1.4.1", "1.4.1.1", PatientID="B"))  # arrives for the one whom B became part of
    patients.unmerge(of, b, CAUSE)
    of.catalog.write(lambda conn: quotas.set_quota(conn, 3, 10**9))
    Journal(of.store, of.spool).write_new(of.catalog)
    return made


def _compared(of: Archive) -> dict[str, list[dict[str, Any]]]:
    tables = dump(of.catalog, numbers=True)
    for name, columns in _NEARLY.items():
        for row in tables[name]:
            for column in columns:
                row[column] = row[column] is not None
        tables[name].sort(key=repr)
    return {name: rows for name, rows in tables.items() if name not in _MADE}


def _assert_same(after: dict[str, list[dict[str, Any]]], before: dict[str, list[dict[str, Any]]]) -> None:
    for table, rows in before.items():
        if table == "change":  # what is to be made again is queued, which is told behind all else
            changes = sorted(after[table], key=lambda row: int(row["seq"]))
            assert changes[: len(rows)] == sorted(rows, key=lambda row: int(row["seq"]))
            assert {row["kind"] for row in changes[len(rows) :]} <= {"job_changed"}
        elif table == "quota":
            used = [{"account_id": row["account_id"], "used_bytes": row["used_bytes"]} for row in rows]
            assert [{name: row[name] for name in ("account_id", "used_bytes")} for row in after[table]] == used
        else:
            assert after[table] == rows, table


def test_the_rebuilt_catalog_says_of_files_and_patients_what_the_lost_one_said(anywhere: Archive, empty: Empty) -> None:
    made = _live(anywhere)
    before = _compared(anywhere)
    assert {row["kind"] for row in before["change"]} >= {
        *("file_created", "file_versioned", "file_updated", "file_deleted", "file_undeleted", "file_purged"),
        *("patient_created", "patient_edited", "patient_merged", "patient_unmerged"),
    }
    new = empty(anywhere)
    report = reindex(new)
    assert (report.refused, report.missing, report.not_journaled, report.unknown_files) == ([], [], [], [])
    assert report.files == 11
    _assert_same(_compared(new), before)
    assert Journal(new.store, new.spool).is_continued_by(new.catalog)
    record, listed = files.versions(new, made["versions"].id)
    assert [(one.number, one.type, one.created_by) for one in listed] == [
        (3, "baseline", "anna"),
        (2, "followup", "ben"),
        (1, "baseline", "anna"),
    ]
    assert (record.version.parts[0].original_filename, record.description) == ("手のひら.jpg", "anders")
    with pytest.raises(Gone):
        files.get(new, made["purged"].id)
    found = _blob(new, made["shared"].id)
    with new.stores.open(found) as stream:
        assert stream.read() == photo((200, 0, 0))


def test_what_is_made_of_files_is_queued_to_be_made_again(local: Archive, empty: Empty) -> None:
    _live(local)
    new = empty(local)
    reindex(new)
    with local.catalog.read() as old_conn, new.catalog.read() as conn:
        wanted = old_conn.execute(select(rendition.c.name)).scalars().all()
        states = [tuple(row) for row in conn.execute(select(rendition.c.name, rendition.c.state))]
        jobs = conn.execute(select(job.c.state).where(job.c.kind == "files.renditions")).scalars().all()
    assert sorted(name for name, _ in states) == sorted(wanted)
    assert {state for _, state in states} == {"pending"}
    assert jobs == ["queued"] * (len(states) // 3)


def test_reindexing_in_place_keeps_limits_and_counts_anew_what_is_kept(local: Archive) -> None:
    _live(local)
    before = _compared(local)
    local.catalog.write(lambda conn: conn.execute(update(quota).values(used_bytes=quota.c.used_bytes + 77)))
    reindex(local)
    after = _compared(local)
    _assert_same(after, before)
    assert after["quota"] == before["quota"]


def test_life_goes_on_after_reindexing(local: Archive, empty: Empty) -> None:
    made = _live(local)
    with local.catalog.read() as conn:
        highest = max(conn.execute(select(patient.c.pk)).scalars())
    new = empty(local)
    reindex(new)
    new.accept(slice_of("1.8", "1.8.1", "1.8.1.1", PatientID="LATER"))
    assert _patient(new, "LATER") > highest
    files.add_version(new, made["series"].id, [_arrived(new, photo((5, 5, 5)))], FileVersionType.FINAL, None, ANNA, ORIGIN)
    for name in ("shared", "versions", "series"):
        files.purge(new, made[name].id, ANNA, ORIGIN)
    with new.catalog.read() as conn:
        kept = {row.account_id: row.used_bytes for row in conn.execute(select(quota.c.account_id, quota.c.used_bytes))}
    assert kept[0] == 0  # what ben brought is gone
    erase_doomed(new.catalog, new.store, grace_s=-1)
    for row in rows_of(new.catalog):
        assert new.stores.size(row) == row.size_bytes


def test_bytes_that_are_gone_or_damaged_are_told_and_their_files_are_there(local: Archive, empty: Empty) -> None:
    made = _live(local)
    lost, damaged = (_blob(local, made[name].id).storage_key for name in ("back", "again"))
    local.store.delete(lost)
    path = local.store.local_path(damaged)
    assert path is not None
    path.write_bytes(b"x" + path.read_bytes()[1:])
    before = _compared(local)
    new = empty(local)
    report = reindex(new)
    assert report.missing == [lost]
    assert [key for key, _ in report.refused] == [damaged]
    _assert_same(_compared(new), before)


def test_bytes_of_purged_files_may_be_gone(local: Archive, empty: Empty) -> None:
    _live(local)
    erase_doomed(local.catalog, local.store, grace_s=-1)
    new = empty(local)
    assert reindex(new).missing == []


def test_packed_bytes_are_found_again(local: Archive, empty: Empty) -> None:
    local.accept(slice_of("1.7", "1.7.1", "1.7.1.1", PatientID="A"))
    about = Description(_patient(local, "A"), MedicalFileType.PHOTO)
    made = _add(local, about, photo((1, 1, 1), (900, 900)))
    Journal(local.store, local.spool).write_new(local.catalog)
    for row in list(rows_of(local.catalog)):
        relocate(local, row, None)
    erase_doomed(local.catalog, local.store, grace_s=-1)
    assert any(info.key.endswith("_packed.gz") for info in local.store.list("radiology/"))
    packed = {row.uid: (row.storage_key, row.sha256) for row in rows_of(local.catalog)}
    new = empty(local)
    report = reindex(new)
    assert (report.missing, report.refused, report.not_journaled) == ([], [], [])
    assert {row.uid: (row.storage_key, row.sha256) for row in rows_of(new.catalog)} == packed
    with new.stores.open(_blob(new, made.id)) as stream:
        assert stream.read() == photo((1, 1, 1), (900, 900))


def test_a_file_of_a_patient_whose_instances_are_lost_keeps_patient_and_number(local: Archive, empty: Empty) -> None:
    local.accept(slice_of("1.6", "1.6.1", "1.6.1.1", PatientID="OTHER"))
    lost = local.key_of(local.accept(slice_of("1.7", "1.7.1", "1.7.1.1", PatientID="A")))
    number = _patient(local, "A")
    made = _add(local, Description(number, MedicalFileType.PHOTO), photo())
    Journal(local.store, local.spool).write_new(local.catalog)
    local.store.delete(lost)
    new = empty(local)
    assert reindex(new).missing == [lost]
    assert _patient(new, "A") == number
    assert files.get(new, made.id).patient_id == number


def test_files_that_the_journal_had_not_reached_are_listed(local: Archive, empty: Empty) -> None:
    _live(local)
    key = _blob(local, _add(local, Description(_patient(local, "A"), MedicalFileType.PHOTO), photo((3, 1, 4))).id).storage_key
    new = empty(local)
    assert reindex(new).unknown_files == [key]


def test_patients_of_two_lives_of_a_catalog_are_not_taken_for_each_other(local: Archive, empty: Empty) -> None:
    """A catalog was lost and not rebuilt: its successor gave the same numbers to others, and its changes follow in the journal."""
    first = _patient_with_file(local, "FIRST")
    second_life = empty(local)
    second = _patient_with_file(second_life, "SECOND")
    new = empty(local)
    reindex(new)
    with new.catalog.read() as conn:
        whose = {row.identity_id: row.pk for row in conn.execute(select(patient.c.identity_id, patient.c.pk))}
    assert len(set(whose.values())) == 2
    assert files.get(new, first.id).patient_id == whose["FIRST"]
    assert files.get(new, second.id).patient_id == whose["SECOND"]


def _patient_with_file(of: Archive, mrn: str) -> FileRecord:
    number = patients.create(of, mrn, None, About({}), CAUSE).id
    made = _add(of, Description(number, MedicalFileType.PHOTO), photo((len(mrn), 0, 0)))
    Journal(of.store, of.spool).write_new(of.catalog)
    return made
