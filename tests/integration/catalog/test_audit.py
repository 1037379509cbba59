"""The audit log in both databases: one chain, whatever writes it, that shows every change of it."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, text, update

from pacslite.catalog import audit as rows
from pacslite.catalog import deletions, models
from pacslite.catalog.audit import CHAIN_KEYS, Event, Filter
from pacslite.catalog.changes import Origin
from pacslite.catalog.database import Catalog
from pacslite.catalog.deletions import Target
from pacslite.core import audit_chain, audit_segments
from pacslite.core.audit import Recorder, page
from pacslite.core.audit_chain import Anchor
from pacslite.core.audit_verify import verify
from pacslite.errors import Busy
from tests.support.arrivals import arrival, store
from tests.support.processes import ROOT, environment

EVENTS = models.audit_event


@pytest.fixture
def anchor(tmp_path: Path) -> Anchor:
    return audit_chain.anchor_of(tmp_path)


def noted(catalog: Catalog, count: int, **more: Any) -> None:
    def work(conn: Connection) -> None:
        for number in range(count):
            rows.note(conn, Event("study.read", actor="anna", object_type="study", object_id=str(number), **more))

    catalog.write(work)


def log(catalog: Catalog, **wanted: Any) -> list[Event]:
    return [entry.event for entry in reversed(page(catalog, Filter(**wanted), None, 1000)[0])]


# The chain


def test_an_event_is_there_when_its_transaction_is_and_not_else(catalog: Catalog, anchor: Anchor) -> None:
    def fails(conn: Connection) -> None:
        rows.note(conn, Event("peer.create", object_id="LOST"))
        raise Busy("the change did not happen")

    with pytest.raises(Busy):
        catalog.write(fails)
    catalog.write(lambda conn: rows.note(conn, Event("peer.create", object_id="KEPT", detail={"port": 104})))
    audit_chain.advance(catalog, anchor)
    (event,) = log(catalog)
    assert (event.action, event.object_id, dict(event.detail), event.outcome) == ("peer.create", "KEPT", {"port": 104}, "success")
    assert event.at.endswith("Z")


def test_the_chain_begins_at_nothing_and_has_no_gap(catalog: Catalog, anchor: Anchor) -> None:
    noted(catalog, 1200)
    assert audit_chain.advance(catalog, anchor) == 1200
    report = verify(catalog, anchor)
    assert (report.entries, report.first, report.last, report.anchored, report.problems) == (1200, 1, 1200, 1200, [])
    assert audit_chain.advance(catalog, anchor) == 0


def _processes(url: str, data: Path, names: list[str], count: int) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.support.audit_writer", url, str(data)]
    started = [
        subprocess.Popen(
            [*command, name, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
        )
        for name in names
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return started


def _url(catalog: Catalog) -> str:
    return catalog.url.render_as_string(hide_password=False)


def test_several_processes_keep_one_chain(catalog: Catalog, anchor: Anchor, tmp_path: Path) -> None:
    names = ["one", "two", "three"]
    for process in _processes(_url(catalog), tmp_path, names, 40):
        process.communicate(timeout=120)
        assert process.returncode == 0
    audit_chain.advance(catalog, anchor)
    report = verify(catalog, anchor)
    assert (report.entries, report.last, report.problems) == (120, 120, [])
    assert {name: len(log(catalog, actor=name)) for name in names} == dict.fromkeys(names, 40)


def test_a_process_that_is_killed_leaves_the_chain_whole_and_no_event_lost(catalog: Catalog, anchor: Anchor, tmp_path: Path) -> None:
    said = []
    for process in _processes(_url(catalog), tmp_path, ["first", "second"], 0):
        assert process.stdout is not None
        for _ in range(15):
            line = process.stdout.readline()
        process.kill()
        process.wait(20)
        said.append(int(line))
        rest = process.stdout.read().split()
        said[-1] = int(rest[-1]) if rest else said[-1]
        process.stdout.close()
        if process.stdin is not None:
            process.stdin.close()
    audit_chain.advance(catalog, anchor)
    assert verify(catalog, anchor).problems == []
    for name, last in zip(["first", "second"], said, strict=True):
        kept = [int(event.object_id) for event in log(catalog, actor=name)]
        assert kept == list(range(len(kept)))
        assert len(kept) > last


# What somebody changes


def _edit(conn: Connection) -> None:
    conn.execute(update(EVENTS).where(EVENTS.c.seq == 5).values(actor="somebody else"))


def _edit_with_hash(conn: Connection) -> None:
    """With the hash of the entry made to fit: the next one tells."""
    before, row = (conn.execute(select(EVENTS).where(EVENTS.c.seq == seq)).mappings().one() for seq in (4, 5))
    changed = {**row, "object_id": "changed"}
    values = {"object_id": "changed", "hash": rows.hash_of(5, changed, before["hash"])}
    conn.execute(update(EVENTS).where(EVENTS.c.seq == 5).values(values))


def _delete(conn: Connection) -> None:
    conn.execute(delete(EVENTS).where(EVENTS.c.seq == 5))


def _delete_and_close_ranks(conn: Connection) -> None:
    conn.execute(delete(EVENTS).where(EVENTS.c.seq == 5))
    for seq in range(6, 21):
        conn.execute(update(EVENTS).where(EVENTS.c.seq == seq).values(seq=seq - 1))


def _insert(conn: Connection) -> None:
    row = dict(conn.execute(select(EVENTS).where(EVENTS.c.seq == 5)).mappings().one())
    for seq in range(20, 4, -1):
        conn.execute(update(EVENTS).where(EVENTS.c.seq == seq).values(seq=seq + 1))
    conn.execute(insert(EVENTS).values(**row | {"seq": 5}))


def _swap(conn: Connection) -> None:
    for old, new in ((5, 0), (6, 5), (0, 6)):
        conn.execute(update(EVENTS).where(EVENTS.c.seq == old).values(seq=new))


def _truncate(conn: Connection) -> None:
    conn.execute(delete(EVENTS).where(EVENTS.c.seq > 15))


def _truncate_and_write_on(conn: Connection) -> None:
    _truncate(conn)
    rows.chain(conn, [Event("study.read", object_id=str(number)) for number in range(9)])


def _behead(conn: Connection) -> None:
    conn.execute(delete(EVENTS).where(EVENTS.c.seq <= 5))


def _write_anew(conn: Connection) -> None:
    """Everything, with hashes that fit: the anchor gives it away."""
    events = [entry.event for entry in rows.after(conn, 0, 100)]
    conn.execute(delete(EVENTS))
    rows.chain(conn, [event for event in events if event.object_id != "4"] + [Event("study.read", object_id="more")])


def _empty(conn: Connection) -> None:
    conn.execute(delete(EVENTS))


@pytest.mark.parametrize(
    ("tamper", "seq"),
    [
        (_edit, 5),
        (_edit_with_hash, 6),
        (_delete, 6),
        (_delete_and_close_ranks, 5),
        (_insert, 6),
        (_swap, 5),
        (_truncate, 20),
        (_truncate_and_write_on, 20),
        (_behead, 6),
        (_write_anew, 20),
        (_empty, 20),
    ],
)
def test_every_change_is_detected_and_told_where(catalog: Catalog, anchor: Anchor, tamper: Callable[[Connection], None], seq: int) -> None:
    noted(catalog, 20)
    audit_chain.advance(catalog, anchor)
    assert verify(catalog, anchor).is_whole
    catalog.write(tamper)
    report = verify(catalog, anchor)
    assert not report.is_whole
    assert report.problems[0].seq == seq, report.problems


@pytest.mark.parametrize(
    "column", ["at", "action", "outcome", "object_type", "study_instance_uid", "address", "protocol", "calling_aet", "request_id", "detail"]
)
def test_no_column_can_be_changed(catalog: Catalog, anchor: Anchor, column: str) -> None:
    noted(catalog, 3)
    audit_chain.advance(catalog, anchor)
    catalog.write(lambda conn: conn.execute(update(EVENTS).where(EVENTS.c.seq == 2).values({column: "{}"})))
    assert [problem.seq for problem in verify(catalog, anchor).problems] == [2]


def test_the_anchor_is_not_moved_past_a_damage_until_somebody_accepts_it(catalog: Catalog, anchor: Anchor) -> None:
    noted(catalog, 20)
    audit_chain.advance(catalog, anchor)
    catalog.write(_truncate)
    noted(catalog, 30)
    audit_chain.advance(catalog, anchor)
    assert [head.seq for head in anchor.read()] == [20]
    problem = verify(catalog, anchor).problems[0]
    kept = audit_chain.accept(catalog, anchor, "root", problem.problem)
    assert kept is not None
    assert kept.exists()
    assert verify(catalog, anchor).is_whole
    assert dict(log(catalog)[-1].detail) == {"reason": problem.problem}


def test_a_damaged_anchor_is_told_of(catalog: Catalog, anchor: Anchor) -> None:
    noted(catalog, 2)
    audit_chain.advance(catalog, anchor)
    anchor.path.write_text("nothing of ours\n")
    noted(catalog, 1)
    audit_chain.advance(catalog, anchor)  # goes on, and leaves the file alone
    assert verify(catalog, anchor).problem_count == 1


def test_one_entry_in_a_thousand_stays_anchored(catalog: Catalog, anchor: Anchor) -> None:
    for _ in range(5):
        noted(catalog, 700)
        audit_chain.advance(catalog, anchor)
    assert [head.seq for head in anchor.read()] == [700, 1400, 2800, 3500]
    assert verify(catalog, anchor).is_whole


# What the feed of changes tells


def _stored(catalog: Catalog, study: str, count: int, association: str) -> None:
    origin = Origin("dimse", calling_aet="CT1", address="127.0.0.1", association_id=association)
    for number in range(count):
        one = arrival(study=study, series=f"{study}.1", sop=f"{study}.1.{association}.{number}")
        store(catalog, replace(one, origin=origin))


def test_instances_stored_are_one_event_for_each_association_and_study(catalog: Catalog, anchor: Anchor) -> None:
    _stored(catalog, "1.1", 3, "7")
    _stored(catalog, "1.2", 2, "7")
    _stored(catalog, "1.1", 1, "8")
    audit_chain.advance(catalog, anchor)
    found = log(catalog, action="study.store")
    told = [(event.study_instance_uid, event.request_id, event.detail["instance_stored"], event.calling_aet) for event in found]
    assert told == [("1.1", "7", 3, "CT1"), ("1.2", "7", 2, "CT1"), ("1.1", "8", 1, "CT1")]
    with catalog.read() as conn:
        found_pks = conn.execute(select(models.study.c.study_instance_uid, models.study.c.patient_pk)).all()
    patients = {row.study_instance_uid: row.patient_pk for row in found_pks}
    assert [event.patient_id for event in found] == [patients["1.1"], patients["1.2"], patients["1.1"]]
    assert verify(catalog, anchor).is_whole


def test_a_change_that_an_entry_tells_of_cannot_be_altered(catalog: Catalog, anchor: Anchor) -> None:
    _stored(catalog, "1.1", 3, "7")
    audit_chain.advance(catalog, anchor)
    change = models.change
    catalog.write(lambda conn: conn.execute(update(change).where(change.c.seq == 2).values(sop_instance_uid="9.9")))
    assert verify(catalog, anchor).problem_count == 1
    catalog.write(lambda conn: conn.execute(delete(change)))
    assert verify(catalog, anchor).problem_count == 1


def test_a_deletion_knows_its_patient_although_the_study_is_gone(catalog: Catalog, anchor: Anchor) -> None:
    _stored(catalog, "1.1", 1, "7")
    audit_chain.advance(catalog, anchor)
    origin = Origin("dicomweb", address="127.0.0.1", actor="anna", request_id="r1")
    catalog.write(lambda conn: deletions.delete_target(conn, Target("1.1"), origin))
    audit_chain.advance(catalog, anchor)
    stored, deleted = log(catalog)
    assert (deleted.action, deleted.actor, deleted.request_id, deleted.address) == ("study.delete", "anna", "r1", "127.0.0.1")
    assert deleted.patient_id == stored.patient_id is not None


def test_a_catalog_made_anew_keeps_its_log(catalog: Catalog, anchor: Anchor) -> None:
    from pacslite.catalog import inventory

    _stored(catalog, "1.1", 2, "7")
    audit_chain.advance(catalog, anchor)
    audit_chain.begin_rebuilding(catalog)
    catalog.write(lambda conn: inventory.begin_rebuilding(conn, "2026-01-01T00:00:00.000000Z"))
    _stored(catalog, "1.1", 2, "7")
    catalog.write(inventory.end_rebuilding)
    audit_chain.end_rebuilding(catalog, Event(audit_chain.REBUILT))
    _stored(catalog, "1.2", 1, "9")
    audit_chain.advance(catalog, anchor)
    assert [event.action for event in log(catalog)] == ["study.store", "catalog.reindex", "study.store"]
    assert verify(catalog, anchor).is_whole


# Accesses


@contextmanager
def recording(catalog: Catalog, **options: float) -> Iterator[Recorder]:
    recorder = Recorder(catalog, **options)
    try:
        yield recorder
    finally:
        recorder.close()


def _read_of(study: str, **more: Any) -> Event:
    return Event("study.read", actor="anna", object_type="study", object_id=study, study_instance_uid=study, **more)


def test_the_first_access_is_committed_before_the_answer_and_others_are_counted(catalog: Catalog, anchor: Anchor) -> None:
    with recording(catalog) as recorder:
        recorder.record(_read_of("1.1"))
        with catalog.read() as conn:
            assert rows.count_pending(conn) == 1  # by another connection
        for _ in range(57):
            recorder.record(_read_of("1.1"))
        recorder.record(_read_of("1.2"))
        recorder.record(_read_of("1.1", outcome="refused"))
    audit_chain.advance(catalog, anchor)
    told = [(event.study_instance_uid, event.outcome, event.detail.get("repeats")) for event in log(catalog)]
    assert told == [("1.1", "success", None), ("1.2", "success", None), ("1.1", "refused", None), ("1.1", "success", 57)]


def test_the_count_is_written_when_its_time_is_over(catalog: Catalog, anchor: Anchor) -> None:
    with recording(catalog, repeat_s=0.05, write_s=3600) as recorder:
        recorder.record(_read_of("1.1"))
        for _ in range(3):
            recorder.record(_read_of("1.1"))
        over = threading.Event()
        over.wait(0.06)
        recorder.flush()
        audit_chain.advance(catalog, anchor)
        counted = [event.detail.get("repeats") for event in log(catalog)]
        assert counted[0] is None
        assert sum(repeats or 1 for repeats in counted) >= 4


def test_no_access_is_recorded_when_every_one_shall_be(catalog: Catalog, anchor: Anchor) -> None:
    with recording(catalog, repeat_s=0) as recorder:
        for _ in range(4):
            recorder.record(_read_of("1.1"))
    audit_chain.advance(catalog, anchor)
    assert len(log(catalog)) == 4


def test_nothing_is_dropped_when_more_comes_than_can_wait(catalog: Catalog, anchor: Anchor, monkeypatch: pytest.MonkeyPatch) -> None:
    from pacslite.core import audit

    monkeypatch.setattr(audit, "_MOST_WAITING", 5)
    monkeypatch.setattr(audit, "_MOST_WINDOWS", 3)
    with recording(catalog, write_s=3600) as recorder:
        for number in range(20):
            recorder.record(_read_of(f"1.{number}"), later=True)
            recorder.record(_read_of(f"1.{number}"), later=True)
            recorder.once(Event("association.open", object_id=str(number)))
    audit_chain.advance(catalog, anchor)
    assert len(log(catalog, action="association.open")) == 20
    assert sum(event.detail.get("repeats", 1) for event in log(catalog, action="study.read")) == 40
    assert verify(catalog, anchor).is_whole


def test_several_studies_are_recorded_in_one_transaction(catalog: Catalog, anchor: Anchor) -> None:
    with recording(catalog) as recorder:
        recorder.record_all([_read_of("1.1"), _read_of("1.2"), _read_of("1.1")])
        recorder.record_all([_read_of("1.1"), _read_of("1.3")])
    audit_chain.advance(catalog, anchor)
    assert [event.study_instance_uid for event in log(catalog)] == ["1.1", "1.2", "1.3", "1.1"]


# Search and retention


def test_entries_are_found_by_what_they_tell(catalog: Catalog, anchor: Anchor) -> None:
    times = ["2026-01-01T00:00:00.000000Z", "2026-02-01T00:00:00.000000Z", "2026-03-01T00:00:00.000000Z"]
    events = [Event("study.read", "success", "anna", 1, patient_id=4, study_instance_uid="1.1", at=times[0])]
    events += [Event("study.delete", "refused", "bert", 2, patient_id=5, study_instance_uid="1.2", at=times[1])]
    events += [Event("query", "success", "anna", 1, at=times[2])]
    catalog.write(lambda conn: rows.note_all(conn, events))
    audit_chain.advance(catalog, anchor)
    for wanted, found in (
        ({"actor": "anna"}, "study.read query"),
        ({"action": "study.*"}, "study.read study.delete"),
        ({"action": "query"}, "query"),
        ({"patient_id": 5}, "study.delete"),
        ({"study_instance_uid": "1.1"}, "study.read"),
        ({"outcome": "refused"}, "study.delete"),
        ({"since": times[1]}, "study.delete query"),
        ({"until": times[1]}, "study.read"),
        ({"actor": "anna", "since": times[1]}, "query"),
        ({"actor": "' OR 1=1 --"}, ""),
    ):
        assert " ".join(event.action for event in log(catalog, **wanted)) == found


def _old_and_new(catalog: Catalog, anchor: Anchor) -> None:
    noted(catalog, 10, at="2020-01-01T00:00:00.000000Z")
    noted(catalog, 5)
    audit_chain.advance(catalog, anchor)


def test_old_entries_leave_as_a_file_and_the_chain_goes_on(catalog: Catalog, anchor: Anchor, tmp_path: Path) -> None:
    _old_and_new(catalog, anchor)
    assert audit_segments.close_old(catalog, tmp_path / "audit", 30, wait_for_syslog=False) == 10
    assert audit_segments.close_old(catalog, tmp_path / "audit", 30, wait_for_syslog=False) == 0
    (file,) = (tmp_path / "audit").iterdir()
    with gzip.open(file, "rt") as lines:
        moved = [json.loads(line) for line in lines]
    assert [one["id"] for one in moved] == list(range(1, 11))
    audit_chain.advance(catalog, anchor)
    report = verify(catalog, anchor)
    assert (report.first, report.last, report.entries, report.problems) == (11, 16, 6, [])
    closing = log(catalog)[-1]
    assert (closing.action, closing.detail["last"], closing.detail["last_hash"]) == ("audit.prune", 10, moved[-1]["hash"])


def test_more_cannot_be_taken_from_the_beginning_than_was_closed(catalog: Catalog, anchor: Anchor, tmp_path: Path) -> None:
    _old_and_new(catalog, anchor)
    audit_segments.close_old(catalog, tmp_path / "audit", 30, wait_for_syslog=False)
    catalog.write(lambda conn: conn.execute(delete(EVENTS).where(EVENTS.c.seq == 11)))
    assert not verify(catalog, anchor).is_whole


def test_what_the_syslog_server_has_not_got_stays(catalog: Catalog, anchor: Anchor, tmp_path: Path) -> None:
    _old_and_new(catalog, anchor)
    catalog.write(lambda conn: rows.set_state(conn, audit_segments.SYSLOG, 4))
    assert audit_segments.close_old(catalog, tmp_path / "audit", 30, wait_for_syslog=True) == 4


def test_nothing_leaves_when_all_is_kept(catalog: Catalog, anchor: Anchor, tmp_path: Path) -> None:
    _old_and_new(catalog, anchor)
    assert audit_segments.close_old(catalog, tmp_path / "audit", 0, wait_for_syslog=False) == 0


def test_the_log_holds_no_names(catalog: Catalog, anchor: Anchor) -> None:
    """Who a patient was before is in the feed of changes, not in the log."""
    store(catalog, arrival(sop="1", PatientID="P1", PatientName="SECRET^NAME"))
    store(catalog, arrival(sop="2", PatientID="P1", PatientName="OTHER^NAME"))
    store(catalog, arrival(sop="3", PatientID="P2", PatientName="THIRD^NAME"))
    audit_chain.advance(catalog, anchor)
    with catalog.read() as conn:
        everything = repr(conn.execute(text("SELECT * FROM audit_event")).all())
    assert "study.store" in everything
    for name in ("SECRET", "OTHER", "THIRD", "P1", "P2"):
        assert name not in everything


def test_chaining_takes_its_lock(catalog: Catalog) -> None:
    assert CHAIN_KEYS  # two that chain at once would give one number twice, which the primary key refuses
    catalog.write(lambda conn: rows.chain(conn, [Event("a")]), CHAIN_KEYS)
    with catalog.read() as conn:
        assert rows.head(conn) is not None


def test_what_callers_send_cannot_stop_the_chain(catalog: Catalog, anchor: Anchor) -> None:
    hostile = "a\0b\x07\ud800\\u0000" + "x" * 100_000
    event = Event("auth.login", "failed", hostile, object_id=hostile, calling_aet=hostile, detail={"reason": hostile[:20]})
    catalog.write(lambda conn: rows.note(conn, event))
    audit_chain.advance(catalog, anchor)
    (kept,) = log(catalog)
    assert kept.actor.startswith("a?b?")
    assert len(kept.actor) <= 1000
    assert verify(catalog, anchor).is_whole
