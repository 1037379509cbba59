"""Associations that we ask for (PS3.8 7.1), with pynetdicom's encoding of the request; synchronous like `associations`."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Protocol, Self

from pacslite.dimse import commands, pdus, tls
from pacslite.dimse.commands import Command
from pacslite.dimse.pdus import AssociationEnded, ConnectionLost, PduReader, PdvReader, PeerAborted, ProtocolViolation, TimedOut
from pacslite.errors import ConfigurationError, PeerError
from pacslite.settings import Settings

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_MAX_PDU_BYTES = 128 * 1024
_MAX_COMMAND_BYTES = 64 * 1024
_MAX_DATA_SET_BYTES = 64 * 1024**2
# Items and sub-items of an A-ASSOCIATE-AC (PS3.8 9.3.3).
_CONTEXT_ITEM, _TRANSFER_SYNTAX_ITEM, _USER_ITEM, _MAXIMUM_LENGTH = 0x21, 0x40, 0x50, 0x51
_FIRST_ITEM = 68
MAX_CONTEXTS = 128
_RELEASE_S = 5.0

Offer = tuple[tuple[str, tuple[str, ...]], ...]
"""Presentation contexts to ask for: abstract syntax and transfer syntaxes; their ids are 1, 3, 5, ..."""


class Remote(Protocol):
    """What is needed to reach a remote application entity."""

    @property
    def aet(self) -> str:
        """Its application entity title."""

    @property
    def host(self) -> str:
        """Its host name or address."""

    @property
    def port(self) -> int:
        """Its TCP port."""

    @property
    def tls(self) -> bool:
        """Whether it is called over TLS, and never without."""


@contextlib.contextmanager
def peer_errors(peer: Remote) -> Iterator[None]:
    """Whatever goes wrong with the connection or the association becomes a PeerError that says with whom and why."""
    where = f"{peer.aet} at {peer.host}:{peer.port}"
    try:
        yield
    except TimeoutError:
        raise PeerError(f"{where}: no answer in time") from None
    except ConfigurationError as error:
        raise PeerError(f"{where}: {error}") from None
    except ssl.SSLError as error:
        raise PeerError(f"{where}: no TLS: {tls.told(error)}") from None
    except OSError as error:
        raise PeerError(f"{where}: {error.strerror or error}") from None
    except ConnectionLost as error:
        raise PeerError(f"{where}: the association was lost: {error}") from None
    except AssociationEnded as error:
        raise PeerError(f"{where}: {error}") from None


class Requested:
    """An association that the peer has accepted; one thread uses it, `cut` may be called from others.

    `max_pdu_bytes` is the longest PDU the peer takes, 0 for no bound; `accepted` tells the transfer syntax of each context.
    """

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        self._sock = sock
        self._reader = PduReader(sock, _MAX_PDU_BYTES, timeout_s)
        self.max_pdu_bytes = 0
        self.accepted: Mapping[int, str] = {}
        self._pdvs, self._data_left = PdvReader(self._reader, _end), False

    @classmethod
    def connect(
        cls,
        peer: Remote,
        calling_aet: str,
        offer: Offer,
        connect_s: float,
        silence_s: float,
        *,
        as_scp: tuple[str, ...] = (),
        security: Settings | None = None,
    ) -> Self:
        """Connect and associate within `connect_s`; afterwards the peer may be silent for `silence_s`.

        Of the SOP classes `as_scp` we propose to be the SCP and not the SCU (role selection, PS3.7 D.3.3.4). A peer that wants
        TLS is called by the `dicom_tls_*` settings of `security`. Raises OSError, AssociationEnded, ConfigurationError: see `peer_errors`.
        """
        if peer.tls and security is None:
            raise ConnectionLost("the peer is to be called over TLS, for which there are no settings here")
        sock = socket.create_connection((peer.host, peer.port), connect_s)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if peer.tls and security is not None:
                sock = tls.connect(sock, peer.host, tls.outgoing(security))
            pdus.set_timeouts(sock, connect_s)
            association = cls(sock, silence_s)
            association.send(_associate_rq(peer.aet, calling_aet, offer, as_scp))
            association._await_acceptance()
            pdus.set_timeouts(sock, silence_s)
        except BaseException:
            sock.close()
            raise
        return association

    def _await_acceptance(self) -> None:
        kind, body = self._reader.next()
        if kind == pdus.ASSOCIATE_RJ and len(body) == 4:
            raise ProtocolViolation(f"association rejected: {_why_rejected(bytes(body))}")
        if kind == pdus.ABORT:
            raise PeerAborted("association aborted")
        if kind != pdus.ASSOCIATE_AC:
            raise ProtocolViolation(f"answered with a PDU of type {kind:02X}H")
        try:
            self.max_pdu_bytes, self.accepted = _decode_acceptance(bytes(body))
        except (IndexError, UnicodeDecodeError, struct.error) as error:
            raise ProtocolViolation("malformed A-ASSOCIATE-AC") from error

    def send(self, data: bytes | memoryview) -> None:
        """Send whole PDUs; raises AssociationEnded."""
        try:
            self._sock.sendall(data)
        except (BlockingIOError, TimeoutError):
            raise TimedOut("the peer does not read") from None
        except OSError as error:
            raise ConnectionLost(f"sending failed: {error.strerror or error}") from None

    def response(self) -> Command:
        """The command set of the next message; raises AssociationEnded."""
        return self.next_message()[1]

    def next_message(self) -> tuple[int, Command]:
        """Context id and command set of the next message, whose data set `fragments` gives; raises AssociationEnded."""
        for _ in self.fragments():
            pass  # of the message before
        encoded, last = b"", False
        while not last:
            context_id, control, data = self._pdvs.next()
            if not control & 1:
                raise ProtocolViolation("data set without a command")
            encoded, last = encoded + data, bool(control & 2)
            if len(encoded) > _MAX_COMMAND_BYTES:
                raise ProtocolViolation("command set too long")
        command = commands.decode_command(encoded)
        self._data_left = command.has_data_set
        return context_id, command

    def fragments(self) -> Iterator[memoryview]:
        """The data set of the message piece by piece; each piece is overwritten by the next."""
        while self._data_left:
            _, control, data = self._pdvs.next()
            if control & 1:
                raise ProtocolViolation("message interrupted by another")
            self._data_left = not control & 2
            yield data

    def data_set(self) -> bytes:
        """The data set of the message, whole; raises AssociationEnded, also when it is absurdly long."""
        pieces, size = [], 0
        for piece in self.fragments():
            size += len(piece)
            if size > _MAX_DATA_SET_BYTES:
                raise ProtocolViolation(f"a data set of more than {_MAX_DATA_SET_BYTES} bytes")
            pieces.append(bytes(piece))
        return b"".join(pieces)

    def await_input(self, seconds: float) -> bool:
        """Wait until the peer sends something, or the time is over; whether there is something."""
        if self._pdvs.has_input():
            return True
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def store_status(self, message_id: int) -> int:
        """The status by which the peer answers a C-STORE of ours; raises AssociationEnded."""
        return commands.status_of(self.response(), commands.C_STORE_RSP, message_id)

    def release(self) -> None:
        """Release in order and close; a peer that does not answer is not waited for long."""
        with self._sock:
            with contextlib.suppress(AssociationEnded):
                pdus.set_timeouts(self._sock, _RELEASE_S)
                self.send(pdus.RELEASE_RQ_PDU)
                self._await_release()
            tls.say_goodbye(self._sock)

    def _await_release(self) -> None:
        """Until the peer confirms; what it sends meanwhile is let go (PS3.8 table 9-10, Sta7), its own request answered (Sta9)."""
        deadline = time.monotonic() + _RELEASE_S
        while time.monotonic() < deadline:
            kind, _ = self._reader.next()
            if kind == pdus.RELEASE_RQ:
                self.send(pdus.RELEASE_RP_PDU)
            elif kind != pdus.P_DATA:
                return

    def abort(self) -> None:
        """Abort and close; the peer may be gone already."""
        with self._sock, contextlib.suppress(OSError):
            self._sock.settimeout(0)
            self._sock.send(pdus.abort_pdu(0, pdus.NO_REASON))

    def cut(self) -> None:
        """End the connection at once, whatever is going on."""
        with contextlib.suppress(OSError):  # it has ended by itself
            pdus.shut(self._sock, socket.SHUT_RDWR)


def _end(kind: int) -> AssociationEnded:
    """What a PDU other than P-DATA-TF means to us as requestor, who has not asked to release."""
    if kind == pdus.ABORT:
        return PeerAborted("association aborted")
    return ProtocolViolation(f"answered with a PDU of type {kind:02X}H")


@lru_cache(maxsize=64)
def _associate_rq(called_aet: str, calling_aet: str, offer: Offer, as_scp: tuple[str, ...]) -> bytes:
    from pydicom.uid import UID
    from pynetdicom import pdu_primitives as primitives
    from pynetdicom.pdu import A_ASSOCIATE_RQ
    from pynetdicom.presentation import PresentationContext

    from pacslite.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

    length = primitives.MaximumLengthNotification()
    length.maximum_length_received = _MAX_PDU_BYTES
    implementation = primitives.ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = primitives.ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    contexts = []
    for number, (abstract_syntax, transfer_syntaxes) in enumerate(offer):
        context = PresentationContext()
        context.context_id, context.abstract_syntax = 2 * number + 1, abstract_syntax
        for uid in transfer_syntaxes:
            context.add_transfer_syntax(uid)
        contexts.append(context)
    asked = primitives.A_ASSOCIATE()
    asked.application_context_name = _APPLICATION_CONTEXT
    asked.called_ae_title, asked.calling_ae_title = called_aet, calling_aet
    asked.presentation_context_definition_list = contexts
    asked.user_information = [length, implementation, version]
    for uid in as_scp:
        role = primitives.SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = UID(uid), False, True
        asked.user_information.append(role)
    return bytes(A_ASSOCIATE_RQ(asked).encode())


def _decode_acceptance(body: bytes) -> tuple[int, dict[int, str]]:
    """Longest PDU, and transfer syntaxes by context id, of the body of an A-ASSOCIATE-AC (PS3.8 9.3.3)."""
    longest, accepted = 0, {}
    for kind, value in _items(body, _FIRST_ITEM):
        if kind == _CONTEXT_ITEM and value[2] == 0:
            syntaxes = [raw for sub, raw in _items(value, 4) if sub == _TRANSFER_SYNTAX_ITEM]
            accepted[value[0]] = syntaxes[0].decode("ascii").strip(" \0")
        elif kind == _USER_ITEM:
            lengths = [raw for sub, raw in _items(value, 0) if sub == _MAXIMUM_LENGTH]
            longest = struct.unpack(">I", lengths[0])[0] if lengths else 0
    return longest, accepted


def _items(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset < len(data):
        kind, length = struct.unpack_from(">BxH", data, offset)
        yield kind, data[offset + 4 : offset + 4 + length]
        offset += 4 + length


def _why_rejected(body: bytes) -> str:
    from pynetdicom.pdu import A_ASSOCIATE_RJ

    rejection = A_ASSOCIATE_RJ()
    rejection.decode(pdus.reject_pdu(*body[1:4]))
    try:
        return str(rejection.reason_str)
    except ValueError:
        return f"source {rejection.source}, reason {rejection.reason_diagnostic}"
