"""User identity negotiation (PS3.7 D.3.3.7): the sub-item that a requestor sends, and the one that answers it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pacslite.core.callers import IdentityKind, UserIdentity
from pacslite.dimse.pdus import INVALID_PARAMETER, ProtocolViolation

_USER_INFORMATION, _IDENTITY, _IDENTITY_ANSWER = 0x50, 0x58, 0x59
_FIRST_ITEM = 74
_HEADER = struct.Struct(">BxH")
_PDU_HEADER = struct.Struct(">BxI")
_LENGTH = struct.Struct(">H")


def split(pdu: bytes) -> tuple[bytes, bytes | None]:
    """An A-ASSOCIATE-RQ without the user identity, and the value of that sub-item; a malformed PDU stays as it is.

    Taken out before anything else sees, keeps or logs the PDU: it may hold a password.
    """
    try:
        for start, kind, end in _items(pdu, _FIRST_ITEM, len(pdu)):
            if kind == _USER_INFORMATION:
                return _split_user_information(pdu, start, end)
    except struct.error:
        pass  # a header is cut off; whoever reads the PDU next says so
    return pdu, None


def _split_user_information(pdu: bytes, start: int, end: int) -> tuple[bytes, bytes | None]:
    identity: bytes | None = None
    kept, rest_from = [], start + 4
    for at, kind, behind in _items(pdu, start + 4, end):
        if kind == _IDENTITY:
            identity = pdu[at + 4 : behind] if identity is None else identity  # of several, the first
            kept.append(pdu[rest_from:at])
            rest_from = behind
    if identity is None:
        return pdu, None
    rest = b"".join((*kept, pdu[rest_from:end]))
    body = b"".join((pdu[6:start], _HEADER.pack(_USER_INFORMATION, len(rest)), rest, pdu[end:]))
    return _PDU_HEADER.pack(pdu[0], len(body)) + body, identity


def _items(pdu: bytes, offset: int, limit: int) -> Iterator[tuple[int, int, int]]:
    """Start, type and end of each whole item."""
    while offset < limit:
        kind, length = _HEADER.unpack_from(pdu, offset)
        end = offset + 4 + length
        if end > limit:
            return
        yield offset, kind, end
        offset = end


def decode(value: bytes) -> tuple[UserIdentity | None, bool]:
    """The identity, None when its type is none of the standard's, and whether it has to be answered; raises ProtocolViolation."""
    try:
        number, answer = value[0], value[1]
        (length,) = _LENGTH.unpack_from(value, 2)
        primary = value[4 : 4 + length]
        (second_length,) = _LENGTH.unpack_from(value, 4 + length)
        secondary = value[6 + length : 6 + length + second_length]
    except (IndexError, struct.error):
        raise ProtocolViolation("malformed user identity", INVALID_PARAMETER) from None
    if len(primary) != length or len(secondary) != second_length or 6 + length + second_length != len(value):
        raise ProtocolViolation("malformed user identity", INVALID_PARAMETER)
    try:
        kind = IdentityKind(number)
        named = kind in (IdentityKind.USERNAME, IdentityKind.PASSWORD)
        name = primary.decode() if named else ""
        # Kerberos tickets are bytes of any kind, and nobody reads them.
        secret = secondary.decode() if named else primary.decode("utf-8", "replace")
    except UnicodeDecodeError:
        raise ProtocolViolation("user identity is not UTF-8", INVALID_PARAMETER) from None
    except ValueError:
        return None, answer == 1
    return UserIdentity(kind, name, secret), answer == 1


def answered(pdu: bytes) -> bytes:
    """An A-ASSOCIATE-AC that says that the identity was accepted; for names, passwords and JWT there is no more to say."""
    for start, kind, end in _items(pdu, _FIRST_ITEM, len(pdu)):
        if kind == _USER_INFORMATION:
            item = _HEADER.pack(_IDENTITY_ANSWER, 2) + _LENGTH.pack(0)
            header = _HEADER.pack(_USER_INFORMATION, end - start - 4 + len(item))
            body = pdu[6:start] + header + pdu[start + 4 : end] + item + pdu[end:]
            return _PDU_HEADER.pack(pdu[0], len(body)) + body
    return pdu
