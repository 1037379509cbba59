"""Every association and every request over DIMSE on record, from one place.

What instances arrive is told by the feed of changes, in the transaction that stores them. A query and a retrieval are
recorded before their first answer; how requests were answered, when they are. Associations are recorded each by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pacslite.core.audit import FAILED, REFUSED, SUCCESS, Event
from pacslite.dicom.attributes import BY_TAG
from pacslite.dimse import commands

if TYPE_CHECKING:
    from pacslite.core.audit import Recorder
    from pacslite.dimse.associations import Association

_log = logging.getLogger(__name__)
_MOST_KEYS = 20
_ACTIONS = {
    commands.C_ECHO_RQ: "echo",
    commands.C_STORE_RQ: "study.store",
    commands.C_FIND_RQ: "query",
    commands.C_GET_RQ: "study.read",
    commands.C_MOVE_RQ: "study.export",
    commands.N_ACTION_RQ: "commitment.request",
    commands.N_EVENT_REPORT_RQ: "commitment.report",
}
# Recorded before they are answered, or noted by the transaction that stores.
_RECORDED = frozenset({"study.store", "query", "study.read", "study.export"})
_HOW_TO_SEARCH = frozenset({0x00080005, 0x00080052, 0x00080053, 0x00080054})
_WARNINGS = frozenset({0x0001, 0x0107, 0x0116})


def _event(association: Association, action: str, outcome: str = SUCCESS, **more: Any) -> Event:
    caller = association.caller_or_none
    principal = None if caller is None else caller.principal
    account_id = None if principal is None else principal.account_id
    told = {"address": association.address, "request_id": association.id, "calling_aet": association.calling_aet, "protocol": "dimse"}
    return Event(action, outcome, "" if principal is None else principal.username, account_id, **(told | more))


def opened(association: Association) -> None:
    """An association is accepted."""
    association.pacs.audit.once(_event(association, "association.open", object_type="association", object_id=association.id))


def closed(association: Association, outcome: str) -> None:
    """An accepted association is over; `outcome` as the log has it."""
    in_order = SUCCESS if outcome == "released" else FAILED
    detail = {"end": outcome, "instances": association.instances_received, "answered": dict(association.answered)}
    about: dict[str, Any] = {"object_type": "association", "object_id": association.id, "detail": detail}
    association.pacs.audit.once(_event(association, "association.close", in_order, **about))


def rejected(association: Association, why: str) -> None:
    """An association request is turned down."""
    detail = {"reason": why, "called_aet": association.called_aet}
    association.pacs.audit.record(_event(association, "association.refuse", REFUSED, object_type="association", detail=detail), later=True)


def turned_away(recorder: Recorder, address: str, why: str) -> None:
    """A connection never became an association: no TLS, no A-ASSOCIATE-RQ, no room.

    Who calls this accepts the connections of the whole process: it may neither wait for the catalog nor fail.
    """
    about: dict[str, Any] = {"object_type": "association", "address": address, "protocol": "dimse", "detail": {"reason": why}}
    if not recorder.record_if_room(Event("association.refuse", REFUSED, **about)):
        _log.warning("not in the audit log, which has no room: a connection was turned away", extra={"address": address, "reason": why})


def searched(association: Association, level: str, tags: Iterable[int]) -> None:
    """A query is about to be answered; of its keys the names, never the values."""
    names = sorted({_name_of(tag) for tag in tags if tag not in _HOW_TO_SEARCH})
    detail = {"level": level.lower(), "keys": " ".join(names[:_MOST_KEYS])}
    association.pacs.audit.record(_event(association, "query", object_type="query", detail=detail))


def retrieved(association: Association, field: int, studies: Iterable[str], destination: str = "") -> None:
    """Instances of these studies are about to be sent."""
    action = _ACTIONS[field]
    detail = {"destination": destination} if destination else {}
    about: dict[str, Any] = {"object_type": "study", "detail": detail}
    association.pacs.audit.record_all(
        _event(association, action, object_id=uid, study_instance_uid=uid, **about) for uid in dict.fromkeys(studies)
    )


def answered(association: Association, field: int, status: int) -> None:
    """A request has its final answer: recorded unless that was done before."""
    action = _ACTIONS.get(field, f"dimse.{field:04X}")
    outcome = _outcome(status)
    if outcome == SUCCESS and action in _RECORDED:
        return
    detail = {} if outcome == SUCCESS else {"status": f"{status:04X}"}
    association.pacs.audit.record(_event(association, action, outcome, object_type=action.partition(".")[0], detail=detail), later=True)


def _name_of(tag: int) -> str:
    known = BY_TAG.get(tag)
    return f"{tag:08X}" if known is None else known.keyword


def _outcome(status: int) -> str:
    if status in (commands.SUCCESS, commands.CANCELLED) or status & 0xF000 == commands.COERCED or status in _WARNINGS:
        return SUCCESS
    return REFUSED if status == commands.NOT_AUTHORIZED else FAILED
