"""DIMSE: requests and answers that are meant to keep us busy, fill the memory or end a thread."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pacslite.catalog.peers import Peer as KnownPeer
from pacslite.core import peers
from pacslite.dicom.attributes import Level
from pacslite.dimse import commands, pdus, remote
from pacslite.dimse.contexts import COMMITMENT, COMMITMENT_INSTANCE
from pacslite.dimse.peers import echo
from pacslite.dimse.user_identity import split
from pacslite.errors import PeerError
from tests.support.dimse import CT, IMPLICIT_LE, STUDY_ROOT_FIND, Listener, Peer, associate_rq, find_rq, uid_value
from tests.support.retrieval import retrieving


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    with retrieving(tmp_path_factory.mktemp("hostile")) as running:
        yield running


def with_identities(count: int) -> bytes:
    """An A-ASSOCIATE-RQ with so many user identities."""
    pdu = associate_rq()
    offset = 74
    while pdu[offset] != 0x50:
        offset += 4 + struct.unpack_from(">BxH", pdu, offset)[1]
    user = pdu[offset + 4 :] + struct.pack(">BxHBBHH", 0x58, 6, 1, 0, 0, 0) * count
    body = pdu[6:offset] + struct.pack(">BxH", 0x50, len(user)) + user
    return struct.pack(">BxI", pdus.ASSOCIATE_RQ, len(body)) + body


def test_any_number_of_user_identities_is_taken_out_at_once(listener: Listener) -> None:
    """Thousands of sub-items in one request: no deeper and no slower than one (PS3.7 D.3.3.7 has one)."""
    assert split(with_identities(6000)) == (associate_rq(), struct.pack(">BBHH", 1, 0, 0, 0))
    with listener.peer() as peer:
        peer.send(with_identities(6000))
        assert peer.pdu()[0] == pdus.ASSOCIATE_AC
        assert peer.echo() == commands.SUCCESS


@pytest.mark.parametrize(
    "rest",
    [
        b"".join(struct.pack("<HHI", 0x0011, number, 0) for number in range(0x10, 0x10 + 30_000)),
        struct.pack("<HHI", 0x0040, 0x0275, 0xFFFFFFFF)
        + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 30_000
        + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
    ],
    ids=["elements", "items"],
)
def test_an_identifier_of_tens_of_thousands_of_elements_is_refused_and_the_association_goes_on(listener: Listener, rest: bytes) -> None:
    """Checklist 124: A900 for what no query needs."""
    with listener.peer() as peer:
        peer.associate(((STUDY_ROOT_FIND, (IMPLICIT_LE,)),))
        for _ in range(2):
            peer.request(1, find_rq(), struct.pack("<HHI", 8, 0x52, 6) + b"STUDY " + rest)
            response, _ = peer.response()
            assert response.number(commands.STATUS) == 0xA900
            assert b"elements" in response.values[commands.ERROR_COMMENT]


def accepting(sock: socket.socket) -> None:
    """Answer an A-ASSOCIATE-RQ of one context."""
    peer = Peer.__new__(Peer)
    peer.sock = sock
    assert peer.pdu()[0] == pdus.ASSOCIATE_RQ
    item = struct.pack(">BxH", 0x10, 21) + b"1.2.840.10008.3.1.1.1"
    syntax = struct.pack(">BxH", 0x40, len(IMPLICIT_LE)) + IMPLICIT_LE.encode()
    item += struct.pack(">BxHBBBB", 0x21, 4 + len(syntax), 1, 0, 0, 0) + syntax
    item += struct.pack(">BxHBxHI", 0x50, 8, 0x51, 4, 0)
    body = struct.pack(">HH", 1, 0) + b"PEER".ljust(16) + b"PACSLITE".ljust(16) + bytes(32) + item
    sock.sendall(struct.pack(">BxI", pdus.ASSOCIATE_AC, len(body)) + body)


@contextmanager
def a_peer(behave: Callable[[socket.socket], Any]) -> Iterator[KnownPeer]:
    """A peer that accepts one association, and then behaves like this until the connection ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            sock, _ = server.accept()
            with sock:
                accepting(sock)
                with contextlib.suppress(OSError):  # it was hung up on
                    behave(sock)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield KnownPeer("PEER", "127.0.0.1", server.getsockname()[1])
        finally:
            thread.join(20)
            assert not thread.is_alive()


def test_a_peer_whose_command_set_has_no_end_is_hung_up_on() -> None:
    def talk(sock: socket.socket) -> None:
        while True:
            sock.sendall(pdus.PDV_HEADER.pack(pdus.P_DATA, 16390, 16386, 1, 1) + bytes(16384))

    with a_peer(talk) as peer, pytest.raises(PeerError, match="command set too long"):
        echo(peer, "PACSLITE")


def test_a_peer_that_goes_on_with_matches_after_a_cancel_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checklist 124: as SCU: C-CANCEL when there are more matches than wanted; a peer that does not heed it does not hold us."""
    match = struct.pack("<HHI", 0x0020, 0x000D, 6) + b"1.2.3\0"
    command = commands.encode_response(commands.Command({0x0100: b"\x20\0", 0x0110: b"\1\0"}), commands.PENDING, data_set=True)
    cancelled = threading.Event()

    def talk(sock: socket.socket) -> None:
        sock.settimeout(20)
        while True:
            # The command field of a C-CANCEL-RQ.
            if select.select([sock], [], [], 0)[0] and b"\xff\x0f" in sock.recv(65536):
                cancelled.set()
            sock.sendall(pdus.encode_message(1, command, match, 0))

    monkeypatch.setattr(remote, "_CANCEL_S", 0.2)
    with retrieving(tmp_path) as listener, a_peer(talk) as peer:
        peers.put(listener.pacs.catalog, peer)
        with listener.pacs.remote(peer) as archive:
            found = archive.find(Level.STUDY, {"PatientID": "1"}, ("StudyInstanceUID",), 3)
    assert (len(found.records), found.truncated, cancelled.is_set()) == (3, True, True)


def test_requests_for_commitment_whose_reports_are_not_answered_are_bounded(listener: Listener) -> None:
    """Checklist 130: 0213H when too many of one association are open."""
    with listener.peer() as peer:
        peer.associate([(COMMITMENT, (IMPLICIT_LE,))], calling="DEAF")
        statuses: list[int] = []
        for number in range(80):
            reference = b"".join(element(tag, uid) for tag, uid in ((0x00081150, CT), (0x00081155, "1.2.3")))
            item = struct.pack("<HHI", 0xFFFE, 0xE000, len(reference)) + reference
            data = element(0x00081195, f"1.2.77.{number}") + struct.pack("<HHI", 0x0008, 0x1199, len(item)) + item
            rq: dict[int, bytes | int] = {0x0003: uid_value(COMMITMENT), 0x0100: 0x0130, 0x0110: number + 1, 0x0800: 1}
            peer.request(1, {**rq, 0x1001: uid_value(COMMITMENT_INSTANCE), 0x1008: 1}, data)
            while (response := peer.response()[0]).field != 0x8130:
                pass  # a report
            statuses.append(response.number(commands.STATUS))
    assert statuses[:60] == [commands.SUCCESS] * 60
    assert statuses[-1] == 0x0213


def element(tag: int, uid: str) -> bytes:
    value = uid_value(uid)
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value
