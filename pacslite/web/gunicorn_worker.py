"""Gunicorn's threaded worker, with a bound on waits for clients, and our words for what never reaches the application.

A connection gets a thread when the head of a request has come, and while its body is waited for another thread works in its place
(`web.threads`); so clients who stop in the middle end nothing. Gunicorn answers a malformed request by a page that repeats its
line or header, and logs the same. A URL may carry the name of a patient, and every answer of ours is a problem with a request id.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import select
import socket
import struct
import time
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from gunicorn import util
from gunicorn.http import errors, wsgi
from gunicorn.workers.gthread import _DEFER, ThreadWorker

from pacslite import metrics
from pacslite.errors import Busy
from pacslite.web.balance import STEP_BACK_S, Board
from pacslite.web.gunicorn_response import Response
from pacslite.web.problems import http_problem
from pacslite.web.replies import with_length
from pacslite.web.sending import AnswerSocket
from pacslite.web.threads import Patience, Threads, gave_up

_log = logging.getLogger(__name__)

MOST_LINE_BYTES = 8190
MOST_HEAD_BYTES = 64 * 1024
_COMMON_HEAD_BYTES = 4096
# A connection just made has its request with it, or a moment later; other waits are the poller's.
_FIRST_WAIT_MS = 5
_LINGER_MS = 2000
# How long a thread stays with a connection that it has answered.
_NEXT_REQUEST_MS = 100
# Of files or memory of the system; gunicorn ends its worker, with all connections, for them.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_EXHAUSTED_PAUSE_S = 0.2
# Clients that send all of a refused body before they look for the answer would not see it.
_MOST_DRAINED_BYTES = 64 * 1024 * 1024
_ASKS_FOR_LIFE = re.compile(rb"(?:GET|HEAD) [^ ?]*/health/live[ ?]")
_HEAD_END = re.compile(rb"\n\r?\n")


class _NoHost(errors.ParseException):  # type: ignore[misc]
    """Which host is meant is not said (RFC 9112 3.2); one said twice gunicorn refuses itself."""


# The first class that fits counts; text of the request itself is never repeated.
_REFUSALS: tuple[tuple[type[Exception], int, str], ...] = (
    (_NoHost, 400, "A request of HTTP/1.1 has a Host header."),
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
    """The worker of the web role; a client may stay silent, or refuse to be sent to, for `patience.silence_s`."""

    patience = Patience(64, 60, 1000)
    board = Board()
    _back_at: float | None = None
    _insists = False

    @property
    def busy(self) -> int:
        """Connections that are worked for; those that wait for a request count as nothing."""
        return int(self.nr_conns - len(self.keepalived_conns) - len(self.pending_conns))

    def accept(self, listener: socket.socket) -> None:
        """Takes a connection, unless another process that has less to do may take it."""
        if not self._insists and self.board.has_idler(self.age, self.busy):
            self._step_back(STEP_BACK_S)
            return
        self._insists = False
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            _log.error("connection not accepted", extra={"reason": error.strerror})
            self._step_back(_EXHAUSTED_PAUSE_S)  # it waits until something else is closed
        self.board.tell(self.age, self.busy)

    def _step_back(self, seconds: float) -> None:
        self.set_accept_enabled(False)
        self._back_at = time.monotonic() + seconds

    def set_accept_enabled(self, enabled: bool) -> None:
        """Takes connections from now on, or none; none either while others have the first go."""
        if not enabled or self._back_at is None:
            super().set_accept_enabled(enabled)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """One turn of the main thread."""
        self.board.tell(self.age, self.busy)
        if self._back_at is not None:
            timeout = min(timeout, max(0.0, self._back_at - time.monotonic()))
        super().wait_for_and_dispatch_events(timeout)
        if self._back_at is not None and time.monotonic() >= self._back_at:
            self._back_at, self._insists = None, True
            self.set_accept_enabled(self.alive)

    def run(self) -> None:
        """Serves until told to end."""
        try:
            super().run()
        finally:
            self.board.leave(self.age)

    def get_thread_pool(self) -> Threads:
        """Threads that can wait for clients without being missed."""
        self._spare = Threads(1, self.patience)
        return Threads(self.cfg.threads, self.patience)

    def enqueue_req(self, conn: Any) -> None:
        """Gives a connection to a thread; in the main thread."""
        if type(conn.sock) is socket.socket:  # just accepted
            conn.sock = AnswerSocket.of(conn.sock, _address(conn))
        if not self.tpool.is_full:
            super().enqueue_req(conn)
            return
        # All threads may be waiting for a database or a disk that hangs: the process lives, and says so.
        come = _peeked(conn.sock, _COMMON_HEAD_BYTES, 0)
        if come is None and conn.parser is None:
            self.finish_request(conn, _done(_DEFER))  # the poller waits for what it is
        elif come and _ASKS_FOR_LIFE.match(come):
            answered = self._spare.submit(self._serve, conn)
            answered.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))
        else:
            super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:
        """Serves what has come on a connection, and what comes at once after that."""
        goes_on = self._serve(conn)
        while goes_on is True and self.alive and not conn.parser.unreader.buf.tell() and self.tpool.linger(conn.sock, _NEXT_REQUEST_MS):
            goes_on = self._serve(conn)
        return goes_on

    def _serve(self, conn: Any) -> Any:
        """One request, once its head is there: until then it holds no thread."""
        try:
            if not _has_head(conn, self.patience.silence_s):
                return _DEFER
        except _TooSlow:
            return False
        except errors.LimitRequestHeaders as error:
            self.handle_error(None, conn.sock, conn.client, error)
            self._linger(conn)
            return False
        _bound_waits(conn.sock, self.patience.silence_s)
        conn.sock.begin()
        goes_on = super().handle(conn)
        if not goes_on:
            self._linger(conn)
        return goes_on

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Has the application answer a request; whether the connection carries another one.

        What gunicorn does, without its hooks, and with a response of ours.
        """
        began = time.perf_counter()
        if req.version >= (1, 1) and not any(name == "HOST" for name, _ in req.headers):
            raise _NoHost
        response, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, response_class=Response)
        environ["wsgi.multithread"] = True
        environ["pacslite.response"] = response
        self.nr += 1
        if not self.alive or len(self.keepalived_conns) >= self.max_keepalived:
            response.force_close()
        try:
            self._answer(response, req, environ, began)
        except OSError:
            raise  # the client has gone
        except (Exception, SystemExit):
            if response.headers_sent:
                # An answer that has begun can only be broken off.
                self.log.exception("Error handling request")
                util.close_graceful(conn.sock)
                raise StopIteration from None
            raise
        return not response.should_close()

    def _answer(self, response: Response, req: Any, environ: dict[str, Any], began: float) -> None:
        body = self.wsgi(environ, response.start_response)
        try:
            if isinstance(body, wsgi.FileWrapper):
                response.write_file(body)
            else:
                for piece in body:
                    response.write(piece)
            response.close()
        finally:
            self.log.access(response, req, environ, timedelta(seconds=time.perf_counter() - began))
            if hasattr(body, "close"):
                body.close()

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """Whether the connection carries another request: not when the rest of this one was given up."""
        given_up = gave_up()
        return bool(super()._keepalive_after(conn, keepalive and not given_up))

    def _linger(self, conn: Any) -> None:
        """Lets the client read the answer before the connection is closed (RFC 9112 9.6).

        Gunicorn does that in its main thread, where a client that does not close keeps all others waiting for 2 s. After this it
        finds the end at once.
        """
        with suppress(OSError):
            conn.sock.shutdown(socket.SHUT_WR)
            try:
                with self.tpool.waiting(_address(conn)):
                    _drain(conn.sock, _LINGER_MS)
            except Busy:
                _drain(conn.sock, _FIRST_WAIT_MS)
        with suppress(OSError):
            conn.sock.shutdown(socket.SHUT_RD)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Goes on with a connection whose thread is done, in the main thread."""
        super().finish_request(conn, fs)
        if not fs.cancelled() and fs.exception() is None and fs.result() is _DEFER:
            conn.timeout = time.monotonic() + self.patience.silence_s

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
            metrics.HTTP_MALFORMED.add(str(status))
            _log.info("malformed request refused", extra={**about, "reason": type(exc).__name__})
        with suppress(OSError):  # a client that has gone needs no answer
            util.write_nonblock(client, _wire(status, detail, request_id))


def worker_class(patience: Patience) -> type[Worker]:
    """The worker for these settings; gunicorn makes the objects, in processes that share the board of this class."""
    return type("Worker", (Worker,), {"patience": patience, "board": Board()})


class _TooSlow(Exception):
    """The head of a request took too long."""


def _done(result: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(result)
    return future


def _has_head(conn: Any, silence_s: int) -> bool:
    """Whether gunicorn can read the head of a request without a wait; else more of it has to come first.

    Raises LimitRequestHeaders, and _TooSlow for one that comes drop by drop. What has come stays in the socket (MSG_PEEK), which then
    is readable only when there is more than that (SO_RCVLOWAT).
    """
    ahead = conn.parser.unreader.buf.getvalue() if conn.parser is not None else b""
    seen: int | None = getattr(conn, "head_seen", None)
    data = _peeked(conn.sock, _COMMON_HEAD_BYTES, _FIRST_WAIT_MS if seen is None and not ahead else 0)
    if data is not None and len(data) == _COMMON_HEAD_BYTES and not _HEAD_END.search(ahead + data):
        data = _peeked(conn.sock, MOST_HEAD_BYTES, 0)
    come = ahead + (data or b"")
    has_ended = data is not None and len(data) in (0, seen)
    if has_ended or _HEAD_END.search(come) or _is_line_too_long(come):
        if seen is not None:
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            conn.head_seen = None
        return True
    if len(come) >= MOST_HEAD_BYTES:
        raise errors.LimitRequestHeaders("too many bytes")
    if seen is None:
        conn.head_since = time.monotonic()
    elif time.monotonic() - conn.head_since > silence_s:
        raise _TooSlow
    conn.head_seen = len(data or b"")
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, conn.head_seen + 1)
    return False


def _peeked(sock: socket.socket, size: int, wait_ms: int) -> bytes | None:
    """What has come, up to `size` bytes, and stays there; none at the end, None when nothing has come yet."""
    for _ in range(2 if wait_ms else 1):
        try:
            return sock.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            if wait_ms:
                poll = select.poll()
                poll.register(sock, select.POLLIN)
                poll.poll(wait_ms)
        except OSError:
            return b""  # gunicorn meets the same error
    return None


def _drain(sock: socket.socket, most_ms: int) -> None:
    """Throws away what comes until the client closes, for a while."""
    deadline, left = time.monotonic() + most_ms / 1000, _MOST_DRAINED_BYTES
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while left > 0 and poll.poll(max(0, (deadline - time.monotonic()) * 1000)):
        data = sock.recv(min(left, MOST_HEAD_BYTES), socket.MSG_DONTWAIT)
        if not data:
            return
        left -= len(data)


def _is_line_too_long(data: bytes) -> bool:
    return len(data) > MOST_LINE_BYTES + 2 and b"\n" not in data[: MOST_LINE_BYTES + 2]


def _address(conn: Any) -> str:
    return conn.client[0] if isinstance(conn.client, tuple) else ""


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
