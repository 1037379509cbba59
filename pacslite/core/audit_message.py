"""Audit entries in the form of PS3.15 A.5: XML messages of the DICOM schema, in envelopes of RFC 5424.

Patients are told by the catalog's own number, and of queries the keys without their values, as in the log itself.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from pacslite.catalog.audit import clean

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from pacslite.core.audit import Entry, Event

Code = tuple[str, str]

# CID 400 Audit Event ID.
_APPLICATION: Code = ("110100", "Application Activity")
_BEGIN_TRANSFERRING: Code = ("110102", "Begin Transferring DICOM Instances")
_ACCESSED: Code = ("110103", "DICOM Instances Accessed")
_TRANSFERRED: Code = ("110104", "DICOM Instances Transferred")
_STUDY_DELETED: Code = ("110105", "DICOM Study Deleted")
_EXPORT: Code = ("110106", "Export")
_IMPORT: Code = ("110107", "Import")
_NETWORK: Code = ("110108", "Network Entry")
_PATIENT: Code = ("110110", "Patient Record")
_QUERY: Code = ("110112", "Query")
_SECURITY: Code = ("110113", "Security Alert")
_AUTHENTICATION: Code = ("110114", "User Authentication")
_AUDIT_LOG: Code = ("110101", "Audit Log Used")

# CID 401 Audit Event Type Code.
_LOGIN: Code = ("110122", "Login")
_LOGOUT: Code = ("110123", "Logout")
_ATTACH: Code = ("110124", "Attach")
_DETACH: Code = ("110125", "Detach")
_NODE_AUTHENTICATION: Code = ("110126", "Node Authentication")
_CONFIGURATION: Code = ("110128", "Network Configuration")
_USER_SECURITY: Code = ("110137", "User security Attributes Changed")
_ROLE_CHANGED: Code = ("110136", "Security Roles Changed")
_USE_OF_RESTRICTED: Code = ("110132", "Use of Restricted Function")

# CID 402 Audit Active Participant Role ID Code.
_DESTINATION: Code = ("110152", "Destination Role ID")
_SOURCE: Code = ("110153", "Source Role ID")
_APPLICATION_ROLE: Code = ("110150", "Application")

# CID 404 Audit Participant Object ID Type Code; those without a code system name are of RFC 3881 as the schema has them.
_STUDY_UID: Code = ("110180", "Study Instance UID")
_SOP_CLASS: Code = ("110181", "SOP Class UID")
_NODE: Code = ("110182", "Node ID")

_OURS = "99PACSLITE"
# The model that both protocols' searches stand on; which one was asked is in the details.
_STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_OUTCOMES = {"success": "0", "refused": "4", "failed": "8"}


@dataclass(frozen=True, slots=True)
class Shape:
    """How an action becomes a message: event id, type, action code, and the life cycle of its object."""

    event: Code
    code: str
    kind: Code | None = None
    life_cycle: str = ""


# By the whole action, else by what stands before its dot.
_SHAPES = {
    "study.read": Shape(_ACCESSED, "R", life_cycle="6"),
    "study.store": Shape(_TRANSFERRED, "C", life_cycle="1"),
    "study.export": Shape(_BEGIN_TRANSFERRING, "E", life_cycle="10"),
    "study.delete": Shape(_STUDY_DELETED, "D", life_cycle="14"),
    "study.undelete": Shape(_ACCESSED, "U", life_cycle="3"),
    "study.hold": Shape(_ACCESSED, "U", life_cycle="3"),
    "study.conflict": Shape(_ACCESSED, "U", life_cycle="4"),
    "series.delete": Shape(_ACCESSED, "D", life_cycle="14"),
    "instance.delete": Shape(_ACCESSED, "D", life_cycle="14"),
    "study": Shape(_ACCESSED, "R", life_cycle="6"),
    "series": Shape(_ACCESSED, "U", life_cycle="3"),
    "instance": Shape(_ACCESSED, "U", life_cycle="3"),
    "store.request": Shape(_TRANSFERRED, "C"),
    "query": Shape(_QUERY, "E"),
    "peer.query": Shape(_QUERY, "E"),
    "patient.export": Shape(_EXPORT, "E", life_cycle="10"),
    "patient": Shape(_PATIENT, "U", life_cycle="3"),
    "file.upload": Shape(_PATIENT, "C", life_cycle="1"),
    "file.delete": Shape(_PATIENT, "D", life_cycle="14"),
    "file.read": Shape(_PATIENT, "R", life_cycle="6"),
    "file": Shape(_PATIENT, "U", life_cycle="3"),
    "share": Shape(_EXPORT, "E", life_cycle="11"),
    "auth.login": Shape(_AUTHENTICATION, "E", _LOGIN),
    "auth.logout": Shape(_AUTHENTICATION, "E", _LOGOUT),
    "auth": Shape(_AUTHENTICATION, "E", _LOGIN),
    "association.open": Shape(_NETWORK, "E", _ATTACH),
    "association.close": Shape(_NETWORK, "E", _DETACH),
    "association.refuse": Shape(_SECURITY, "E", _NODE_AUTHENTICATION),
    "audit": Shape(_AUDIT_LOG, "R"),
    "audit.damaged": Shape(_SECURITY, "E", ("audit.damaged", "Audit log damaged")),
    "peer": Shape(_SECURITY, "E", _CONFIGURATION),
    "user": Shape(_SECURITY, "E", _USER_SECURITY),
    "token": Shape(_SECURITY, "E", _USER_SECURITY),
    "group": Shape(_SECURITY, "E", _ROLE_CHANGED),
}
_OTHER = Shape(_APPLICATION, "E")


def shape_of(event: Event) -> Shape:
    """The message that an event becomes: what was refused for want of rights is a security alert."""
    found = _SHAPES.get(event.action) or _SHAPES.get(event.action.partition(".")[0], _OTHER)
    if event.outcome == "refused" and found.event not in (_AUTHENTICATION, _SECURITY):
        return Shape(_SECURITY, "E", _USE_OF_RESTRICTED, found.life_cycle)
    if event.protocol == "import" and found.event == _TRANSFERRED:
        return Shape(_IMPORT, "C", life_cycle="2")
    return found


def to_xml(entry: Entry, source_id: str, aet: str) -> bytes:
    """The message of an entry, for the source of that id, whose application entity has that title."""
    shape = shape_of(entry.event)
    entry = replace(entry, event=clean(entry.event))
    event, message = entry.event, ElementTree.Element("AuditMessage")
    attributes = {"EventActionCode": shape.code, "EventDateTime": event.at, "EventOutcomeIndicator": _OUTCOMES.get(event.outcome, "8")}
    identification = ElementTree.SubElement(message, "EventIdentification", attributes)
    _coded(identification, "EventID", shape.event)
    if shape.kind is not None:
        _coded(identification, "EventTypeCode", shape.kind)
    ElementTree.SubElement(identification, "EventOutcomeDescription").text = _described(event)
    _participants(message, event, shape, aet)
    source = ElementTree.SubElement(message, "AuditSourceIdentification", {"AuditSourceID": source_id})
    ElementTree.SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})
    _objects(message, entry, shape)
    return ('<?xml version="1.0" encoding="UTF-8"?>' + ElementTree.tostring(message, encoding="unicode")).encode()


def _described(event: Event) -> str:
    reason = event.detail.get("reason") or event.detail.get("status") or ""
    return " ".join(part for part in (event.action, event.outcome, str(reason)) if part)


def _coded(parent: Element, name: str, code: Code, system: str = "DCM") -> None:
    system = system if system != "DCM" or code[0].isdigit() else _OURS
    ElementTree.SubElement(parent, name, {"csd-code": code[0], "codeSystemName": system, "originalText": code[1]})


def _participants(message: Element, event: Event, shape: Shape, aet: str) -> None:
    """Who asked, the two ends of a transfer, and this server (PS3.15 A.5.3)."""
    incoming = shape.event in (_TRANSFERRED, _IMPORT)
    moves = incoming or shape.event == _BEGIN_TRANSFERRING
    caller = {"UserID": event.actor or event.calling_aet or "anonymous", "UserIsRequestor": "true"}
    if event.calling_aet:
        caller["AlternativeUserID"] = f"AETITLES={event.calling_aet}"
    if event.address:
        caller |= {"NetworkAccessPointID": event.address, "NetworkAccessPointTypeCode": "2"}
    asking = ElementTree.SubElement(message, "ActiveParticipant", caller)
    if moves:
        _coded(asking, "RoleIDCode", _SOURCE if incoming else _DESTINATION)
    own = {"UserID": "pacslite", "AlternativeUserID": f"AETITLES={aet}", "UserIsRequestor": "false"}
    server = ElementTree.SubElement(message, "ActiveParticipant", own)
    if moves:
        _coded(server, "RoleIDCode", _DESTINATION if incoming else _SOURCE)
    elif shape.event == _APPLICATION:
        _coded(server, "RoleIDCode", _APPLICATION_ROLE)
    destination = event.detail.get("destination")
    if destination:
        given = {"UserID": str(destination), "AlternativeUserID": f"AETITLES={destination}", "UserIsRequestor": "false"}
        _coded(ElementTree.SubElement(message, "ActiveParticipant", given), "RoleIDCode", _DESTINATION)


def _objects(message: Element, entry: Entry, shape: Shape) -> None:
    event = entry.event
    if event.study_instance_uid:
        study = _object(message, event.study_instance_uid, "2", "3", shape.life_cycle, _STUDY_UID, event.action)
        _details(study, entry)
        _contents(study, event)
    if event.patient_id is not None:
        number = str(event.patient_id)
        _object(message, number, "1", "1", shape.life_cycle, ("2", "Patient Number"), f"patient {number}", "RFC-3881")
    if shape.event == _QUERY:
        query = _object(message, _STUDY_ROOT_FIND, "2", "24", "", _SOP_CLASS, None)
        keys = json.dumps({name: event.detail[name] for name in ("level", "keys") if name in event.detail}).encode()
        ElementTree.SubElement(query, "ParticipantObjectQuery").text = base64.b64encode(keys).decode()
        _details(query, entry)
    elif not event.study_instance_uid:
        kind = _NODE if event.object_type in ("peer", "association") else ("URI", event.object_type or "object")
        system = "DCM" if kind is _NODE else _OURS
        name = event.object_id or event.object_type or event.action
        other = _object(message, name, "2", "", shape.life_cycle, kind, event.action, system)
        _details(other, entry)


def _object(
    message: Element, object_id: str, kind: str, role: str, life_cycle: str, id_type: Code, name: str | None, system: str = "DCM"
) -> Element:
    attributes = {"ParticipantObjectID": object_id, "ParticipantObjectTypeCode": kind}
    if role:
        attributes["ParticipantObjectTypeCodeRole"] = role
    if life_cycle:
        attributes["ParticipantObjectDataLifeCycle"] = life_cycle
    made = ElementTree.SubElement(message, "ParticipantObjectIdentification", attributes)
    _coded(made, "ParticipantObjectIDTypeCode", id_type, system)
    if name is not None:
        ElementTree.SubElement(made, "ParticipantObjectName").text = name
    return made


def _details(parent: Element, entry: Entry) -> None:
    """What the schema has no place for: the entry in the log, its request, and its detail."""
    event = entry.event
    values = {"entry": str(entry.seq), "hash": entry.hash, "request": event.request_id, "protocol": event.protocol}
    if event.detail:
        values["detail"] = json.dumps(dict(event.detail), ensure_ascii=False, sort_keys=True)
    for kind, value in values.items():
        if value:
            given = {"type": kind, "value": base64.b64encode(value.encode()).decode()}
            ElementTree.SubElement(parent, "ParticipantObjectDetail", given)


def _contents(parent: Element, event: Event) -> None:
    """How many instances; of what SOP class is not kept of each."""
    kinds = ("instance_stored", "version_added", "instance_repaired", "instances")
    count = sum(int(event.detail[name]) for name in kinds if isinstance(event.detail.get(name), int))
    described = ElementTree.SubElement(parent, "ParticipantObjectDescription")
    if count:
        ElementTree.SubElement(described, "SOPClass", {"NumberOfInstances": str(count)})
    contains = ElementTree.SubElement(described, "ParticipantObjectContainsStudy")
    ElementTree.SubElement(contains, "StudyIDs", {"UID": event.study_instance_uid})


def to_syslog(entry: Entry, source_id: str, aet: str, process_id: int) -> bytes:
    """The message in its envelope (RFC 5424, PS3.15 A.6): facility security/authorization, MSGID as DICOM wants it."""
    severity = {"success": 5, "refused": 4}.get(entry.event.outcome, 3)
    host = "".join(c for c in source_id if "!" <= c <= "~")[:255] or "-"
    header = f"<{10 * 8 + severity}>1 {entry.event.at} {host} pacslite {process_id} DICOM+RFC3881 - "
    return header.encode() + b"\xef\xbb\xbf" + to_xml(entry, source_id, aet)
