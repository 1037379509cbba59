"""Transfers with one peer take turns, so that a slow or stuck one does not hold all threads of the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pacslite.catalog import peer_jobs
from pacslite.core.jobs import Later, Run
from pacslite.core.remote import Parts

KINDS = ("peer.retrieve", "peer.store")
_PAUSE_S = 2.0

Work = Callable[[Parts, Run], Mapping[str, Any]]


def in_turn(work: Work) -> Work:
    """The handler, which goes back into the queue while `peer_jobs` others transfer from or to its peer."""

    def run_in_turn(parts: Parts, run: Run) -> Mapping[str, Any]:
        job_id, ae_title, most = run.job.id, run.payload["peer"], parts.settings.peer_jobs
        run.memo.pop(peer_jobs.MARK, None)
        if not parts.catalog.write(lambda conn: peer_jobs.take_turn(conn, job_id, ae_title, KINDS, most, run.memo)):
            raise Later(_PAUSE_S)
        run.memo[peer_jobs.MARK] = True
        try:
            return work(parts, run)
        finally:
            run.memo.pop(peer_jobs.MARK, None)

    return run_in_turn
