"""Patients made by hand and by DICOM are the same ones; a merge moves what they have, and can be undone exactly."""

from __future__ import annotations

import contextlib
import random
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, func, insert, select, text

from pacslite.catalog import changes, deletions, instances, restrictions, search, timeline
from pacslite.catalog.changes import Kind, Origin
from pacslite.catalog.database import Catalog
from pacslite.catalog.deletions import Target
from pacslite.catalog.file_models import file, file_part, file_version, patient_merge
from pacslite.catalog.models import blob, conflict, patient, study
from pacslite.catalog.restrictions import KEYS, Restriction
from pacslite.catalog.search import Search
from pacslite.catalog.statements import now_text
from pacslite.catalog.visibility import Visibility
from pacslite.core import patients
from pacslite.core.patients import About, Cause, Patient
from pacslite.dicom.attributes import BY_KEYWORD, Level
from pacslite.errors import Conflict, InvalidForm, NotFound
from pacslite.settings import Settings
from tests.support.arrivals import arrival, blob_of, store
from tests.support.processes import until

CAUSE = Cause(Origin("api", actor="anna"))


@pytest.fixture
def parts(catalog: Catalog) -> Any:
    """What patients need of a process."""
    return SimpleNamespace(settings=Settings(default_issuer="HOSPITAL"), catalog=catalog)


def _made(parts: Any, mrn: str, name: str = "Hand^Made", issuer: str | None = None, **about: str) -> Patient:
    return patients.create(parts, mrn, issuer, About({"name": name, **about}), CAUSE)


def _arrives(parts: Any, study_uid: str, mrn: str, sop: int = 1, **texts: str) -> None:
    instance = f"{study_uid}.1.{sop}"
    store(parts.catalog, arrival(study_uid, f"{study_uid}.1", instance, digest=instance, issuer="HOSPITAL", PatientID=mrn, **texts))


def _add_file(parts: Any, patient_id: int, at: str = "2026-02-03T04:05:06.000000Z", **more: Any) -> str:
    uid = str(uuid4())

    def work(conn: Connection) -> None:
        row = {"uid": uid, "patient_pk": patient_id, "file_type": "photo", "version_number": 1, "created_by": "anna", "created_at": at}
        pk = conn.execute(insert(file).values(**row, updated_at=at, **more).returning(file.c.pk)).scalar_one()
        version = {"file_pk": pk, "number": 1, "type": "baseline", "created_by": "anna", "created_at": at}
        version_pk = conn.execute(insert(file_version).values(**version).returning(file_version.c.pk)).scalar_one()
        bytes_ = {"uid": uid, "storage_key": uid, "store_name": "x", "size_bytes": 9, "sha256": "00", "media_type": "image/jpeg"}
        blob_pk = conn.execute(insert(blob).values(**bytes_, created_at=at).returning(blob.c.pk)).scalar_one()
        named = {"original_filename": "a.jpg", "size_bytes": 9, "sha256": "00", "media_type": "image/jpeg"}
        conn.execute(insert(file_part).values(version_pk=version_pk, position=0, blob_pk=blob_pk, **named))

    parts.catalog.write(work)
    return uid


def _id(parts: Any, mrn: str) -> int:
    with parts.catalog.read() as conn:
        return int(conn.execute(select(patient.c.pk).where(patient.c.identity_id == mrn)).scalar_one())


def _of(parts: Any, patient_id: int) -> tuple[set[str], set[str]]:
    """The studies and files of a patient."""
    with parts.catalog.read() as conn:
        studies = conn.execute(select(study.c.study_instance_uid).where(study.c.patient_pk == patient_id)).scalars()
        files = conn.execute(select(file.c.uid).where(file.c.patient_pk == patient_id)).scalars()
        return set(studies), set(files)


def _at_patient_level(parts: Any) -> dict[str, int]:
    """What C-FIND and QIDO-RS find of patients: the number of studies by PatientID."""
    columns = tuple(BY_KEYWORD[keyword] for keyword in ("PatientID", "NumberOfPatientRelatedStudies"))
    with parts.catalog.read() as conn:
        return {row[1]: row[2] for row in search.find(conn, Search(Level.PATIENT, (), columns, 100)).rows}  # type: ignore[misc]


def test_a_patient_made_by_hand_is_the_one_that_instances_name(parts: Any) -> None:
    made = _made(parts, "  M1 ", birth_date="1980-02-29", sex="F")
    assert (made.mrn, made.issuer, made.birth_date, made.sex) == ("M1", "HOSPITAL", "19800229", "F")
    _arrives(parts, "1.1", "M1", PatientName="Hand^Made^B")
    assert _of(parts, made.id)[0] == {"1.1"}
    known = patients.get(parts, made.id)
    assert (known.name, known.birth_date, known.sex) == ("Hand^Made^B", "19800229", "F"), "what only a person has told stays"
    assert [one.id for one, _ in patients.listed(parts, "made", None, 9)[0]] == [made.id]


def test_a_patient_whom_an_instance_made_cannot_be_made_again(parts: Any) -> None:
    _arrives(parts, "1.1", "D1")
    with pytest.raises(Conflict):
        _made(parts, "D1 ")
    other = _made(parts, "D1", issuer="ELSEWHERE")
    assert _of(parts, other.id) == (set(), set())
    assert patients.listed(parts, "D1", None, 9)[1] == 2


def test_a_correction_stands_until_an_instance_tells_something_else_than_before(parts: Any) -> None:
    _arrives(parts, "1.1", "D1", PatientName="Wrong^Name")
    pk = _id(parts, "D1")
    patients.update(parts, pk, About({"name": "Right^Name", "birth_date": None}), CAUSE)
    _arrives(parts, "1.1", "D1", 2, PatientName="Wrong^Name")
    assert patients.get(parts, pk).name == "Right^Name"
    assert patients.listed(parts, "right", None, 9)[1] == 1
    assert patients.listed(parts, "wrong", None, 9)[1] == 0
    _arrives(parts, "1.1", "D1", 3, PatientName="Newer^Name")
    assert patients.get(parts, pk).name == "Newer^Name"


@pytest.mark.parametrize(
    "given", [{"mrn": " "}, {"mrn": "a\\b"}, {"mrn": "x" * 65}, {"issuer": "a\nb"}, {"name": "^"}, {"name": "a=b=c=d"}]
)
def test_what_dicom_could_not_write_is_refused(parts: Any, given: dict[str, str]) -> None:
    values = {"mrn": "M", "issuer": None, "name": "A", **given}
    with pytest.raises(InvalidForm) as refused:
        patients.create(parts, values["mrn"], values["issuer"], About({"name": values["name"]}), CAUSE)  # type: ignore[arg-type]
    assert refused.value.fields[0][0] == next(iter(given))


@pytest.mark.parametrize("about", [{"birth_date": "1980-02-30"}, {"birth_date": "19800101"}, {"sex": "X"}, {"sex": ""}])
def test_dates_and_sexes_that_are_none_are_refused(parts: Any, about: dict[str, str]) -> None:
    with pytest.raises(InvalidForm):
        _made(parts, "M", **about)


def test_who_was_made_by_hand_or_has_files_outlives_the_last_study(parts: Any) -> None:
    made = _made(parts, "M1")
    for study_uid, mrn in (("1.1", "M1"), ("1.2", "D1"), ("1.3", "D2")):
        _arrives(parts, study_uid, mrn)
    with_file = _id(parts, "D1")
    _add_file(parts, with_file)
    for study_uid in ("1.1", "1.2", "1.3"):
        parts.catalog.write(lambda conn, uid=study_uid: deletions.delete_target(conn, Target(uid), Origin("api")))
    with parts.catalog.read() as conn:
        assert set(conn.execute(select(patient.c.pk)).scalars()) == {made.id, with_file}


def test_the_number_of_a_patient_who_is_gone_is_given_to_nobody_else(parts: Any) -> None:
    """Storage keys, links and the audit log name patients by their numbers."""
    _arrives(parts, "1.2.1", "GONE")
    gone = _id(parts, "GONE")
    parts.catalog.write(lambda conn: deletions.delete_target(conn, Target("1.2.1"), CAUSE.origin))
    _arrives(parts, "1.2.2", "NEXT")
    later = _id(parts, "NEXT")
    assert later > gone
    parts.catalog.write(lambda conn: deletions.delete_target(conn, Target("1.2.2"), CAUSE.origin))
    assert _made(parts, "HAND").id > later


def test_a_merge_moves_all_and_later_arrivals_follow(parts: Any) -> None:
    _arrives(parts, "1.1", "A")
    _arrives(parts, "1.2", "B", PatientName="Be^Careful")
    a, b = _id(parts, "A"), _id(parts, "B")
    of_a, of_b = _add_file(parts, a), _add_file(parts, b)
    merged = patients.merge(parts, a, b, CAUSE)
    assert (merged.id, merged.merged_into) == (a, b)
    _arrives(parts, "1.1", "A", 2)
    _arrives(parts, "1.3", "A")
    _arrives(parts, "1.4", "B", PatientName="Be^Careful")
    _arrives(parts, "1.1", "B", 3, PatientName="Else^Somebody")
    later = _add_file(parts, b)
    assert _of(parts, b) == ({"1.1", "1.2", "1.3", "1.4"}, {of_a, of_b, later})
    assert _of(parts, a) == (set(), set())
    assert _at_patient_level(parts) == {"B": 4}
    assert patients.get(parts, b).name == "Be^Careful", "the names of who became part of them are no names of theirs"
    with parts.catalog.read() as conn:
        assert conn.execute(select(func.count()).select_from(conflict)).scalar_one() == 0, "the two are one person now"
    assert [one.id for one, _ in patients.listed(parts, "A", None, 9)[0]] == [b], "the old number leads to the other"
    # Undone, everything is where it belongs, also what arrived meanwhile.
    assert patients.unmerge(parts, a, CAUSE).merged_into is None
    assert _of(parts, a) == ({"1.1", "1.3"}, {of_a})
    assert _of(parts, b) == ({"1.2", "1.4"}, {of_b, later})
    assert _at_patient_level(parts) == {"A": 2, "B": 2}
    with parts.catalog.read() as conn:
        kinds = [one.kind for one in changes.after(conn, 0) if one.patient_id == a]
        assert conn.execute(select(patient_merge.c.reverted_at)).scalar_one() is not None
    assert kinds == [Kind.PATIENT_MERGED, Kind.PATIENT_UNMERGED]


def test_merges_of_merged_patients_are_undone_in_any_order(parts: Any) -> None:
    for mrn, study_uid in (("X", "1.1"), ("A", "1.2"), ("B", "1.3")):
        _arrives(parts, study_uid, mrn)
    x, a, b = (_id(parts, mrn) for mrn in "XAB")
    patients.merge(parts, x, a, CAUSE)
    patients.merge(parts, a, b, CAUSE)
    _arrives(parts, "1.4", "X")
    assert _of(parts, b)[0] == {"1.1", "1.2", "1.3", "1.4"}
    with pytest.raises(Conflict):
        patients.merge(parts, x, b, CAUSE)
    with pytest.raises(Conflict):
        patients.merge(parts, b, x, CAUSE)
    patients.unmerge(parts, a, CAUSE)
    assert (_of(parts, a)[0], _of(parts, b)[0]) == ({"1.1", "1.2", "1.4"}, {"1.3"})
    patients.merge(parts, a, b, CAUSE)
    patients.unmerge(parts, x, CAUSE)
    assert (_of(parts, x)[0], _of(parts, b)[0]) == ({"1.1", "1.4"}, {"1.2", "1.3"})
    patients.unmerge(parts, a, CAUSE)
    assert _of(parts, a)[0] == {"1.2"}
    with pytest.raises(Conflict):
        patients.unmerge(parts, a, CAUSE)


def test_a_file_brought_while_merged_goes_with_its_study(parts: Any) -> None:
    """One that was with the other before stays there, whatever study it is tied to."""
    for mrn, study_uid in (("A", "1.1"), ("B", "1.2")):
        _arrives(parts, study_uid, mrn)
    a, b = _id(parts, "A"), _id(parts, "B")
    before = _add_file(parts, b, study_instance_uid="1.1")
    patients.merge(parts, a, b, CAUSE)
    now = now_text()
    tied, instance = _add_file(parts, b, now, study_instance_uid="1.1"), _add_file(parts, b, now, dicom_study_uid="1.1")
    own, alone = _add_file(parts, b, now, study_instance_uid="1.2"), _add_file(parts, b, now)
    patients.unmerge(parts, a, CAUSE)
    assert _of(parts, a)[1] == {tied, instance}
    assert _of(parts, b)[1] == {before, own, alone}


def test_nobody_becomes_part_of_themselves_or_of_nobody(parts: Any) -> None:
    one = _made(parts, "A")
    for into in (one.id, 4711):
        with pytest.raises(InvalidForm):
            patients.merge(parts, one.id, into, CAUSE)
    with pytest.raises(NotFound):
        patients.merge(parts, 4711, one.id, CAUSE)


def test_a_deleted_study_of_a_merged_patient_leaves_the_merge(parts: Any) -> None:
    _arrives(parts, "1.1", "A")
    _arrives(parts, "1.2", "B")
    a, b = _id(parts, "A"), _id(parts, "B")
    patients.merge(parts, a, b, CAUSE)
    for uid in ("1.1", "1.2"):
        parts.catalog.write(lambda conn, u=uid: deletions.delete_target(conn, Target(u), Origin("api")))
    _arrives(parts, "1.1", "A")
    assert _of(parts, b)[0] == {"1.1"}
    patients.unmerge(parts, a, CAUSE)
    assert _of(parts, a)[0] == {"1.1"}


def _limit(parts: Any, patient_id: int, restriction: Restriction) -> None:
    def work(conn: Connection) -> None:
        named = restrictions.patient_named(conn, patient_id)
        assert named is not None
        restrictions.restrict(conn, named, restriction)

    parts.catalog.write(work, KEYS)


def test_no_merge_shows_what_was_hidden(parts: Any) -> None:
    for mrn, study_uid in (("A", "1.1"), ("B", "1.2")):
        _arrives(parts, study_uid, mrn)
    a, b = _id(parts, "A"), _id(parts, "B")
    secret = Restriction(("heart",))
    _limit(parts, a, secret)
    with pytest.raises(Conflict, match="limited"):
        patients.merge(parts, a, b, CAUSE)
    outsider = SimpleNamespace(settings=parts.settings, catalog=parts.catalog.seen_by(Visibility(actor="o")))
    with pytest.raises(NotFound):
        patients.merge(outsider, a, b, CAUSE)
    with pytest.raises(InvalidForm):
        patients.merge(outsider, b, a, CAUSE)
    _limit(parts, a, Restriction())
    patients.merge(parts, a, b, CAUSE)
    _limit(parts, b, secret)
    patients.unmerge(parts, a, CAUSE)
    for pk in (a, b):
        with pytest.raises(NotFound):
            patients.get(outsider, pk)
    assert patients.listed(outsider, "", None, 9) == ([], 0)


def test_a_merged_patient_is_seen_by_what_was_theirs(parts: Any) -> None:
    """One whose only study is hidden does not become seen by having no study of their own any more."""
    for mrn, study_uid in (("A", "1.1"), ("B", "1.2")):
        _arrives(parts, study_uid, mrn)
    a, b = _id(parts, "A"), _id(parts, "B")
    parts.catalog.write(lambda conn: restrictions.restrict(conn, restrictions.Named(Level.STUDY, "1.1"), Restriction(("heart",))), KEYS)
    outsider = SimpleNamespace(settings=parts.settings, catalog=parts.catalog.seen_by(Visibility(actor="o")))
    patients.merge(parts, a, b, CAUSE)
    assert patients.get(outsider, b).id == b
    with pytest.raises(NotFound):
        patients.get(outsider, a)
    _add_file(parts, b, origin_patient=a)
    assert patients.get(outsider, a).merged_into == b


def _juggle(parts: Any, ids: list[int], seed: int, done: threading.Event) -> int:
    """Merge and part patients at random until the others are done; how often that went."""
    mine, went = random.Random(seed), 0
    while not done.is_set():
        one, other = mine.sample(ids, 2)
        with contextlib.suppress(Conflict):
            if mine.random() < 0.5:
                patients.merge(parts, one, other, CAUSE)
            else:
                patients.unmerge(parts, one, CAUSE)
            went += 1
    return went


def test_merging_while_instances_arrive_loses_and_misplaces_nothing(parts: Any) -> None:
    """Threads bring studies of three numbers while others merge and part them: in the end each is where it belongs."""
    ids = {mrn: _made(parts, mrn).id for mrn in ("A", "B", "C")}
    done = threading.Event()

    def bring(mrn: str) -> None:
        for n in range(8):
            _arrives(parts, f"1.{ids[mrn]}.{n}", mrn)
            _arrives(parts, f"1.{ids[mrn]}.{n}", mrn, 2)

    with ThreadPoolExecutor(5) as pool:
        juggling = [pool.submit(_juggle, parts, list(ids.values()), seed, done) for seed in (1, 2)]
        bringing = [pool.submit(bring, mrn) for mrn in ids]
        try:
            for one in bringing:
                one.result()
        finally:
            done.set()
        assert sum(one.result() for one in juggling)
    for pk in ids.values():
        if patients.get(parts, pk).merged_into is not None:
            patients.unmerge(parts, pk, CAUSE)
    for pk in ids.values():
        assert _of(parts, pk)[0] == {f"1.{pk}.{n}" for n in range(8)}
    with parts.catalog.read() as conn:
        assert conn.execute(select(func.count()).select_from(conflict)).scalar_one() == 0
        assert conn.execute(select(func.count()).select_from(study).where(study.c.origin_patient.is_not(None))).scalar_one() == 0


def _waits(parts: Any, other: Future[Any]) -> bool:
    """Whether a transaction waits for a lock; on SQLite the second writer always does."""
    if parts.catalog.is_sqlite or other.done():
        return True
    with parts.catalog.read() as conn:
        return bool(conn.execute(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")).scalar_one())


@pytest.mark.parametrize("parting", [False, True])
def test_a_study_that_is_arriving_is_moved_as_well(parts: Any, parting: bool) -> None:
    """The arrival has looked up its patient and has not committed yet when the merge, or its undoing, begins."""
    a, b, c = (_made(parts, mrn).id for mrn in "ABC")
    patients.merge(parts, a, b, CAUSE)
    if not parting:
        patients.merge(parts, b, c, CAUSE)
        patients.unmerge(parts, b, CAUSE)
    one = arrival("1.1", "1.1.1", "1.1.1.1", issuer="HOSPITAL", PatientID="A")
    recorded = threading.Event()
    with ThreadPoolExecutor(2) as pool:

        def arrive(conn: Connection) -> None:
            instances.record(conn, one, blob_of(one), None)
            recorded.set()
            until(lambda: bool(moving) and _waits(parts, moving[0]))

        moving: list[Future[Any]] = []
        arriving = pool.submit(parts.catalog.write, arrive, one.keys)
        assert recorded.wait(30)
        moving.append(pool.submit(patients.unmerge, parts, a, CAUSE) if parting else pool.submit(patients.merge, parts, b, c, CAUSE))
        arriving.result()
        moving[0].result()
    assert _of(parts, a if parting else c)[0] == {"1.1"}


def test_of_two_who_make_the_same_patient_one_does(parts: Any) -> None:
    outcomes: list[bool] = []

    def make() -> None:
        try:
            _made(parts, "M")
            outcomes.append(True)
        except Conflict:
            outcomes.append(False)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 5 + [True]


def test_the_line_of_time_is_newest_first_and_pages_leave_nothing_out(parts: Any) -> None:
    made = _made(parts, "M")
    _arrives(parts, "1.1", "M", StudyDate="20260301", StudyTime="0800")
    _arrives(parts, "1.2", "M", StudyDate="20260301", StudyTime="0900")
    _arrives(parts, "1.3", "M", StudyDate="", StudyTime="")  # then it is as old as its arrival
    ids = [_add_file(parts, made.id, study_date=day) for day in ("2026-03-02", "2026-02-28", None)]
    _add_file(parts, made.id, state="trash")
    _add_file(parts, made.id, dicom_study_uid="1.9", dicom_series_uid="1.9.1", dicom_sop_uid="1.9.1.1")  # its instance is gone
    with parts.catalog.read() as conn:
        whole, total = timeline.page(conn, made.id, None, 100)
        assert total == len(whole) == 6
        told = [entry.study.study_instance_uid if entry.study else entry.file.id for entry in whole if entry.study or entry.file]
        assert told == ["1.3", ids[0], "1.2", "1.1", ids[1], ids[2]]
        paged, before = [], None
        while found := timeline.page(conn, made.id, before, 1)[0]:
            paged += found
            before = found[-1].moment
        assert paged == whole


def test_the_line_of_time_shows_and_counts_nothing_hidden(parts: Any) -> None:
    made = _made(parts, "M")
    for n in (1, 2):
        _arrives(parts, f"1.{n}", "M")
        store(parts.catalog, arrival(f"1.{n}", f"1.{n}.2", f"1.{n}.2.1", digest=f"x{n}", issuer="HOSPITAL", PatientID="M"))
    tied, alone, free = _add_file(parts, made.id, study_instance_uid="1.1"), _add_file(parts, made.id), _add_file(parts, made.id)
    for named in (restrictions.Named(Level.STUDY, "1.1"), restrictions.Named(Level.SERIES, "1.2", "1.2.2"), restrictions.file_named(alone)):
        parts.catalog.write(lambda conn, one=named: restrictions.restrict(conn, one, Restriction(("heart",))), KEYS)
    outsider = SimpleNamespace(settings=parts.settings, catalog=parts.catalog.seen_by(Visibility(actor="o")))
    whole, total = patients.line_of(parts, made.id, None, 100)
    assert total == len(whole) == 5
    seen, total = patients.line_of(outsider, made.id, None, 100)
    assert total == len(seen) == 2
    assert {one.file.id for one in seen if one.file} == {free}
    assert tied
    (one,) = [entry.study for entry in seen if entry.study]
    assert (one.study_instance_uid, one.number_of_series, one.number_of_instances) == ("1.2", 1, 1)


def test_wildcards_in_a_search_are_letters(parts: Any) -> None:
    for mrn, name in (("100%", "Per^Cent"), ("A_B", "Under^Score"), ("AXB", "Müller-Lüdenscheidt^Hans")):
        _made(parts, mrn, name)

    def found(q: str) -> list[str]:
        return [one.mrn for one, _ in patients.listed(parts, q, None, 100)[0]]

    assert found("%") == ["100%"]
    assert found("_") == ["A_B"]
    assert found("a_b") == ["A_B"]
    assert found("mull lud") == ["AXB"]
    assert found("hans müller") == ["AXB"]
    assert found("score per") == []
    assert found("*") == found("?") == found("\\") == []
    assert sorted(found("")) == ["100%", "AXB", "A_B"]


def test_patients_are_listed_by_name_page_by_page(parts: Any) -> None:
    for n in range(7):
        _made(parts, f"M{n}", f"Name^{n % 3}")
    told, after = [], None
    while True:
        found, total = patients.listed(parts, "", after, 2)
        assert total == 7
        told += [one.mrn for one, _ in found]
        if len(found) < 2:
            break
        after = found[-1][1], found[-1][0].id
    assert told == ["M0", "M3", "M6", "M1", "M4", "M2", "M5"]


def test_a_patient_of_a_given_number_leaves_the_next_numbers_free(parts: Any) -> None:
    made = patients.create(parts, "M", None, About({"name": "A"}), CAUSE, 123)
    assert made.id == 123
    with pytest.raises(Conflict):
        patients.create(parts, "N", None, About({"name": "A"}), CAUSE, 123)
    following = [_made(parts, f"F{n}").id for n in range(3)]
    assert min(following) > 123
