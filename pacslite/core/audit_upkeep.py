"""What the worker does for the audit log: chain what has happened, send it on, close old segments, verify; and the job to verify."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from pacslite.core import audit, audit_chain, audit_segments, audit_syslog, audit_verify, jobs
from pacslite.core.jobs import Handler, Job, Run
from pacslite.core.parts import WithCatalog, WithSettings

if TYPE_CHECKING:
    from pacslite.core.audit_verify import AuditReport

KIND = "audit.verify"
_log = logging.getLogger(__name__)


class Parts(WithSettings, WithCatalog, Protocol):
    """What this needs of a process."""


def send(parts: Parts) -> int:
    """Send new entries to the syslog server, if there is one; raises PeerError."""
    target = audit_syslog.target_of(parts.settings)
    if target is None:
        return 0
    return audit_syslog.send_new(parts.catalog, target, parts.settings.audit_source_id, parts.settings.aet)


def close_old(parts: Parts) -> int:
    """Move entries past `audit_keep_days` into files of <data>/audit."""
    settings = parts.settings
    return audit_segments.close_old(
        parts.catalog, settings.data / "audit", settings.audit_keep_days, wait_for_syslog=bool(settings.audit_syslog)
    )


def verify(parts: Parts) -> AuditReport:
    """Verify the log; that it is damaged is recorded, and logged."""
    report = audit_verify.verify(parts.catalog, audit_chain.anchor_of(parts.settings.data))
    if not report.is_whole:
        first = report.problems[0]
        _log.error("the audit log is damaged: %s", first.problem, extra={"action": KIND, "outcome": "failed", "seq": first.seq})
        detail = {"problems": report.problem_count, "reason": first.problem}
        audit.record(parts.catalog, audit.Event("audit.damaged", audit.FAILED, object_type="audit", protocol="job", detail=detail))
    return report


def queue_verify(parts: Parts, actor: str = "") -> Job:
    """Verify the log by a job; while one is under way, that is meant."""
    return jobs.queue(parts.catalog, KIND, {}, HANDLER, actor, KIND)


def _run(parts: Parts, run: Run) -> Mapping[str, Any]:
    report = verify(parts)
    return {**asdict(report), "is_whole": report.is_whole}


HANDLER = Handler(_run)
