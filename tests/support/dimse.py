"""Peers of the DICOM listener for tests: raw PDUs over a socket, and a listener with a sink or a whole pacslite behind it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from pynetdicom import pdu_primitives as primitives
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.presentation import build_context

from pacslite.core.callers import Authenticate
from pacslite.dimse import commands, pdus
from pacslite.dimse.commands import Command, decode_command, encode_command
from pacslite.dimse.server import DimseServer
from pacslite.settings import Address, Settings
from pacslite.storage.spool import Spool, SpoolFile
from tests.support.processes import until

EXPLICIT_LE, IMPLICIT_LE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
EXPLICIT_BE, DEFLATED_LE = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
VERIFICATION, CT, SECONDARY_CAPTURE = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"
PATIENT_ROOT_FIND, STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.2.1"
PATIENT_ROOT_MOVE, STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2", "1.2.840.10008.5.1.4.1.2.2.2"
PATIENT_ROOT_GET, STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.1.3", "1.2.840.10008.5.1.4.1.2.2.3"

Offer = Sequence[tuple[str, Sequence[str]]]


def associate_rq(
    offer: Offer = ((VERIFICATION, (IMPLICIT_LE,)),),
    *,
    called: str = "PACSLITE",
    calling: str = "TESTER",
    max_pdu: int = 16384,
    user: Sequence[Any] = (),
) -> bytes:
    """An A-ASSOCIATE-RQ with contexts 1, 3, 5, ... of (abstract syntax, transfer syntaxes)."""
    length = primitives.MaximumLengthNotification()
    length.maximum_length_received = max_pdu
    implementation = primitives.ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3.4"
    asked = primitives.A_ASSOCIATE()
    asked.application_context_name = "1.2.840.10008.3.1.1.1"
    asked.called_ae_title, asked.calling_ae_title = called, calling
    contexts = []
    for number, (abstract, syntaxes) in enumerate(offer):
        context = build_context(abstract, list(syntaxes))
        context.context_id = 2 * number + 1
        contexts.append(context)
    asked.presentation_context_definition_list = contexts
    asked.user_information = [length, implementation, *user]
    return bytes(A_ASSOCIATE_RQ(asked).encode())


def accepted(body: bytes) -> A_ASSOCIATE_AC:
    """A decoded A-ASSOCIATE-AC from its body."""
    pdu = A_ASSOCIATE_AC()
    pdu.decode(struct.pack(">BxI", 2, len(body)) + body)
    return pdu


def results(body: bytes) -> dict[int, tuple[int, str]]:
    """(result, transfer syntax) of each context in an A-ASSOCIATE-AC."""
    return {cx.context_id: (cx.result, str(cx.transfer_syntax)) for cx in accepted(body).presentation_context}


class Peer:
    """One connection that speaks raw PDUs."""

    def __init__(self, address: Address, timeout_s: float = 20, source_port: int = 0) -> None:
        self.sock = socket.create_connection((address.host, address.port), timeout_s, (address.host, source_port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.max_pdu = 16384
        self.context_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            if not more:
                raise EOFError(f"closed after {len(data)} of {count} bytes")
            data += more
        return data

    def pdu(self) -> tuple[int, bytes]:
        """Type and body of the next PDU."""
        kind, length = struct.unpack(">BxI", self._exactly(6))
        return kind, self._exactly(length)

    def at_end(self) -> bool:
        """Whether the other side closed, orderly or not, with nothing more to read."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True

    def associate(self, offer: Offer = ((VERIFICATION, (IMPLICIT_LE,)),), **options: Any) -> bytes:
        """Establish an association; the body of the A-ASSOCIATE-AC."""
        self.send(associate_rq(offer, **options))
        kind, body = self.pdu()
        assert kind == pdus.ASSOCIATE_AC, (kind, body)
        return body

    def request(self, context_id: int, values: dict[int, bytes | int], data_set: bytes | None = None) -> None:
        """Send a DIMSE message."""
        self.send(pdus.encode_message(context_id, encode_command(values), data_set, self.max_pdu))

    def response(self) -> tuple[Command, bytes]:
        """The next DIMSE message: command set and data set; `context_id` is where it came."""
        command, data, wanted = b"", b"", True
        while wanted:
            kind, body = self.pdu()
            assert kind == pdus.P_DATA, (kind, body)
            offset = 0
            while offset < len(body):
                length, self.context_id, control = struct.unpack_from(">IBB", body, offset)
                value = body[offset + 6 : offset + 4 + length]
                offset += 4 + length
                command, data = (command + value, data) if control & 1 else (command, data + value)
                if control == 2 or (control == 3 and not decode_command(command).has_data_set):
                    wanted = False
        return decode_command(command), data

    def echo(self, context_id: int = 1, message_id: int = 1) -> int:
        """C-ECHO; its status."""
        self.request(context_id, echo_rq(message_id))
        return self.response()[0].number(commands.STATUS)

    def store(self, data_set: bytes, context_id: int = 1, **options: Any) -> Command:
        """C-STORE; the command set of the response."""
        self.request(context_id, store_rq(**options), data_set)
        return self.response()[0]

    def release(self) -> None:
        """Release in order."""
        self.send(struct.pack(">BxII", pdus.RELEASE_RQ, 4, 0))
        assert self.pdu()[0] == pdus.RELEASE_RP
        assert self.at_end()

    def expect_abort(self) -> bytes:
        """Source and reason of the A-ABORT that has to come next, then the end."""
        kind, body = self.pdu()
        assert kind == pdus.ABORT, (kind, body)
        assert self.at_end()
        return body[2:]


def uid_value(uid: str) -> bytes:
    """A UI value, padded."""
    return uid.encode() + b"\0" * (len(uid) % 2)


def echo_rq(message_id: int = 1) -> dict[int, bytes | int]:
    """The command set of a C-ECHO-RQ."""
    return {0x0002: uid_value(VERIFICATION), 0x0100: 0x0030, 0x0110: message_id, 0x0800: 0x0101}


def store_rq(sop_class: str = CT, sop_instance: str = "1.2.3.4.5", message_id: int = 1) -> dict[int, bytes | int]:
    """The command set of a C-STORE-RQ."""
    return {0x0002: uid_value(sop_class), 0x0100: 1, 0x0110: message_id, 0x0700: 0, 0x0800: 1, 0x1000: uid_value(sop_instance)}


def find_rq(model: str = STUDY_ROOT_FIND, message_id: int = 1) -> dict[int, bytes | int]:
    """The command set of a C-FIND-RQ."""
    return {0x0002: uid_value(model), 0x0100: 0x0020, 0x0110: message_id, 0x0700: 0, 0x0800: 1}


def cancel_rq(message_id: int = 1) -> dict[int, bytes | int]:
    """The command set of a C-CANCEL-RQ."""
    return {0x0100: 0x0FFF, 0x0120: message_id, 0x0800: 0x0101}


@dataclass
class SinkIngest:
    """Stands in for ingest where only the listener is tested: keeps what came, raises or waits when told to."""

    received: list[bytes] = field(default_factory=list)
    error: Exception | None = None
    warnings: tuple[str, ...] = ()
    gate: threading.Event | None = None
    entered: threading.Event = field(default_factory=threading.Event)

    def accept(self, spool_file: SpoolFile, origin: Any, expected: Any = None) -> Any:
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(20)
        self.received.append(spool_file.path.read_bytes())
        spool_file.discard()
        self.last = SimpleNamespace(origin=origin, expected=expected)
        if self.error is not None:
            raise self.error
        return SimpleNamespace(warnings=self.warnings)


@dataclass
class Listener:
    """A running listener and what stands behind it."""

    address: Address
    server: DimseServer
    pacs: Any

    @property
    def spool_files(self) -> list[Path]:
        return list(self.pacs.spool.directory.iterdir())

    def peer(self) -> Peer:
        return Peer(self.address)


@contextmanager
def listening(pacs: Any, authenticate: Authenticate | None = None, find_peer: Callable[[str], Any] | None = None) -> Iterator[Listener]:
    """A listener on a free port; at the end no thread of it may be left. Without a catalog it knows no peers."""
    server = DimseServer(pacs.settings, pacs, authenticate, find_peer or (None if hasattr(pacs, "catalog") else lambda _: None))
    others = set(threading.enumerate())
    try:
        yield Listener(server.start(), server, pacs)
    finally:
        server.stop(grace_s=5)
    # Threads of another listener may be ending just now; one that stays is a leak.
    until(lambda: not [t.name for t in threading.enumerate() if t not in others and t.name.startswith("dimse-")])


class _NoCounts:
    """Stands in for the counts of peers, which need a catalog."""

    def note(self, ae_title: str, counts: Any = None) -> None:
        pass


class _NoAudit:
    """Stands in for the audit log, which needs a catalog."""

    def record(self, event: Any, *, later: bool = False) -> None:
        pass

    def record_if_room(self, event: Any) -> bool:
        return True

    def once(self, event: Any) -> None:
        pass


def sink_pacs(data: Path, **settings: Any) -> Any:
    """Settings, spool and a sink in place of the rest."""
    chosen = replace(Settings(data=data, dicom=Address("127.0.0.1", 0)), **settings)
    return SimpleNamespace(settings=chosen, spool=Spool(data / "spool"), ingest=SinkIngest(), peer_counts=_NoCounts(), audit=_NoAudit())
