"""Marks of backups that run: as long as one holds, no bytes are erased, so that whatever its snapshot names can still be copied.

A hold is a row among the jobs, which is none. It ends by itself when nobody renews it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update

from pacslite.catalog.jobs import HOLD
from pacslite.catalog.models import job
from pacslite.catalog.statements import time_text

_LEASE_S = 600
RENEW_S = _LEASE_S / 5
ERASURE_KEYS = ("erasure",)
"""Of the writes that place a hold and that claim bytes to be erased: they never overlap."""


def place(conn: Connection, uid: str) -> None:
    """From the end of this transaction on nothing is erased."""
    now = datetime.now(UTC)
    conn.execute(delete(job).where(job.c.kind == HOLD, job.c.lease_until_at < time_text(now)))
    times = {name: time_text(now) for name in ("run_after_at", "created_at", "updated_at", "started_at")}
    conn.execute(insert(job).values({"uid": uid, "kind": HOLD, "state": "running", "lease_until_at": _until(now), **times}))


def renew(conn: Connection, uid: str) -> bool:
    """Hold on; False when the hold had ended, and bytes may be gone."""
    now = datetime.now(UTC)
    mine = job.c.kind == HOLD, job.c.uid == uid
    alive = conn.execute(update(job).where(*mine, job.c.lease_until_at >= time_text(now)).values(lease_until_at=_until(now))).rowcount
    return bool(alive)


def end(conn: Connection, uid: str) -> None:
    """Bytes may be erased again."""
    conn.execute(delete(job).where(job.c.kind == HOLD, job.c.uid == uid))


def is_held(conn: Connection) -> bool:
    """Whether a backup needs all bytes to stay."""
    now = time_text(datetime.now(UTC))
    return conn.execute(select(job.c.id).where(job.c.kind == HOLD, job.c.lease_until_at >= now).limit(1)).first() is not None


def _until(now: datetime) -> str:
    return time_text(now + timedelta(seconds=_LEASE_S))
