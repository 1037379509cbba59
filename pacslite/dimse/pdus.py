"""Protocol data units on a socket (PS3.8 section 9.3): whole PDUs read into one reused buffer, and the small ones written.

The A-ASSOCIATE PDUs are pynetdicom's (see `negotiation`); P-DATA-TF is read and written here, because every byte of
every instance passes it. Nothing here knows of messages or services.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Callable

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

# An A-ASSOCIATE-RQ has at most 128 presentation contexts; with every transfer syntax there is, about 300 KB.
MAX_ASSOCIATE_BYTES = 1024**2
# Some peers count the PDU's own header in, or out, of the maximum length (PS3.8 D.1).
PDU_SLACK_BYTES = 4096
# What an idle association holds; grows to a whole PDU when the first large one comes.
_SMALL_BUFFER_BYTES = 16 * 1024

_HEADER = struct.Struct(">BxI")
PDV_HEADER = struct.Struct(">BxIIBB")
"""A PDU with one PDV: type, length; length of the PDV, context, control."""
_PDV = struct.Struct(">IBB")
_TIMEVAL = struct.Struct("ll")
_NOTHING = memoryview(b"")

RELEASE_RQ_PDU = _HEADER.pack(RELEASE_RQ, 4) + bytes(4)
RELEASE_RP_PDU = _HEADER.pack(RELEASE_RP, 4) + bytes(4)

# Reasons of an A-ABORT by the service provider (PS3.8 table 9-26).
NO_REASON, UNRECOGNIZED_PDU, UNEXPECTED_PDU, UNEXPECTED_PARAMETER, INVALID_PARAMETER = 0, 1, 2, 5, 6


class AssociationEnded(Exception):
    """The association is over; how to leave it is in the subclass."""


class Released(AssociationEnded):
    """The peer asked to release."""


class PeerAborted(AssociationEnded):
    """The peer aborted."""


class ConnectionLost(AssociationEnded):
    """The connection closed or failed without a word."""


class TimedOut(AssociationEnded):
    """The peer stayed silent, or took too long for one PDU."""


class Stopping(AssociationEnded):
    """This server is going down."""


class Unfinished(AssociationEnded):
    """A message that we have begun cannot be completed."""


class ProtocolViolation(AssociationEnded):
    """The peer broke PS3.7 or PS3.8; `reason` goes into the A-ABORT."""

    def __init__(self, message: str, reason: int = INVALID_PARAMETER) -> None:
        super().__init__(message)
        self.reason = reason


def abort_pdu(source: int, reason: int) -> bytes:
    """An A-ABORT (PS3.8 9.3.8): source 0 service user, 2 service provider."""
    return _HEADER.pack(ABORT, 4) + bytes((0, 0, source, reason))


def reject_pdu(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
    return _HEADER.pack(ASSOCIATE_RJ, 4) + bytes((0, result, source, reason))


def pdu_header(data: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Type and length from the first six bytes of a PDU."""
    kind, length = _HEADER.unpack_from(data)
    return kind, length


def encode_message(context_id: int, command: bytes, data_set: bytes | None, max_pdu_bytes: int) -> bytes:
    """The P-DATA-TF PDUs of one DIMSE message, one PDV each; `max_pdu_bytes` is the receiver's bound, 0 for none."""
    if data_set is None and (not max_pdu_bytes or len(command) + 6 <= max_pdu_bytes):
        return PDV_HEADER.pack(P_DATA, len(command) + 6, len(command) + 2, context_id, 3) + command
    pieces: list[bytes | memoryview] = []
    _append_pdus(pieces, context_id, command, 1, max_pdu_bytes)
    if data_set is not None:
        _append_pdus(pieces, context_id, data_set, 0, max_pdu_bytes)
    return b"".join(pieces)


def _append_pdus(pieces: list[bytes | memoryview], context_id: int, data: bytes, control: int, max_pdu_bytes: int) -> None:
    # Fragments have an even length (PS3.8 annex E.1); six bytes of a PDU are the PDV's own header.
    step = max(max_pdu_bytes - 6, 2) & ~1 if max_pdu_bytes else max(len(data), 2)
    view = memoryview(data)
    for offset in range(0, max(len(data), 1), step):
        piece = view[offset : offset + step]
        last = 2 if offset + step >= len(data) else 0
        pieces += (PDV_HEADER.pack(P_DATA, len(piece) + 6, len(piece) + 2, context_id, control | last), piece)


def set_timeouts(sock: socket.socket, seconds: float) -> None:
    """Bounds every receive and send by the kernel, which saves the poll before each that `settimeout` would cost."""
    if isinstance(sock, ssl.SSLSocket):  # takes a time limit of the kernel for a reason to try again
        sock.settimeout(seconds)
        return
    sock.setblocking(True)
    span = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, span)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, span)


def shut(sock: socket.socket, how: int) -> None:
    """Shuts the connection down under whoever uses it; a TLS socket's own way would have him go on unencrypted. Raises OSError."""
    socket.socket.shutdown(sock, how)


class PduReader:
    """Reads whole PDUs of one connection; what `next` returns is a view that the following call overwrites."""

    __slots__ = ("_buffer", "_end", "_limit", "_next", "_sock", "_start", "_timeout_s", "_view")

    def __init__(self, sock: socket.socket, max_pdu_bytes: int, timeout_s: float, received: bytes = b"") -> None:
        self._sock = sock
        self._limit = max_pdu_bytes + PDU_SLACK_BYTES
        self._timeout_s = timeout_s
        self._buffer = bytearray(max(_SMALL_BUFFER_BYTES, len(received)))
        self._buffer[: len(received)] = received
        self._view = memoryview(self._buffer)
        self._start, self._next, self._end = 0, 0, len(received)

    def next(self) -> tuple[int, memoryview]:
        """Type and body of the next PDU; raises AssociationEnded."""
        self._start = self._next
        self._fill(6)
        kind, length = _HEADER.unpack_from(self._buffer, self._start)
        if not ASSOCIATE_RQ <= kind <= ABORT:
            raise ProtocolViolation(f"PDU of unknown type {kind:02X}H", UNRECOGNIZED_PDU)
        if length > self._limit:
            raise ProtocolViolation(f"PDU of {length} bytes, more than negotiated")
        self._fill(6 + length)
        begin = self._start + 6
        self._next = begin + length
        return kind, self._view[begin : self._next]

    def has_input(self) -> bool:
        """Whether something of the next PDU has come; never waits."""
        if self.holds_input():
            return True
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def holds_input(self) -> bool:
        """Whether something of the next PDU has been taken from the kernel already, where a poll does not see it."""
        return self._end > self._next or (isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0)

    def _fill(self, count: int) -> None:
        """Makes `count` bytes from the start of the PDU available."""
        held = self._end - self._start
        if held >= count:
            return
        if held == 0:
            self._start = self._next = self._end = 0
        if self._start + count > len(self._buffer):
            self._move(count, held)
        deadline = 0.0
        while self._end - self._start < count:
            self._end += self._receive()
            if self._end - self._start >= count:
                return
            # A peer that sends a byte at a time must not hold its place for ever.
            now = time.monotonic()
            deadline = deadline or now + self._timeout_s
            if now > deadline:
                raise TimedOut("the PDU did not arrive in time")

    def _move(self, count: int, held: int) -> None:
        """Moves what is held to the front, of a larger buffer when it has to be."""
        if count > len(self._buffer):
            larger = bytearray(self._limit + 6 + _SMALL_BUFFER_BYTES)
            larger[:held] = self._view[self._start : self._end]
            self._buffer, self._view = larger, memoryview(larger)
        else:
            self._view[:held] = self._view[self._start : self._end]
        self._start, self._end = 0, held

    def _receive(self) -> int:
        try:
            # Many peers write the header of a PDU and its body one after the other and leave Nagle's algorithm on: the body
            # then waits for our acknowledgement of the header, which the kernel would put off for 40 ms. Not lasting (tcp(7)).
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            count = self._sock.recv_into(self._view[self._end :])
        except (BlockingIOError, TimeoutError):
            raise TimedOut("the peer stayed silent") from None
        except OSError as error:
            raise ConnectionLost(f"receiving failed: {error.strerror or error}") from None
        if count == 0:
            raise ConnectionLost("the peer closed the connection")
        return count


class PdvReader:
    """Reads the presentation data values of an established association (PS3.8 9.3.5.1, annex E).

    `ended` says what a PDU other than P-DATA-TF means there. The value is a view that the following call overwrites.
    """

    __slots__ = ("_body", "_ended", "_offset", "_pdus")

    def __init__(self, reader: PduReader, ended: Callable[[int], AssociationEnded]) -> None:
        self._pdus, self._ended = reader, ended
        self._body, self._offset = _NOTHING, 0

    def next(self) -> tuple[int, int, memoryview]:
        """Context id, message control header and value of the next PDV; raises AssociationEnded."""
        while self._offset >= len(self._body):
            kind, self._body = self._pdus.next()
            self._offset = 0
            if kind != P_DATA:
                self._body = _NOTHING
                raise self._ended(kind)
        begin = self._offset
        if begin + 6 > len(self._body):
            raise ProtocolViolation("PDV header cut off")
        length, context_id, control = _PDV.unpack_from(self._body, begin)
        self._offset = end = begin + 4 + length
        if length < 2 or end > len(self._body):
            raise ProtocolViolation("PDV beyond the end of its PDU")
        return context_id, control, self._body[begin + 6 : end]

    def has_input(self) -> bool:
        """Whether something of the next PDV has come; never waits."""
        return self._offset < len(self._body) or self._pdus.has_input()

    def holds_input(self) -> bool:
        """Whether something of the next PDV has been taken from the kernel already, where a poll does not see it."""
        return self._offset < len(self._body) or self._pdus.holds_input()
