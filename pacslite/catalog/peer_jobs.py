"""Which jobs may work with a peer: as many at once as the peer, and those who wait behind it, can bear."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select, update

from pacslite.catalog.jobs import RUNNING
from pacslite.catalog.models import job, peer
from pacslite.catalog.statements import time_text

MARK = "transferring"
"""In the memo of a job that has its turn."""


def take_turn(conn: Connection, job_id: int, ae_title: str, kinds: Sequence[str], most: int, memo: Mapping[str, Any]) -> bool:
    """Give a running job its turn, by a mark in its memo, unless `most` others of these kinds have theirs with that peer."""
    # One after the other asks (PostgreSQL; SQLite has one writer).
    conn.execute(select(peer.c.ae_title).where(peer.c.ae_title == ae_title).with_for_update())
    now = time_text(datetime.now(UTC))
    running = job.c.kind.in_(kinds), job.c.state == RUNNING, job.c.lease_until_at >= now, job.c.id != job_id
    others = conn.execute(select(job.c.payload, job.c.memo).where(*running))
    theirs = sum(MARK in json.loads(row.memo or "{}") and json.loads(row.payload).get("peer") == ae_title for row in others)
    if theirs >= most:
        return False
    conn.execute(update(job).where(job.c.id == job_id).values(memo=json.dumps({**memo, MARK: True}, ensure_ascii=False)))
    return True
