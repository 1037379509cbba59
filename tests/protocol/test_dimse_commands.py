"""Command sets and message PDUs, with pynetdicom as the other side of the comparison."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from pydicom.uid import UID
from pynetdicom.dimse_messages import C_FIND_RSP, C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_FIND, C_STORE
from pynetdicom.dsutils import decode
from pynetdicom.pdu_primitives import P_DATA

from pacslite.dimse import commands
from pacslite.dimse.commands import Command, decode_command, encode_response
from pacslite.dimse.pdus import ProtocolViolation, encode_message
from pacslite.errors import InvalidUid
from tests.support.dimse import CT


def store_request() -> bytes:
    """A C-STORE-RQ as pynetdicom encodes it."""
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 259, 2
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = UID(CT), UID("1.2.3")
    primitive.MoveOriginatorApplicationEntityTitle, primitive.MoveOriginatorMessageID = "MOVER", 7
    primitive.DataSet = BytesIO(b"12")
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    (_, pdv), *_ = next(iter(message.encode_msg(1, 16384))).presentation_data_value_list
    return bytes(pdv[1:])


def received(message: C_STORE_RSP | C_FIND_RSP, pdus: bytes) -> tuple[int, C_STORE | C_FIND]:
    """Context and primitive that pynetdicom decodes from our P-DATA PDUs."""
    offset = 0
    while offset < len(pdus):
        kind, length = struct.unpack_from(">BxI", pdus, offset)
        assert kind == 4
        data = P_DATA()
        size, context_id = struct.unpack_from(">IB", pdus, offset + 6)
        assert size + 4 == length
        data.presentation_data_value_list = [[context_id, pdus[offset + 11 : offset + 6 + length]]]
        message.decode_msg(data)
        offset += 6 + length
    return message.context_id, message.message_to_primitive()


def test_request_of_pynetdicom_is_read() -> None:
    command = decode_command(store_request())
    assert (command.field, command.message_id, command.has_data_set) == (commands.C_STORE_RQ, 259, True)
    assert command.uid(commands.AFFECTED_SOP_INSTANCE_UID) == "1.2.3"
    assert command.uid(commands.AFFECTED_SOP_CLASS_UID) == CT


def test_response_is_read_by_pynetdicom_with_comment_and_offending_elements() -> None:
    request = decode_command(store_request())
    comment = "Grüße, back\\slash, " + "x" * 80
    encoded = encode_response(request, 0xA900, comment, (0x0020000D, 0x00080016))
    context_id, answer = received(C_STORE_RSP(), encode_message(3, encoded, None, 0))
    assert isinstance(answer, C_STORE)
    assert (context_id, answer.MessageIDBeingRespondedTo, answer.Status) == (3, 259, 0xA900)
    assert (answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID) == (CT, "1.2.3")
    assert answer.ErrorComment is not None
    assert answer.ErrorComment.startswith("Gr??e, back?slash, xxx")
    assert len(answer.ErrorComment) == 64
    assert answer.OffendingElement == [0x0020000D, 0x00080016]


@pytest.mark.parametrize("max_pdu", [0, 16, 128, 16384])
def test_message_is_cut_into_pdus_the_receiver_takes(max_pdu: int) -> None:
    request = Command({0x0002: b"1.2\0", 0x0100: b"\x20\0", 0x0110: b"\1\0", 0x0800: b"\1\0"})
    identifier = struct.pack("<HHI", 0x0010, 0x4000, 1000) + b"A" * 1000
    encoded = encode_message(5, encode_response(request, 0xFF00, data_set=True), identifier, max_pdu)
    lengths, offset = [], 0
    while offset < len(encoded):
        lengths.append(struct.unpack_from(">BxI", encoded, offset)[1])
        offset += 6 + lengths[-1]
    assert max_pdu == 0 or max(lengths) <= max_pdu
    context_id, answer = received(C_FIND_RSP(), encoded)
    assert isinstance(answer, C_FIND)
    assert (context_id, answer.Status) == (5, 0xFF00)
    assert decode(answer.Identifier, True, True).PatientComments == "A" * 1000


def read_all(encoded: bytes) -> None:
    command = decode_command(encoded)
    assert (command.field, command.message_id, command.has_data_set) == (commands.C_STORE_RQ, 259, True)
    assert command.uid(commands.AFFECTED_SOP_INSTANCE_UID) == "1.2.3"
    assert command.number(0x1031) == 7


def test_every_truncation_of_a_command_set_is_a_violation_or_lacks_something() -> None:
    encoded = store_request()
    read_all(encoded)
    for cut in range(len(encoded)):
        with pytest.raises((ProtocolViolation, InvalidUid)):
            read_all(encoded[:cut])


@pytest.mark.parametrize("value", [b"", b"1..2", b"../../etc", b"1.2.\xff", b"1." * 40])
def test_what_is_no_uid_is_refused_naming_the_element(value: bytes) -> None:
    with pytest.raises(InvalidUid, match=r"\(0000,1000\)"):
        Command({0x1000: value}).uid(0x1000)


def test_a_title_that_no_database_takes_is_one_that_nobody_has() -> None:
    """PostgreSQL refuses text with a NUL; a Move Destination with one is unknown (A801H) there as well."""
    command = decode_command(commands.encode_command({0x0100: 0x21, 0x0110: 1, 0x0800: 1, 0x0600: b"\xff\0bad AE\0"}))
    assert command.title(commands.MOVE_DESTINATION) == "\ufffd\ufffdbad AE"
