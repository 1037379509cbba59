"""DIMSE command sets (PS3.7 section 6.3.1, annex E): group 0000 in implicit VR little endian.

Decoded and encoded here, not by a data set library: one of each passes for every instance stored.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pacslite.dicom.uids import clean_uid
from pacslite.dimse.pdus import UNEXPECTED_PARAMETER, ProtocolViolation
from pacslite.errors import InvalidUid

# Element numbers of group 0000 (PS3.7 annex E.1).
AFFECTED_SOP_CLASS_UID = 0x0002
REQUESTED_SOP_CLASS_UID = 0x0003
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_RESPONDED_TO = 0x0120
MOVE_DESTINATION = 0x0600
PRIORITY = 0x0700
DATA_SET_TYPE = 0x0800
STATUS = 0x0900
OFFENDING_ELEMENT = 0x0901
ERROR_COMMENT = 0x0902
AFFECTED_SOP_INSTANCE_UID = 0x1000
REQUESTED_SOP_INSTANCE_UID = 0x1001
REMAINING, COMPLETED, FAILED, WARNING = 0x1020, 0x1021, 0x1022, 0x1023
EVENT_TYPE_ID, ACTION_TYPE_ID = 0x1002, 0x1008
MOVE_ORIGINATOR_AET = 0x1030
MOVE_ORIGINATOR_MESSAGE_ID = 0x1031

C_STORE_RQ, C_GET_RQ, C_FIND_RQ, C_MOVE_RQ, C_ECHO_RQ = 0x0001, 0x0010, 0x0020, 0x0021, 0x0030
C_CANCEL_RQ = 0x0FFF
N_EVENT_REPORT_RQ, N_ACTION_RQ = 0x0100, 0x0130
N_REQUESTS = frozenset({0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150})
REQUESTS = N_REQUESTS | {C_STORE_RQ, C_GET_RQ, C_FIND_RQ, C_MOVE_RQ, C_ECHO_RQ}
RESPONSE = 0x8000
C_STORE_RSP, N_EVENT_REPORT_RSP = C_STORE_RQ | RESPONSE, N_EVENT_REPORT_RQ | RESPONSE
RIGHTS = {C_STORE_RQ: "store", C_FIND_RQ: "find", C_MOVE_RQ: "move", C_GET_RQ: "get", N_ACTION_RQ: "commitment"}
"""What a caller has to be allowed to (`core.callers`); anybody who may associate may ask whether we are there."""
NO_DATA_SET, SOME_DATA_SET = 0x0101, 0x0001

SUCCESS, PENDING, PENDING_WARNING, CANCELLED = 0x0000, 0xFF00, 0xFF01, 0xFE00
UNRECOGNIZED_OPERATION, SOP_CLASS_NOT_SUPPORTED, NOT_AUTHORIZED, COERCED = 0x0211, 0x0122, 0x0124, 0xB000

_ELEMENT = struct.Struct("<HHI")
_GROUP_LENGTH = struct.Struct("<HHII")
_US = struct.Struct("<H")
_US_ELEMENT = struct.Struct("<HHIH")
_MAX_COMMENT = 64
_NO_COUNTERS: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Command:
    """One command set: the raw value of each element of group 0000."""

    values: dict[int, bytes]

    def number(self, element: int) -> int:
        """A US value; raises ProtocolViolation when it is missing or malformed."""
        value = self.values.get(element, b"")
        if len(value) != 2:
            raise ProtocolViolation(f"command element (0000,{element:04X}) is missing or malformed")
        return value[0] | value[1] << 8

    @property
    def field(self) -> int:
        """(0000,0100) Command Field."""
        return self.number(COMMAND_FIELD)

    @property
    def message_id(self) -> int:
        """(0000,0110) Message ID."""
        return self.number(MESSAGE_ID)

    @property
    def has_data_set(self) -> bool:
        """Whether a data set follows: anything but 0101H (PS3.7 E.1)."""
        return self.number(DATA_SET_TYPE) != NO_DATA_SET

    def title(self, element: int) -> str:
        """An AE value, without the spaces around it that do not count (PS3.5 6.2)."""
        text = self.values.get(element, b"").decode("ascii", "replace").strip(" \0")
        return text.replace("\0", "\ufffd")  # no character of a title, and PostgreSQL takes none

    def uid(self, element: int) -> str:
        """A UI value, trimmed; raises InvalidUid when it is missing or no UID."""
        try:
            return clean_uid(self.values.get(element, b"").decode("ascii"))
        except (UnicodeDecodeError, InvalidUid) as error:
            raise InvalidUid(f"command element (0000,{element:04X}) is not a UID") from error


def decode_command(data: bytes | bytearray | memoryview) -> Command:
    """The command set in `data`; raises ProtocolViolation."""
    values: dict[int, bytes] = {}
    offset, end = 0, len(data)
    while offset < end:
        if offset + 8 > end:
            raise ProtocolViolation("command set ends inside an element")
        group, element, length = _ELEMENT.unpack_from(data, offset)
        offset += 8
        if group != 0 or offset + length > end:
            raise ProtocolViolation("malformed command set")
        values[element] = bytes(data[offset : offset + length])
        offset += length
    return Command(values)


def status_of(response: Command, field: int, message_id: int) -> int:
    """The status in the response to our request; raises ProtocolViolation when it is another message."""
    if response.field != field or response.number(MESSAGE_ID_RESPONDED_TO) != message_id or response.has_data_set:
        raise ProtocolViolation("another message than the response that is awaited", UNEXPECTED_PARAMETER)
    return response.number(STATUS)


def encode_command(values: dict[int, bytes | int]) -> bytes:
    """A command set with its group length; whole numbers become US, keys must ascend."""
    pieces = []
    for element, value in values.items():
        if isinstance(value, int):
            pieces.append(_US_ELEMENT.pack(0, element, 2, value))
        else:
            pieces += (_ELEMENT.pack(0, element, len(value)), value)
    body = b"".join(pieces)
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def encode_response(
    request: Command,
    status: int,
    comment: str = "",
    offending: tuple[int, ...] = (),
    *,
    counters: Mapping[int, int] = _NO_COUNTERS,
    data_set: bool = False,
) -> bytes:
    """The response to a request (PS3.7 9.3): same SOP class and instance, its message id, `status`.

    `counters` are the numbers of sub-operations by element.
    """
    values: dict[int, bytes | int] = {}
    known = request.values
    sop_class = known.get(AFFECTED_SOP_CLASS_UID) or known.get(REQUESTED_SOP_CLASS_UID)
    if sop_class:
        values[AFFECTED_SOP_CLASS_UID] = sop_class
    values[COMMAND_FIELD] = request.field | RESPONSE
    values[MESSAGE_ID_RESPONDED_TO] = request.message_id
    values[DATA_SET_TYPE] = SOME_DATA_SET if data_set else NO_DATA_SET
    values[STATUS] = status
    if offending:
        values[OFFENDING_ELEMENT] = b"".join(_US.pack(tag >> 16) + _US.pack(tag & 0xFFFF) for tag in offending)
    if comment:
        values[ERROR_COMMENT] = _comment(comment)
    sop_instance = known.get(AFFECTED_SOP_INSTANCE_UID) or known.get(REQUESTED_SOP_INSTANCE_UID)
    if sop_instance:
        values[AFFECTED_SOP_INSTANCE_UID] = sop_instance
    values.update(counters)
    return encode_command(values)


class StoreRequests:
    """C-STORE-RQ command sets (PS3.7 9.3.1.1) for one association; all but message id and UIDs is made once."""

    def __init__(self, originator: tuple[str, int] | None = None) -> None:
        """`originator` are the AE title and the message id of the C-MOVE that this is for."""
        self._middle = _US_ELEMENT.pack(0, PRIORITY, 2, 0) + _US_ELEMENT.pack(0, DATA_SET_TYPE, 2, SOME_DATA_SET)
        self._end = b""
        if originator is not None:
            title = originator[0].encode("ascii", "replace")
            title += b" " * (len(title) % 2)
            self._end = _ELEMENT.pack(0, MOVE_ORIGINATOR_AET, len(title)) + title
            self._end += _US_ELEMENT.pack(0, MOVE_ORIGINATOR_MESSAGE_ID, 2, originator[1])
        self._heads: dict[str, bytes] = {}

    def encode(self, message_id: int, sop_class_uid: str, sop_instance_uid: str) -> bytes:
        """The command set for one instance."""
        head = self._heads.get(sop_class_uid)
        if head is None:
            head = _uid_element(AFFECTED_SOP_CLASS_UID, sop_class_uid) + _US_ELEMENT.pack(0, COMMAND_FIELD, 2, C_STORE_RQ)
            self._heads[sop_class_uid] = head
        instance = _uid_element(AFFECTED_SOP_INSTANCE_UID, sop_instance_uid)
        body = b"".join((head, _US_ELEMENT.pack(0, MESSAGE_ID, 2, message_id), self._middle, instance, self._end))
        return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def _uid_element(element: int, uid: str) -> bytes:
    value = uid.encode("ascii")
    value += b"\0" * (len(value) % 2)
    return _ELEMENT.pack(0, element, len(value)) + value


def _comment(text: str) -> bytes:
    """An LO of the default repertoire: 64 characters, no backslash, no control characters (PS3.5 6.2)."""
    plain = "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in text)[:_MAX_COMMENT].rstrip()
    return plain.encode("ascii") + b" " * (len(plain) % 2)
