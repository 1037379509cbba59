"""The data sets of storage commitment: Action Information (PS3.4 J.3.2.1.1) and Event Information (J.3.3.1.1)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from io import BytesIO

from pacslite.core.commitment import Reference, Verdict
from pacslite.dicom.header import Kind, Walk
from pacslite.dicom.limits import Limits
from pacslite.dicom.source import Source
from pacslite.dicom.uids import clean_uid
from pacslite.dimse.identifiers import encoding_of
from pacslite.errors import BadRequest, InstanceRefused, InvalidUid

_RETRIEVE_AET, _SOP_CLASS, _SOP_INSTANCE = 0x00080054, 0x00081150, 0x00081155
_TRANSACTION, _FAILURE_REASON, _FAILED_SEQUENCE, _REFERENCED_SEQUENCE = 0x00081195, 0x00081197, 0x00081198, 0x00081199
_IMPLICIT = "1.2.840.10008.1.2"
_PROCESSING_FAILURE = 0x0110
_LIMITS = Limits(max_depth=16)
_ITEM = b"\xfe\xff\x00\xe0"


def decode_action(data: bytes, transfer_syntax: str) -> tuple[str, tuple[Reference, ...]]:
    """Transaction UID and the instances named; raises BadRequest that says what is missing or wrong."""
    try:
        transaction, items, _ = _read(data, transfer_syntax)
    except InstanceRefused as error:
        raise BadRequest(f"the data set cannot be read: {error}") from error
    if transaction is None:
        raise BadRequest("TransactionUID is missing")
    transaction_uid = _uid(transaction, "TransactionUID")
    if not items:
        raise BadRequest("ReferencedSOPSequence is missing or empty")
    return transaction_uid, tuple(_reference(item, number) for number, item in enumerate(items, 1))


def _read(data: bytes, transfer_syntax: str) -> tuple[bytes | None, list[dict[int, bytes]], list[dict[int, bytes]]]:
    """The raw values of Transaction UID and of the items of the two sequences; whatever else there is is passed over."""
    transaction: bytes | None = None
    items: dict[int, list[dict[int, bytes]]] = {_REFERENCED_SEQUENCE: [], _FAILED_SEQUENCE: []}
    path: list[int] = []
    for token in Walk(Source.of_stream(BytesIO(data), _LIMITS), settle=True).tokens(0, encoding_of(transfer_syntax)):
        tag = token.head.tag
        if token.kind is Kind.SEQUENCE:
            path.append(tag)
        elif token.kind is Kind.SEQUENCE_END:
            path.pop()
        elif token.kind is Kind.ITEM and len(path) == 1 and path[0] in items:
            items[path[0]].append({})
        elif token.kind is Kind.VALUE and len(path) == 1 and path[0] in items:
            items[path[0]][-1][tag] = data[token.head.start : token.after]
        elif token.kind is Kind.VALUE and not path and tag == _TRANSACTION:
            transaction = data[token.head.start : token.after]
    return transaction, items[_REFERENCED_SEQUENCE], items[_FAILED_SEQUENCE]


def _reference(item: dict[int, bytes], number: int) -> Reference:
    return Reference(
        _uid(item.get(_SOP_CLASS, b""), f"ReferencedSOPClassUID of item {number}"),
        _uid(item.get(_SOP_INSTANCE, b""), f"ReferencedSOPInstanceUID of item {number}"),
    )


def _uid(value: bytes, name: str) -> str:
    try:
        return clean_uid(value.decode("ascii"))
    except (UnicodeDecodeError, InvalidUid):
        raise BadRequest(f"{name} is {'no UID' if value.strip(b' ' + bytes(1)) else 'missing'}") from None


def decode_report(data: bytes, transfer_syntax: str) -> tuple[str, Verdict]:
    """Transaction UID and what is told of each instance; raises BadRequest that says what is missing or wrong."""
    try:
        transaction, items, failed = _read(data, transfer_syntax)
    except InstanceRefused as error:
        raise BadRequest(f"the data set cannot be read: {error}") from error
    if transaction is None:
        raise BadRequest("TransactionUID is missing")
    committed = tuple(_reference(item, number) for number, item in enumerate(items, 1))
    little = [item.get(_FAILURE_REASON, b"").ljust(2, b"\0") for item in failed]
    reasons = [int.from_bytes(raw[:2], "little") or _PROCESSING_FAILURE for raw in little]
    refused = tuple(zip((_reference(item, number) for number, item in enumerate(failed, 1)), reasons, strict=True))
    return _uid(transaction, "TransactionUID"), Verdict(committed, refused)


def encode_action(transaction_uid: str, references: Iterable[Reference], transfer_syntax: str) -> bytes:
    """The Action Information in explicit or implicit VR little endian."""
    writer = _Writer(transfer_syntax != _IMPLICIT)
    return writer.uid(_TRANSACTION, transaction_uid) + writer.sequence(_REFERENCED_SEQUENCE, map(writer.reference, references))


def encode_report(transaction_uid: str, verdict: Verdict, retrieve_aet: str, transfer_syntax: str) -> bytes:
    """The Event Information in explicit or implicit VR little endian; lists that would be empty are left out."""
    writer = _Writer(transfer_syntax != _IMPLICIT)
    pieces = [writer.element(_RETRIEVE_AET, "AE", retrieve_aet.encode("ascii", "replace"), b" ")]
    pieces.append(writer.uid(_TRANSACTION, transaction_uid))
    if verdict.failed:
        items = (writer.reference(ref) + writer.element(_FAILURE_REASON, "US", struct.pack("<H", why)) for ref, why in verdict.failed)
        pieces.append(writer.sequence(_FAILED_SEQUENCE, items))
    if verdict.committed:
        pieces.append(writer.sequence(_REFERENCED_SEQUENCE, map(writer.reference, verdict.committed)))
    return b"".join(pieces)


class _Writer:
    """Elements and sequences in one of the two little endian encodings (PS3.5 7.1, 7.5)."""

    def __init__(self, explicit: bool) -> None:
        self._explicit = explicit

    def element(self, tag: int, vr: str, value: bytes, padding: bytes = b"\0") -> bytes:
        value += padding * (len(value) % 2)
        if self._explicit:
            return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value
        return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value

    def uid(self, tag: int, uid: str) -> bytes:
        return self.element(tag, "UI", uid.encode("ascii"))

    def reference(self, reference: Reference) -> bytes:
        return self.uid(_SOP_CLASS, reference.sop_class_uid) + self.uid(_SOP_INSTANCE, reference.sop_instance_uid)

    def sequence(self, tag: int, items: Iterable[bytes]) -> bytes:
        body = b"".join(_ITEM + struct.pack("<I", len(item)) + item for item in items)
        if self._explicit:
            return struct.pack("<HH2sxxI", tag >> 16, tag & 0xFFFF, b"SQ", len(body)) + body
        return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(body)) + body
