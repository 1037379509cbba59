"""Undeleting what is too large for one request, as a job: cut short, it goes on with what has not come back yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pacslite.core import jobs, restoration
from pacslite.core.jobs import Handler, Job, Run
from pacslite.core.removal import Origin, Target
from pacslite.core.restoration import Undeleted

if TYPE_CHECKING:
    from pacslite.core.restoration import Parts

KIND = "studies.undelete"
LARGE = 200
"""Instances above which undeleting is a job; reading them takes some milliseconds each."""


def queue(parts: Parts, target: Target, origin: Origin) -> Job:
    """Queue it; while the same is under way, that is meant."""
    payload = {"uids": list(target.uids.values()), "origin": [origin.address, origin.actor, origin.request_id]}
    name = f"{KIND} {'/'.join(target.uids.values())}"
    return jobs.queue(parts.catalog, KIND, payload, HANDLER, origin.actor, name)


def _run(parts: Parts, run: Run) -> Mapping[str, Any]:
    address, actor, request_id = run.payload["origin"]
    origin = Origin("api", address=address, actor=actor, request_id=request_id)
    # What earlier runs have brought back is no longer missing.
    before, read_before = Undeleted(**run.memo.get("so_far", {})), run.memo.get("read", 0)

    def go_on(so_far: Undeleted, done: int, total: int) -> None:
        run.progress(read_before + done, read_before + total)
        run.remember(so_far=asdict(restoration.sum_of([before, so_far])), read=read_before + done)
        run.check()

    done = restoration.undelete(parts, Target(*run.payload["uids"]), origin, go_on=go_on)
    return asdict(restoration.sum_of([before, done]))


HANDLER = Handler(_run)
