"""Connections that carry many requests (RFC 9112 9.3): in whatever pieces these come, and more connections than threads."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Iterator

import pytest
from pydicom.dataset import Dataset

from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.http import WebServer, running

DEADLINE_S = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with running(tmp_path_factory.mktemp("kept"), web_threads="2") as it:
        yield it


@pytest.fixture(scope="module")
def large(server: WebServer) -> tuple[str, bytes]:
    """The path of an instance that goes out as a file, and its pixels."""
    ds: Dataset = image()
    ds.Rows = ds.Columns = 512
    ds.PixelData = bytes(range(256)) * (512 * 512 * ds.SamplesPerPixel * ds.BitsAllocated // 8 // 256)
    answer = server.request("POST", "/studies", body([part10(ds)]), {"Content-Type": CONTENT_TYPE})
    assert answer.status == 200, answer.body
    return f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}", ds.PixelData


def head(path: str, accept: str = "*/*") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n".encode()


def answer_of(file: socket.SocketIO) -> bytes:
    """The body of the next answer on a connection."""
    assert file.readline() == b"HTTP/1.1 200 OK\r\n"
    length = None
    while (line := file.readline()) != b"\r\n":
        if found := re.fullmatch(rb"Content-Length: (\d+)\r\n", line):
            length = int(found[1])
    assert length is not None
    data = bytearray()
    while len(data) < length:
        piece = file.read(length - len(data))
        assert piece
        data += piece
    return bytes(data)


def test_requests_one_behind_the_other_in_one_packet_and_in_pieces(server: WebServer, large: tuple[str, bytes]) -> None:
    path, pixels = large
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as sock, sock.makefile("rb") as file:
        whole, multipart = head(path, "application/dicom"), head(path, 'multipart/related; type="application/dicom"')
        sock.sendall(whole + multipart + head("/health/live") + whole[:10])
        assert answer_of(file).endswith(pixels)
        related = answer_of(file)
        assert pixels in related
        assert related.endswith(b"--\r\n")
        answer_of(file)
        for piece in (whole[10:30], whole[30:-1], whole[-1:]):
            sock.sendall(piece)
        assert answer_of(file).endswith(pixels)
        sock.sendall(head(f"{path}/frames/1", "application/octet-stream"))
        assert answer_of(file) == pixels


def test_an_answer_to_a_caller_who_ends_the_connection_says_so(server: WebServer, large: tuple[str, bytes]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    for sent, told in (({}, "keep-alive"), ({"Connection": "close"}, "close")):
        connection.request("GET", large[0], headers={"Accept": "application/dicom", **sent})
        reply = connection.getresponse()
        assert reply.read().endswith(large[1])
        assert reply.headers["Connection"] == told
    assert connection.sock is None


def test_more_connections_than_threads_are_served_by_turns(server: WebServer, large: tuple[str, bytes]) -> None:
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S) for _ in range(8)]
    for _ in range(5):
        for one in connections:
            one.request("GET", large[0], headers={"Accept": "application/dicom"})
        for one in connections:
            assert one.getresponse().read().endswith(large[1])
    for one in connections:
        one.close()
