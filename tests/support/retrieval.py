"""An archive to retrieve from, and the two ends of a retrieval: requesters, and receivers of all kinds."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import pdu_primitives as primitives
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.presentation import PresentationContext

from pacslite import app
from pacslite.catalog.peers import SERVICES
from pacslite.catalog.peers import Peer as KnownPeer
from pacslite.core import peers
from pacslite.core.ingest import Origin
from pacslite.dimse import commands, pdus
from pacslite.dimse.commands import Command
from pacslite.settings import Address, Settings
from tests.support.data_sets import image, part10
from tests.support.dicom_files import element, meta_of
from tests.support.dimse import EXPLICIT_LE, STUDY_ROOT_GET, Listener, Peer, echo_rq, listening, uid_value

UNIQUE_KEYS = {"patient": 0x00100020, "study": 0x0020000D, "series": 0x0020000E, "instance": 0x00080018}
FAILED_LIST = 0x00080058


@contextmanager
def retrieving(data: Path, **settings: Any) -> Iterator[Listener]:
    """A listener with everything behind it."""
    pacs = app.build(Settings(data=data, dicom=Address("127.0.0.1", 0), **settings))
    pacs.catalog.migrate()
    try:
        with listening(pacs) as running:
            yield running
    finally:
        pacs.close()


def keep(pacs: Any, ds: Dataset, syntax: str = EXPLICIT_LE) -> bytes:
    """Take an instance in; its data set as it is stored."""
    file = part10(ds, syntax)
    with pacs.spool.create(".dcm") as writer:
        writer.write(file)
        pacs.ingest.accept(writer.finish(), Origin("import"))
    return file[meta_of(file).data_set_offset :]


def keep_images(pacs: Any, count: int, study: str, **more: Any) -> dict[str, bytes]:
    """So many images of one study and series; data sets by SOP Instance UID."""
    images = [
        image(study=study, series=f"{study}.1", instance=f"{study}.1.{number}", number=number, **more) for number in range(1, count + 1)
    ]
    return {ds.SOPInstanceUID: keep(pacs, ds) for ds in images}


def known(pacs: Any, ae_title: str, port: int, allow: tuple[str, ...] = SERVICES, tls: bool = False) -> None:
    """Make a peer known."""
    peers.put(pacs.catalog, KnownPeer(ae_title, "127.0.0.1", port, allow, tls))


def keys(level: str, **values: str) -> bytes:
    """An identifier in explicit VR little endian: the level, and unique keys by level's name."""
    texts = {0x00080052: level, **{UNIQUE_KEYS[name]: value for name, value in values.items()}}
    return b"".join(
        element(tag, "CS" if tag == 0x00080052 else "LO" if tag == 0x00100020 else "UI", _padded(text, tag))
        for tag, text in sorted(texts.items())
    )


def _padded(text: str, tag: int) -> bytes:
    return text.encode() + (b" " if tag in (0x00080052, 0x00100020) else b"\0") * (len(text) % 2)


def get_rq(model: str = STUDY_ROOT_GET, message_id: int = 1) -> dict[int, bytes | int]:
    """The command set of a C-GET-RQ."""
    return {0x0002: uid_value(model), 0x0100: 0x0010, 0x0110: message_id, 0x0700: 0, 0x0800: 1}


def move_rq(destination: str, model: str, message_id: int = 1) -> dict[int, bytes | int]:
    """The command set of a C-MOVE-RQ."""
    title = destination.encode() + b" " * (len(destination) % 2)
    return {0x0002: uid_value(model), 0x0100: 0x0021, 0x0110: message_id, 0x0600: title, 0x0700: 0, 0x0800: 1}


def receives(*sop_classes: str) -> list[Any]:
    """Role selection items: of these classes the requestor is SCP only."""
    items = []
    for uid in sop_classes:
        item = primitives.SCP_SCU_RoleSelectionNegotiation()
        item.sop_class_uid, item.scu_role, item.scp_role = uid, False, True
        items.append(item)
    return items


def store_rsp(request: Command, status: int = 0) -> dict[int, bytes | int]:
    """The command set of a C-STORE-RSP."""
    return {0x0002: request.values[0x0002], 0x0100: 0x8001, 0x0120: request.message_id, 0x0800: 0x0101, 0x0900: status}


def failed_uids(data_set: bytes) -> list[str]:
    """The values of Failed SOP Instance UID List in explicit VR little endian."""
    if not data_set:
        return []
    group, number, _, length = struct.unpack_from("<HH2sH", data_set)
    assert group << 16 | number == FAILED_LIST
    assert length == len(data_set) - 8
    return data_set[8:].decode().rstrip("\0").split("\\")


@dataclass
class Outcome:
    """What a retrieval came to: pending responses, the final one, and what was sent meanwhile."""

    pending: list[Command] = field(default_factory=list)
    final: Command = field(default_factory=lambda: Command({}))
    identifier: bytes = b""
    stored: dict[str, bytes] = field(default_factory=dict)
    contexts: dict[str, int] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return self.final.number(commands.STATUS)

    @property
    def counts(self) -> tuple[int | None, ...]:
        """Remaining, completed, failed, warning of the final response; None for one that is not there."""
        return counts_of(self.final)

    @property
    def comment(self) -> str:
        return self.final.values.get(commands.ERROR_COMMENT, b"").decode().strip()


def counts_of(command: Command) -> tuple[int | None, ...]:
    """Remaining, completed, failed, warning."""
    elements = (commands.REMAINING, commands.COMPLETED, commands.FAILED, commands.WARNING)
    return tuple(command.number(e) if e in command.values else None for e in elements)


def converse(peer: Peer, statuses: Callable[[int], int] = lambda number: 0, before: Callable[[int], None] = lambda number: None) -> Outcome:
    """Answer C-STORE requests until the final response; the n-th by `statuses(n)`, after `before(n)`."""
    outcome = Outcome()
    while True:
        command, data = peer.response()
        if command.field == commands.C_STORE_RQ:
            number = len(outcome.stored) + 1
            uid = command.uid(commands.AFFECTED_SOP_INSTANCE_UID)
            assert uid not in outcome.stored
            outcome.stored[uid], outcome.contexts[uid] = data, peer.context_id
            before(number)
            peer.request(peer.context_id, store_rsp(command, statuses(number)))
        elif command.number(commands.STATUS) == commands.PENDING:
            outcome.pending.append(command)
        else:
            outcome.final, outcome.identifier = command, data
            return outcome


@dataclass
class Receiver:
    """A C-STORE SCP that speaks raw PDUs: keeps what comes, answers as told, or rejects every association.

    `answer(n)` gives the status of the n-th instance over all associations, or None to break the connection off. One that
    `collides` asks for the release itself when it is asked for it, behind a message of its own.
    """

    answer: Callable[[int], int | None] = lambda number: 0
    refuse: frozenset[str] = frozenset()
    max_pdu: int = 16384
    rejects: bool = False
    collides: bool = False
    commands: list[Command] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    offers: list[list[tuple[str, list[str]]]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    port: int = 0

    def serve(self, sock: socket.socket) -> None:
        """One association."""
        peer = Peer.__new__(Peer)
        peer.sock, peer.max_pdu, peer.context_id = sock, 0, 0
        kind, body = peer.pdu()
        assert kind == pdus.ASSOCIATE_RQ
        if self.rejects:
            sock.sendall(pdus.reject_pdu(1, 1, 7))
            return
        sock.sendall(self._accept(struct.pack(">BxI", kind, len(body)) + body))
        while True:
            try:
                command, data = peer.response()
            except AssertionError as error:  # another PDU than P-DATA
                self.ended.append("released" if error.args[0][0] == pdus.RELEASE_RQ else "aborted")
                if self.collides:
                    peer.request(1, echo_rq())
                    sock.sendall(pdus.RELEASE_RQ_PDU)
                    assert peer.pdu()[0] == pdus.RELEASE_RP
                    self.ended.append("answered")
                sock.sendall(pdus.RELEASE_RP_PDU)
                return
            self.commands.append(command)
            status = self.answer(len(self.commands))
            if status is None:
                return
            self.stored[command.uid(commands.AFFECTED_SOP_INSTANCE_UID)] = data
            peer.request(peer.context_id, store_rsp(command, status))

    def _accept(self, pdu: bytes) -> bytes:
        request = A_ASSOCIATE_RQ()
        request.decode(pdu)
        asked = request.to_primitive()
        contexts = asked.presentation_context_definition_list
        self.offers.append([(str(cx.abstract_syntax), [str(uid) for uid in cx.transfer_syntax]) for cx in contexts])
        return accept_pdu(asked, contexts, self.refuse, self.max_pdu)


def accept_pdu(asked: Any, contexts: Sequence[PresentationContext], refuse: frozenset[str], max_pdu: int) -> bytes:
    """An A-ASSOCIATE-AC that takes all contexts but those of which class or syntax is in `refuse`."""
    for context in contexts:
        context.transfer_syntax = context.transfer_syntax[:1]
        context.result = 3 if {str(context.abstract_syntax), str(context.transfer_syntax[0])} & refuse else 0
    length = primitives.MaximumLengthNotification()
    length.maximum_length_received = max_pdu
    implementation = primitives.ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3.4"
    accept = primitives.A_ASSOCIATE()
    accept.application_context_name = asked.application_context_name
    accept.called_ae_title, accept.calling_ae_title = asked.called_ae_title, asked.calling_ae_title
    accept.result = 0
    accept.presentation_context_definition_results_list = list(contexts)
    accept.user_information = [length, implementation]
    return bytes(A_ASSOCIATE_AC(accept).encode())


@contextmanager
def receiving(receiver: Receiver) -> Iterator[Receiver]:
    """The receiver at work on a free port; what it failed at is raised."""
    listener = socket.create_server(("127.0.0.1", 0))
    receiver.port = listener.getsockname()[1]
    errors: list[BaseException] = []
    threads: list[threading.Thread] = []

    def serve(sock: socket.socket) -> None:
        with sock:
            sock.settimeout(20)
            try:
                receiver.serve(sock)
            except (EOFError, ConnectionError):
                receiver.ended.append("lost")
            except BaseException as error:  # noqa: BLE001  for the thread of the test
                errors.append(error)

    def listen() -> None:
        with contextlib.suppress(OSError):  # closed by the end of the test
            while True:
                threads.append(threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True))
                threads[-1].start()

    main = threading.Thread(target=listen, daemon=True)
    main.start()
    try:
        yield receiver
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (main, *threads):
            thread.join(20)
    assert not errors, errors
