"""Bringing studies, series and instances from a peer, as a job; run again, it asks only for what is not here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pacslite.catalog import retrieval
from pacslite.core import jobs, peers
from pacslite.core.jobs import Handler, Run
from pacslite.core.remote import Parts, RemoteArchive, RemoteInstance, check_resources, instances_of, resources_of
from pacslite.core.remote_ledger import JobLedger
from pacslite.core.remote_turns import in_turn
from pacslite.core.retrieve import Resource
from pacslite.errors import Conflict, NotFound, PeerError

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog
    from pacslite.core.jobs import Job

KIND = "peer.retrieve"
METHODS = ("auto", "get", "move", "wado")
_MAX_INSTANCES = 100_000


def queue(parts: Parts, ae_title: str, resources: Sequence[Resource], method: str, actor: str) -> Job:
    """Queue the job; raises NotFound for an unknown peer, Conflict for a way that it has not, InvalidForm."""
    checked = check_resources(resources)
    peer = peers.get(parts.catalog, ae_title)
    with parts.remote(peer) as archive:
        if method not in ("auto", *archive.methods):
            raise Conflict(f"{ae_title} is a {peer.kind} peer; it is asked by {' or '.join(archive.methods)}.")
    return jobs.queue(parts.catalog, KIND, {"peer": ae_title, "resources": checked, "method": method}, RETRIEVE, actor)


def _retrieve(parts: Parts, run: Run) -> Mapping[str, Any]:
    peer = peers.get(parts.catalog, run.payload["peer"])
    parts.peer_counts.note(peer.ae_title, {"associations_sent": 1}, seen=False)
    with parts.remote(peer) as archive:
        listed = [(resource, instances_of(archive, resource, _MAX_INSTANCES)) for resource in resources_of(run.payload)]
        held = {one for _, instances in listed for one in _held(parts.catalog, instances)}
        total = len({one for _, instances in listed for one in instances})
        if not total:
            raise NotFound(f"{peer.ae_title} has nothing of what is asked for.")
        brought = run.outcomes("received")
        for one in held:
            if one.sop_instance_uid not in brought:
                run.note(one.sop_instance_uid, "present")
        ledger = JobLedger(run, parts.peer_counts, peer.ae_title, "received", total, len(held))
        run.progress(len(held), total)
        method = run.payload["method"]
        for resource, instances in listed:
            wanted = [one for one in instances if one not in held]
            if wanted:
                run.check()
                method = _fetch(parts, archive, resource, wanted, len(wanted) == len(instances), method, ledger, run)
    run.check()
    return ledger.settle({"peer": peer.ae_title, "method": method, "present": run.counts().get("present", 0)}, "received")


def _fetch(
    parts: Parts,
    archive: RemoteArchive,
    resource: Resource,
    wanted: Sequence[RemoteInstance],
    whole: bool,
    method: str,
    ledger: JobLedger,
    run: Run,
) -> str:
    """Fetch what is wanted of one resource, then look what has come; the way it went."""
    reason = "it was not sent"
    try:
        method = archive.fetch(resource, wanted, whole, method, ledger, run)
    except PeerError as error:
        reason = str(error)
    here = {one.sop_instance_uid for one in _held(parts.catalog, wanted)}
    for one in wanted:
        uid = one.sop_instance_uid
        if uid in here and uid not in ledger.succeeded_uids:
            ledger.failed_uids.discard(uid)
            ledger.succeeded(uid, 0)
        elif uid not in here and uid not in ledger.failed_uids:
            ledger.failed(uid, reason, transient=True)
    return method


def _held(catalog: Catalog, instances: Sequence[RemoteInstance]) -> set[RemoteInstance]:
    """Those that are in the catalog."""
    known: dict[tuple[str, str], set[str]] = {}
    with catalog.read() as conn:
        sight = catalog.sight(conn)
        for one in instances:
            series = one.study_instance_uid, one.series_instance_uid
            if series not in known:
                known[series] = {item.sop_instance_uid for item in retrieval.items(conn, *series, sight=sight)}
    return {one for one in instances if one.sop_instance_uid in known[one.study_instance_uid, one.series_instance_uid]}


RETRIEVE = Handler(in_turn(_retrieve))
