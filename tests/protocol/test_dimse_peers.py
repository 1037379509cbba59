"""C-ECHO as SCU: what a remote application entity answers, and the reason when it does not."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pynetdicom import AE, evt

from pacslite.catalog.peers import Peer
from pacslite.dimse import pdus
from pacslite.dimse.peers import echo
from pacslite.errors import PeerError
from tests.support.dimse import VERIFICATION, listening, sink_pacs
from tests.support.processes import until


@contextmanager
def answering(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A peer that accepts one connection and talks as told; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                talk(connection)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def peer(port: int, aet: str = "REMOTE") -> Peer:
    return Peer(aet, "127.0.0.1", port)


def test_echo_of_our_own_listener(tmp_path: Path) -> None:
    with listening(sink_pacs(tmp_path)) as listener:
        assert 0 < echo(peer(listener.address.port, "PACSLITE"), "TESTER") < 20
        until(lambda: listener.server.associations == 0)


def test_echo_of_pynetdicom_which_sees_our_title() -> None:
    seen = []

    def remember(event: evt.Event) -> int:
        seen.append(event.assoc.requestor.ae_title)
        return 0

    entity = AE("REMOTE")
    entity.add_supported_context(VERIFICATION)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, remember)])
    try:
        echo(peer(server.server_address[1]), "PACSLITE")
    finally:
        server.shutdown()
    assert seen == ["PACSLITE"]


@pytest.mark.skipif(not shutil.which("storescp"), reason="dcmtk is not installed")
def test_echo_of_dcmtk(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(["storescp", "-od", str(tmp_path), str(port)])
    try:
        until(lambda: reachable(port))
        echo(peer(port), "PACSLITE")
    finally:
        process.terminate()
        process.wait()


def reachable(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_refused_connection_an_unknown_host_and_a_wrong_title_are_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(PeerError, match=rf"^REMOTE at 127\.0\.0\.1:{port}: Connection refused$"):
        echo(peer(port), "TESTER")
    with pytest.raises(PeerError, match=r"nobody\.invalid:104"):
        echo(Peer("REMOTE", "nobody.invalid", 104), "TESTER")
    with listening(sink_pacs(tmp_path)) as listener, pytest.raises(PeerError, match="Called AE title"):
        echo(peer(listener.address.port, "WRONG"), "TESTER")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "unknown type 48H"),
        (pdus.abort_pdu(2, 0), "aborted"),
        (pdus.reject_pdu(2, 3, 2), "Local limit exceeded"),
        (pdus.reject_pdu(9, 9, 9), "source 9, reason 9"),
        (struct.pack(">BxI", pdus.ASSOCIATE_AC, 68) + bytes(68), "Verification was not accepted"),
        (struct.pack(">BxI", pdus.P_DATA, 0), "PDU of type 04H"),
    ],
)
def test_what_is_no_acceptance_is_told(answer: bytes, reason: str) -> None:
    with answering(lambda connection: connection.sendall(answer)) as port, pytest.raises(PeerError, match=reason):
        echo(peer(port), "TESTER")


def test_a_peer_that_never_answers_is_given_up() -> None:
    given_up = threading.Event()
    with answering(lambda _connection: given_up.wait(20) and None) as port:
        with pytest.raises(PeerError, match="silent"):
            echo(peer(port), "TESTER", timeout_s=0.2)
        given_up.set()
