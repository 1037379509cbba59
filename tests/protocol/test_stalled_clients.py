"""Web clients that stop in the middle: those after them are served nevertheless."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from tests.support import data_sets
from tests.support.processes import Server, serving, until

THREADS = 2
HEAD = b"POST /%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/%s\r\nContent-Length: %d\r\n\r\n"
STOPPED = {
    "a header": b"GET /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nX-A: ",
    "an upload": HEAD % (b"dicom-web/studies", b"dicom", 100_000_000) + b"abc",
    "a form": HEAD % (b"api/v1/peers", b"json", 100) + b"{",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"PACSLITE_WEB_THREADS": str(THREADS), "PACSLITE_NETWORK_TIMEOUT_S": "1"}
    with serving(tmp_path_factory.mktemp("stalled") / "data", "--dimse-processes", "1", "--web-processes", "1", **settings) as it:
        yield it


@pytest.mark.parametrize("begun", STOPPED.values(), ids=STOPPED)
def test_as_many_stalled_clients_as_threads_end_nothing(server: Server, begun: bytes) -> None:
    with contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(socket.create_connection(server.ready["http"].split(":"), timeout=30)) for _ in range(THREADS)]
        for connection in stalled:
            connection.sendall(begun)
        assert until(lambda: _health(server), 25, "the server answered") == "ready"
        for connection in stalled:  # closed by the server, which may have said why
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(65536):
                    pass
    assert "Traceback" not in server.logged()
    assert not list((Path(server.data) / "spool").glob("*.dcm"))


def _health(server: Server) -> str | None:
    try:
        return str(server.health()["status"])
    except (OSError, json.JSONDecodeError):
        return None


def test_a_form_that_announces_too_much_is_refused_at_once(server: Server) -> None:
    with socket.create_connection(server.ready["http"].split(":"), timeout=30) as connection:
        connection.sendall(STOPPED["a form"].replace(b"100\r", b"99999999999999999999999\r"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.fixture(scope="module")
def patient_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that waits long, so that what it does meanwhile shows."""
    settings = {"PACSLITE_WEB_THREADS": "2", "PACSLITE_WEB_WAITING": "8", "PACSLITE_NETWORK_TIMEOUT_S": "600"}
    with serving(tmp_path_factory.mktemp("patient") / "data", "--dimse-processes", "1", "--web-processes", "1", **settings) as it:
        yield it


def _connected(server: Server, begun: bytes) -> socket.socket:
    connection = socket.create_connection(server.ready["http"].split(":"), timeout=30)
    connection.sendall(begun)
    return connection


@pytest.mark.parametrize("begun", [STOPPED["an upload"], STOPPED["a form"]], ids=["uploads", "forms"])
def test_uploads_that_stall_hold_nobody_up_and_are_bounded(patient_server: Server, begun: bytes) -> None:
    with contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(_connected(patient_server, begun)) for _ in range(12)]
        # Four of one address may wait; the others are told so at once.
        refused: list[socket.socket] = []
        while len(refused) < 8:
            refused += select.select([one for one in stalled if one not in refused], [], [], 30)[0]
        for one in refused:
            answer = one.recv(65536)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: " in answer
        assert _health(patient_server) == "ready"
        # A quick upload that never waits is served, too.
        whole = _connected(patient_server, HEAD % (b"api/v1/peers", b"none", 2) + b"{}")
        stack.enter_context(whole)
        assert whole.recv(65536).startswith(b"HTTP/1.1 415 ")
        assert not select.select([one for one in stalled if one not in refused], [], [], 0)[0]
    # Those who waited are gone, and others may wait again.
    assert until(lambda: _waits(patient_server), 25, "a place to wait was free")
    assert not list((Path(patient_server.data) / "spool").glob("*.dcm"))


def _waits(server: Server) -> bool:
    with _connected(server, STOPPED["a form"]) as one:
        if select.select([one], [], [], 0.2)[0]:
            return False
        one.sendall(b"}" * 99)
        return one.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_heads_that_stall_hold_no_thread(patient_server: Server) -> None:
    with contextlib.ExitStack() as stack:
        heads = [stack.enter_context(_connected(patient_server, STOPPED["a header"])) for _ in range(40)]
        heads += [stack.enter_context(_connected(patient_server, b"")) for _ in range(40)]
        assert _health(patient_server) == "ready"
        for piece in (b"v", b"\r\n", b"Connection: close\r\n\r", b"\n"):  # the rest of a head in small pieces
            heads[0].sendall(piece)
        assert heads[0].recv(65536).startswith(b"HTTP/1.1 204 ")


# More than the kernel holds for a client that does not read.
_PIXELS = np.random.default_rng(1).integers(0, 4000, (20, 512, 512), dtype=np.uint16)
_STUDY, _SERIES, _INSTANCE = "1.2.826.0.1.3680043.10.1", "1.2.826.0.1.3680043.10.1.1", "1.2.826.0.1.3680043.10.1.1.1"
_RELATED = b'multipart/related; type="application/dicom"; transfer-syntax='
ANSWERS = {
    "a file": (f"/dicom-web/studies/{_STUDY}/series/{_SERIES}/instances/{_INSTANCE}", b"application/dicom; transfer-syntax=*"),
    "a file among others": (f"/dicom-web/studies/{_STUDY}", _RELATED + b"*"),
    "a stream": (f"/dicom-web/studies/{_STUDY}", _RELATED + b"1.2.840.10008.1.2.1"),
    "an archive": (f"/api/v1/studies/{_STUDY}/archive", b"*/*"),
}


@pytest.fixture(scope="module")
def large_study(patient_server: Server) -> None:
    image = data_sets.image(_PIXELS, study=_STUDY, series=_SERIES, instance=_INSTANCE)
    body, kind = data_sets.body([data_sets.part10(image, ImplicitVRLittleEndian)]), {"Content-Type": data_sets.CONTENT_TYPE}
    with urllib.request.urlopen(urllib.request.Request(f"{patient_server.url}/dicom-web/studies", body, kind), timeout=60) as answer:
        assert answer.status == 200


@pytest.mark.usefixtures("large_study")
@pytest.mark.parametrize(("path", "accept"), ANSWERS.values(), ids=ANSWERS)
def test_answers_that_nobody_takes_hold_nobody_up(patient_server: Server, path: str, accept: bytes) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            reader = stack.enter_context(socket.socket())
            reader.settimeout(30)
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # takes no more of the answer than this
            host, port = patient_server.ready["http"].split(":")
            reader.connect((host, int(port)))
            reader.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: %s\r\n\r\n" % (path.encode(), accept))
            assert reader.recv(12) == b"HTTP/1.1 200"
        assert _health(patient_server) == "ready"


@pytest.mark.usefixtures("large_study")
@pytest.mark.parametrize(("path", "accept"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_was_left_for_a_while_is_whole(patient_server: Server, path: str, accept: bytes) -> None:
    with _connected(patient_server, b"GET %s HTTP/1.0\r\nHost: localhost\r\nAccept: %s\r\n\r\n" % (path.encode(), accept)) as reader:
        assert until(lambda: _is_full(reader), 25, "the kernel was full")
        received = b""
        while piece := reader.recv(2**20):
            received += piece
    assert _PIXELS.tobytes() in received


def _is_full(reader: socket.socket) -> bool:
    """Whether nothing more comes to a client that does not read."""
    before = len(reader.recv(2**26, socket.MSG_PEEK))
    select.select([], [], [], 0.5)
    return 0 < before == len(reader.recv(2**26, socket.MSG_PEEK))


def test_a_head_that_never_ends_is_431(patient_server: Server) -> None:
    with _connected(patient_server, b"GET / HTTP/1.1\r\nHost: localhost\r\n") as connection:
        with contextlib.suppress(OSError):
            for number in range(2000):
                connection.sendall(b"X-%d: %s\r\n" % (number, b"x" * 90))
        assert connection.recv(65536).startswith(b"HTTP/1.1 431 ")


def test_a_body_that_comes_by_drops_is_given_up(tmp_path: Path) -> None:
    settings = {"PACSLITE_NETWORK_TIMEOUT_S": "1", "PACSLITE_WEB_MIN_BYTES_PER_S": "100000"}
    with serving(tmp_path / "data", "--dimse-processes", "1", "--web-processes", "1", **settings) as server:
        with _connected(server, STOPPED["an upload"]) as connection:
            while not select.select([connection], [], [], 0.05)[0]:
                connection.sendall(b"x")
            assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
        assert not list((Path(server.data) / "spool").glob("*.dcm"))
