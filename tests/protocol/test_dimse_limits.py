"""Many associations at once: how many are held, what those past the limits are told, and that one who is stuck holds nobody up."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from pacslite.dimse import commands, pdus
from pacslite.settings import Address
from tests.support.data_sets import image
from tests.support.dimse import (
    CT,
    EXPLICIT_LE,
    SECONDARY_CAPTURE,
    STUDY_ROOT_GET,
    VERIFICATION,
    Listener,
    Peer,
    associate_rq,
    listening,
    sink_pacs,
    store_rq,
)
from tests.support.processes import serving, until
from tests.support.retrieval import converse, get_rq, keep, keys, receives, retrieving

LOCAL_LIMIT = bytes((2, 3, 2))


class From(Peer):
    """A peer with another address of this machine."""

    def __init__(self, listener: Listener, source: str) -> None:
        self.sock = socket.create_connection((listener.address.host, listener.address.port), 20, (source, 0))
        self.max_pdu, self.context_id = 16384, 0

    def outcome(self) -> tuple[int, bytes]:
        """What an association request comes to."""
        self.send(associate_rq())
        kind, body = self.pdu()
        return kind, body[1:] if kind == pdus.ASSOCIATE_RJ else b""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def test_one_address_takes_no_more_than_its_share(tmp_path: Path, stack: ExitStack) -> None:
    """PS3.8 table 9-21: local limit exceeded is a passing refusal."""
    running = stack.enter_context(listening(sink_pacs(tmp_path, max_associations=5, max_associations_per_address=2)))
    first, second = (stack.enter_context(From(running, "127.0.0.1")) for _ in range(2))
    assert first.outcome()[0] == second.outcome()[0] == pdus.ASSOCIATE_AC
    assert stack.enter_context(From(running, "127.0.0.1")).outcome() == (pdus.ASSOCIATE_RJ, LOCAL_LIMIT)
    others = [stack.enter_context(From(running, f"127.0.0.{number}")) for number in (2, 3, 4)]
    assert [other.outcome()[0] for other in others] == [pdus.ASSOCIATE_AC] * 3
    assert stack.enter_context(From(running, "127.0.0.5")).outcome() == (pdus.ASSOCIATE_RJ, LOCAL_LIMIT)
    first.release()
    until(lambda: running.server.associations == 4)
    assert stack.enter_context(From(running, "127.0.0.1")).outcome()[0] == pdus.ASSOCIATE_AC


@contextmanager
def stuck_receiver(listener: Listener, study: str) -> Iterator[Peer]:
    """A peer that asks for much and reads nothing of it."""
    with listener.peer() as peer:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.associate([(STUDY_ROOT_GET, [EXPLICIT_LE]), (SECONDARY_CAPTURE, [EXPLICIT_LE])], user=receives(SECONDARY_CAPTURE))
        peer.request(1, get_rq(), keys("STUDY", study=study))
        yield peer


@contextmanager
def stuck_sender(listener: Listener) -> Iterator[Peer]:
    """A peer that stops in the middle of a data set."""
    with listener.peer() as peer:
        peer.associate([(CT, [EXPLICIT_LE])])
        peer.request(1, store_rq())
        peer.send(struct.pack(">BxIIBB", pdus.P_DATA, 8006, 8002, 1, 0) + bytes(4000))
        yield peer


def test_peers_that_are_stuck_block_nobody_and_are_cut_off(tmp_path: Path) -> None:
    """A receiver that stops reading and a sender that stops sending hold their own thread alone, until the network timeout."""
    with retrieving(tmp_path, network_timeout_s=2) as running, ExitStack() as stack:
        large = image(np.zeros((8, 1024, 1024), "u2"), study="1.2.12")
        small = image(study="1.2.13")
        keep(running.pacs, large)
        data = keep(running.pacs, small)
        for _ in range(10):
            stack.enter_context(stuck_receiver(running, "1.2.12"))
            stack.enter_context(stuck_sender(running))
        with running.peer() as peer:
            offer = [(STUDY_ROOT_GET, [EXPLICIT_LE]), (SECONDARY_CAPTURE, [EXPLICIT_LE]), (VERIFICATION, [EXPLICIT_LE])]
            peer.associate(offer, user=receives(SECONDARY_CAPTURE))
            assert running.server.associations == 21
            peer.request(1, get_rq(), keys("STUDY", study="1.2.13"))
            assert converse(peer).stored == {small.SOPInstanceUID: data}
            assert peer.echo(5) == 0
            peer.release()
        until(lambda: running.server.associations == 0)
        assert running.spool_files == []


def test_200_associations_over_two_processes_that_share_a_port_are_held_and_served(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "data", scope="dimse", PACSLITE_MAX_ASSOCIATIONS="150", PACSLITE_DIMSE_PROCESSES="2") as server,
        ExitStack() as stack,
    ):
        host, port = server.dicom
        state = tmp_path / "data/run/serve-dimse.json"
        pids = [role["pid"] for role in server.ready["roles"]]
        assert state.exists()
        assert len(pids) == 2
        peers = [stack.enter_context(Peer(Address(host, int(port)))) for _ in range(200)]
        before = memory(pids)
        for peer in peers:
            peer.associate()
        held = memory(pids) - before
        assert [peer.echo() for peer in peers] == [0] * 200
        # Measured: some 50 KB each; a thread's stack and buffers are only touched where they are used.
        assert held < 200 * 200 * 1024
        ended = [threading.Thread(target=peer.release) for peer in peers]
        for thread in ended:
            thread.start()
        for thread in ended:
            thread.join()


def memory(pids: list[int]) -> int:
    """Bytes that the processes hold, what they share counted once (proportional set size)."""
    return sum(int(line.split()[1]) * 1024 for pid in pids for line in lines(pid) if line.startswith("Pss:"))


def lines(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()


def test_past_the_limit_of_a_process_the_answer_is_a_passing_refusal_and_later_there_is_room(tmp_path: Path, stack: ExitStack) -> None:
    running = stack.enter_context(listening(sink_pacs(tmp_path, max_associations=3)))
    held = [stack.enter_context(running.peer()) for _ in range(3)]
    for peer in held:
        peer.associate()
    for _ in range(20):
        with From(running, "127.0.0.1") as late:
            assert late.outcome() == (pdus.ASSOCIATE_RJ, LOCAL_LIMIT)
            assert late.at_end()
    assert [peer.echo() for peer in held] == [0] * 3
    held[0].release()
    until(lambda: running.server.associations == 2)
    with running.peer() as peer:
        peer.associate()
        assert peer.echo() == commands.SUCCESS
