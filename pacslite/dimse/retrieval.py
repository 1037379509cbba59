"""What C-GET and C-MOVE as SCP share: the identifier of the request, and the final response (PS3.4 C.4.2, C.4.3)."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence

from pacslite.core import retrieve
from pacslite.core.retrieve import Item, Selection
from pacslite.dicom.attributes import LEVELS, UNIQUE_KEYS, Level
from pacslite.dicom.uids import clean_uid
from pacslite.dimse import audit, commands
from pacslite.dimse.answer_text import text_encoder
from pacslite.dimse.associations import Association
from pacslite.dimse.contexts import PATIENT_ROOT, Context, Service
from pacslite.dimse.find import check_level
from pacslite.dimse.find_answers import ElementWriter
from pacslite.dimse.identifiers import Identifier, decode_identifier, encoding_of, is_deflated
from pacslite.dimse.messages import Request
from pacslite.dimse.sub_operations import Tally, counters
from pacslite.errors import InvalidQuery

_log = logging.getLogger(__name__)
PENDING_S = 1.0
"""Time between two pending responses."""
_SOME_FAILED, _ALL_FAILED, _IDENTIFIER_MISMATCH = 0xB000, 0xA702, 0xA900
_FAILED_SOP_INSTANCE_UID_LIST = 0x00080058
_ISSUER_OF_PATIENT_ID = 0x00100021


def planned(association: Association, request: Request, service: Service) -> tuple[Item, ...] | None:
    """The instances asked for; None when the request was refused here. Raises what is answered by the association."""
    context = request.context
    if context.service is not service:
        association.respond(request, commands.SOP_CLASS_NOT_SUPPORTED, f"no {service.value} in this presentation context")
        return None
    identifier = decode_identifier(association.data_set(), context.transfer_syntax)
    wrong = _wrong_level(identifier, context)
    if wrong is not None:
        association.respond(request, _IDENTIFIER_MISMATCH, wrong[1], (wrong[0],))
        return None
    items = retrieve.select(association.pacs.catalog, selection_of(identifier, context))
    destination = request.command.title(commands.MOVE_DESTINATION) if service is Service.MOVE else ""
    audit.retrieved(association, request.command.field, (item.study_instance_uid for item in items), destination)
    return items


def _wrong_level(identifier: Identifier, context: Context) -> tuple[int, str] | None:
    # Orthanc retrieves whole patients in the Study Root model, which has no such level; what is meant is plain.
    if identifier.level != Level.PATIENT:
        wrong = check_level(identifier, context)
        if wrong is not None:
            return wrong
    unique = UNIQUE_KEYS[Level(identifier.level)]
    values = identifier.text(unique.tag)
    if not values.strip("\\ "):
        return unique.tag, f"{unique.keyword} is missing"
    if identifier.level == Level.PATIENT and any(c in values for c in "*?\\"):
        return unique.tag, f"{unique.keyword} has to be a single value"
    return None


def selection_of(identifier: Identifier, context: Context) -> Selection:
    """The unique keys of a checked identifier; other keys have no place in it and are passed over. Raises InvalidUid, InvalidQuery."""
    level = Level(identifier.level)
    values = [value for value in identifier.text(UNIQUE_KEYS[level].tag).split("\\") if value.strip()]
    first = 0 if context.abstract_syntax in PATIENT_ROOT else 1
    above = {}
    for higher in LEVELS[first : LEVELS.index(level)]:
        value = identifier.text(UNIQUE_KEYS[higher].tag)
        if value.strip():
            above[higher] = _value(higher, value)
    issuer = identifier.text(_ISSUER_OF_PATIENT_ID).strip() if Level.PATIENT in (level, *above) else ""
    return Selection(level, tuple(dict.fromkeys(_value(level, value) for value in values)), above, issuer)


def _value(level: Level, text: str) -> str:
    if level is not Level.PATIENT:
        return clean_uid(text)
    if any(c in text for c in "*?\\"):
        raise InvalidQuery("PatientID has to be a single value")
    return text.strip()


def finish(association: Association, request: Request, total: int, tallies: Sequence[Tally], cancelled: bool) -> None:
    """Send the final response: status by what came of the sub-operations, their numbers, and the instances that failed."""
    counted = counters(total, tallies, with_remaining=cancelled)
    failed = [uid for tally in tallies for uid in tally.failed_uids]
    reason = next((tally.reason for tally in tallies if tally.reason), "")
    if cancelled:
        status = commands.CANCELLED
    elif failed and len(failed) == total:
        status = _ALL_FAILED
    elif failed or counted[commands.WARNING]:
        status = _SOME_FAILED
    else:
        status = commands.SUCCESS
    if failed:
        _log.warning("sub-operations failed", extra={"failed": len(failed), "total": total, "reason": reason})
    data_set = _failed_list(failed, request.context.transfer_syntax) if failed else None
    association.respond(request, status, reason, counters=counted, data_set=data_set)


def _failed_list(uids: Sequence[str], transfer_syntax: str) -> bytes:
    """An identifier with Failed SOP Instance UID List (PS3.4 C.4.2.1.4.2)."""
    cell = (_FAILED_SOP_INSTANCE_UID_LIST, "UI", "\\".join(uids))
    data = ElementWriter(encoding_of(transfer_syntax)).write([cell], text_encoder((), ())[1])
    if not is_deflated(transfer_syntax):
        return data
    machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = machine.compress(data) + machine.flush()
    return packed + b"\0" * (len(packed) & 1)
