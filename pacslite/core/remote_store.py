"""Sending studies, series and instances to a peer, as a job; run again, it sends only what has not arrived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pacslite.catalog.audit import Event, note_all
from pacslite.core import jobs, peers, retrieve
from pacslite.core.jobs import Handler, Run
from pacslite.core.remote import Parts, check_resources, resources_of
from pacslite.core.remote_ledger import JobLedger
from pacslite.core.remote_turns import in_turn
from pacslite.core.retrieve import Item, Resource
from pacslite.errors import Gone, NotFound

if TYPE_CHECKING:
    from pacslite.core.jobs import Job

KIND = "peer.store"


def queue(parts: Parts, ae_title: str, resources: Sequence[Resource], actor: str) -> Job:
    """Queue the job; raises NotFound and Gone for a peer or a resource that is not there, InvalidForm."""
    checked = check_resources(resources)
    peers.get(parts.catalog, ae_title)
    planned(parts, [Resource(*one) for one in checked], strict=True)  # type: ignore[arg-type]
    return jobs.queue(parts.catalog, KIND, {"peer": ae_title, "resources": checked}, STORE, actor)


def planned(parts: Parts, resources: Sequence[Resource], *, strict: bool) -> list[Item]:
    """The instances of the resources, each once. What has been deleted since is left out, unless `strict`."""
    found: dict[str, Item] = {}
    for resource in resources:
        try:
            found |= {item.sop_instance_uid: item for item in retrieve.plan(parts.catalog, resource)}
        except (NotFound, Gone):
            if strict:
                raise
    return list(found.values())


def _store(parts: Parts, run: Run) -> Mapping[str, Any]:
    peer = peers.get(parts.catalog, run.payload["peer"])
    items = planned(parts, resources_of(run.payload), strict=False)
    sent = run.outcomes("sent")
    left = [item for item in items if item.sop_instance_uid not in sent]
    total = len(sent) + len(left)
    run.progress(len(sent), total)
    ledger = JobLedger(run, parts.peer_counts, peer.ae_title, "sent", total, len(sent))
    if left:
        parts.peer_counts.note(peer.ae_title, {"associations_sent": 1}, seen=False)
        _record(parts, run, peer.ae_title, left)
        with parts.remote(peer) as archive:
            archive.send(left, ledger, run)
    run.check()
    return ledger.settle({"peer": peer.ae_title}, "sent")


def _record(parts: Parts, run: Run, ae_title: str, items: Sequence[Item]) -> None:
    """Puts the export of each study on record, before anything leaves."""
    events = [
        Event(
            "study.export",
            actor=run.job.actor,
            object_type="study",
            object_id=study,
            study_instance_uid=study,
            request_id=run.job.uid,
            protocol="job",
            detail={"destination": ae_title, "instances": count},
        )
        for study, count in Counter(item.study_instance_uid for item in items).items()
    ]
    parts.catalog.write(lambda conn: note_all(conn, events))


STORE = Handler(in_turn(_store))
