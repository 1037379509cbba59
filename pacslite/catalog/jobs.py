"""Work to be done outside of a request: rows with leases, queued by the transaction that causes them.

A worker claims a job for a while and renews the lease; when it dies the lease runs out and another worker takes over. So a
job may run more than once, and what it does has to bear that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, insert, or_, select, update

from pacslite.catalog.models import job
from pacslite.catalog.statements import time_text

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5, 3600


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it stands in the catalog."""

    id: int
    kind: str
    state: str
    payload: Mapping[str, Any]
    result: Mapping[str, Any] | None
    error: str
    actor: str
    attempts: int
    max_attempts: int
    progress_done: int
    progress_total: int | None
    created_at: str
    updated_at: str


_COLUMNS = (
    job.c.id,
    job.c.kind,
    job.c.state,
    job.c.payload,
    job.c.result,
    job.c.error,
    job.c.actor,
    job.c.attempts,
    job.c.max_attempts,
    job.c.progress_done,
    job.c.progress_total,
    job.c.created_at,
    job.c.updated_at,
)


def add(
    conn: Connection,
    kind: str,
    payload: Mapping[str, Any],
    *,
    actor: str = "",
    dedupe_key: str | None = None,
    delay_s: float = 0,
    max_attempts: int = 5,
) -> int:
    """Queue a job; its number. While one of the same `dedupe_key` is queued or running, that one is meant."""
    if dedupe_key is not None:
        same = select(job.c.id).where(job.c.dedupe_key == dedupe_key, job.c.state.in_((QUEUED, RUNNING)))
        known: int | None = conn.execute(same).scalar()
        if known is not None:
            return known
    now = datetime.now(UTC)
    row = {
        "kind": kind,
        "payload": json.dumps(payload, ensure_ascii=False),
        "actor": actor or None,
        "dedupe_key": dedupe_key,
        "max_attempts": max_attempts,
        "run_after_at": time_text(now + timedelta(seconds=delay_s)),
        "created_at": time_text(now),
        "updated_at": time_text(now),
    }
    made: int = conn.execute(insert(job).values(row).returning(job.c.id)).scalar_one()
    return made


def take(conn: Connection, job_id: int, owner: str, lease_s: float) -> Job | None:
    """This one job, now running under `owner` for `lease_s`; None when it is not queued."""
    queued = update(job).where(job.c.id == job_id, job.c.state == QUEUED)
    now = datetime.now(UTC)
    running = {"state": RUNNING, "lease_owner": owner, "lease_until_at": time_text(now + timedelta(seconds=lease_s))}
    changed = conn.execute(queued.values(attempts=job.c.attempts + 1, updated_at=time_text(now), **running)).rowcount
    return find(conn, job_id) if changed else None


def is_due(conn: Connection, kinds: Sequence[str]) -> bool:
    """Whether there is a job to claim; reads only, so that asking costs no write."""
    return conn.execute(select(job.c.id).where(_ready(datetime.now(UTC)), job.c.kind.in_(kinds)).limit(1)).first() is not None


def _ready(now: datetime) -> ColumnElement[bool]:
    return or_(
        and_(job.c.state == QUEUED, job.c.run_after_at <= time_text(now)),
        and_(job.c.state == RUNNING, job.c.lease_until_at < time_text(now)),
    )


def claim(conn: Connection, owner: str, kinds: Sequence[str], lease_s: float) -> Job | None:
    """The job that has waited longest, now running under `owner` for `lease_s`; None when there is none to do.

    A job whose lease has run out counts as one more attempt; after the last one it has failed.
    """
    now = datetime.now(UTC)
    # Other workers pass over what this transaction has locked, instead of waiting for it (PostgreSQL; SQLite has one writer).
    waiting = (
        select(job.c.id, job.c.attempts, job.c.max_attempts)
        .where(_ready(now), job.c.kind.in_(kinds))
        .order_by(job.c.run_after_at, job.c.id)
    )
    while found := conn.execute(waiting.limit(1).with_for_update(skip_locked=True)).first():
        if found.attempts < found.max_attempts:
            running = {"state": RUNNING, "lease_owner": owner, "lease_until_at": time_text(now + timedelta(seconds=lease_s))}
            _set(conn, found.id, attempts=found.attempts + 1, **running)
            return find(conn, found.id)
        _set(conn, found.id, state=FAILED, error="given up: its worker was lost each time", lease_owner=None, lease_until_at=None)
    return None


def renew(conn: Connection, job_id: int, owner: str, lease_s: float, done: int | None = None, total: int | None = None) -> bool:
    """Hold a job for `lease_s` more and tell how far it is; False when the lease was lost, and the work has to stop."""
    changed: dict[str, Any] = {"lease_until_at": time_text(datetime.now(UTC) + timedelta(seconds=lease_s))}
    if done is not None:
        changed["progress_done"] = done
    if total is not None:
        changed["progress_total"] = total
    return _set(conn, job_id, owner, **changed)


def finish(conn: Connection, job_id: int, owner: str, result: Mapping[str, Any] | None = None) -> bool:
    """The job is done; False when the lease was lost."""
    packed = json.dumps(result, ensure_ascii=False) if result is not None else None
    return _set(conn, job_id, owner, state=DONE, result=packed, error=None, lease_owner=None, lease_until_at=None)


def fail(conn: Connection, job_id: int, owner: str, error: str, *, again: bool = True) -> bool:
    """The attempt has failed: tried again later, longer after each time, unless it was the last or `again` is false."""
    current = find(conn, job_id)
    if current is None:
        return False
    ended: dict[str, Any] = {"error": error, "lease_owner": None, "lease_until_at": None}
    if not again or current.attempts >= current.max_attempts:
        return _set(conn, job_id, owner, state=FAILED, **ended)
    pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 4 ** max(0, current.attempts - 1))
    return _set(conn, job_id, owner, state=QUEUED, run_after_at=time_text(datetime.now(UTC) + timedelta(seconds=pause_s)), **ended)


def cancel(conn: Connection, job_id: int) -> bool:
    """Cancel a job that is not over; a worker that runs it learns of it when it renews its lease."""
    not_over = update(job).where(job.c.id == job_id, job.c.state.in_((QUEUED, RUNNING)))
    changed = not_over.values(state=CANCELLED, lease_owner=None, lease_until_at=None, updated_at=time_text(datetime.now(UTC)))
    return conn.execute(changed).rowcount > 0


def find(conn: Connection, job_id: int) -> Job | None:
    """The job of that number."""
    row = conn.execute(select(*_COLUMNS).where(job.c.id == job_id)).one_or_none()
    return None if row is None else _job(row)


def listed(conn: Connection, *, before: int | None = None, limit: int = 100) -> list[Job]:
    """Jobs, newest first, from below a number on."""
    statement = select(*_COLUMNS).order_by(job.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(job.c.id < before)
    return [_job(row) for row in conn.execute(statement)]


def _set(conn: Connection, job_id: int, owner: str | None = None, **columns: Any) -> bool:
    statement = update(job).where(job.c.id == job_id).values(updated_at=time_text(datetime.now(UTC)), **columns)
    if owner is not None:
        statement = statement.where(job.c.state == RUNNING, job.c.lease_owner == owner)
    return conn.execute(statement).rowcount > 0


def _job(row: Sequence[Any]) -> Job:
    job_id, kind, state, payload, result, error, actor, *rest = row
    return Job(job_id, kind, state, json.loads(payload), json.loads(result) if result else None, error or "", actor or "", *rest)
