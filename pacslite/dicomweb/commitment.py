"""Storage commitment over HTTP (PS3.18 13.4, 13.5): `/commitment-requests/{transactionUID}`."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pacslite.core import commitment_requests
from pacslite.core.commitment import Reference, Verdict
from pacslite.dicom.document import items_of, values_of
from pacslite.dicom.uids import clean_uid
from pacslite.dicomweb import native_xml, native_xml_reader
from pacslite.dicomweb.media_types import DICOM_JSON, DICOM_XML, RESPONSE_OFFERS, acceptable, choose, parse_media_type
from pacslite.errors import BadRequest, InvalidUid, NotAcceptable, UnsupportedContent
from pacslite.web.incoming import whole_body
from pacslite.web.messages import Reply, Request

if TYPE_CHECKING:
    from pacslite.app import Pacs

_log = logging.getLogger(__name__)
_SOP_CLASS, _SOP_INSTANCE = "00081150", "00081155"
_TRANSACTION, _REASON, _FAILED, _REFERENCED = "00081195", "00081197", "00081198", "00081199"
_TYPES = {DICOM_JSON: DICOM_JSON, "application/json": DICOM_JSON, DICOM_XML: DICOM_XML, "application/xml": DICOM_XML, "text/xml": DICOM_XML}
_MOST_REFERENCES = 100_000


def request_commitment(pacs: Pacs, request: Request, transaction: str) -> Reply:
    """`POST /commitment-requests/{transactionUID}`: 200 with the result, 202 while it is awaited, 409 for a UID in other use."""
    transaction_uid = clean_uid(transaction)
    kind = _accepted_type(pacs, request)
    references = _references(_data_set(pacs, request), transaction_uid)
    verdict = commitment_requests.request(pacs, transaction_uid, references, request.actor)
    about = {"action": "commitment.request", "transaction_uid": transaction_uid, "total": len(references), "outcome": "success"}
    _log.info("storage commitment requested", extra=about)
    return _reply(request, transaction_uid, verdict, kind)


def check_commitment(pacs: Pacs, request: Request, transaction: str) -> Reply:
    """`GET /commitment-requests/{transactionUID}`: as above; 404 for a transaction that is not known."""
    transaction_uid = clean_uid(transaction)
    kind = _accepted_type(pacs, request)
    return _reply(request, transaction_uid, commitment_requests.result(pacs.catalog, transaction_uid), kind)


def _accepted_type(pacs: Pacs, request: Request) -> str:
    accepted = acceptable(request.header("Accept"), tuple(request.arguments("accept")), pacs.settings.strict_accept)
    offer = choose(accepted, RESPONSE_OFFERS)
    if offer is None:
        raise NotAcceptable("Results are application/dicom+json or application/dicom+xml.")
    return offer.name


def _data_set(pacs: Pacs, request: Request) -> dict[str, Any]:
    """The one data set of the body, as DICOM JSON."""
    given = request.header("Content-Type")
    kind = _TYPES.get(parse_media_type(given).name) if given else None
    if kind is None or request.header("Content-Encoding"):
        raise UnsupportedContent("The body is application/dicom+json or application/dicom+xml, without a coding.", (DICOM_JSON, DICOM_XML))
    body = whole_body(request.environ, pacs.settings.max_stow_metadata_bytes)
    if kind == DICOM_XML:
        return native_xml_reader.decode(body, pacs.settings.max_sequence_depth)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("The body is not JSON.") from None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict) or not all(isinstance(element, dict) for element in found.values()):
        raise BadRequest("The body is not one data set of the DICOM JSON Model.")
    return found


def _references(data_set: dict[str, Any], transaction_uid: str) -> tuple[Reference, ...]:
    """The instances named (PS3.18 13.4.1.3)."""
    named = _one_uid(data_set, _TRANSACTION, "TransactionUID") if _TRANSACTION in data_set else transaction_uid
    if named != transaction_uid:
        raise BadRequest("TransactionUID is not that of the URL.")
    sequence = data_set.get(_REFERENCED)
    items = items_of({"vr": "SQ", **sequence}) if isinstance(sequence, dict) and isinstance(sequence.get("Value", []), list) else ()
    if not items:
        raise BadRequest("ReferencedSOPSequence is missing or empty.")
    if len(items) > _MOST_REFERENCES:
        raise BadRequest(f"ReferencedSOPSequence has more than {_MOST_REFERENCES} items.")
    return tuple(_reference(item, number) for number, item in enumerate(items, 1))


def _reference(item: dict[str, Any], number: int) -> Reference:
    names = (_SOP_CLASS, f"ReferencedSOPClassUID of item {number}"), (_SOP_INSTANCE, f"ReferencedSOPInstanceUID of item {number}")
    return Reference(*(_one_uid(item, tag, name) for tag, name in names))


def _one_uid(data_set: dict[str, Any], tag: str, name: str) -> str:
    element = data_set.get(tag)
    values = values_of(element) if isinstance(element, dict) and isinstance(element.get("Value", []), list) else ()
    if len(values) != 1:
        raise BadRequest(f"{name} is missing or is not one UID.")
    try:
        return clean_uid(values[0])
    except InvalidUid as error:
        raise InvalidUid(f"{name}: {error}") from None


def _reply(request: Request, transaction_uid: str, verdict: Verdict | None, kind: str) -> Reply:
    location = f"{request.dicomweb_url}/commitment-requests/{transaction_uid}"
    headers = [("Cache-Control", "no-store"), ("Vary", "Accept"), ("Content-Location", location)]
    if verdict is None:
        return Reply(202, [*headers, ("Location", location), ("Retry-After", "1")])
    data_set = _result(transaction_uid, verdict)
    body = native_xml.encode(data_set) if kind == DICOM_XML else json.dumps([data_set], separators=(",", ":")).encode()
    return Reply(200, [("Content-Type", kind), *headers], body)


def _result(transaction_uid: str, verdict: Verdict) -> dict[str, Any]:
    """The Storage Commitment Response Module as DICOM JSON; sequences only when they have items."""
    out: dict[str, Any] = {_TRANSACTION: _ui(transaction_uid)}
    failed = [_item(reference) | {_REASON: {"vr": "US", "Value": [reason]}} for reference, reason in verdict.failed]
    sequences: Sequence[tuple[str, list[dict[str, Any]]]] = ((_FAILED, failed), (_REFERENCED, [_item(r) for r in verdict.committed]))
    return out | {tag: {"vr": "SQ", "Value": items} for tag, items in sequences if items}


def _item(reference: Reference) -> dict[str, Any]:
    return {_SOP_CLASS: _ui(reference.sop_class_uid), _SOP_INSTANCE: _ui(reference.sop_instance_uid)}


def _ui(uid: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [uid]}
