"""Jobs run once, go on where they stopped, are cancelled and retried, and tell of themselves in the feed of changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import update

from pacslite.catalog import inventory, models
from pacslite.catalog import jobs as rows
from pacslite.catalog.database import Catalog
from pacslite.core import jobs
from pacslite.core.jobs import Failed, Handler, Job, Later, Run, Runner
from pacslite.errors import Conflict, NotFound, PeerError, StorageError
from pacslite.settings import Settings
from tests.support.processes import until

LONG_AGO = "2020-01-01T00:00:00.000000Z"


@dataclass
class Process:
    """A worker over a catalog, with one kind of job."""

    catalog: Catalog
    settings: Settings
    stop: threading.Event

    def queue(self) -> str:
        """Queue a job; its id."""
        return jobs.queue(self.catalog, "test", {"n": 3}, Handler(lambda parts, run: {}), "ann").uid

    def runner(self, work: Callable[[Run], Mapping[str, Any]]) -> Runner:
        """Something that runs jobs by this."""
        return Runner(self, ("test",), lambda kind: Handler(lambda parts, run: work(run)), self.stop)

    def job(self, uid: str) -> Job:
        """The job as it is now."""
        return jobs.get(self.catalog, uid)

    def lapse(self) -> None:
        """The time of every lease and every pause is over."""
        past = {"lease_until_at": LONG_AGO, "run_after_at": LONG_AGO}
        self.catalog.write(lambda conn: conn.execute(update(models.job).values(past)))


@pytest.fixture
def process(catalog: Catalog, tmp_path: Path) -> Iterator[Process]:
    stop = threading.Event()
    yield Process(catalog, Settings(data=tmp_path, job_lease_s=2), stop)
    stop.set()


@contextmanager
def running(process: Process, runner: Runner, threads: int = 1) -> Iterator[None]:
    crew = [threading.Thread(target=runner.loop) for _ in range(threads)]
    for thread in crew:
        thread.start()
    try:
        yield
    finally:
        process.stop.set()
        for thread in crew:
            thread.join(20)


def test_a_job_runs_and_tells_its_progress_and_result(process: Process) -> None:
    def work(run: Run) -> dict[str, Any]:
        for number in range(run.payload["n"]):
            run.note(f"1.2.{number}", "sent")
            run.progress(number + 1, 3)
        return {"sent": run.counts()["sent"]}

    uid = process.queue()
    assert (process.job(uid).state, process.job(uid).started_at) == ("queued", None)
    assert process.runner(work).run_next()
    job = process.job(uid)
    assert (job.state, job.result, job.progress_done, job.progress_total) == ("succeeded", {"sent": 3}, 3, 3)
    assert (job.progress_unit, job.actor) == ("instances", "ann")
    assert job.created_at <= str(job.started_at) <= str(job.ended_at)
    found, total = jobs.items(process.catalog, uid, outcome="sent", after="1.2.0", limit=1)
    assert ([one.item for one in found], total) == (["1.2.1"], 3)
    assert not process.runner(work).run_next()


def test_a_job_of_a_killed_worker_is_taken_up_again_and_goes_on_where_it_stopped(process: Process) -> None:
    done: list[str] = []

    def work(run: Run) -> dict[str, Any]:
        for item in ("1", "2", "3"):
            if item in run.outcomes("sent"):
                continue
            if item == "2" and len(done) == 1:
                done.append("killed")
                raise KeyboardInterrupt  # nobody settles the job any more
            done.append(item)
            run.note(item, "sent")
            run.write()
        return {}

    uid = process.queue()
    with pytest.raises(KeyboardInterrupt):
        process.runner(work).run_next()
    assert process.job(uid).state == "running"
    assert not process.runner(work).run_next()
    process.lapse()
    assert process.runner(work).run_next()
    assert (process.job(uid).state, process.job(uid).attempts) == ("succeeded", 2)
    assert done == ["1", "killed", "2", "3"]


def test_a_long_silent_job_keeps_its_lease(process: Process) -> None:
    released = threading.Event()

    def work(run: Run) -> dict[str, Any]:
        released.wait(20)
        return {}

    def lease() -> str:
        with process.catalog.read() as conn:
            return str(conn.execute(models.job.select()).one().lease_until_at)

    uid = process.queue()
    with running(process, process.runner(work)):
        until(lambda: process.job(uid).state == "running")
        first = lease()
        until(lambda: lease() > first)
        released.set()
        until(lambda: process.job(uid).state == "succeeded")


def test_no_more_jobs_run_at_once_than_there_are_threads(process: Process) -> None:
    at_once, most, released = [], [], threading.Event()

    def work(run: Run) -> dict[str, Any]:
        at_once.append(1)
        most.append(len(at_once))
        released.wait(20)
        at_once.pop()
        return {}

    uids = [process.queue() for _ in range(4)]
    with running(process, process.runner(work), threads=2):
        until(lambda: len(at_once) == 2)
        assert [process.job(uid).state for uid in uids] == ["running", "running", "queued", "queued"]
        released.set()
        until(lambda: all(process.job(uid).state == "succeeded" for uid in uids))
    assert max(most) == 2


def test_a_cancelled_job_stops_and_a_retry_keeps_its_id_and_what_was_achieved(process: Process) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    def work(run: Run) -> dict[str, Any]:
        if run.outcomes("sent"):
            return {"again": True}
        run.note("1", "sent")
        begun.set()
        cancelled.wait(20)
        run.write()
        run.check()
        raise AssertionError("it goes on")

    uid = process.queue()
    with running(process, process.runner(work)):
        assert begun.wait(20)
        assert jobs.cancel(process.catalog, uid).state == "cancelled"
        cancelled.set()
        with pytest.raises(Conflict, match="cancelled"):
            jobs.cancel(process.catalog, uid)
        assert jobs.retry(process.catalog, uid).uid == uid
        until(lambda: process.job(uid).state == "succeeded")
    assert process.job(uid).result == {"again": True}
    with pytest.raises(Conflict, match="succeeded"):
        jobs.retry(process.catalog, uid)
    with pytest.raises(NotFound):
        jobs.retry(process.catalog, "nothing")


def test_trouble_is_tried_again_a_lasting_failure_and_a_fault_of_the_program_are_told(process: Process) -> None:
    errors: list[Exception] = [PeerError("no route"), Failed("2 of 3 failed", {"failed": 2})]

    def work(run: Run) -> dict[str, Any]:
        raise errors.pop(0)

    uid = process.queue()
    assert process.runner(work).run_next()
    assert (process.job(uid).state, process.job(uid).error) == ("queued", "no route")
    process.lapse()
    assert process.runner(work).run_next()
    job = process.job(uid)
    assert (job.state, job.error, job.result) == ("failed", "2 of 3 failed", {"failed": 2})
    errors.append(RuntimeError("secret"))
    jobs.retry(process.catalog, uid)
    assert process.runner(work).run_next()
    assert process.job(uid).error == "internal error"


def test_a_job_that_waits_is_no_attempt_and_remembers(process: Process) -> None:
    def work(run: Run) -> dict[str, Any]:
        if "asked" in run.memo:
            return {}
        run.remember(asked="1.2.3")
        raise Later(60)

    uid = process.queue()
    process.runner(work).run_next()
    assert (process.job(uid).state, process.job(uid).attempts) == ("queued", 0)
    assert not process.runner(work).run_next()
    with process.catalog.read() as conn:
        waiting = rows.open_of(conn, ("test",), "1.2.3")
    assert waiting is not None
    process.catalog.write(lambda conn: rows.hasten(conn, waiting.id))
    assert process.runner(work).run_next()
    assert process.job(uid).state == "succeeded"


def test_a_stopping_process_gives_its_job_back(process: Process) -> None:
    def work(run: Run) -> dict[str, Any]:
        process.stop.set()
        run.check()
        return {}

    uid = process.queue()
    process.runner(work).run_next()
    assert (process.job(uid).state, process.job(uid).attempts) == ("queued", 0)


def test_states_of_jobs_are_in_the_feed_of_changes(process: Process) -> None:
    uid = process.queue()
    process.runner(lambda run: {}).run_next()
    found, total, last = jobs.feed(process.catalog, 0, 10)
    assert [(change.kind, change.detail["job"], change.detail["state"]) for change in found] == [
        ("job_changed", uid, state) for state in ("queued", "running", "succeeded")
    ]
    assert (total, last) == (3, found[-1].seq)
    assert jobs.feed(process.catalog, found[1].seq, 10)[0] == found[2:]


def test_old_jobs_are_forgotten_with_their_items(process: Process) -> None:
    uid, other = process.queue(), process.queue()
    process.runner(lambda run: run.note("1", "sent") or {}).run_next()
    process.catalog.write(lambda conn: conn.execute(update(models.job).values(ended_at=LONG_AGO)))
    assert jobs.prune(process.catalog, 1) == 1
    with pytest.raises(NotFound):
        process.job(uid)
    assert process.job(other).state == "queued"


def test_jobs_outlive_the_making_anew_of_the_catalog_and_do_not_run_meanwhile(process: Process) -> None:
    uid = process.queue()
    process.catalog.write(lambda conn: inventory.begin_rebuilding(conn, LONG_AGO))
    assert not process.runner(lambda run: {}).run_next()
    assert [job.uid for job in jobs.page(process.catalog, before=None, limit=10)[0]] == [uid]
    process.catalog.write(inventory.end_rebuilding)
    assert process.runner(lambda run: {}).run_next()
    assert process.job(uid).state == "succeeded"


def test_what_cannot_be_written_down_is_not_lost(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    job = jobs.get(process.catalog, process.queue())
    taken = process.runner(lambda run: {}).take(job.id)
    assert taken is not None
    run = Run(process.catalog, taken, "another", 60, process.stop)
    run.note("1", "sent")
    with monkeypatch.context() as away:
        away.setattr(process.catalog, "write", _away)
        with pytest.raises(StorageError):
            run.write()
    run.write()
    assert run.is_stopping  # the job is somebody else's
    assert jobs.items(process.catalog, job.uid, outcome="", after="", limit=9)[1] == 1


def _away(*_: object) -> None:
    raise StorageError("away")


def test_a_fault_outside_of_a_job_does_not_end_the_thread_that_runs_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop, tries = threading.Event(), []

    class Faulty(Runner):
        def run_next(self) -> bool:
            tries.append(1)
            if len(tries) == 1:
                raise ZeroDivisionError
            stop.set()
            return True

    monkeypatch.setattr("pacslite.core.jobs._AFTER_FAILURE_S", 0)
    Faulty(cast(Any, None), (), cast(Any, None), stop).loop()
    assert len(tries) == 2
    assert [record.getMessage() for record in caplog.records] == ["jobs.run failed"]
