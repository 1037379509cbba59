"""Storage commitment asked for over HTTP (PS3.18 13): requests kept as jobs under their Transaction UID, results kept with them.

The check is that of `core.commitment`. A short one is done while the caller waits; what is not over by then goes on in the
worker, across restarts, and is polled for.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pacslite.catalog import jobs as rows
from pacslite.core import commitment, jobs
from pacslite.core.commitment import Reference, Verdict
from pacslite.core.jobs import Handler, Job, Run
from pacslite.core.parts import WithCatalog, WithSettings, WithStores
from pacslite.errors import Conflict, NotFound, Unavailable

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.database import Catalog

KIND = "dicomweb.commitment"
_NAMESPACE = uuid.UUID("5f1c2b0e-7a44-4e0c-9a3b-5d6c1f0e8a21")
_INLINE_S = 2.0
# Until then trouble with the storage is waited out; afterwards it is a failure of the instance, and told.
_PATIENT_ATTEMPTS = 4


class Parts(WithSettings, WithCatalog, WithStores, Protocol):
    """What a check needs of a process."""


def request(parts: Parts, transaction_uid: str, references: Sequence[Reference], actor: str = "") -> Verdict | None:
    """Keep the request and check for a moment; the result when it is there, None while it is awaited.

    The same request again is the same transaction, and tried again when it was given up. Raises Conflict when the Transaction
    UID stands for other instances.
    """
    named = [list(reference) for reference in dict.fromkeys(references)]
    payload = {"transaction_uid": transaction_uid, "references": named, **parts.catalog.visibility.payload}
    name = f"{KIND} {transaction_uid}"

    def work(conn: Connection) -> Job:
        known = rows.by_uid(conn, _job_uid(transaction_uid))
        if known is None:
            more = {"actor": actor, "dedupe_key": name, "max_attempts": HANDLER.max_attempts, "unit": HANDLER.unit}
            known = rows.find(conn, rows.add(conn, KIND, payload, uid=_job_uid(transaction_uid), **more))  # type: ignore[arg-type]
            assert known is not None
        if known.payload != payload:
            raise Conflict("The Transaction UID is in use for other instances.")
        if known.state in (rows.FAILED, rows.CANCELLED):
            rows.retry(conn, known.id)
        return known

    _check_for_a_moment(parts, parts.catalog.write(work, (name,)))
    return result(parts.catalog, transaction_uid)


def result(catalog: Catalog, transaction_uid: str) -> Verdict | None:
    """The result of a transaction, None while it is awaited; raises NotFound, and Unavailable when it was given up."""
    with catalog.read() as conn:
        job, sight = rows.by_uid(conn, _job_uid(transaction_uid)), catalog.sight(conn)
    if job is None or (sight is not None and job.actor != sight.actor):
        raise NotFound("There is no such storage commitment transaction.")
    if job.state in (rows.FAILED, rows.CANCELLED):
        raise Unavailable("The instances could not be checked; request the commitment again.")
    if job.state != rows.SUCCEEDED or job.result is None:
        return None
    reasons = {Reference(*pair): int(reason) for *pair, reason in job.result["failures"]}
    references = [Reference(*pair) for pair in job.payload["references"]]
    committed = tuple(reference for reference in references if reference not in reasons)
    return Verdict(committed, tuple(reasons.items()))


def _job_uid(transaction_uid: str) -> str:
    """The id of the job follows from the Transaction UID, so that it is found for as long as jobs are remembered."""
    return str(uuid.uuid5(_NAMESPACE, transaction_uid))


def _check_for_a_moment(parts: Parts, job: Job) -> None:
    stop = threading.Event()
    runner = jobs.Runner(parts, (KIND,), lambda _: HANDLER, stop)
    mine = runner.take(job.id)
    if mine is None:
        return
    timer = threading.Timer(_INLINE_S, stop.set)
    timer.daemon = True
    timer.start()
    try:
        runner.run(mine)
    finally:
        timer.cancel()


def _run(parts: Parts, run: Run) -> Mapping[str, Any]:
    references = [Reference(*pair) for pair in run.payload["references"]]
    run.progress(0, len(references))

    def go_on(done: int) -> None:
        run.check()
        run.progress(done, len(references))

    verdict = commitment.check_each(parts.catalog, parts.stores, references, go_on, run.job.attempts <= _PATIENT_ATTEMPTS)
    failures = [[*reference, reason] for reference, reason in verdict.failed]
    return {"committed": len(verdict.committed), "failed": len(verdict.failed), "failures": failures}


HANDLER = Handler(_run, "instances", 8)
