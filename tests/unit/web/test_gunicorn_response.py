"""The head of an answer: gunicorn's own, byte for byte, but for when it leaves."""

from __future__ import annotations

import re
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import InvalidResponseHeader
from gunicorn.http.wsgi import Response as GunicornResponse

from pacslite.web.gunicorn_response import Response

HEADERS = [("Content-Type", "application/dicom"), ("ETag", '"a"'), ("X-Request-ID", "1")]


def sent(kind: type, headers: list[tuple[str, str]], *pieces: bytes, status: str = "200 OK", closes: bool = False, **request: Any) -> bytes:
    """What goes over the wire."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        asked = {"method": "GET", "version": (1, 1), "should_close": lambda: False}
        response = kind(SimpleNamespace(**{**asked, **request}), ours, Config())
        response.start_response(status, headers)
        if closes:
            response.force_close()
        for piece in pieces:
            response.write(piece)
        response.close()
        ours.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: theirs.recv(65536), b""))


@pytest.mark.parametrize(
    ("headers", "pieces", "more"),
    [
        ([*HEADERS, ("Content-Length", "5")], (b"ab", b"cde"), {}),
        ([*HEADERS, ("Content-Length", "5")], (b"abcdefgh",), {}),
        ([*HEADERS, ("Content-Length", "0")], (b"",), {}),
        ([*HEADERS, ("Content-Length", "0")], (b"x",), {}),
        ([*HEADERS, ("Content-Length", "5")], (), {"method": "HEAD"}),
        ([*HEADERS, ("Content-Length", "100000")], (b"x" * 50_000, b"y" * 50_000), {}),
        (HEADERS, (b"ab", b"", b"cde"), {}),
        (HEADERS, (b"ab",), {"version": (1, 0), "should_close": lambda: True}),
        (HEADERS, (b"ab",), {"closes": True}),
        (HEADERS, (), {"status": "304 Not Modified"}),
        ([*HEADERS, ("Content-Length", "0")], (), {"status": "204 No Content"}),
        ([*HEADERS, ("Connection", "close"), ("Keep-Alive", "1")], (b"ab",), {}),
        ([*HEADERS, ("Retry-After", "1"), ("Content-Length", "2")], (b"ab",), {}),
    ],
)
def test_what_is_sent_is_what_gunicorn_sends(headers: list[tuple[str, str]], pieces: tuple[bytes, ...], more: dict[str, Any]) -> None:
    ours, theirs = sent(Response, headers, *pieces, **more), sent(GunicornResponse, headers, *pieces, **more)
    date = re.compile(rb"Date: [^\r]+")
    assert date.search(ours)
    assert date.sub(b"", ours) == date.sub(b"", theirs)


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b=c", "a\nb", "a\rb", "a\0b", "a\x7fb", "\r\n", "\N{SNOWMAN}"])
def test_a_value_that_would_be_another_header_is_refused(value: str) -> None:
    with pytest.raises(InvalidResponseHeader):
        sent(Response, [("Content-Type", "text/plain"), ("ETag", value)], b"x")


def test_head_and_body_leave_together_and_once() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        response = Response(SimpleNamespace(method="GET", version=(1, 1), should_close=lambda: False), ours, Config())
        response.start_response("200 OK", [*HEADERS, ("Content-Length", "4")])
        response.write(b"body")
        packet = theirs.recv(65536)
        assert packet.startswith(b"HTTP/1.1 200 OK\r\n")
        assert packet.endswith(b"\r\n\r\nbody")
        assert response.take_head() == b""
