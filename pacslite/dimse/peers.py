"""Remote application entities, asked by us: C-ECHO as SCU (PS3.4 annex A)."""

from __future__ import annotations

import time

from pacslite.dimse import commands, pdus
from pacslite.dimse.pdus import AssociationEnded, ProtocolViolation
from pacslite.dimse.requestor import Remote, Requested, peer_errors
from pacslite.errors import PeerError
from pacslite.settings import Settings

__all__ = ["Remote", "echo"]

_VERIFICATION = "1.2.840.10008.1.1"
_OFFER = ((_VERIFICATION, ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")),)
_CONTEXT_ID = 1


def echo(peer: Remote, calling_aet: str, timeout_s: float = 10.0, security: Settings | None = None) -> float:
    """Associate, C-ECHO, release; the seconds it took. `security` is for peers called over TLS. Raises PeerError with the reason."""
    begun = time.monotonic()
    with peer_errors(peer):
        association = Requested.connect(peer, calling_aet, _OFFER, timeout_s, timeout_s, security=security)
        try:
            if _CONTEXT_ID not in association.accepted:
                raise ProtocolViolation("Verification was not accepted")
            association.send(pdus.encode_message(_CONTEXT_ID, _echo_rq(), None, association.max_pdu_bytes))
            status = association.response().number(commands.STATUS)
        except AssociationEnded:
            association.abort()
            raise
        association.release()
    if status != commands.SUCCESS:
        raise PeerError(f"{peer.aet} at {peer.host}:{peer.port}: C-ECHO was answered with status {status:04X}H")
    return time.monotonic() - begun


def _echo_rq() -> bytes:
    return commands.encode_command(
        {
            commands.AFFECTED_SOP_CLASS_UID: _VERIFICATION.encode() + b"\0",
            commands.COMMAND_FIELD: commands.C_ECHO_RQ,
            commands.MESSAGE_ID: 1,
            commands.DATA_SET_TYPE: commands.NO_DATA_SET,
        }
    )
