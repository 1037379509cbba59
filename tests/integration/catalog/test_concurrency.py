"""Writers of several threads and processes: nothing is lost, counted twice, or told to be busy."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, func, select, text

from pacslite.catalog import changes, models
from pacslite.catalog.database import Catalog
from pacslite.catalog.process_lock import ProcessLock
from pacslite.core import audit_chain, audit_verify, jobs
from pacslite.core.journal import Journal
from pacslite.errors import Busy, Conflict, OutcomeUnknown, Unavailable
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.spool import Spool
from tests.support.processes import until

ROOT = Path(__file__).resolve().parents[3]
PROCESSES, THREADS, COUNT = 2, 4, 15


def test_four_threads_in_each_of_two_processes_lose_nothing(catalog: Catalog) -> None:
    url = catalog.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.support.catalog_writer", url]
    writers = []
    for name in range(PROCESSES):
        arguments = [*command, str(name), str(THREADS), str(COUNT)]
        writers.append(subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    answers = [json.loads(writer.communicate(timeout=120)[0]) for writer in writers]
    outcomes: Counter[str] = Counter()
    for answer in answers:
        assert answer["errors"] == []
        outcomes.update(answer["outcomes"])
    # Each contended instance was recorded once, whoever was first; the others saw that they had been overtaken, or added a version.
    assert outcomes["own stored"] == PROCESSES * THREADS * COUNT
    assert outcomes["contended stored"] == COUNT
    assert sum(outcomes.values()) == 2 * PROCESSES * THREADS * COUNT
    with catalog.read() as conn:
        check_counts(conn, outcomes)


def check_counts(conn: Connection, outcomes: Counter[str]) -> None:
    study, series, instance, version = models.study, models.series, models.instance, models.version
    for row in conn.execute(select(study)).all():
        mine = (
            select(func.count()).select_from(instance).join(series, series.c.pk == instance.c.series_pk).where(series.c.study_pk == row.pk)
        )
        assert row.number_of_study_related_instances == conn.execute(mine).scalar_one()
        several = select(func.count()).select_from(series).where(series.c.study_pk == row.pk)
        assert row.number_of_study_related_series == conn.execute(several).scalar_one()
        modalities = {m for (m,) in conn.execute(select(series.c.modality).where(series.c.study_pk == row.pk))}
        assert row.modalities_in_study == "\\".join(sorted(modalities))
    for row in conn.execute(select(series)).all():
        mine = select(func.count()).select_from(instance).where(instance.c.series_pk == row.pk)
        assert row.number_of_series_related_instances == conn.execute(mine).scalar_one()
    written = sum(n for outcome, n in outcomes.items() if not outcome.endswith("changed"))
    assert conn.execute(select(func.count()).select_from(version)).scalar_one() == written
    assert conn.execute(select(func.count()).select_from(models.patient)).scalar_one() == 2
    feed = changes.after(conn, 0, limit=10000)
    assert len([c for c in feed if c.kind != "patient_updated"]) == written
    assert [c.seq for c in feed] == sorted({c.seq for c in feed})


def add_peer(conn: Connection, name: str) -> None:
    conn.execute(text("INSERT INTO peer (ae_title, host, port, created_at, updated_at) VALUES (:n, 'h', 1, 'x', 'x')"), {"n": name})


def peers(catalog: Catalog) -> list[str]:
    with catalog.read() as conn:
        return list(conn.execute(select(models.peer.c.ae_title).order_by(models.peer.c.ae_title)).scalars())


class Blocked:
    """Keeps every leader busy until `release`, so that what is written meanwhile queues up."""

    def __init__(self, catalog: Catalog) -> None:
        self._go = threading.Event()
        self._threads = []
        for _ in range(1 if catalog.is_sqlite else 4):
            entered = threading.Event()
            thread = threading.Thread(target=catalog.write, args=(lambda conn, entered=entered: (entered.set(), self._go.wait(30)),))
            thread.start()
            assert entered.wait(30)
            self._threads.append(thread)

    def release(self) -> None:
        self._go.set()
        for thread in self._threads:
            thread.join()


def queued(catalog: Catalog, count: int) -> Callable[[], bool]:
    return lambda: len(catalog._group._queue) >= count


def run_queued(catalog: Catalog, works: list[Callable[[Connection], object]]) -> list[object]:
    """Results, or errors, of works that all wait in the queue before the first of them runs."""
    results: list[object] = [None] * len(works)

    def run(i: int) -> None:
        try:
            results[i] = catalog.write(works[i])
        except (Conflict, Unavailable) as error:
            results[i] = error

    blocked = Blocked(catalog)
    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for i, thread in enumerate(threads):
        thread.start()
        until(queued(catalog, i + 1))
    blocked.release()
    for thread in threads:
        thread.join()
    return results


def refuse(conn: Connection) -> None:
    add_peer(conn, "refused")
    raise Conflict("not this one")


def test_what_queues_up_is_committed_at_once(catalog: Catalog) -> None:
    commits: list[Connection] = []
    event.listen(catalog._writes, "commit", commits.append)
    run_queued(catalog, [lambda conn, n=n: add_peer(conn, f"P{n}") for n in range(8)])  # type: ignore[misc]
    assert peers(catalog) == [f"P{n}" for n in range(8)]
    assert len(commits) <= (2 if catalog.is_sqlite else 8)


def test_a_write_that_fails_takes_nothing_of_its_batch_along(catalog: Catalog) -> None:
    broken = lambda conn: conn.execute(text("INSERT INTO peer (ae_title) VALUES (NULL)"))  # noqa: E731
    results = run_queued(catalog, [lambda conn: add_peer(conn, "A"), refuse, broken, lambda conn: add_peer(conn, "B")])
    assert [type(r) for r in results] == [type(None), Conflict, Unavailable, type(None)]
    assert peers(catalog) == ["A", "B"]


def test_a_failed_write_alone_leaves_nothing(catalog: Catalog) -> None:
    with pytest.raises(Conflict, match="not this one"):
        catalog.write(refuse)
    assert peers(catalog) == []
    catalog.write(lambda conn: add_peer(conn, "next"))
    assert peers(catalog) == ["next"]


def test_a_writer_whose_turn_does_not_come_is_told_busy_and_writes_nothing(catalog: Catalog) -> None:
    catalog.busy_timeout_s = 0.2
    blocked = Blocked(catalog)
    with pytest.raises(Busy):
        catalog.write(lambda conn: add_peer(conn, "late"))
    blocked.release()
    assert peers(catalog) == []


def test_a_commit_that_breaks_off_has_an_unknown_outcome(catalog: Catalog) -> None:
    def fail(conn: Connection) -> None:
        raise catalog._driver_error("the connection is gone")

    event.listen(catalog._writes, "commit", fail)
    with pytest.raises(OutcomeUnknown):
        catalog.write(lambda conn: add_peer(conn, "A"))
    event.remove(catalog._writes, "commit", fail)
    catalog.write(lambda conn: add_peer(conn, "B"))
    assert "B" in peers(catalog)


def test_reading_never_writes(catalog: Catalog) -> None:
    def write_while_reading() -> None:
        with catalog.read() as conn:
            add_peer(conn, "A")
            conn.commit()

    with pytest.raises(Unavailable):
        write_while_reading()
    assert peers(catalog) == []


def test_a_read_sees_one_state_of_the_catalog(catalog: Catalog) -> None:
    with catalog.read() as conn:
        names = select(models.peer.c.ae_title)
        assert conn.execute(names).all() == []
        catalog.write(lambda conn: add_peer(conn, "A"))
        assert conn.execute(names).all() == []
    assert peers(catalog) == ["A"]


def test_another_process_that_holds_the_lock_too_long_makes_writers_busy(tmp_path: Path) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}", busy_timeout_s=0.1)
    other = ProcessLock(tmp_path / "catalog.db")
    with other.held(0), pytest.raises(Busy):
        catalog.write(lambda conn: None)
    catalog.write(lambda conn: None)
    other.close()
    catalog.close()


def test_a_lock_that_another_process_has_is_known_to_be_contended_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}", busy_timeout_s=0.1)
    other = ProcessLock(tmp_path / "catalog.db")
    catalog.write(lambda conn: None)
    assert not catalog.is_contended
    with other.held(0), pytest.raises(Busy):
        catalog.write(lambda conn: None)
    assert catalog.is_contended
    monkeypatch.setattr("pacslite.catalog.process_lock._CONTENDED_S", 0)
    assert not catalog.is_contended
    other.close()
    catalog.close()


def test_who_follows_the_changes_passes_over_none(catalog: Catalog, tmp_path: Path) -> None:
    """The transaction that began first may add its change last, and commit first: the lower number is not there yet then."""
    journal, anchor = Journal(FilesystemStore(tmp_path / "storage"), Spool(tmp_path / "spool")), audit_chain.anchor_of(tmp_path)
    begun, added, ready = threading.Event(), threading.Event(), threading.Event()

    def early(conn: Connection) -> int:
        add_peer(conn, "FIRST")  # on PostgreSQL it has the number of its transaction with this
        begun.set()
        assert catalog.is_sqlite or added.wait(30)
        return _change(conn, "early")

    def late(conn: Connection) -> int:
        number = _change(conn, "late")
        added.set()
        assert catalog.is_sqlite or ready.wait(30)
        return number

    followed: list[str] = []

    def follow(since: int) -> int:
        found, following, newest = jobs.feed(catalog, since, 100)
        followed.extend(change.sop_instance_uid for change in found)
        assert (following, newest) == (len(found), found[-1].seq if found else since)
        journal.write_new(catalog)
        audit_chain.advance(catalog, anchor)
        return newest

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(catalog.write, early)
        assert begun.wait(30)
        second = pool.submit(catalog.write, late)
        first.result(30)
        since = follow(0)
        ready.set()
        second.result(30)
        follow(since)
    assert sorted(followed) == ["early", "late"]
    assert sorted(entry["sop_instance_uid"] for entry in journal.entries()) == ["early", "late"]
    assert audit_verify.verify(catalog, anchor).problems == []


def _change(conn: Connection, sop_instance_uid: str) -> int:
    origin = changes.Origin("stow", actor="local", address="127.0.0.1")
    return changes.add(conn, changes.Kind.INSTANCE_STORED, "2026-01-01T00:00:00.000000Z", origin, uids=("1.1", "1.2", sop_instance_uid))


def test_numbers_given_up_hold_up_nobody_who_follows_the_changes(catalog: Catalog) -> None:
    """A transaction that was rolled back leaves a gap that nothing will fill."""

    def fail(conn: Connection) -> None:
        _change(conn, "gone")
        raise Conflict("no")

    with pytest.raises(Conflict):
        catalog.write(fail)
    catalog.write(lambda conn: _change(conn, "stays"))
    found, _, newest = jobs.feed(catalog, 0, 100)
    assert [change.sop_instance_uid for change in found] == ["stays"]
    assert newest == found[0].seq
