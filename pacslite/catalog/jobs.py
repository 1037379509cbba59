"""Work to be done outside of a request: rows with leases, queued by the transaction that causes them.

A worker claims a job for a while and renews the lease; when it dies the lease runs out and another worker takes over. So a
job may run more than once, and what it does has to bear that. What became of the single things it deals with stands in
`job_item`, and a run goes on from there.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, func, insert, literal_column, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from pacslite.catalog import changes
from pacslite.catalog.changes import Kind, Origin
from pacslite.catalog.models import job, job_item
from pacslite.catalog.statements import Prepared, time_text

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = "queued", "running", "succeeded", "failed", "cancelled"
STATES = (QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED)
_ENDED = (SUCCEEDED, FAILED, CANCELLED)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5, 3600
_AT_ONCE, _PRUNED_AT_ONCE = 500, 1000
REBUILDING, HOLD = "catalog.rebuild", "backup.hold"
"""Marks of `catalog.inventory` and `catalog.holds` among the jobs, which are none."""
_MARKS = (REBUILDING, HOLD)


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it stands in the catalog; `memo` is what its handler keeps between runs."""

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
    uid: str
    memo: Mapping[str, Any]
    progress_unit: str
    started_at: str | None
    ended_at: str | None


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """What became of one thing that a job deals with."""

    item: str
    outcome: str
    detail: str = ""


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
    job.c.uid,
    job.c.memo,
    job.c.progress_unit,
    job.c.started_at,
    job.c.ended_at,
)

_WRITTEN = ("uid", "kind", "payload", "actor", "dedupe_key", "max_attempts", "progress_unit", "run_after_at", "created_at", "updated_at")
# Each upload queues a job, so these are compiled once. The states are spelled as in the index of those that are not done.
_IS_OPEN = job.c.state.in_([literal_column(f"'{state}'") for state in (QUEUED, RUNNING)])
_SAME = Prepared(select(job.c.id).where(job.c.dedupe_key == bindparam("dedupe"), _IS_OPEN))
_INSERT = Prepared(insert(job).values({name: bindparam(name) for name in _WRITTEN}).returning(job.c.id))
_TOLD = Prepared(select(job.c.uid, job.c.kind, job.c.state, job.c.actor).where(job.c.id == bindparam("job")))


def add(
    conn: Connection,
    kind: str,
    payload: Mapping[str, Any],
    *,
    actor: str = "",
    dedupe_key: str | None = None,
    delay_s: float = 0,
    max_attempts: int = 5,
    unit: str = "",
    uid: str = "",
) -> int:
    """Queue a job; its number. While one of the same `dedupe_key` is queued or running, that one is meant.

    `uid` is its id where the caller has one that no other job has or had.
    """
    if dedupe_key is not None:
        known = _SAME.first(conn, {"dedupe": dedupe_key})
        if known is not None:
            same: int = known[0]
            return same
    now = datetime.now(UTC)
    row = {
        "uid": uid or str(uuid.uuid4()),
        "kind": kind,
        "payload": json.dumps(payload, ensure_ascii=False),
        "actor": actor or None,
        "dedupe_key": dedupe_key,
        "max_attempts": max_attempts,
        "progress_unit": unit or None,
        "run_after_at": time_text(now + timedelta(seconds=delay_s)),
        "created_at": time_text(now),
        "updated_at": time_text(now),
    }
    made: int = _INSERT.only(conn, row)
    _tell(conn, made)
    return made


def take(conn: Connection, job_id: int, owner: str, lease_s: float) -> Job | None:
    """This one job, now running under `owner` for `lease_s`; None when it is not queued."""
    queued = job.c.id == job_id, job.c.state == QUEUED
    return _start(conn, job_id, owner, lease_s, queued)


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
            return _start(conn, found.id, owner, lease_s, (job.c.id == found.id,))
        _end(conn, found.id, None, FAILED, error="given up: its worker was lost each time")
    return None


def _start(conn: Connection, job_id: int, owner: str, lease_s: float, conditions: Sequence[ColumnElement[bool]]) -> Job | None:
    now = datetime.now(UTC)
    running = {"state": RUNNING, "lease_owner": owner, "lease_until_at": time_text(now + timedelta(seconds=lease_s))}
    first = {"started_at": func.coalesce(job.c.started_at, time_text(now)), "updated_at": time_text(now)}
    if not conn.execute(update(job).where(*conditions).values(attempts=job.c.attempts + 1, **running, **first)).rowcount:
        return None
    _tell(conn, job_id)
    return find(conn, job_id)


def renew(
    conn: Connection,
    job_id: int,
    owner: str,
    lease_s: float,
    done: int | None = None,
    total: int | None = None,
    memo: Mapping[str, Any] | None = None,
) -> bool:
    """Hold a job for `lease_s` more and tell how far it is; False when the lease was lost, and the work has to stop."""
    changed: dict[str, Any] = {"lease_until_at": time_text(datetime.now(UTC) + timedelta(seconds=lease_s))}
    if done is not None:
        changed["progress_done"] = done
    if total is not None:
        changed["progress_total"] = total
    if memo is not None:
        changed["memo"] = json.dumps(memo, ensure_ascii=False)
    return _set(conn, job_id, owner, **changed)


def finish(conn: Connection, job_id: int, owner: str, result: Mapping[str, Any] | None = None) -> bool:
    """The job is done; False when the lease was lost."""
    packed = json.dumps(result, ensure_ascii=False) if result is not None else None
    return _end(conn, job_id, owner, SUCCEEDED, result=packed, error=None)


def fail(conn: Connection, job_id: int, owner: str, error: str, *, again: bool = True, result: Mapping[str, Any] | None = None) -> bool:
    """The attempt has failed: tried again later, longer after each time, unless it was the last or `again` is false."""
    current = find(conn, job_id)
    if current is None:
        return False
    packed = {} if result is None else {"result": json.dumps(result, ensure_ascii=False)}
    if not again or current.attempts >= current.max_attempts:
        return _end(conn, job_id, owner, FAILED, error=error, **packed)
    pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 4 ** max(0, current.attempts - 1))
    return _requeue(conn, job_id, owner, pause_s, error=error, **packed)


def postpone(conn: Connection, job_id: int, owner: str, seconds: float) -> bool:
    """Back into the queue for so long, as if this attempt had not been; False when the lease was lost."""
    return _requeue(conn, job_id, owner, seconds, attempts=job.c.attempts - 1)


def _requeue(conn: Connection, job_id: int, owner: str, pause_s: float, **columns: Any) -> bool:
    at = time_text(datetime.now(UTC) + timedelta(seconds=pause_s))
    changed = _set(conn, job_id, owner, state=QUEUED, run_after_at=at, lease_owner=None, lease_until_at=None, **columns)
    return changed and _tell(conn, job_id)


def hasten(conn: Connection, job_id: int) -> bool:
    """Let a queued job run now; whether it was queued."""
    now = time_text(datetime.now(UTC))
    return conn.execute(update(job).where(job.c.id == job_id, job.c.state == QUEUED).values(run_after_at=now)).rowcount > 0


def cancel(conn: Connection, job_id: int) -> bool:
    """Cancel a job that is not over; a worker that runs it learns of it when it renews its lease."""
    now = time_text(datetime.now(UTC))
    ended = {"state": CANCELLED, "lease_owner": None, "lease_until_at": None, "updated_at": now, "ended_at": now}
    changed = conn.execute(update(job).where(job.c.id == job_id, job.c.state.in_((QUEUED, RUNNING))).values(ended)).rowcount > 0
    return changed and _tell(conn, job_id)


def retry(conn: Connection, job_id: int) -> bool:
    """Queue a job again that failed or was cancelled, with all its attempts; False in another state, or when the same work
    is under way by another job."""
    current = conn.execute(select(job.c.dedupe_key).where(job.c.id == job_id)).one_or_none()
    if current is not None and current.dedupe_key is not None:
        same = select(job.c.id).where(job.c.dedupe_key == current.dedupe_key, job.c.state.in_((QUEUED, RUNNING)))
        if conn.execute(same).first() is not None:
            return False
    now = time_text(datetime.now(UTC))
    anew = {"state": QUEUED, "attempts": 0, "error": None, "ended_at": None, "run_after_at": now, "updated_at": now}
    changed = conn.execute(update(job).where(job.c.id == job_id, job.c.state.in_((FAILED, CANCELLED))).values(anew)).rowcount > 0
    return changed and _tell(conn, job_id)


def find(conn: Connection, job_id: int) -> Job | None:
    """The job of that number."""
    row = conn.execute(select(*_COLUMNS).where(job.c.id == job_id)).one_or_none()
    return None if row is None else _job(row)


def by_uid(conn: Connection, uid: str) -> Job | None:
    """The job of that id."""
    row = conn.execute(select(*_COLUMNS).where(job.c.uid == uid, job.c.kind.not_in(_MARKS))).one_or_none()
    return None if row is None else _job(row)


def listed(
    conn: Connection, *, before: int | None = None, limit: int = 100, state: str = "", kind: str = "", actor: str | None = None
) -> list[Job]:
    """Jobs, newest first, from below a number on; with `actor` those of somebody."""
    statement = select(*_COLUMNS).where(*_chosen(state, kind, actor)).order_by(job.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(job.c.id < before)
    return [_job(row) for row in conn.execute(statement)]


def count(conn: Connection, state: str = "", kind: str = "", actor: str | None = None) -> int:
    """How many jobs there are."""
    return int(conn.execute(select(func.count()).select_from(job).where(*_chosen(state, kind, actor))).scalar_one())


def _chosen(state: str, kind: str, actor: str | None) -> list[ColumnElement[bool]]:
    chosen: list[ColumnElement[bool]] = [job.c.kind.not_in(_MARKS)]
    if actor is not None:
        chosen.append(job.c.actor == actor)
    if state:
        chosen.append(job.c.state == state)
    if kind:
        chosen.append(job.c.kind == kind)
    return chosen


def open_of(conn: Connection, kinds: Sequence[str], mark: str) -> Job | None:
    """The job of these kinds, queued or running, whose memo holds the text `mark`."""
    chosen = job.c.kind.in_(kinds), job.c.state.in_((QUEUED, RUNNING)), job.c.memo.contains(mark, autoescape=True)
    row = conn.execute(select(*_COLUMNS).where(*chosen).limit(1)).one_or_none()
    return None if row is None else _job(row)


def prune(conn: Connection, until: str) -> int:
    """Forget jobs that ended before, so many at once; how many, 0 when there is none left."""
    old = select(job.c.id).where(job.c.state.in_(_ENDED), job.c.ended_at < until).limit(_PRUNED_AT_ONCE)
    numbers = list(conn.execute(old).scalars())
    if numbers:
        conn.execute(delete(job_item).where(job_item.c.job_id.in_(numbers)))
        conn.execute(delete(job).where(job.c.id.in_(numbers)))
    return len(numbers)


# Items


def note_items(conn: Connection, job_id: int, outcomes: Iterable[ItemOutcome]) -> None:
    """Write down what became of things; a later word replaces an earlier one."""
    rows = [{"job_id": job_id, "item": o.item, "outcome": o.outcome, "detail": o.detail or None} for o in outcomes]
    if not rows:
        return
    dialect = sqlite if _is_sqlite(conn) else postgresql
    statement = dialect.insert(job_item)
    changed = {"outcome": statement.excluded.outcome, "detail": statement.excluded.detail}
    conn.execute(statement.on_conflict_do_update(index_elements=["job_id", "item"], set_=changed), rows)


def decide_items(conn: Connection, job_id: int, before: str, outcome: str, items: Sequence[str], detail: str = "") -> None:
    """Change the outcome of items that stand at `before`, others are passed over; without a detail theirs stays."""
    changed = {"outcome": outcome} | ({"detail": detail} if detail else {})
    for start in range(0, len(items), _AT_ONCE):
        chosen = job_item.c.job_id == job_id, job_item.c.outcome == before, job_item.c.item.in_(items[start : start + _AT_ONCE])
        conn.execute(update(job_item).where(*chosen).values(changed))


def items_with(conn: Connection, job_id: int, outcomes: Sequence[str]) -> set[str]:
    """The things that came out like this."""
    return set(conn.execute(select(job_item.c.item).where(job_item.c.job_id == job_id, job_item.c.outcome.in_(outcomes))).scalars())


def count_items(conn: Connection, job_id: int) -> dict[str, int]:
    """How many things came out how."""
    counted = select(job_item.c.outcome, func.count()).where(job_item.c.job_id == job_id).group_by(job_item.c.outcome)
    return {row[0]: row[1] for row in conn.execute(counted)}


def items(conn: Connection, job_id: int, *, outcome: str = "", after: str = "", limit: int = 100) -> list[ItemOutcome]:
    """Outcomes in the order of the things, from behind one on."""
    chosen = [job_item.c.job_id == job_id, job_item.c.item > after, *([job_item.c.outcome == outcome] if outcome else [])]
    wanted = select(job_item.c.item, job_item.c.outcome, job_item.c.detail).where(*chosen).order_by(job_item.c.item).limit(limit)
    return [ItemOutcome(item, how, detail or "") for item, how, detail in conn.execute(wanted)]


def _end(conn: Connection, job_id: int, owner: str | None, state: str, **columns: Any) -> bool:
    now = time_text(datetime.now(UTC))
    changed = _set(conn, job_id, owner, state=state, ended_at=now, lease_owner=None, lease_until_at=None, **columns)
    return changed and _tell(conn, job_id)


def _set(conn: Connection, job_id: int, owner: str | None = None, **columns: Any) -> bool:
    statement = update(job).where(job.c.id == job_id).values(updated_at=time_text(datetime.now(UTC)), **columns)
    if owner is not None:
        statement = statement.where(job.c.state == RUNNING, job.c.lease_owner == owner)
    return conn.execute(statement).rowcount > 0


def _tell(conn: Connection, job_id: int) -> bool:
    """The state of a job goes into the feed of changes."""
    uid, kind, state, actor = _TOLD.all(conn, {"job": job_id})[0]
    at = time_text(datetime.now(UTC))
    changes.add(conn, Kind.JOB_CHANGED, at, Origin("job", actor=actor or ""), detail={"job": uid, "kind": kind, "state": state})
    return True


def _is_sqlite(conn: Connection) -> bool:
    return conn.dialect.name == "sqlite"


def _job(row: Sequence[Any]) -> Job:
    values = dict(zip((column.name for column in _COLUMNS), row, strict=True))
    values["payload"], values["memo"] = json.loads(values["payload"]), json.loads(values["memo"] or "{}")
    values["result"] = json.loads(values["result"]) if values["result"] else None
    return Job(**values | {name: values[name] or "" for name in ("error", "actor", "uid", "progress_unit")})
