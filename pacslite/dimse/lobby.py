"""Connections before and after their association: one thread watches them all, so that none costs a thread of its own.

A connection waits here until its A-ASSOCIATE-RQ is whole (the ARTIM timer of PS3.8 9.1.5 runs) and comes back when the
last PDU is sent, until the peer closes. A TLS handshake is done here step by step, as the peer's part of it comes. Peers that
connect and say nothing take no place from those that talk: places are bounded, and the one that has waited longest goes first.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pacslite.dimse import pdus, tls
from pacslite.dimse.shared_port import deal_in_turn

_log = logging.getLogger(__name__)
_MAX_WAITING = 512
_MAX_WAITING_BYTES = 32 * 1024**2
_LINGER_S = 5.0
_BACKLOG = 512
_RECEIVE_BYTES = 64 * 1024
_ACCEPTED_AT_ONCE = 64
_PAUSE_S = 0.2

Deliver = Callable[[socket.socket, str, bytes], None]
TurnedAway = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Door:
    """A listening socket, and how TLS is spoken there, None for not at all."""

    listener: socket.socket
    secure: tls.Reloading | None = None


class _Waiting:
    """A connection in the lobby: what has come of its A-ASSOCIATE-RQ, or None when only its end is awaited."""

    __slots__ = ("address", "deadline", "handshake", "received", "sock")

    def __init__(self, sock: socket.socket, address: str, deadline: float, received: bytearray | None) -> None:
        self.sock, self.address, self.deadline, self.received = sock, address, deadline, received
        self.handshake: ssl.SSLSocket | None = None  # the same socket, until its handshake is done


def listen(host: str, port: int, processes: int = 1) -> socket.socket:
    """A listening socket that other processes of this user may share (SO_REUSEPORT); `processes` is how many will."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        if processes > 1:
            deal_in_turn(listener, processes)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


class Lobby:
    """Accepts connections and calls `deliver(socket, address, A-ASSOCIATE-RQ)`; `run` returns after `stop`.

    `turned_away(address, reason)` is told of those that never get so far.
    """

    def __init__(self, doors: Sequence[Door], artim_s: float, deliver: Deliver, turned_away: TurnedAway | None = None) -> None:
        self._doors, self._artim_s, self._deliver = doors, artim_s, deliver
        self._turned_away = turned_away or (lambda address, reason: None)
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._open_doors()
        self._selector.register(self._wake, selectors.EVENT_READ, "wake")
        # In order of arrival; all of one kind have the same span, so the first is the next to expire.
        self._arriving: dict[_Waiting, None] = {}
        self._leaving: dict[_Waiting, None] = {}
        self._left: deque[socket.socket] = deque()
        self._received_bytes = 0
        self._paused_until = 0.0
        self._stopping = False

    def _open_doors(self) -> None:
        for door in self._doors:
            self._selector.register(door.listener, selectors.EVENT_READ, door)

    def stop(self) -> None:
        """Let `run` close everything and return; may be called from any thread."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def linger(self, sock: socket.socket) -> None:
        """Close the connection when the peer has read what was sent; may be called from any thread."""
        if self._stopping:
            sock.close()
            return
        self._left.append(sock)
        os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        """Watch until stopped."""
        try:
            while not self._stopping:
                for key, _ in self._selector.select(self._patience()):
                    self._ready(key.data)
                self._expire(time.monotonic())
        finally:
            self._close()

    def _ready(self, data: object) -> None:
        if isinstance(data, _Waiting):
            if data.received is None:
                self._discard_input(data)
            elif data.handshake is not None:
                self._shake_hands(data, data.handshake)
            else:
                self._receive(data, data.received)
        elif isinstance(data, Door):
            self._accept(data)
        else:
            os.eventfd_read(self._wake)
            while self._left:
                self._await_end(self._left.popleft(), "")

    def _patience(self) -> float | None:
        """Seconds until something expires, None when nothing will."""
        deadlines = [next(iter(kind)).deadline for kind in (self._arriving, self._leaving) if kind]
        if self._paused_until:
            deadlines.append(self._paused_until)
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _expire(self, now: float) -> None:
        for kind in (self._arriving, self._leaving):
            while kind and (first := next(iter(kind))).deadline <= now:
                _log.debug("connection closed: no association in time", extra={"address": first.address})
                self._drop(first)
        if self._paused_until and self._paused_until <= now:
            self._paused_until = 0.0
            self._open_doors()

    def _accept(self, door: Door) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, peer = door.listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # the peer was gone before its turn
            except OSError as error:
                self._out_of_descriptors(error)
                return
            self._welcome(sock, str(peer[0]), door.secure)

    def _welcome(self, sock: socket.socket, address: str, secure: tls.Reloading | None) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        handshake = None
        if secure is not None:
            try:
                sock = handshake = tls.accept(sock, secure.current())
            except OSError as error:  # the peer is gone; the socket is closed
                _log.debug("connection lost", extra={"address": address, "reason": tls.told(error)})
                return
        waiting = _Waiting(sock, address, time.monotonic() + self._artim_s, bytearray())
        waiting.handshake = handshake
        self._arriving[waiting] = None
        self._selector.register(sock, selectors.EVENT_READ, waiting)
        if len(self._arriving) > _MAX_WAITING:
            self._drop(next(iter(self._arriving)))

    def _shake_hands(self, waiting: _Waiting, sock: ssl.SSLSocket) -> None:
        """The next step of the handshake, as far as it goes without waiting."""
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self._selector.modify(sock, selectors.EVENT_READ, waiting)
        except ssl.SSLWantWriteError:
            self._selector.modify(sock, selectors.EVENT_WRITE, waiting)
        except OSError as error:
            _log.info("connection refused: no TLS", extra={"address": waiting.address, "reason": tls.told(error)})
            self._turned_away(waiting.address, "no TLS")
            self._forget(waiting)
            self._await_end(sock, waiting.address)
        else:
            waiting.handshake = None
            self._selector.modify(sock, selectors.EVENT_READ, waiting)

    def _out_of_descriptors(self, error: OSError) -> None:
        """No descriptor or memory for one more: make room, and leave the newcomer in the backlog for a moment."""
        _log.error("connection not accepted", extra={"reason": error.strerror})
        for kind in (self._leaving, self._arriving):
            if kind:
                self._drop(next(iter(kind)))
        for door in self._doors:
            if door.listener in self._selector.get_map():
                self._selector.unregister(door.listener)
        self._paused_until = time.monotonic() + _PAUSE_S

    def _receive(self, waiting: _Waiting, received: bytearray) -> None:
        data = _read(waiting.sock)
        if data is None:
            return
        if not data:
            self._drop(waiting)
            return
        received += data
        self._received_bytes += len(data)
        if len(received) < 6:
            return
        kind, length = pdus.pdu_header(received)
        if kind == pdus.ABORT:
            self._drop(waiting)  # is not answered (PS3.8 9.2.3, AA-2)
        elif kind != pdus.ASSOCIATE_RQ:
            known = pdus.ASSOCIATE_RQ < kind <= pdus.ABORT
            self._turn_away(waiting, pdus.UNEXPECTED_PDU if known else pdus.UNRECOGNIZED_PDU)
        elif length > pdus.MAX_ASSOCIATE_BYTES or self._received_bytes > _MAX_WAITING_BYTES or len(received) > length + 6:
            # Nothing may follow an A-ASSOCIATE-RQ before it is answered (PS3.8 9.2, Sta3).
            self._turn_away(waiting, pdus.INVALID_PARAMETER)
        elif len(received) == length + 6:
            self._forget(waiting)
            self._deliver(waiting.sock, waiting.address, bytes(received))

    def _turn_away(self, waiting: _Waiting, reason: int) -> None:
        _log.info("connection aborted: no A-ASSOCIATE-RQ", extra={"address": waiting.address})
        self._turned_away(waiting.address, "no association request")
        self._forget(waiting)
        self.say_goodbye(waiting.sock, waiting.address, pdus.abort_pdu(2, reason))

    def say_goodbye(self, sock: socket.socket, address: str, pdu: bytes) -> None:
        """Send a last PDU and await the end; only in the lobby's own thread."""
        try:
            sock.setblocking(False)
            sock.send(pdu)
        except OSError:
            sock.close()  # the peer is gone, or has not read for a long time
            return
        self._await_end(sock, address)

    def _await_end(self, sock: socket.socket, address: str) -> None:
        """Half-close, so that the peer sees an end, and read away what it still sends: closing now would reset its reading."""
        try:
            sock.setblocking(False)
            tls.say_goodbye(sock)
            pdus.shut(sock, socket.SHUT_WR)
        except OSError:
            sock.close()  # the peer is gone already
            return
        waiting = _Waiting(sock, address, time.monotonic() + _LINGER_S, None)
        self._leaving[waiting] = None
        self._selector.register(sock, selectors.EVENT_READ, waiting)
        if len(self._leaving) > _MAX_WAITING:
            self._drop(next(iter(self._leaving)))

    def _discard_input(self, waiting: _Waiting) -> None:
        # What comes now is read for its end alone, encrypted or not.
        if _read(waiting.sock, socket.socket.recv) == b"":
            self._drop(waiting)

    def _forget(self, waiting: _Waiting) -> None:
        self._selector.unregister(waiting.sock)
        self._arriving.pop(waiting, None)
        self._leaving.pop(waiting, None)
        self._received_bytes -= len(waiting.received or b"")

    def _drop(self, waiting: _Waiting) -> None:
        self._forget(waiting)
        waiting.sock.close()

    def _close(self) -> None:
        for waiting in [*self._arriving, *self._leaving]:
            self._drop(waiting)
        for sock in self._left:
            sock.close()
        for door in self._doors:
            door.listener.close()
        self._selector.close()

    def close(self) -> None:
        """Release what `run` leaves open, once nobody can call `linger` any more."""
        for sock in self._left:
            sock.close()
        os.close(self._wake)


def _read(sock: socket.socket, receive: Callable[[socket.socket, int], bytes] | None = None) -> bytes | None:
    """What is there; b"" at the end or on an error, None when nothing is."""
    try:
        return sock.recv(_RECEIVE_BYTES) if receive is None else receive(sock, _RECEIVE_BYTES)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None
    except OSError:
        return b""
