"""C-STORE as SCP (PS3.4 annex B): what reaches ingest, and what is answered."""

from __future__ import annotations

import random
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from pacslite import errors
from pacslite.dicom import part10
from pacslite.dimse import commands
from pacslite.dimse.commands import Command
from pacslite.storage.spool import SpoolWriter
from tests.support.dimse import (
    CT,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    VERIFICATION,
    Listener,
    Peer,
    listening,
    sink_pacs,
    store_rq,
)

# Patient ID in explicit VR little endian.
DATA_SET = b"\x10\x00\x20\x00LO\x04\x00ABCD"


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with listening(sink_pacs(tmp_path)) as running:
        yield running


@pytest.fixture
def peer(listener: Listener) -> Iterator[Peer]:
    with listener.peer() as connected:
        connected.associate([(CT, [EXPLICIT_LE]), (VERIFICATION, [EXPLICIT_LE])])
        yield connected


def status(answer: Command) -> int:
    return answer.number(commands.STATUS)


def comment(answer: Command) -> str:
    return answer.values.get(commands.ERROR_COMMENT, b"").decode()


def test_what_reaches_ingest_is_a_part_10_file_with_the_negotiated_syntax_and_the_data_set_as_sent(listener: Listener, peer: Peer) -> None:
    assert status(peer.store(DATA_SET, sop_instance="1.2.3.4.5.6")) == 0
    (received,) = listener.pacs.ingest.received
    assert received.endswith(DATA_SET)
    meta = dcmread(BytesIO(received)).file_meta
    assert (meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (EXPLICIT_LE, CT, "1.2.3.4.5.6")
    assert meta.SourceApplicationEntityTitle == "TESTER"


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    ("agreed", "written", "data_set"),
    [
        (EXPLICIT_LE, IMPLICIT_LE, b"\x08\x00\x16\x00\x04\x00\x00\x001.2\0" * 2),
        (EXPLICIT_LE, EXPLICIT_BE, b"\x00\x08\x00\x16UI\x00\x041.2\0" * 2),
        (IMPLICIT_LE, EXPLICIT_LE, b"\x08\x00\x16\x00UI\x04\x001.2\0" * 2),
        (EXPLICIT_BE, EXPLICIT_LE, b"\x08\x00\x16\x00UI\x04\x001.2\0" * 2),
        (EXPLICIT_LE, EXPLICIT_LE, b"\x08\x00\x16\x00UI\x04\x001.2\0" * 2),
        ("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.70", b"\x08\x00\x16\x00\x04\x00\x00\x001.2\0" * 2),
        (EXPLICIT_LE, EXPLICIT_LE, b"\x08\x00"),
        (EXPLICIT_LE, EXPLICIT_LE, b""),
    ],
)
def test_a_data_set_in_another_native_syntax_than_agreed_is_kept_as_what_it_is(
    tmp_path: Path, agreed: str, written: str, data_set: bytes, step: int
) -> None:
    """PS3.10 7.1: Transfer Syntax UID of the file tells how its data set is written, so that others can read it."""
    with listening(sink_pacs(tmp_path, coercion_warnings=True)) as listener, listener.peer() as peer:
        peer.associate([(CT, [agreed])])
        peer.max_pdu = step + 6
        assert status(peer.store(data_set)) == (0 if agreed == written else 0xB000)
        (received,) = listener.pacs.ingest.received
        assert received.endswith(data_set)
        meta = part10.parse_file_meta(received + bytes(16))
        assert meta is not None
        assert meta.transfer_syntax_uid == written


def test_ingest_is_told_who_sent_it_and_what_the_command_named(listener: Listener, peer: Peer) -> None:
    peer.store(DATA_SET)
    origin, expected = listener.pacs.ingest.last.origin, listener.pacs.ingest.last.expected
    assert (origin.protocol, origin.calling_aet, origin.address) == ("dimse", "TESTER", "127.0.0.1")
    assert (expected.sop_class_uid, expected.sop_instance_uid) == (CT, "1.2.3.4.5")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.SopInstanceMismatch("data set names another instance"), 0xA900),
        (errors.MissingAttribute("no StudyInstanceUID"), 0xA900),
        (errors.NotDicom("not a data set"), 0xC000),
        (errors.UnsupportedTransferSyntax("unknown"), 0x0122),
        (errors.DuplicateRefused("other content"), 0x0111),
        (errors.OutOfSpace("no room"), 0xA700),
        (errors.Busy("try again"), 0xA700),
        (errors.Forbidden("not allowed"), 0x0124),
    ],
)
def test_refusals_are_answered_by_the_table_and_the_association_goes_on(
    listener: Listener, peer: Peer, error: errors.PacsliteError, expected: int
) -> None:
    """Checklist 129: A700H, A900H, Cxxx and the others by the one table of failures."""
    listener.pacs.ingest.error = error
    answer = peer.store(DATA_SET)
    assert (status(answer), comment(answer).rstrip()) == (expected, str(error))
    listener.pacs.ingest.error = None
    assert status(peer.store(DATA_SET)) == 0


def test_an_unforeseen_error_is_a_processing_failure_that_tells_nothing_of_the_inside(listener: Listener, peer: Peer) -> None:
    listener.pacs.ingest.error = RuntimeError("secret")
    answer = peer.store(DATA_SET)
    assert (status(answer), comment(answer).rstrip()) == (0x0110, "internal error")
    assert peer.echo(3) == 0


def test_no_room_in_the_spool_is_answered_a700_after_the_data_set_was_read(
    listener: Listener, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise errors.OutOfSpace("no space left")

    monkeypatch.setattr(SpoolWriter, "write", full)
    assert status(peer.store(bytes(100_000))) == 0xA700
    assert listener.spool_files == []
    monkeypatch.undo()
    assert status(peer.store(DATA_SET)) == 0


def test_a_data_set_over_the_limit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with listening(sink_pacs(tmp_path, max_upload_bytes=50_000)) as listener, listener.peer() as peer:
        peer.associate([(CT, [EXPLICIT_LE])])
        assert status(peer.store(bytes(100_000))) == 0xA700
        assert listener.spool_files == []
        assert status(peer.store(DATA_SET)) == 0


def test_warnings_are_told_only_when_the_setting_says_so(tmp_path: Path) -> None:
    for wanted, expected in ((False, 0x0000), (True, 0xB000)):
        pacs = sink_pacs(tmp_path / str(wanted), coercion_warnings=wanted)
        pacs.ingest.warnings = ("value out of place",)
        with listening(pacs) as listener, listener.peer() as peer:
            peer.associate([(CT, [EXPLICIT_LE])])
            assert status(peer.store(DATA_SET)) == expected


@pytest.mark.parametrize("uid", [b"", b"1..2\0\0", b"../../etc/passwd", b"1.2.840." + 58 * b"9"])
def test_a_command_without_a_proper_instance_uid_is_refused(listener: Listener, peer: Peer, uid: bytes) -> None:
    peer.request(1, {**store_rq(), 0x1000: uid}, DATA_SET)
    assert status(peer.response()[0]) == 0xA900
    assert listener.pacs.ingest.received == []
    assert peer.echo(3) == 0


def test_a_store_in_a_context_of_another_service_is_refused(listener: Listener, peer: Peer) -> None:
    """Checklist 129: 0122H where storage was not negotiated."""
    peer.request(3, store_rq(), DATA_SET)
    assert status(peer.response()[0]) == 0x0122
    assert listener.pacs.ingest.received == []


def test_a_store_without_a_data_set_is_refused(peer: Peer) -> None:
    peer.request(1, {**store_rq(), 0x0800: 0x0101})
    assert status(peer.response()[0]) == 0xC000


def test_the_reused_buffer_mixes_neither_pdus_nor_instances(listener: Listener, peer: Peer) -> None:
    peer.max_pdu = 8192
    bodies = [random.Random(number).randbytes(30_000 * number + 2) for number in range(5)]
    for body in bodies:
        assert status(peer.store(body)) == 0
    assert [received[-len(body) :] for received, body in zip(listener.pacs.ingest.received, bodies, strict=True)] == bodies
