"""The background work of the `worker` role: small tasks, each at its interval, in three lanes.

The quick lane writes the journal and keeps the write-ahead log short, within seconds; the long lane walks through the
storage; the third one waits for other machines. Whatever is cut short by a kill is done again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacslite import metrics
from pacslite.errors import PacsliteError

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.settings import Settings
    from pacslite.storage.blob_store import BlobStore

NICENESS = 5
"""Whoever waits for an answer has the processors first."""
SETTLE_INTERVAL_S = 1
JOURNAL_INTERVAL_S = 2
AUDIT_INTERVAL_S = 2
VERIFY_INTERVAL_S = 24 * 3600
CHECKPOINT_INTERVAL_S = 1
COMMITMENT_INTERVAL_S = 1
ERASE_INTERVAL_S = 60
INDEX_INTERVAL_S = 15
JOIN_INTERVAL_S = 3600
PRUNE_INTERVAL_S = 3600
QUOTA_INTERVAL_S = 60
UPLOADS_INTERVAL_S = 300
TOTALS_INTERVAL_S = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """Something done every `interval_s`; `run` may be interrupted by a kill at any point and is then done again."""

    name: str
    interval_s: float
    run: Callable[[Pacs], object]
    is_long: bool = False
    calls_peers: bool = False
    at_end: bool = False  # once more when the worker stops


def main(settings: Settings) -> int:
    """The `worker` role by itself, until SIGTERM or SIGINT."""
    from pacslite import app
    from pacslite.roles import stop_event

    os.nice(NICENESS)
    stop = stop_event()
    pacs = app.build(settings)
    pacs.catalog.check_revision()
    app.observe(settings, "worker")
    run(pacs, stop)
    pacs.close()
    return 0


def run(pacs: Pacs, stop: threading.Event, tasks: tuple[Task, ...] | None = None) -> None:
    """Does the tasks, and all jobs, until `stop` is set; a task that fails is logged and tried again at its next time.

    With `tasks` of the caller's choice no jobs are done.
    """
    jobs = tasks is None
    tasks = tasks_of(pacs) if tasks is None else tasks
    lanes = {"long-lane": [t for t in tasks if t.is_long], "peer-lane": [t for t in tasks if t.calls_peers and not t.is_long]}
    # Daemons: a walk through a large storage, or a peer that does not answer, is not waited for.
    threads = [threading.Thread(target=_lane, args=(pacs, stop, mine), name=name, daemon=True) for name, mine in lanes.items()]
    if jobs:
        threads += _job_threads(pacs, stop)
    for thread in threads:
        thread.start()
    _lane(pacs, stop, [t for t in tasks if not t.is_long and not t.calls_peers])
    for task in tasks:
        if task.at_end:
            _do(pacs, task)
    deadline = time.monotonic() + 2
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _job_threads(pacs: Pacs, stop: threading.Event) -> list[threading.Thread]:
    from pacslite import job_kinds

    runners = {f"jobs-{number}": job_kinds.runner(pacs, stop) for number in range(1, pacs.settings.job_threads + 1)}
    # Files may be made to take as long as they are allowed to, and be many: all other work has a thread that they never get.
    runners["jobs-not-of-files"] = job_kinds.runner(pacs, stop, without=job_kinds.OF_FILES)
    return [threading.Thread(target=runner.loop, name=name, daemon=True) for name, runner in runners.items()]


def _lane(pacs: Pacs, stop: threading.Event, tasks: list[Task]) -> None:
    due = {task: time.monotonic() + task.interval_s for task in tasks}
    while due and not stop.is_set():
        task = min(due, key=due.__getitem__)
        if stop.wait(max(0.0, due[task] - time.monotonic())):
            return
        _do(pacs, task)
        due[task] = time.monotonic() + task.interval_s


def _do(pacs: Pacs, task: Task) -> None:
    began, outcome = time.perf_counter(), "failed"
    try:
        task.run(pacs)
        outcome = "success"
        metrics.TASK_DONE_AT.set(time.time(), task.name)
    except (PacsliteError, OSError) as error:
        _log.error("%s failed: %s", task.name, error, extra={"action": task.name, "outcome": "failed"})
    # A fault of the program must not end the lane, and with it all its tasks.
    except Exception:  # noqa: BLE001
        _log.exception("%s failed", task.name, extra={"action": task.name, "outcome": "failed"})
    finally:
        metrics.TASK_SECONDS.observe(time.perf_counter() - began, task.name, outcome)


def tasks_of(pacs: Pacs) -> tuple[Task, ...]:
    """What this release does in the background."""
    from pacslite.core import audit_chain, audit_upkeep, jobs, quotas, search_index, shares, uploads
    from pacslite.core.cleanup import LOOK_INTERVAL_S
    from pacslite.core.journal import Journal
    from pacslite.core.logins import prune
    from pacslite.core.totals import Totals
    from pacslite.core.verification import SLICE_INTERVAL_S, Slices
    from pacslite.dimse import commitment

    totals, slices = Totals(*(store.name for store in pacs.stores.all)), Slices(pacs.settings.data / "verify.json")
    anchor = audit_chain.anchor_of(pacs.settings.data)
    journal, sweep_s = Journal(pacs.store, pacs.spool), pacs.settings.sweep_interval_s
    return (
        Task("storage.settle", SETTLE_INTERVAL_S, lambda p: p.ingest.settling.settle(), at_end=True),
        Task("journal.write", JOURNAL_INTERVAL_S, lambda p: journal.write_new(p.catalog), at_end=True),
        Task("audit.chain", AUDIT_INTERVAL_S, lambda p: audit_chain.advance(p.catalog, anchor), at_end=True),
        Task("audit.send", AUDIT_INTERVAL_S, audit_upkeep.send, calls_peers=True),
        Task("audit.close", PRUNE_INTERVAL_S, audit_upkeep.close_old, is_long=True),
        Task("audit.verify", VERIFY_INTERVAL_S, audit_upkeep.verify, is_long=True),
        Task("catalog.checkpoint", CHECKPOINT_INTERVAL_S, lambda p: p.catalog.checkpoint()),
        Task("metrics.totals", TOTALS_INTERVAL_S, lambda p: totals.go_on(p.catalog)),
        Task("commitment.report", COMMITMENT_INTERVAL_S, commitment.report_due, calls_peers=True),
        Task("blobs.erase", ERASE_INTERVAL_S, _erase, is_long=True),
        Task("jobs.prune", PRUNE_INTERVAL_S, lambda p: jobs.prune(p.catalog, p.settings.job_retention_days), is_long=True),
        Task("shares.prune", PRUNE_INTERVAL_S, lambda p: shares.prune(p, p.settings.job_retention_days), is_long=True),
        Task("logins.prune", PRUNE_INTERVAL_S, lambda p: prune(p.accounts), is_long=True),
        Task("quota.watch", QUOTA_INTERVAL_S, quotas.Watch().look),
        Task("index.build", INDEX_INTERVAL_S, search_index.build, is_long=True),
        Task("journal.join", JOIN_INTERVAL_S, lambda p: journal.join_past_days(), is_long=True),
        Task("uploads.expire", UPLOADS_INTERVAL_S, uploads.expire, is_long=True),
        Task("spool.sweep", sweep_s, lambda p: sum(spool.sweep() for spool in (p.spool, *p.stores.spools)), is_long=True),
        Task("storage.sweep", sweep_s, _sweep_storages, is_long=True),
        Task("storage.verify", SLICE_INTERVAL_S, slices.go_on, is_long=True),
        Task("storage.cleanup", LOOK_INTERVAL_S, daily, is_long=True),
    )


def _erase(pacs: Pacs) -> None:
    from pacslite.core.erasure import erase_doomed

    _in_each(pacs, lambda store: erase_doomed(pacs.catalog, store, pacs.settings.removal_grace_s))


def _sweep_storages(pacs: Pacs) -> None:
    _in_each(pacs, lambda store: _sweep_storage(pacs, store))


def _sweep_storage(pacs: Pacs, store: BlobStore) -> None:
    from pacslite.core.sweep import sweep

    name = "sweep.json" if store is pacs.store else f"sweep-{store.name}.json"
    report = sweep(pacs.catalog, store, pacs.settings.data / name)
    for key in report.quarantined:
        _log.warning("bytes that nothing refers to were quarantined", extra={"action": "storage.sweep", "object_id": key})


def _in_each(pacs: Pacs, work: Callable[[BlobStore], object]) -> None:
    """Do something in every storage; one that is out of reach does not hold up the others."""
    failure: PacsliteError | None = None
    for store in pacs.stores.all:
        try:
            work(store)
        except PacsliteError as error:
            failure = failure or error
    if failure is not None:
        raise failure


def daily(pacs: Pacs) -> None:
    """What is due once a day: clean up, empty the trash, do the retention policies."""
    from pacslite.core import cleanup, retention

    last = cleanup.Daily(pacs.settings.data / "cleanup.stamp")
    if not last.is_due():
        return
    told = cleanup.cleanup(pacs, cleanup.DAILY_HOURS).told()
    erased = retention.empty_trash(pacs)
    if pacs.settings.retention_policies:
        retention.queue(pacs, dry_run=False)
    last.done()
    _log.info("cleaned up", extra={"action": "storage.cleanup", "outcome": "success", "trash_erased": erased, **told})
