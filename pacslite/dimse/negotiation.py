"""What is agreed when an association begins (PS3.8 section 7.1, PS3.7 annex D), with pynetdicom as the authority.

Accepted: Verification, Storage of every SOP class of patients' objects (private ones too), Query/Retrieve FIND, MOVE and
GET with Patient Root and Study Root, Storage Commitment. Transfer syntaxes: for storage the one that the requestor lists first among the
standard's, else its first private one; for queries explicit VR little endian before the others. Where the requestor can
only receive, explicit VR little endian comes before other native ones: most objects are stored so and go out as they are.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom import pdu_primitives as primitives
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor
from pynetdicom.sop_class import _NON_PATIENT_OBJECT_CLASSES, _STORAGE_CLASSES

from pacslite.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacslite.dicom.syntaxes import DECODABLE, GE_PRIVATE
from pacslite.dicom.uids import clean_uid
from pacslite.dimse.contexts import COMMITMENT, QUERY_SERVICES, Context, Service
from pacslite.dimse.pdus import INVALID_PARAMETER, ProtocolViolation, reject_pdu
from pacslite.errors import InvalidUid

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_VERIFICATION = "1.2.840.10008.1.1"
_STANDARD_ROOT = "1.2.840.10008."
# Where the standard puts composite storage classes (PS3.6 annex A); newer ones than pynetdicom's table fall in here.
_STORAGE_ARC = "1.2.840.10008.5.1.4.1.1."
# What we decode may be newer than pydicom's table.
TRANSFER_SYNTAXES = DECODABLE - {GE_PRIVATE} | {uid for uid, row in UID_dictionary.items() if row[1] == "Transfer Syntax"}
STORAGE_CLASSES = {uid: keyword for keyword, uid in _STORAGE_CLASSES.items()} | {
    uid: row[0] for uid, row in UID_dictionary.items() if row[1] == "SOP Class" and "Storage" in row[0] and "Commitment" not in row[0]
}
# Protocols, hanging protocols, templates, inventories and directories belong to no study.
_NO_STUDY = frozenset(_NON_PATIENT_OBJECT_CLASSES.values()) | {"1.2.840.10008.1.3.10"}
_SERVICES_IN_ARC = ("1.2.840.10008.5.1.4.1.1.200.", "1.2.840.10008.5.1.4.1.1.201.")
_QUERY_SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
_COMMITMENT_SYNTAXES = _QUERY_SYNTAXES[:2]
_CACHED_BYTES = 32 * 1024
# Items and sub-items of an A-ASSOCIATE-RQ that are used (PS3.8 9.3.2, PS3.7 annex D.3.3). Unknown ones shall be ignored
# (PS3.8 9.3.1), and so are optional ones that would not be answered: user identity, asynchronous operations.
_MAXIMUM_LENGTH, _ROLE_SELECTION, _EXTENDED = 0x51, 0x54, 0x56
_ITEMS, _CONTEXT_ITEMS = frozenset({0x10, 0x20, 0x50}), frozenset({0x30, 0x40})
# Which options are granted: of PS3.4 C.5.1.1 (relational, combined date and time, fuzzy names, time zones, conversion of
# enhanced multi-frames, empty values, multiple values) all but the fourth and fifth, of C.5.2.1 and C.5.3.1 (relational,
# conversion) the first.
_GRANTED_OPTIONS = {Service.FIND: frozenset({0, 1, 2, 5, 6}), Service.MOVE: frozenset({0}), Service.GET: frozenset({0})}
# The fixed part of an A-ASSOCIATE-RQ (PS3.8 table 9-11), and what a title is made of.
_HEAD_BYTES, _CALLED, _CALLING = 74, slice(10, 26), slice(26, 42)
_TITLE = re.compile(rb"[ -\[\]-~]+")
# What pynetdicom raises on a malformed A-ASSOCIATE-RQ.
_MALFORMED = (AssertionError, AttributeError, IndexError, InvalidUid, KeyError, TypeError, ValueError, struct.error)
# It logs a traceback for what a stranger sends; our own line says it in one.
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Agreed:
    """An accepted association and the A-ASSOCIATE-AC that says so; `max_pdu_bytes` is the peer's, 0 for no bound."""

    answer: bytes
    calling_aet: str
    called_aet: str
    max_pdu_bytes: int
    contexts: Mapping[int, Context]


@dataclass(frozen=True, slots=True)
class Refused:
    """A refused association, the A-ASSOCIATE-RJ and why."""

    answer: bytes
    calling_aet: str
    called_aet: str
    why: str


def service_of(abstract_syntax: str) -> Service | None:
    """Which service an abstract syntax stands for, None when it is none of ours."""
    if abstract_syntax == _VERIFICATION:
        return Service.VERIFICATION
    if abstract_syntax in QUERY_SERVICES:
        return QUERY_SERVICES[abstract_syntax]
    if abstract_syntax == COMMITMENT:
        return Service.COMMITMENT
    if abstract_syntax in _NO_STUDY:
        return None
    if abstract_syntax in STORAGE_CLASSES or not abstract_syntax.startswith(_STANDARD_ROOT):
        return Service.STORAGE
    unknown = abstract_syntax not in UID_dictionary
    in_arc = abstract_syntax.startswith(_STORAGE_ARC) and not abstract_syntax.startswith(_SERVICES_IN_ARC)
    return Service.STORAGE if unknown and in_arc else None


def negotiate(pdu: bytes, aet: str | None, max_pdu_bytes: int) -> Agreed | Refused:
    """The answer to an A-ASSOCIATE-RQ; `aet` is the one called title that is accepted, None for any.

    Raises ProtocolViolation when the PDU is malformed.
    """
    # The same modality asks for the same again and again; decoding 128 contexts costs more than storing an instance.
    work = _negotiate_cached if len(pdu) <= _CACHED_BYTES else _negotiate
    return work(bytes(pdu), aet, max_pdu_bytes)


def _negotiate(pdu: bytes, aet: str | None, max_pdu_bytes: int) -> Agreed | Refused:
    refused = _misnamed(pdu)
    if refused is not None:
        return refused
    try:
        request = A_ASSOCIATE_RQ()
        request.decode(_known_items(pdu))
        asked = request.to_primitive()
        return _answer(request.protocol_version, asked, aet, max_pdu_bytes)
    except _MALFORMED as error:
        raise ProtocolViolation(f"malformed A-ASSOCIATE-RQ ({type(error).__name__})", INVALID_PARAMETER) from error


def _misnamed(pdu: bytes) -> Refused | None:
    """The refusal of what names nobody: titles of spaces, or of characters that a title cannot have (PS3.5 6.2, AE)."""
    titles = (("called", _CALLED, 7), ("calling", _CALLING, 3))
    wrong = [(which, reason) for which, place, reason in titles if len(pdu) >= _HEAD_BYTES and not _is_title(pdu[place])]
    return Refused(reject_pdu(1, 1, wrong[0][1]), "", "", f"the {wrong[0][0]} AE title is none") if wrong else None


def _is_title(padded: bytes) -> bool:
    return _TITLE.fullmatch(padded.replace(b"\0", b" ").strip(b" ")) is not None


_negotiate_cached = lru_cache(maxsize=64)(_negotiate)


def _answer(version: int, asked: primitives.A_ASSOCIATE, aet: str | None, max_pdu_bytes: int) -> Agreed | Refused:
    called, calling = asked.called_ae_title.strip(), asked.calling_ae_title.strip()
    if not version & 1:
        return Refused(reject_pdu(1, 2, 2), calling, called, "protocol version not supported")
    if asked.application_context_name != _APPLICATION_CONTEXT:
        return Refused(reject_pdu(1, 1, 2), calling, called, "application context not supported")
    if aet is not None and called != aet:
        return Refused(reject_pdu(1, 1, 7), calling, called, "called AE title not recognized")
    roles = {
        UID(str(item.sop_class_uid)): (item.scu_role, item.scp_role)
        for item in asked.user_information
        if isinstance(item, primitives.SCP_SCU_RoleSelectionNegotiation)
    }
    results, agreed_roles = _contexts(asked.presentation_context_definition_list, roles)
    options = {str(item.sop_class_uid): item for item in asked.user_information if isinstance(item, primitives.SOPClassExtendedNegotiation)}
    contexts = {cx.id: cx for cx in (_context(one, options) for one in results if one.result == 0)}
    answer = _accept(asked, results, [*agreed_roles, *map(_grant, options.values())], max_pdu_bytes)
    return Agreed(answer, calling, called, asked.maximum_length_received or 0, contexts)


def _context(agreed: PresentationContext, options: Mapping[str, primitives.SOPClassExtendedNegotiation]) -> Context:
    uid = str(agreed.abstract_syntax)
    service = service_of(uid)
    assert service is not None
    assert agreed.context_id is not None
    wanted = _information(options[uid]) if uid in options else b""
    granted = _GRANTED_OPTIONS.get(service, frozenset())
    relational, combined, fuzzy, empty, multiple = (wanted[at : at + 1] == b"\1" and at in granted for at in (0, 1, 2, 5, 6))
    return Context(
        agreed.context_id,
        uid,
        str(agreed.transfer_syntax[0]),
        service,
        as_scp=bool(agreed.as_scp),
        as_scu=bool(agreed.as_scu),
        relational=relational,
        combined_date_time=combined,
        fuzzy_names=fuzzy,
        empty_values=empty,
        multiple_values=multiple,
    )


def _grant(asked: primitives.SOPClassExtendedNegotiation) -> primitives.SOPClassExtendedNegotiation:
    """As many bytes as were asked, 1 where the option is asked for and there (PS3.4 C.5)."""
    granted = primitives.SOPClassExtendedNegotiation()
    granted.sop_class_uid = asked.sop_class_uid
    service = service_of(str(asked.sop_class_uid))
    options = _GRANTED_OPTIONS[service] if service else frozenset()
    granted.service_class_application_information = bytes(
        1 if value == 1 and at in options else 0 for at, value in enumerate(_information(asked))
    )
    return granted


def _information(item: primitives.SOPClassExtendedNegotiation) -> bytes:
    return item.service_class_application_information or b""


def _contexts(
    asked: Iterable[PresentationContext], roles: dict[UID, tuple[bool | None, bool | None]]
) -> tuple[list[PresentationContext], list[primitives.SCP_SCU_RoleSelectionNegotiation]]:
    """Results and roles, context by context, because our preference depends on what each one offers."""
    results: list[PresentationContext] = []
    agreed_roles: dict[str, primitives.SCP_SCU_RoleSelectionNegotiation] = {}
    for context in asked:
        if context.abstract_syntax is None or not context.transfer_syntax:
            raise ValueError("presentation context without abstract or transfer syntax")
        service = service_of(str(context.abstract_syntax))
        receives_only = roles.get(UID(str(context.abstract_syntax))) == (False, True)
        supported = [_supported(context, service, receives_only)] if service else []
        # An empty list would mean "nothing is supported" in the same way; a context of our own tells 3 from 4.
        result, role = negotiate_as_acceptor([context], supported, roles or None)
        results += result
        agreed_roles |= {str(item.sop_class_uid): item for item in role}
    if len({cx.context_id for cx in results}) != len(results):
        raise ValueError("presentation context ids are not unique")
    return results, list(agreed_roles.values())


def _supported(context: PresentationContext, service: Service, receives_only: bool) -> PresentationContext:
    """Our side of a context that is offered: the transfer syntaxes we take, best first."""
    ours = PresentationContext()
    ours.abstract_syntax = context.abstract_syntax
    offered = [str(uid) for uid in context.transfer_syntax]
    if service in _GRANTED_OPTIONS:
        wanted: Iterable[str] = _QUERY_SYNTAXES
    elif service is Service.COMMITMENT:
        wanted = _COMMITMENT_SYNTAXES
    else:
        private = [uid for uid in offered if not uid.startswith(_STANDARD_ROOT)]
        wanted = [uid for uid in offered if uid in TRANSFER_SYNTAXES] + (private if service is Service.STORAGE else [])
        if receives_only and wanted and wanted[0] in _QUERY_SYNTAXES:
            wanted = [*_QUERY_SYNTAXES, *wanted]
    for uid in wanted:
        ours.add_transfer_syntax(uid)
    if service is Service.STORAGE:
        ours.scu_role = ours.scp_role = True
    elif service is Service.COMMITMENT:
        # The requestor may ask us as SCU, or report as SCP on what we have asked of it.
        ours.scu_role = ours.scp_role = True
    return ours


def _accept(
    asked: primitives.A_ASSOCIATE,
    results: list[PresentationContext],
    more: list[primitives.SCP_SCU_RoleSelectionNegotiation | primitives.SOPClassExtendedNegotiation],
    max_pdu_bytes: int,
) -> bytes:
    """The A-ASSOCIATE-AC. What it does not answer is not supported: asynchronous operations, user identity."""
    length = primitives.MaximumLengthNotification()
    length.maximum_length_received = max_pdu_bytes
    implementation = primitives.ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = primitives.ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    accept = primitives.A_ASSOCIATE()
    accept.application_context_name = _APPLICATION_CONTEXT
    accept.called_ae_title = asked.called_ae_title
    accept.calling_ae_title = asked.calling_ae_title
    accept.result = 0
    accept.presentation_context_definition_results_list = results
    accept.user_information = [length, implementation, version, *more]
    return bytes(A_ASSOCIATE_AC(accept).encode())


def _known_items(pdu: bytes) -> bytes:
    """The PDU without items that the standard says to ignore, and with AE titles padded by spaces, not NUL."""
    if len(pdu) < _HEAD_BYTES:
        raise ValueError(f"A-ASSOCIATE-RQ of less than {_HEAD_BYTES} bytes")
    body = b"".join(_item(kind, data) for kind, data in _items(pdu, _HEAD_BYTES) if kind in _ITEMS)
    return pdu[:10] + pdu[10:42].replace(b"\0", b" ") + pdu[42:_HEAD_BYTES] + body


def _item(kind: int, data: bytes) -> bytes:
    if kind == 0x20:
        data = data[:4] + b"".join(_encode_item(sub, _uid(value)) for sub, value in _items(data, 4) if sub in _CONTEXT_ITEMS)
    elif kind == 0x50:
        data = b"".join(_encode_item(sub, known) for sub, value in _items(data, 0) if (known := _user_item(sub, value)))
    else:
        data = _uid(data)
    return _encode_item(kind, data)


def _user_item(kind: int, value: bytes) -> bytes:
    """The value of a sub-item that is used, empty for another."""
    if kind == _MAXIMUM_LENGTH:
        return value
    if kind not in (_ROLE_SELECTION, _EXTENDED):
        return b""
    (length,) = struct.unpack_from(">H", value)
    uid, rest = _uid(value[2 : 2 + length]), value[2 + length :]
    if kind == _EXTENDED and (uid.decode() not in QUERY_SERVICES or not rest):
        return b""
    return struct.pack(">H", len(uid)) + uid + rest


def _uid(value: bytes) -> bytes:
    return clean_uid(value.decode("ascii")).encode()


def _encode_item(kind: int, data: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(data)) + data


def _items(data: bytes, offset: int) -> Iterable[tuple[int, bytes]]:
    """(type, value) of the items from `offset` on; raises ValueError when one is cut off."""
    while offset < len(data):
        kind, length = struct.unpack_from(">BxH", data, offset)
        offset += 4 + length
        if offset > len(data):
            raise ValueError("item beyond the end of the PDU")
        yield kind, data[offset - length : offset]
