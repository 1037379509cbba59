"""The figures that are looked up when somebody asks for the metrics, in bounded time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from pacslite import __version__, metrics
from pacslite.catalog import statistics
from pacslite.core import certificates, health, quotas
from pacslite.core.questions import Questions
from pacslite.metrics import Sample

if TYPE_CHECKING:
    from pacslite.app import Pacs

_MOST_SPOOL_FILES = 10_000
_questions: Questions[list[Sample]] = Questions(health.ANSWER_WITHIN_S)


def samples(pacs: Pacs) -> list[Sample]:
    """All that can be told now; of what cannot, `pacslite_metrics_unanswered` says so."""
    parts: dict[str, Callable[[], list[Sample]]] = {
        name: (lambda look=look: list(look(pacs)))  # type: ignore[misc]
        for name, look in {
            "catalog": _of_catalog,
            "disk": _of_disks,
            "spool": _of_spool,
            "certificate": _of_certificate,
            "quota": _of_quotas,
        }.items()
    }
    found = [Sample(metrics.INFO, 1, (__version__,))]
    found += [Sample(metrics.RESTARTS, role.restarts, (role.name,)) for role in health.roles(pacs.settings.data)]
    for name, answer in _questions.ask(id(pacs), parts).items():
        found.append(Sample(metrics.UNANSWERED, float(isinstance(answer, Exception)), (name,)))
        found += [] if isinstance(answer, Exception) else answer
    return found


def _of_catalog(pacs: Pacs) -> Iterator[Sample]:
    with pacs.catalog.read() as conn:
        jobs, due_at, doomed = statistics.jobs_by_state(conn), statistics.first_due_at(conn), statistics.count_doomed(conn)
    for state in ("queued", "running", "succeeded", "failed", "cancelled"):
        yield Sample(metrics.JOBS, jobs.get(state, 0), (state,))
    yield Sample(metrics.JOB_OVERDUE_SECONDS, max(0.0, time.time() - datetime.fromisoformat(due_at).timestamp()) if due_at else 0.0)
    yield Sample(metrics.REMOVAL_QUEUE, doomed)
    log = pacs.catalog.wal_bytes()
    if log is not None:
        yield Sample(metrics.WAL_BYTES, log)


def _of_disks(pacs: Pacs) -> Iterator[Sample]:
    for name, path in health.disks(pacs):
        yield Sample(metrics.DISK_FREE_BYTES, health.free_bytes(path), (name,))


def _of_spool(pacs: Pacs) -> Iterator[Sample]:
    files = size = 0
    with os.scandir(pacs.settings.spool_directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                continue  # resumable uploads
            files += 1
            try:
                size += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue  # taken in meanwhile
            if files == _MOST_SPOOL_FILES:
                break
    yield Sample(metrics.SPOOL_FILES, files)
    yield Sample(metrics.SPOOL_BYTES, size)


def _of_certificate(pacs: Pacs) -> Iterator[Sample]:
    path = pacs.settings.dicom_tls_certificate
    if path is not None:
        yield Sample(metrics.CERTIFICATE_ENDS_AT, certificates.ends_at(path).timestamp(), ("dicom_tls",))


def _of_quotas(pacs: Pacs) -> Iterator[Sample]:
    state = quotas.total_state(pacs)
    yield Sample(metrics.QUOTA_USED_BYTES, state.used_bytes)
    yield Sample(metrics.QUOTA_BYTES, float("inf") if state.quota_bytes is None else state.quota_bytes)
    for level, count in quotas.accounts_by_level(pacs).items():
        yield Sample(metrics.QUOTA_ACCOUNTS, count, (level,))
