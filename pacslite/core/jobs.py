"""Jobs: work outside of a request, run by the worker, told to whoever asks.

A kind of job is a `Handler`. It is found by its name in the table of `pacslite.job_kinds`; adding a line there is all the
registration there is. A handler is given the parts of the process and a `Run`. It may be ended at any point and run again, so
it looks first at what is done (`Run.outcomes`), and notes what it does as it goes on (`Run.note`).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from pacslite import metrics, tracing
from pacslite.catalog import changes, inventory
from pacslite.catalog import jobs as rows
from pacslite.catalog.jobs import STATES, ItemOutcome, Job
from pacslite.catalog.statements import time_text
from pacslite.catalog.visibility import visibility_of
from pacslite.core.access import seen_by
from pacslite.core.parts import WithCatalog, WithSettings
from pacslite.errors import Busy, Conflict, NotFound, PacsliteError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.changes import Change
    from pacslite.catalog.database import Catalog

__all__ = ["STATES", "Failed", "Handler", "ItemOutcome", "Job", "Later", "Run", "Runner", "Stopped", "queue"]

_log = logging.getLogger(__name__)
_POLL_S, _AFTER_FAILURE_S = 0.5, 5.0
_WRITE_S = 1.0
_BATCH = 200
MAX_RESULT_FAILURES = 1000
"""Failures of single items that a result lists; all of them are at `/jobs/{id}/items`."""


class Stopped(Exception):
    """The job is to go on later, or never: it was cancelled, taken over, or the process ends."""


class Later(Exception):
    """Nothing to do before `seconds` have passed; does not count as an attempt."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class Failed(Exception):
    """What is left of the job has failed, and trying again by itself would not help; `result` is kept."""

    def __init__(self, message: str, result: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.result = result


class Parts(WithSettings, WithCatalog, Protocol):
    """What running jobs needs of a process."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A kind of job. `run` gives the result, as JSON; `unit` is what its progress counts."""

    run: Callable[[Any, Run], Mapping[str, Any]]
    unit: str = "instances"
    max_attempts: int = 5


class Run:
    """One attempt at a job; its threads may share it."""

    def __init__(self, catalog: Catalog, job: Job, owner: str, lease_s: float, stop: threading.Event) -> None:
        self.job, self.payload = job, job.payload
        self.memo: dict[str, Any] = dict(job.memo)
        self._catalog, self._owner, self._lease_s, self._stop = catalog, owner, lease_s, stop
        self.outcome = "success"  # how this attempt ends: stopped, later, failed
        self._done, self._total = job.progress_done, job.progress_total
        self._pending: dict[str, ItemOutcome] = {}
        self._written_at = time.monotonic()
        self._lost = threading.Event()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()

    @property
    def is_stopping(self) -> bool:
        """Whether the work should end soon."""
        return self._lost.is_set() or self._stop.is_set()

    def check(self) -> None:
        """Raise Stopped when the work should end."""
        if self.is_stopping:
            raise Stopped

    def outcomes(self, *outcomes: str) -> set[str]:
        """The items that came out like this, in this run or an earlier one."""
        self.write()
        with self._catalog.read() as conn:
            return rows.items_with(conn, self.job.id, outcomes)

    def progress(self, done: int, total: int | None = None) -> None:
        """Tell how far it is; written down now and then."""
        with self._lock:
            self._done = done
            self._total = total if total is not None else self._total
        self._write_now_and_then()

    def note(self, item: str, outcome: str, detail: str = "") -> None:
        """What became of an item; written down in batches, and before the job ends in any way but a kill."""
        with self._lock:
            self._pending[item] = ItemOutcome(item, outcome, detail[:500])
        self._write_now_and_then()

    def remember(self, **memo: Any) -> None:
        """Keep values for later runs, durable when this returns."""
        self.memo |= memo
        self.write()

    def _write_now_and_then(self) -> None:
        if len(self._pending) >= _BATCH or time.monotonic() - self._written_at >= _WRITE_S:
            self.write()

    def write(self) -> None:
        """Write down what is noted, and hold the job for another while."""
        with self._write_lock:
            with self._lock:
                noted, self._pending = list(self._pending.values()), {}
                done, total, memo = self._done, self._total, dict(self.memo)
                self._written_at = time.monotonic()

            def work(conn: Connection) -> bool:
                # What has happened has happened: it is noted also when the job is another's by now.
                rows.note_items(conn, self.job.id, noted)
                return rows.renew(conn, self.job.id, self._owner, self._lease_s, done, total, memo)

            try:
                if not self._catalog.write(work):
                    self._lost.set()
            except Exception:
                with self._lock:
                    self._pending = {outcome.item: outcome for outcome in noted} | self._pending
                raise

    def items(self, outcome: str) -> list[ItemOutcome]:
        """All items that came out like this, with what was noted of them."""
        self.write()
        with self._catalog.read() as conn:
            return rows.items(conn, self.job.id, outcome=outcome, limit=10**9)

    def counts(self) -> dict[str, int]:
        """How many items came out how."""
        self.write()
        with self._catalog.read() as conn:
            return rows.count_items(conn, self.job.id)

    def failures(self, outcome: str = "failed") -> list[dict[str, str]]:
        """The first items that came out like this, for the result."""
        self.write()
        with self._catalog.read() as conn:
            found = rows.items(conn, self.job.id, outcome=outcome, limit=MAX_RESULT_FAILURES)
        return [{"sop_instance_uid": one.item, "reason": one.detail} for one in found]

    def beat(self) -> None:
        """Hold the job while its handler waits for something long; the body of a thread, until `end`."""
        while not self._over.wait(self._lease_s / 4):
            try:
                self.write()
            except Exception as error:  # noqa: BLE001 - without a beat another takes the job up while this one is at it
                _log.warning("a job could not be held", extra={"object_id": self.job.uid, "reason": str(error)})

    def end(self) -> None:
        """No more beats."""
        self._over.set()


class Runner:
    """Runs jobs of the kinds in `find`, which gives the handler of a kind."""

    def __init__(self, parts: Parts, kinds: Sequence[str], find: Callable[[str], Handler], stop: threading.Event) -> None:
        self._parts, self._kinds, self._find, self._stop = parts, kinds, find, stop
        self._owner = f"worker-{os.getpid()}-{os.urandom(4).hex()}"

    def loop(self) -> None:
        """Run what is due, one after the other, until the process stops; the body of a thread."""
        while not self._stop.is_set():
            try:
                worked = self.run_next()
            except (PacsliteError, OSError) as error:
                _log.error("jobs.run failed: %s", error, extra={"action": "jobs.run", "outcome": "failed"})
                worked = False
                self._stop.wait(_AFTER_FAILURE_S)
            # A fault of the program must not end the thread: nobody else would run jobs then.
            except Exception:  # noqa: BLE001
                _log.exception("jobs.run failed", extra={"action": "jobs.run", "outcome": "failed"})
                worked = False
                self._stop.wait(_AFTER_FAILURE_S)
            if not worked:
                self._stop.wait(_POLL_S)

    def run_next(self) -> bool:
        """Run the job that is due longest; whether there was one."""
        catalog = self._parts.catalog
        with catalog.read() as conn:
            if not rows.is_due(conn, self._kinds) or inventory.is_rebuilding(conn):
                return False
        lease_s = self._parts.settings.job_lease_s
        job = catalog.write(lambda conn: rows.claim(conn, self._owner, self._kinds, lease_s))
        if job is None:
            return False
        self.run(job)
        return True

    def take(self, job_id: int) -> Job | None:
        """This job for this runner, unless somebody has it."""
        return self._parts.catalog.write(lambda conn: rows.take(conn, job_id, self._owner, self._parts.settings.job_lease_s))

    def run(self, job: Job) -> None:
        """Run a job that was claimed for this runner to an end of some kind."""
        catalog, owner = self._parts.catalog, self._owner
        run = Run(catalog, job, owner, self._parts.settings.job_lease_s, self._stop)
        beat = threading.Thread(target=run.beat, name=f"job-{job.id}-beat", daemon=True)
        beat.start()
        began = time.perf_counter()
        try:
            with tracing.span(f"job {job.kind}", job=job.uid, attempt=job.attempts):
                settle = self._outcome(run, job)
        finally:
            run.end()
            beat.join()
        metrics.JOB_SECONDS.observe(time.perf_counter() - began, job.kind, run.outcome)
        catalog.write(lambda conn: settle(conn, owner))

    def _outcome(self, run: Run, job: Job) -> Callable[[Connection, str], bool]:
        """Run the handler; how the job is to be settled."""
        about = {"action": "job.run", "object_id": job.uid, "kind": job.kind, "attempts": job.attempts}
        try:
            result = self._find(job.kind).run(seen_by(self._parts, visibility_of(job.payload)), run)
            run.write()
        except Stopped:
            run.outcome = "stopped"
            run.write()
            return lambda conn, owner: rows.postpone(conn, job.id, owner, 0)
        except Later as later:
            seconds, run.outcome = later.seconds, "later"
            run.write()
            return lambda conn, owner: rows.postpone(conn, job.id, owner, seconds)
        except Failed as error:
            failure, kept, run.outcome = str(error), error.result, "failed"
            run.write()
            _log.warning("job failed", extra={**about, "outcome": "failed", "reason": failure})
            return lambda conn, owner: rows.fail(conn, job.id, owner, failure, again=False, result=kept)
        except PacsliteError as error:
            failure, again, run.outcome = str(error), not isinstance(error, NotFound), "failed"
            _log.warning("job failed", extra={**about, "outcome": "failed", "reason": failure})
            return lambda conn, owner: rows.fail(conn, job.id, owner, failure, again=again)
        # One kind of job that is at fault must not end the others.
        except Exception:  # noqa: BLE001
            run.outcome = "failed"
            _log.exception("job failed", extra={**about, "outcome": "failed"})
            return lambda conn, owner: rows.fail(conn, job.id, owner, "internal error")
        _log.info("job done", extra={**about, "outcome": "success"})
        return lambda conn, owner: rows.finish(conn, job.id, owner, result)


# What REST and the command line ask for


def queue(catalog: Catalog, kind: str, payload: Mapping[str, Any], handler: Handler, actor: str = "", dedupe_key: str | None = None) -> Job:
    """Queue a job; inside a transaction of your own use `catalog.jobs.add`. It will see what the user of this catalog may see."""
    payload = {**payload, **catalog.visibility.payload}

    def work(conn: Connection) -> Job:
        more = {"max_attempts": handler.max_attempts, "unit": handler.unit, "dedupe_key": dedupe_key}
        job = rows.find(conn, rows.add(conn, kind, payload, actor=actor, **more))  # type: ignore[arg-type]
        assert job is not None
        return job

    return catalog.write(work)


def get(catalog: Catalog, uid: str) -> Job:
    """The job of that id; raises NotFound."""
    with catalog.read() as conn:
        job, sight = rows.by_uid(conn, uid), catalog.sight(conn)
    if job is None or (sight is not None and job.actor != sight.actor):
        raise NotFound(f"There is no job {uid!r}.")
    return job


def page(catalog: Catalog, *, before: int | None, limit: int, state: str = "", kind: str = "") -> tuple[list[Job], int]:
    """Jobs, newest first, and how many there are in all; for who does not see everything their own."""
    with catalog.read() as conn:
        sight = catalog.sight(conn)
        actor = sight.actor if sight is not None else None
        found = rows.listed(conn, before=before, limit=limit, state=state, kind=kind, actor=actor)
        return found, rows.count(conn, state, kind, actor)


def items(catalog: Catalog, uid: str, *, outcome: str, after: str, limit: int) -> tuple[list[ItemOutcome], int]:
    """What became of the items of a job, and how many there are; raises NotFound."""
    job = get(catalog, uid)
    with catalog.read() as conn:
        counts = rows.count_items(conn, job.id)
        total = counts.get(outcome, 0) if outcome else sum(counts.values())
        return rows.items(conn, job.id, outcome=outcome, after=after, limit=limit), total


def cancel(catalog: Catalog, uid: str) -> Job:
    """Cancel a job that is not over; raises NotFound, Conflict."""
    job = get(catalog, uid)
    if not catalog.write(lambda conn: rows.cancel(conn, job.id)):
        raise Conflict(f"The job is {get(catalog, uid).state} and cannot be cancelled.")
    return get(catalog, uid)


def retry(catalog: Catalog, uid: str) -> Job:
    """Run a job again that failed or was cancelled; it keeps its id. Raises NotFound, Conflict."""
    job = get(catalog, uid)
    if not catalog.write(lambda conn: rows.retry(conn, job.id)):
        raise Conflict(f"The job is {get(catalog, uid).state} and cannot be retried, or the same work is under way.")
    return get(catalog, uid)


def prune(catalog: Catalog, days: float) -> int:
    """Forget jobs that ended more than so many days ago; how many."""
    until, removed = time_text(datetime.now(UTC) - timedelta(days=days)), 0
    while found := catalog.write(lambda conn: rows.prune(conn, until)):
        removed += found
    return removed


def feed(catalog: Catalog, since: int, limit: int, *, files: bool = True) -> tuple[list[Change], int, int]:
    """Changes that follow a number, how many follow it in all, and the number of the newest; raises Busy during a rebuild.

    Without `files` those of files and patients are left out.
    """
    until = changes.settled(catalog)
    with catalog.read() as conn:
        if inventory.is_rebuilding(conn):
            raise Busy("The catalog is being rebuilt.")
        sight = catalog.sight(conn)
        found = changes.after(conn, since, limit, sight, files=files, until=until)
        return found, changes.count_after(conn, since, sight, files=files, until=until), changes.last(conn, until)
