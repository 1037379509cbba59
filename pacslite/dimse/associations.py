"""One association as acceptor: hands each message of the peer to its service, and answers (PS3.7 section 9, PS3.8 section 7).

Synchronous on purpose: one thread, blocking reads, one send per answer, operations one at a time (the asynchronous
operations window is not negotiated). A service is a function `serve(association, request)`; it reads the data set
from `association.fragments()` or `association.data_set()` and answers by `association.respond(...)`. What it raises is
answered here with the status of `error_map`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from pacslite import logs, metrics, tracing
from pacslite.core import caller_sight
from pacslite.core.access import seen_by
from pacslite.core.callers import Caller, Callers
from pacslite.dimse import audit, commands, observation, pdus
from pacslite.dimse.commands import Command
from pacslite.dimse.contexts import Context
from pacslite.dimse.messages import MessageReader, Request
from pacslite.dimse.pdus import (
    AssociationEnded,
    ConnectionLost,
    PeerAborted,
    ProtocolViolation,
    Released,
    Stopping,
    TimedOut,
    Unfinished,
)
from pacslite.error_map import mapping_of
from pacslite.errors import PacsliteError, TooLarge
from pacslite.settings import Settings

if TYPE_CHECKING:
    from pacslite.app import Pacs

_log = logging.getLogger(__name__)
_MAX_IDENTIFIER_BYTES = 16 * 1024**2
_NO_COUNTERS: Mapping[int, int] = MappingProxyType({})


Serve = Callable[["Association", Request], None]


class Association:
    """The state of one association; `run` lives in the association's own thread, `stop` and `cut` may be called from others."""

    def __init__(self, sock: socket.socket, address: str, pacs: Pacs, services: Mapping[int, Serve], callers: Callers) -> None:
        self.id = os.urandom(6).hex()
        self.address = address
        self.pacs = self._parts = pacs  # `pacs` shows what the peer may see, as of its last request
        self.calling_aet = self.called_aet = ""
        self.instances_received = self.bytes_received = 0
        self.answered: dict[str, int] = {}
        self.expected: dict[int, Callable[[Command], None]] = {}  # what to do with the responses to requests of our own
        self._sock = sock
        self._services, self._callers = services, callers
        self._caller: Caller
        self._contexts: Mapping[int, Context] = {}
        self._peer_max_pdu = 0
        self._data_left = self._cancelled = False
        self._message_id = 0
        self._final_status: int | None = None
        self._lock = threading.Lock()
        self._busy = self._stopping = False
        self._idle_work: deque[Callable[[], None]] = deque()
        self._own_message_id = 0
        self._messages: MessageReader

    @property
    def contexts(self) -> Iterable[Context]:
        """The accepted presentation contexts."""
        return self._contexts.values()

    @property
    def caller(self) -> Caller:
        """The requestor."""
        return self._caller

    @property
    def caller_or_none(self) -> Caller | None:
        """The requestor, None as long as nobody is accepted."""
        return getattr(self, "_caller", None)

    @property
    def max_pdu_bytes(self) -> int:
        """The longest PDU that the peer takes, 0 for no bound."""
        return self._peer_max_pdu

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        return self.pacs.settings

    # Life of the association

    def run(self, associate_rq: bytes) -> bool:
        """Serve until the end; whether the peer may still have something to read, so that closing has to wait for it."""
        with logs.bound(association_id=self.id):
            farewell, outcome = self._converse(associate_rq)
            if farewell:
                # The association is over either way; a peer that is gone needs no goodbye.
                with contextlib.suppress(AssociationEnded):
                    self.send(farewell)
            if self.caller_or_none is not None:
                audit.closed(self, outcome)
            _log.info("association ended", extra={**self._who(), "outcome": outcome, "answered": self.answered})
        return bool(farewell)

    def _who(self) -> dict[str, str]:
        return {"calling_aet": self.calling_aet, "called_aet": self.called_aet, "address": self.address}

    def _converse(self, associate_rq: bytes) -> tuple[bytes, str]:
        """Establish and serve; the last PDU to send, if any, and how it ended."""
        try:
            refusal = self._establish(associate_rq)
            if refusal:
                return refusal
            while True:
                self._work_while_idle()
                self._serve_message()
        except Released:
            return pdus.RELEASE_RP_PDU, "released"
        except PeerAborted:
            return b"", "aborted by the peer"
        except ProtocolViolation as error:
            return pdus.abort_pdu(2, error.reason), f"aborted: {error}"
        except Unfinished as error:
            return pdus.abort_pdu(0, pdus.NO_REASON), f"aborted: {error}"
        except TimedOut as error:
            return pdus.abort_pdu(2, pdus.NO_REASON), f"aborted: {error}"
        except (ConnectionLost, Stopping) as error:
            if self._stopping:
                return pdus.abort_pdu(0, pdus.NO_REASON), "aborted: the server is stopping"
            return b"", f"lost: {error}"

    def _establish(self, associate_rq: bytes) -> tuple[bytes, str] | None:
        from pacslite.dimse.admission import Refused, admit  # pynetdicom: see DimseServer

        settings = self.settings
        pdus.set_timeouts(self._sock, settings.network_timeout_s)
        result = admit(associate_rq, self.address, settings, self._callers)
        agreed = result if isinstance(result, Refused) else result.agreed
        self.calling_aet, self.called_aet = agreed.calling_aet, agreed.called_aet
        if isinstance(result, Refused):
            metrics.ASSOCIATIONS.add("rejected")
            audit.rejected(self, result.why)
            return result.answer, f"rejected: {result.why}"
        self._caller, agreed = result.caller, result.agreed
        self._contexts, self._peer_max_pdu = agreed.contexts, agreed.max_pdu_bytes
        self._messages = MessageReader(self._sock, agreed.contexts, settings.max_pdu_bytes, settings.network_timeout_s)
        audit.opened(self)
        self.send(agreed.answer)
        metrics.ASSOCIATIONS.add("accepted")
        _log.debug("association accepted", extra=self._who())
        return None

    def stop(self) -> None:
        """Abort as soon as no store is running."""
        with self._lock:
            self._stopping = True
            if not self._busy:
                with contextlib.suppress(OSError):  # the association has ended by itself
                    pdus.shut(self._sock, socket.SHUT_RD)

    def cut(self) -> None:
        """End the connection at once, whatever is going on."""
        with contextlib.suppress(OSError):  # the association has ended by itself
            pdus.shut(self._sock, socket.SHUT_RDWR)

    # Messages

    def _serve_message(self) -> None:
        request = self._read_request()
        try:
            with tracing.entry("dimse " + observation.name_of(request.command.field), {}, association_id=self.id):
                self._serve(request)
        finally:
            with self._lock:
                self._busy = False
        if self._stopping:
            raise Stopping("the server is stopping")

    def _read_request(self) -> Request:
        """The next command set; nothing runs while it is awaited."""
        first = self._messages.next_pdv()
        with self._lock:
            if self._stopping:
                raise Stopping("the server is stopping")
            self._busy = True
        request = self._messages.command(first)
        self._data_left, self._cancelled = request.command.has_data_set, False
        self._message_id = request.command.message_id if request.command.field in commands.REQUESTS else 0
        return request

    def _serve(self, request: Request) -> None:
        service = self._services.get(request.command.field)
        began, self._final_status = time.perf_counter(), None
        try:
            if service is not None:
                if right := commands.RIGHTS.get(request.command.field):
                    self._caller.check(right)
                    if right != "store":
                        self.pacs = seen_by(self._parts, caller_sight.visibility_of(self._parts, self._caller))
                service(self, request)
            else:
                self._serve_unknown(request)
        except AssociationEnded:
            raise
        # The adapter's one catch: whatever a request met is answered with a status, and the association goes on.
        except Exception as error:  # noqa: BLE001
            self._refuse(request, error)
        finally:
            observation.note(request.command.field, self._final_status, time.perf_counter() - began)

    def _serve_unknown(self, request: Request) -> None:
        field = request.command.field
        if field == commands.C_CANCEL_RQ:
            return  # came after the last response; PS3.7 9.3.2.3 lets it pass
        if field not in commands.REQUESTS:
            raise ProtocolViolation(f"command field {field:04X}H", pdus.UNEXPECTED_PARAMETER)
        self.respond(request, commands.UNRECOGNIZED_OPERATION)

    def _refuse(self, request: Request, error: Exception) -> None:
        status = mapping_of(error).dimse
        if isinstance(error, PacsliteError):
            _log.info("request refused", extra={"status": f"{status:04X}", "reason": str(error)})
            comment = str(error)
        else:
            _log.error("request failed", exc_info=error, extra={"status": f"{status:04X}"})
            comment = "internal error"
        self.respond(request, status, comment)

    def fragments(self) -> Iterator[memoryview]:
        """The data set of the request piece by piece; each piece is overwritten by the next."""
        while self._data_left:
            data, self._data_left = self._messages.fragment()
            yield data

    def data_set(self) -> bytes:
        """The data set of the request, whole; raises TooLarge."""
        pieces, size = [], 0
        for piece in self.fragments():
            size += len(piece)
            if size > _MAX_IDENTIFIER_BYTES:
                raise TooLarge(f"identifier of more than {_MAX_IDENTIFIER_BYTES} bytes")
            pieces.append(bytes(piece))
        return b"".join(pieces)

    # Answers

    def send(self, data: bytes | memoryview) -> None:
        """Send whole PDUs in one go; raises AssociationEnded."""
        try:
            self._sock.sendall(data)
        except (BlockingIOError, TimeoutError):
            raise ConnectionLost("the peer does not read") from None
        except OSError as error:
            raise ConnectionLost(f"sending failed: {error.strerror or error}") from None

    def respond(
        self,
        request: Request,
        status: int,
        comment: str = "",
        offending: tuple[int, ...] = (),
        *,
        counters: Mapping[int, int] = _NO_COUNTERS,
        data_set: bytes | None = None,
        before: bytes = b"",
    ) -> None:
        """Send a final response, after what is left of the request's own data set has been read.

        `before` are PDUs that go out with it: one send wakes the peer once.
        """
        for _ in self.fragments():
            pass
        self._final_status = status
        name = f"{request.command.field:04X}:{status:04X}"
        self.answered[name] = self.answered.get(name, 0) + 1
        audit.answered(self, request.command.field, status)
        command = commands.encode_response(request.command, status, comment, offending, counters=counters, data_set=data_set is not None)
        self.send(before + pdus.encode_message(request.context.id, command, data_set, self._peer_max_pdu))

    def report(self, request: Request, counters: Mapping[int, int]) -> None:
        """Send a pending response that tells of sub-operations (PS3.7 9.3.3.2, 9.3.4.2)."""
        command = commands.encode_response(request.command, commands.PENDING, counters=counters)
        self.send(pdus.encode_message(request.context.id, command, None, self._peer_max_pdu))

    def message(self, request: Request, status: int, data_set: bytes) -> bytes:
        """A response with a data set, as PDUs to send."""
        command = commands.encode_response(request.command, status, data_set=True)
        return pdus.encode_message(request.context.id, command, data_set, self._peer_max_pdu)

    # Operations of our own

    def when_idle(self, work: Callable[[], None]) -> None:
        """Do this, in the thread of the association, when nothing of the peer waits to be read; never once it has ended."""
        self._idle_work.append(work)

    @property
    def owes(self) -> int:
        """How much is to be done yet when nothing of the peer waits, or was done and is not answered."""
        return len(self._idle_work) + len(self.expected)

    def invoke(self, context: Context, command: Callable[[int], bytes], data_set: bytes) -> int:
        """Send a request of ours; its message id, which is given to `command`. The response comes as any message does."""
        self._own_message_id = self._own_message_id % 0xFFFF + 1
        self.send(pdus.encode_message(context.id, command(self._own_message_id), data_set, self._peer_max_pdu))
        return self._own_message_id

    def has_input(self) -> bool:
        """Whether something of the peer waits to be read; never waits itself."""
        return self._messages.has_input()

    def check_stopping(self) -> None:
        """Raise Stopping when the server goes down."""
        if self._stopping:
            raise Stopping("the server is stopping")

    def _work_while_idle(self) -> None:
        while self._idle_work and not self.has_input():
            self._idle_work.popleft()()

    # While an operation runs

    def cancelled(self) -> bool:
        """Whether a C-CANCEL-RQ for the running request has come (PS3.7 9.3.2.3); never waits for one.

        Raises Stopping when the server goes down: an operation that asks may be broken off.
        """
        self.check_stopping()
        while self.has_input():
            command = self._messages.command(self._messages.next_pdv()).command
            if command.field != commands.C_CANCEL_RQ:
                raise ProtocolViolation("message during an operation", pdus.UNEXPECTED_PARAMETER)
            self._note_cancel(command)
        return self._cancelled

    def await_input(self, other: int, seconds: float) -> None:
        """Wait until the peer sends something, the descriptor `other` is readable, or the time is over."""
        self._messages.await_input(other, seconds)

    def store_status(self, message_id: int) -> int:
        """The status by which the peer answers a C-STORE of ours; raises AssociationEnded."""
        while True:
            command = self._messages.command(self._messages.next_pdv()).command
            if command.field != commands.C_CANCEL_RQ:
                return commands.status_of(command, commands.C_STORE_RSP, message_id)
            self._note_cancel(command)

    def _note_cancel(self, command: Command) -> None:
        if command.number(commands.MESSAGE_ID_RESPONDED_TO) == self._message_id:
            self._cancelled = True
