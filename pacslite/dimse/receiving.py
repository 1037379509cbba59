"""An instance that comes by C-STORE, as a DICOM file: the data set as it was sent, behind file meta information of ours."""

from __future__ import annotations

from collections.abc import Iterator

from pacslite.dicom.data_set import native_syntax
from pacslite.dicom.part10 import encode_preamble_and_meta
from pacslite.storage.spool import SpoolWriter

_HEAD_BYTES = 16
_NOTHING = memoryview(b"")


def receive(
    writer: SpoolWriter, fragments: Iterator[memoryview], sop_class_uid: str, sop_instance_uid: str, agreed: str, source_aet: str
) -> str:
    """Write what comes in the transfer syntax agreed on; the one that it is in.

    Some senders write another native one. Kept as what it is not, the instance could be read by nobody it is sent to.
    """
    first = _first(fragments)
    syntax = native_syntax(bytes(first[:_HEAD_BYTES]), agreed)
    writer.write(encode_preamble_and_meta(sop_class_uid, sop_instance_uid, syntax, source_aet))
    writer.write(first)
    for fragment in fragments:
        writer.write(fragment)
    return syntax


def _first(fragments: Iterator[memoryview]) -> memoryview | bytes:
    """The first fragment, with so many of the next ones that the first element shows how it is written."""
    first = next(fragments, _NOTHING)
    if len(first) >= _HEAD_BYTES:
        return first
    head = bytes(first)
    for fragment in fragments:
        head += fragment
        if len(head) >= _HEAD_BYTES:
            break
    return head
