"""The listener against peers of every kind: orderly, too many, silent, broken, hostile (PS3.8 sections 7 and 9)."""

from __future__ import annotations

import random
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pynetdicom import AE, build_context

from pacslite.dimse import lobby, pdus
from pacslite.dimse.pdus import encode_message
from pacslite.dimse.server import DimseServer
from tests.support.dimse import (
    CT,
    EXPLICIT_LE,
    STUDY_ROOT_FIND,
    VERIFICATION,
    Listener,
    Peer,
    associate_rq,
    cancel_rq,
    echo_rq,
    encode_command,
    listening,
    sink_pacs,
    store_rq,
)
from tests.support.processes import until

STORE = ((CT, (EXPLICIT_LE,)),)
INVALID_PARAMETER = b"\x02\x06"


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with listening(sink_pacs(tmp_path, acse_timeout_s=20, network_timeout_s=20)) as running:
        yield running


def p_data(context_id: int, control: int, value: bytes) -> bytes:
    return struct.pack(">BxIIBB", pdus.P_DATA, len(value) + 6, len(value) + 2, context_id, control) + value


def assert_serves(listener: Listener) -> None:
    """A new peer is served, nothing is left in the spool, and no association is left over."""
    with listener.peer() as peer:
        peer.associate()
        assert peer.echo() == 0
        peer.release()
    until(lambda: listener.server.associations == 0)
    assert listener.spool_files == []


def test_echo_by_pynetdicom(listener: Listener) -> None:
    association = AE("TESTER").associate(listener.address.host, listener.address.port, [build_context(VERIFICATION)], ae_title="PACSLITE")
    assert association.is_established
    assert association.send_c_echo().Status == 0
    association.release()
    assert association.is_released


@pytest.mark.skipif(not shutil.which("echoscu"), reason="dcmtk is not installed")
def test_echo_by_dcmtk_and_its_wrong_called_title_is_told(listener: Listener) -> None:
    command = ["echoscu", "-v", listener.address.host, str(listener.address.port), "-aec"]
    right = subprocess.run([*command, "PACSLITE"], capture_output=True, text=True, timeout=30, check=False)
    wrong = subprocess.run([*command, "SOMEBODY"], capture_output=True, text=True, timeout=30, check=False)
    assert right.returncode == 0, right.stderr
    assert wrong.returncode != 0
    assert "Called AE Title Not Recognized" in wrong.stderr


def test_any_called_title_is_accepted_when_the_policy_says_so(tmp_path: Path) -> None:
    with listening(sink_pacs(tmp_path, called_aet_policy="any")) as listener, listener.peer() as peer:
        peer.associate(called="SOMEBODY")
        assert peer.echo() == 0
        peer.release()


def test_messages_split_over_pdus_and_pdvs_and_segments_are_put_together(listener: Listener) -> None:
    command = encode_command(store_rq())
    with listener.peer() as peer:
        peer.associate(STORE)
        joined = p_data(1, 3, command[:-2])[6:-2]
        assert joined
        pieces = p_data(1, 1, command[:10]) + p_data(1, 3, command[10:]) + p_data(1, 0, b"abcd")
        two = b"".join(p_data(1, control, value)[6:] for control, value in ((0, b"ef"), (0, b""), (2, b"gh")))
        for byte in pieces + struct.pack(">BxI", pdus.P_DATA, len(two)) + two:
            peer.send(bytes((byte,)))
        assert peer.response()[0].number(0x0900) == 0
        assert peer.echo() == 0
    assert listener.pacs.ingest.received[0].endswith(b"abcdefgh")


def test_a_pdu_of_the_negotiated_size_passes_and_a_larger_one_aborts(tmp_path: Path) -> None:
    with listening(sink_pacs(tmp_path, max_pdu_bytes=8192)) as listener:
        with listener.peer() as peer:
            peer.associate(STORE)
            peer.max_pdu = 8192
            assert peer.store(bytes(100_000)).number(0x0900) == 0
            peer.request(1, store_rq())
            peer.send(struct.pack(">BxI", pdus.P_DATA, 8192 + pdus.PDU_SLACK_BYTES + 1))
            assert peer.expect_abort() == INVALID_PARAMETER
        assert_serves(listener)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"\x02\x01"),
        (struct.pack(">BxII", pdus.RELEASE_RQ, 4, 0), b"\x02\x02"),
        (struct.pack(">BxI", pdus.ASSOCIATE_RQ, 0xFFFFFFFF), INVALID_PARAMETER),
        (struct.pack(">BxI", pdus.ASSOCIATE_RQ, pdus.MAX_ASSOCIATE_BYTES + 1), INVALID_PARAMETER),
        (struct.pack(">BxI", pdus.ASSOCIATE_RQ, 4) + bytes(4), INVALID_PARAMETER),
        (associate_rq() + b"more", INVALID_PARAMETER),
    ],
)
def test_what_is_no_association_request_is_aborted(listener: Listener, sent: bytes, reason: bytes) -> None:
    with listener.peer() as peer:
        peer.send(sent)
        assert peer.expect_abort() == reason
    assert_serves(listener)


def test_an_abort_before_any_association_request_only_ends_the_connection(listener: Listener) -> None:
    """PS3.8 table 9-10, Sta2: AA-2 closes and sends nothing."""
    with listener.peer() as peer:
        peer.send(pdus.abort_pdu(0, 0))
        assert peer.at_end()
    assert_serves(listener)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\xff" * 64, b"\x02\x01"),
        (struct.pack(">BxI", pdus.P_DATA, 0x7FFFFFFF), INVALID_PARAMETER),
        (struct.pack(">BxI", pdus.P_DATA, 3) + b"abc", INVALID_PARAMETER),
        (struct.pack(">BxIIBB", pdus.P_DATA, 6, 0xFFFFFFFF, 1, 3), INVALID_PARAMETER),
        (struct.pack(">BxIIBB", pdus.P_DATA, 6, 1, 1, 3), INVALID_PARAMETER),
        (p_data(3, 3, encode_command(echo_rq())), INVALID_PARAMETER),
        (p_data(1, 2, b"data set without a command"), b"\x02\x05"),
        (p_data(1, 3, b"\0\0\0\1\xff\xff\xff\xff"), INVALID_PARAMETER),
        (p_data(1, 3, b""), INVALID_PARAMETER),
        (p_data(1, 3, encode_command({0x0100: 0x4711, 0x0110: 1, 0x0800: 0x0101})), b"\x02\x05"),
        (p_data(1, 3, encode_command(store_rq())) + p_data(3, 0, b"x"), b"\x02\x05"),
        (p_data(1, 3, encode_command(store_rq())) + p_data(1, 3, encode_command(echo_rq())), b"\x02\x05"),
        (p_data(1, 3, encode_command(store_rq())) + struct.pack(">BxII", pdus.RELEASE_RQ, 4, 0), b"\x02\x02"),
        (associate_rq(), b"\x02\x02"),
        (b"".join(p_data(1, 1, bytes(8000)) for _ in range(9)), INVALID_PARAMETER),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_aborted_and_leaves_nothing(listener: Listener, sent: bytes, reason: bytes) -> None:
    with listener.peer() as peer:
        peer.associate(STORE)
        peer.send(sent)
        assert peer.expect_abort() == reason
    assert_serves(listener)


@pytest.mark.parametrize("cut", ["inside the data set", "inside a PDU", "by reset", "by abort"])
def test_a_peer_that_vanishes_in_a_store_leaves_no_spool_file(listener: Listener, cut: str) -> None:
    with listener.peer() as peer:
        peer.associate(STORE)
        peer.send(p_data(1, 3, encode_command(store_rq())) + p_data(1, 0, bytes(9000)))
        until(lambda: listener.spool_files)
        if cut == "inside a PDU":
            peer.send(p_data(1, 0, bytes(9000))[:100])
        elif cut == "by reset":
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif cut == "by abort":
            peer.send(pdus.abort_pdu(0, 0))
    until(lambda: not listener.spool_files)
    assert listener.pacs.ingest.received == []
    assert_serves(listener)


def test_random_garbage_after_association_never_stops_the_service(listener: Listener) -> None:
    chance = random.Random(4711)
    good = encode_message(1, encode_command(store_rq()), bytes(500), 200)
    for _ in range(150):
        damaged = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        with listener.peer() as peer:
            peer.associate(STORE)
            peer.send(bytes(damaged[: chance.randint(1, len(damaged))]))
    until(lambda: listener.server.associations == 0)
    assert_serves(listener)


def test_a_peer_that_says_nothing_is_dropped_after_the_association_timer(tmp_path: Path) -> None:
    with listening(sink_pacs(tmp_path, acse_timeout_s=1)) as listener, listener.peer() as silent, listener.peer() as half:
        half.send(associate_rq()[:50])
        assert silent.at_end()
        assert half.at_end()
        assert_serves(listener)


def test_a_peer_that_goes_silent_inside_an_association_is_aborted(tmp_path: Path) -> None:
    with listening(sink_pacs(tmp_path, network_timeout_s=1)) as listener, listener.peer() as peer:
        peer.associate(STORE)
        peer.send(p_data(1, 3, encode_command(store_rq())) + p_data(1, 0, bytes(9000)))
        assert peer.expect_abort() == b"\x02\x00"
        assert_serves(listener)


def test_a_peer_that_sends_a_byte_at_a_time_cannot_stretch_one_pdu_for_ever(tmp_path: Path) -> None:
    with listening(sink_pacs(tmp_path, network_timeout_s=1)) as listener, listener.peer() as peer:
        peer.associate(STORE)
        stop, pause = threading.Event(), threading.Event()

        def drip() -> None:
            try:
                for byte in p_data(1, 3, bytes(4000)):
                    if stop.is_set():
                        return
                    peer.send(bytes((byte,)))
                    pause.wait(0.02)
            except OSError:
                return  # cut off, as it should be

        thread = threading.Thread(target=drip)
        thread.start()
        kind, body = peer.pdu()
        stop.set()
        thread.join()
        assert (kind, body[2:]) == (pdus.ABORT, b"\x02\x00")


def test_associations_past_the_limit_are_rejected_as_transient_and_later_accepted(tmp_path: Path) -> None:
    with listening(sink_pacs(tmp_path, max_associations=2)) as listener, ExitStack() as stack:
        held = [stack.enter_context(listener.peer()) for _ in range(2)]
        for peer in held:
            peer.associate()
        with listener.peer() as late:
            late.send(associate_rq())
            assert late.pdu() == (pdus.ASSOCIATE_RJ, bytes((0, 2, 3, 2)))
            assert late.at_end()
        held[0].release()
        until(lambda: listener.server.associations == 1)
        with listener.peer() as next_one:
            next_one.associate()
            assert next_one.echo() == 0


def test_half_open_connections_take_no_place_from_those_that_talk(tmp_path: Path) -> None:
    with listening(sink_pacs(tmp_path, max_associations=1)) as listener, ExitStack() as stack:
        for number in range(50):
            stack.enter_context(listener.peer()).send(associate_rq()[: number % 40])
        assert_serves(listener)


def test_of_too_many_silent_connections_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lobby, "_MAX_WAITING", 10)
    with listening(sink_pacs(tmp_path)) as listener, ExitStack() as stack:
        silent = [stack.enter_context(listener.peer()) for _ in range(30)]
        assert_serves(listener)
        assert all(peer.at_end() for peer in silent[:19])
        silent[-1].associate()


def test_200_connections_at_once_are_each_served_or_rejected(tmp_path: Path) -> None:
    with listening(sink_pacs(tmp_path, max_associations=100)) as listener, ExitStack() as stack:
        peers = [stack.enter_context(listener.peer()) for _ in range(200)]
        for peer in peers:
            peer.send(associate_rq())
        answers = [peer.pdu()[0] for peer in peers]
        assert (answers.count(pdus.ASSOCIATE_AC), answers.count(pdus.ASSOCIATE_RJ)) == (100, 100)
        assert listener.server.associations == 100
        for peer, answer in zip(peers, answers, strict=True):
            if answer == pdus.ASSOCIATE_AC:
                assert peer.echo() == 0
        stack.close()
        until(lambda: listener.server.associations == 0)
        assert_serves(listener)


def test_operations_that_are_not_offered_are_answered_0211_and_the_association_goes_on(listener: Listener) -> None:
    create = {0x0002: VERIFICATION.encode() + b"\0", 0x0100: 0x0140, 0x0110: 7, 0x0800: 1}
    set_rq = {0x0003: VERIFICATION.encode() + b"\0", 0x0100: 0x0120, 0x0110: 8, 0x0800: 0x0101, 0x1001: b"1.2\0"}
    with listener.peer() as peer:
        peer.associate()
        peer.request(1, create, b"identifier")
        answer = peer.response()[0]
        assert (answer.field, answer.number(0x0120), answer.number(0x0900)) == (0x8140, 7, 0x0211)
        peer.request(1, set_rq)
        assert (peer.response()[0].field, peer.echo()) == (0x8120, 0)


def test_a_cancel_that_comes_too_late_is_let_pass(listener: Listener) -> None:
    with listener.peer() as peer:
        peer.associate([(STUDY_ROOT_FIND, [EXPLICIT_LE])])
        peer.request(1, cancel_rq())
        assert peer.echo() == 0


@pytest.mark.parametrize("moment", ["receiving", "ingesting"])
def test_stopping_finishes_the_running_store_and_aborts_idle_associations(tmp_path: Path, moment: str) -> None:
    pacs = sink_pacs(tmp_path)
    pacs.ingest.gate = threading.Event()
    with listening(pacs) as listener, listener.peer() as idle, listener.peer() as storing:
        storing.associate(STORE)
        idle.associate()  # the second to be stopped: when it is aborted, the store has been told
        storing.send(p_data(1, 3, encode_command(store_rq())) + p_data(1, 0, bytes(9000)))
        until(lambda: listener.spool_files)
        if moment == "ingesting":
            storing.send(p_data(1, 2, bytes(100)))
            assert pacs.ingest.entered.wait(20)
        stopper = threading.Thread(target=listener.server.stop)
        stopper.start()
        assert idle.expect_abort() == b"\0\0"
        if moment == "receiving":
            storing.send(p_data(1, 2, bytes(100)))
        pacs.ingest.gate.set()
        assert storing.response()[0].number(0x0900) == 0
        assert storing.expect_abort() == b"\0\0"
        stopper.join()
        assert listener.server.associations == 0


def test_stopping_cuts_a_store_that_outlasts_the_grace(tmp_path: Path) -> None:
    with listening(sink_pacs(tmp_path)) as listener, listener.peer() as peer:
        peer.associate(STORE)
        peer.send(p_data(1, 3, encode_command(store_rq())) + p_data(1, 0, bytes(9000)))
        until(lambda: listener.spool_files)
        listener.server.stop(grace_s=0.05)
        assert listener.spool_files == []
        assert listener.server.associations == 0


def test_what_comes_is_acknowledged_at_once_while_more_is_awaited() -> None:
    """Peers that write a PDU in two parts with Nagle's algorithm on wait for that; the kernel alone would make it 40 ms each time."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as far:
        near = server.accept()[0]
        with near:
            reader = pdus.PduReader(near, 16384, 20)
            # An exchange to and fro is what makes the kernel put acknowledgements off.
            for _ in range(3):
                far.sendall(pdus.RELEASE_RQ_PDU)
                assert reader.next()[0] == pdus.RELEASE_RQ
                near.sendall(pdus.RELEASE_RP_PDU)
                assert far.recv(64) == pdus.RELEASE_RP_PDU
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            waiting = threading.Thread(target=reader.next)
            waiting.start()
            until(lambda: near.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1)
            far.sendall(pdus.RELEASE_RQ_PDU)
            waiting.join()


def test_two_listeners_share_one_port_and_get_the_connections_of_a_sender_in_turn(tmp_path: Path) -> None:
    with listening(sink_pacs(tmp_path / "a", dimse_processes=2)) as first:
        pacs = sink_pacs(tmp_path / "b", dimse_processes=2, dicom=first.address)
        with listening(pacs) as second:
            assert second.address == first.address
            with ExitStack() as stack:
                for number in range(8):
                    peer = stack.enter_context(connected_from_turn(first, number % 2))
                    peer.associate()
                assert [first.server.associations, second.server.associations] == [4, 4]
            until(lambda: first.server.associations == 0)
        assert_serves(first)


def connected_from_turn(listener: Listener, turn: int) -> Peer:
    """A peer from a free port of which the half is even (0) or odd (1)."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port >> 1 & 1 == turn:
            return Peer(listener.address, source_port=port)


def test_a_fault_that_ends_the_listening_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process went on, ready by all appearances, and accepted nobody any more."""
    deaf, ended = threading.Event(), threading.Event()

    def fail(waiting: lobby.Lobby, now: float) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(lobby.Lobby, "_expire", fail)
    monkeypatch.setattr(threading, "excepthook", lambda _: ended.set())
    pacs = sink_pacs(tmp_path)
    server = DimseServer(pacs.settings, pacs, None, lambda _: None, on_deaf=deaf.set)
    address = server.start()
    with socket.create_connection((address.host, address.port), 20):
        assert deaf.wait(20)
        assert ended.wait(20)
    server.stop()
