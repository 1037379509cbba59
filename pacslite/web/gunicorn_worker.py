"""Gunicorn's threaded worker, with a bound on waits for clients, and our words for what never reaches the application.

A request holds a thread until its body is there and its answer is gone; without a bound, as many uploads that broke off
without a word as there are threads end the service. Gunicorn answers a malformed request by a page that repeats its line or
header, and logs the same. A URL may carry the name of a patient, and every answer of ours is a problem with a request id.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from gunicorn import util
from gunicorn.http import errors
from gunicorn.workers.gthread import ThreadWorker

from pacslite.web.problems import http_problem
from pacslite.web.replies import with_length

_log = logging.getLogger(__name__)

# The first class that fits counts; text of the request itself is never repeated.
_REFUSALS: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.LimitRequestLine, 414, "The request line is too long."),
    (errors.LimitRequestHeaders, 431, "The header fields are too many or too long."),
    (errors.ExpectationFailed, 417, "Only the expectation 100-continue can be met."),
    (errors.UnsupportedTransferCoding, 501, "The only transfer coding understood is chunked."),
    (errors.InvalidRequestLine, 400, "The request line is malformed; what is not ASCII in a URL is percent-encoded."),
    (errors.InvalidHeader, 400, "A header field is malformed, contradicts another, or is given twice."),
    (errors.InvalidHeaderName, 400, "The name of a header field is malformed."),
    (errors.ParseException, 400, "The request is malformed."),
)


class Worker(ThreadWorker):  # type: ignore[misc]
    """The worker of the web role; a client may stay silent, or refuse to be sent to, for `silence_s`."""

    silence_s = 60

    def handle(self, conn: Any) -> Any:
        """Serves what has come on a connection."""
        _bound_waits(conn.sock, self.silence_s)
        return super().handle(conn)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answers, and logs, a request that could not be read, or that nobody answered."""
        request_id, address = os.urandom(8).hex(), addr[0] if addr else ""
        about = {"request_id": request_id, "address": address}
        is_ours = isinstance(exc, errors.InvalidResponseHeader | errors.InvalidResponseHeaderName | errors.ConfigurationProblem)
        refusal = None if is_ours else next((row for row in _REFUSALS if isinstance(exc, row[0])), None)
        if refusal is None:
            _log.error("request failed", exc_info=exc, extra=about)
            status, detail = 500, "The server failed to answer; the log has the request id."
        else:
            _, status, detail = refusal
            _log.info("malformed request refused", extra={**about, "reason": type(exc).__name__})
        with suppress(OSError):  # a client that has gone needs no answer
            util.write_nonblock(client, _wire(status, detail, request_id))


def worker_class(silence_s: int) -> type[Worker]:
    """The worker for these settings; gunicorn makes the objects."""
    return type("Worker", (Worker,), {"silence_s": silence_s})


def _bound_waits(sock: socket.socket, silence_s: int) -> None:
    """Bounds each wait by the kernel: Python's own timeout would make the socket one that `sendfile` cannot use as it is."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", silence_s, 0))
    # What is sent and not acknowledged, or cannot be sent because the window stays closed (RFC 793 3.8, RFC 5482).
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence_s * 1000)


def _wire(status: int, detail: str, request_id: str) -> bytes:
    reply = http_problem(status, detail, request_id)
    headers = [*with_length(reply), ("X-Request-ID", request_id), ("X-Content-Type-Options", "nosniff"), ("Connection", "close")]
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers), "", ""]
    assert isinstance(reply.body, bytes)
    return "\r\n".join(lines).encode("ascii") + reply.body
