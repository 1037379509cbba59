"""`/audit`: the audit log, searched, and verified by a job."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pacslite.admin.jobs import JobView, accepted
from pacslite.core import audit, audit_chain, audit_upkeep
from pacslite.core.access import Right
from pacslite.core.audit_segments import plain
from pacslite.errors import InvalidForm
from pacslite.web.forms import rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import Operation, Parameter, json_reply
from pacslite.web.pages import PAGE, check_parameters, key_in, keyed_number, limit_of, next_url, number_in

if TYPE_CHECKING:
    from pacslite.app import Pacs

_FILTERS = ("actor", "action", "patient_id", "study_instance_uid", "outcome", "since", "until")
_OUTCOMES = (audit.SUCCESS, audit.REFUSED, audit.FAILED)
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d)?)?")


@dataclass(frozen=True, slots=True)
class AuditEventView:
    """Something somebody did, or was refused."""

    id: int = field(metadata=rule("Its number in the chain."))
    at: str
    actor: str = field(metadata=rule("Username; of a failed login the name that was tried; empty when nobody is known by name."))
    actor_id: int | None
    action: str = field(metadata=rule("What was done: study.read, study.store, query, auth.login, association.open, job.failed, ..."))
    object_type: str
    object_id: str
    study_instance_uid: str
    patient_id: int | None = field(metadata=rule("The catalog's number of the patient."))
    address: str
    protocol: str
    calling_aet: str
    outcome: str = field(metadata=rule("success, refused or failed."))
    request_id: str = field(metadata=rule("Of the request, or the id of the DICOM association."))
    detail: dict[str, Any]
    hash: str = field(metadata=rule("Over this entry and the hash of the one before."))


@dataclass(frozen=True, slots=True)
class AuditEventList:
    """A page of the log, newest first."""

    items: tuple[AuditEventView, ...]
    total: int
    next: str | None


def list_audit_events(pacs: Pacs, request: Request) -> Reply:
    """A page of the log, with everything that has happened until now."""
    given = check_parameters(request, ("limit", "cursor", *_FILTERS))
    limit, wanted = limit_of(given), filter_of(given)
    key = key_in(given)
    before = keyed_number(key) if key is not None else None
    audit_chain.advance(pacs.catalog, audit_chain.anchor_of(pacs.settings.data))
    found, total = audit.page(pacs.catalog, wanted, before, limit + 1)
    following = next_url(request, given, str(found[limit - 1].seq)) if len(found) > limit else None
    return json_reply({"items": [plain(entry) for entry in found[:limit]], "total": total, "next": following})


def filter_of(given: dict[str, str]) -> audit.Filter:
    """The filter that parameters make; raises InvalidForm."""
    if given.get("outcome", _OUTCOMES[0]) not in _OUTCOMES:
        raise InvalidForm.at("outcome", f"is none of {', '.join(_OUTCOMES)}")
    return audit.Filter(
        given.get("actor", ""),
        given.get("action", ""),
        number_in(given, "patient_id"),
        given.get("study_instance_uid", ""),
        given.get("outcome", ""),
        _time(given.get("since", ""), "since"),
        _time(given.get("until", ""), "until"),
    )


def _time(text: str, name: str) -> str:
    """A time as the log writes it; without an offset it is UTC."""
    if not text:
        return ""
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidForm.at(name, "is not a date or time of ISO 8601") from None
    return moment.isoformat(timespec="microseconds")[:26] + "Z"


def verify_audit(pacs: Pacs, request: Request) -> Reply:
    """Verifies the log by a job."""
    return accepted(request, audit_upkeep.queue_verify(pacs, request.actor))


OPERATIONS = (
    Operation(
        "GET",
        "/audit",
        list_audit_events,
        "What was done and refused, newest first",
        "audit",
        {200: AuditEventList},
        Right.ADMIN,
        parameters=(
            Parameter("actor", "Only of this user."),
            Parameter("action", "Only this action, `study.read`, or all of a kind, `study.*`."),
            Parameter("patient_id", "Only of the patient of this number.", "integer"),
            Parameter("study_instance_uid", "Only about this study."),
            Parameter("outcome", "success, refused or failed."),
            Parameter("since", "From this date or time of ISO 8601 on; without an offset in UTC."),
            Parameter("until", "Before this date or time."),
            *PAGE,
        ),
    ),
    Operation(
        "POST", "/audit/verify", verify_audit, "Verify that nobody has changed the log, by a job", "audit", {202: JobView}, Right.ADMIN
    ),
)
