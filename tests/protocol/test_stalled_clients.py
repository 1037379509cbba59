"""Web clients that stop in the middle: those after them are served nevertheless."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import Server, serving, until

THREADS = 2
STOPPED = {
    "a header": b"GET /dicom-web/studies HTTP/1.1\r\nHost: h\r\nX-A: ",
    "an upload": b"POST /dicom-web/studies HTTP/1.1\r\nHost: h\r\nContent-Type: application/dicom\r\nContent-Length: 100000000\r\n\r\nabc",
    "a form": b"POST /api/v1/peers HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
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
