"""Remote application entities, asked by us: C-ECHO as SCU (PS3.4 annex A)."""

from __future__ import annotations

import socket
import time
from typing import Protocol

from pacslite.dimse import commands, pdus
from pacslite.dimse.pdus import AssociationEnded, PduReader, PeerAborted, ProtocolViolation, TimedOut
from pacslite.errors import PeerError

_VERIFICATION = "1.2.840.10008.1.1"
_TRANSFER_SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_CONTEXT_ID = 1
_MAX_PDU_BYTES = 16 * 1024
_RELEASE_RQ_PDU = b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"


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


def echo(peer: Remote, calling_aet: str, timeout_s: float = 10.0) -> float:
    """Associate, C-ECHO, release; the seconds it took. Raises PeerError with the reason."""
    begun = time.monotonic()
    try:
        with socket.create_connection((peer.host, peer.port), timeout_s) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pdus.set_timeouts(sock, timeout_s)
            sock.sendall(_associate_rq(peer.aet, calling_aet))
            reader = PduReader(sock, _MAX_PDU_BYTES, timeout_s)
            _await_acceptance(reader)
            sock.sendall(pdus.encode_message(_CONTEXT_ID, _echo_rq(), None, 0))
            status = _await_status(reader)
            sock.sendall(_RELEASE_RQ_PDU)
            reader.next()
    except TimeoutError:
        raise _error(peer, "no answer in time") from None
    except OSError as error:
        raise _error(peer, error.strerror or str(error)) from None
    except (TimedOut, PeerAborted, ProtocolViolation) as error:
        raise _error(peer, str(error)) from None
    except AssociationEnded as error:
        raise _error(peer, f"the association was lost: {error}") from None
    if status != commands.SUCCESS:
        raise _error(peer, f"C-ECHO was answered with status {status:04X}H")
    return time.monotonic() - begun


def _error(peer: Remote, reason: str) -> PeerError:
    return PeerError(f"{peer.aet} at {peer.host}:{peer.port}: {reason}")


def _associate_rq(called_aet: str, calling_aet: str) -> bytes:
    from pynetdicom import pdu_primitives as primitives
    from pynetdicom.pdu import A_ASSOCIATE_RQ
    from pynetdicom.presentation import build_context

    from pacslite.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

    length = primitives.MaximumLengthNotification()
    length.maximum_length_received = _MAX_PDU_BYTES
    implementation = primitives.ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = primitives.ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    context = build_context(_VERIFICATION, list(_TRANSFER_SYNTAXES))
    context.context_id = _CONTEXT_ID
    asked = primitives.A_ASSOCIATE()
    asked.application_context_name = _APPLICATION_CONTEXT
    asked.called_ae_title, asked.calling_ae_title = called_aet, calling_aet
    asked.presentation_context_definition_list = [context]
    asked.user_information = [length, implementation, version]
    return bytes(A_ASSOCIATE_RQ(asked).encode())


def _echo_rq() -> bytes:
    return commands.encode_command(
        {
            commands.AFFECTED_SOP_CLASS_UID: _VERIFICATION.encode() + b"\0",
            commands.COMMAND_FIELD: commands.C_ECHO_RQ,
            commands.MESSAGE_ID: 1,
            commands.DATA_SET_TYPE: commands.NO_DATA_SET,
        }
    )


def _await_acceptance(reader: PduReader) -> None:
    kind, body = reader.next()
    if kind == pdus.ASSOCIATE_RJ and len(body) == 4:
        raise ProtocolViolation(f"association rejected: {_why_rejected(bytes(body))}")
    if kind == pdus.ABORT:
        raise PeerAborted("association aborted")
    if kind != pdus.ASSOCIATE_AC:
        raise ProtocolViolation(f"answered with a PDU of type {kind:02X}H")
    # The one context's result (PS3.8 9.3.3.2): the item of type 21H, byte 7 of it.
    offset = 68
    while offset + 8 <= len(body):
        if body[offset] == 0x21 and body[offset + 4] == _CONTEXT_ID and body[offset + 6] == 0:
            return
        offset += 4 + int.from_bytes(body[offset + 2 : offset + 4], "big")
    raise ProtocolViolation("Verification was not accepted")


def _why_rejected(body: bytes) -> str:
    from pynetdicom.pdu import A_ASSOCIATE_RJ

    rejection = A_ASSOCIATE_RJ()
    rejection.decode(pdus.reject_pdu(*body[1:4]))
    try:
        return str(rejection.reason_str)
    except ValueError:
        return f"source {rejection.source}, reason {rejection.reason_diagnostic}"


def _await_status(reader: PduReader) -> int:
    kind, body = reader.next()
    if kind == pdus.ABORT:
        raise PeerAborted("association aborted during C-ECHO")
    if kind != pdus.P_DATA or len(body) < 6:
        raise ProtocolViolation(f"C-ECHO was answered with a PDU of type {kind:02X}H")
    length = int.from_bytes(body[:4], "big")
    return commands.decode_command(body[6 : 4 + length]).number(commands.STATUS)
