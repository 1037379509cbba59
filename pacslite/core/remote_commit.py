"""Storage commitment as SCU (PS3.4 annex J), as a job: a peer is asked whether it keeps instances, and only of those that it
commits itself to is the local copy removed, when that was wanted.

The report may come on the association of the request, or later on one of the peer's own, to our listener. The job waits for
it without holding anything, and the listener wakes it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydicom.uid import generate_uid

from pacslite.catalog import jobs as rows
from pacslite.catalog import retrieval
from pacslite.catalog.changes import Origin
from pacslite.catalog.deletions import Target, delete_target
from pacslite.catalog.peers import DICOM
from pacslite.catalog.statements import time_text
from pacslite.core import jobs, peers
from pacslite.core.commitment import Reference, Verdict
from pacslite.core.jobs import Failed, Handler, Later, Run
from pacslite.core.remote import Parts, check_kind, check_resources, resources_of
from pacslite.core.remote_store import planned
from pacslite.core.retrieve import Item, Resource
from pacslite.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.database import Catalog
    from pacslite.core.jobs import Job

KIND = "peer.commit"
_LOOK_S = 30.0
_REASONS = {
    0x0110: "processing failure",
    0x0112: "no such instance",
    0x0119: "class and instance do not agree",
    0x0122: "SOP class not supported",
    0x0131: "duplicate transaction",
    0x0213: "resource limitation",
}
_log = logging.getLogger(__name__)


def queue(parts: Parts, ae_title: str, resources: Sequence[Resource], remove: bool, actor: str) -> Job:
    """Queue the job; `remove` what the peer has committed. Raises NotFound, Gone, Conflict for a DICOMweb peer, InvalidForm."""
    checked = check_resources(resources)
    check_kind(peers.get(parts.catalog, ae_title), (DICOM,), "storage commitment")
    planned(parts, [Resource(*one) for one in checked], strict=True)  # type: ignore[arg-type]
    return jobs.queue(parts.catalog, KIND, {"peer": ae_title, "resources": checked, "remove": remove}, COMMIT, actor)


def _commit(parts: Parts, run: Run) -> Mapping[str, Any]:
    if "transaction_uid" not in run.memo:
        _ask(parts, run)
    waiting = run.outcomes("asked")
    if waiting:
        hours = parts.settings.commitment_wait_hours
        until = datetime.fromisoformat(run.memo["asked_at"]) + timedelta(hours=hours)
        if datetime.now(UTC) < until:
            raise Later(_LOOK_S)
        _forget_request(run)
        raise Failed(f"{run.payload['peer']} has not reported within {hours} hours", _result(run))
    if run.payload["remove"]:
        _remove(parts, run)
    result = _result(run)
    if result["failed"]:
        _forget_request(run)
        raise Failed(f"{result['failed']} of {result['total']} instances were not committed: {result['failures'][0]['reason']}", result)
    return result


def _ask(parts: Parts, run: Run) -> None:
    """Name the instances to the peer; which version of each is noted, for another one is not what it commits itself to."""
    peer = peers.get(parts.catalog, run.payload["peer"])
    over = run.outcomes("committed", "removed", "kept")
    items = [item for item in planned(parts, resources_of(run.payload), strict=False) if item.sop_instance_uid not in over]
    if not items and not over:
        raise NotFound("Nothing of what is asked for is here any more.")
    for item in items:
        run.note(item.sop_instance_uid, "asked", f"version {item.version_number}")
    run.progress(len(over), len(over) + len(items))
    transaction_uid = str(generate_uid(None))
    # Durable before it is sent: the report may come faster than the response.
    run.remember(transaction_uid=transaction_uid, asked_at=time_text(datetime.now(UTC)))
    if not items:
        return
    parts.peer_counts.note(peer.ae_title, {"associations_sent": 1}, seen=False)
    references = [Reference(item.sop_class_uid, item.sop_instance_uid) for item in items]
    try:
        with parts.remote(peer) as archive:
            verdict = archive.ask_commitment(transaction_uid, references, run)
    except BaseException:
        _forget_request(run)
        raise
    parts.peer_counts.note(peer.ae_title)
    if verdict is not None:
        reported(parts.catalog, peer.ae_title, transaction_uid, verdict)


def _forget_request(run: Run) -> None:
    """Another attempt asks anew, under a UID of its own."""
    run.memo.pop("transaction_uid", None)
    run.write()


def reported(catalog: Catalog, ae_title: str, transaction_uid: str, verdict: Verdict) -> None:
    """A peer has answered a request of ours; raises NotFound when there is no such one."""

    def work(conn: Connection) -> bool:
        job = rows.open_of(conn, (KIND,), f'"{transaction_uid}"')
        if job is None or job.payload["peer"] != ae_title or job.memo.get("transaction_uid") != transaction_uid:
            return False
        rows.decide_items(conn, job.id, "asked", "committed", [one.sop_instance_uid for one in verdict.committed])
        reasons: dict[int, list[str]] = {}
        for reference, reason in verdict.failed:
            reasons.setdefault(reason, []).append(reference.sop_instance_uid)
        for reason, uids in reasons.items():
            rows.decide_items(conn, job.id, "asked", "failed", uids, f"{_REASONS.get(reason, 'failed')} ({reason:04X}H)")
        rows.hasten(conn, job.id)
        return True

    if not catalog.write(work):
        raise NotFound("no request of this Transaction UID is waiting")
    counts = {"total": len(verdict.committed) + len(verdict.failed), "failed": len(verdict.failed)}
    _log.info("storage commitment received", extra={"peer": ae_title, "transaction_uid": transaction_uid, **counts})


def _remove(parts: Parts, run: Run) -> None:
    """Remove the local copies of what was committed, of that very version; until `removal_grace_s` is over they can be undeleted."""
    committed = run.outcomes("committed")
    versions = {one.item: one.detail for one in run.items("committed")}
    origin = Origin("job", calling_aet=run.payload["peer"], actor=run.job.actor)
    for item in planned(parts, resources_of(run.payload), strict=False):
        uid = item.sop_instance_uid
        if uid not in committed:
            continue
        run.check()
        if versions.get(uid) == f"version {item.version_number}" and _remove_one(parts.catalog, item, origin):
            run.note(uid, "removed")
        else:
            run.note(uid, "kept", "another version has come since the peer was asked")
    run.write()


def _remove_one(catalog: Catalog, item: Item, origin: Origin) -> bool:
    target = Target(item.study_instance_uid, item.series_instance_uid, item.sop_instance_uid)

    def work(conn: Connection) -> bool:
        where = item.study_instance_uid, item.series_instance_uid, item.sop_instance_uid
        now = retrieval.items(conn, *where, sight=catalog.sight(conn))
        if not now or now[0].version_number != item.version_number:
            return False
        return delete_target(conn, target, origin, sight=catalog.sight(conn)) is not None

    return catalog.write(work, target.keys)


def _result(run: Run) -> dict[str, Any]:
    counts = run.counts()
    total = sum(counts.values())
    gone = counts.get("removed", 0) + counts.get("kept", 0)
    run.progress(total - counts.get("asked", 0), total)
    result: dict[str, Any] = {"peer": run.payload["peer"], "total": total, "committed": counts.get("committed", 0) + gone}
    result |= {"failed": counts.get("failed", 0), "removed": counts.get("removed", 0), "kept": counts.get("kept", 0)}
    return result | {"failures": run.failures()}


COMMIT = Handler(_commit)
