"""DIMSE messages read from the PDUs of an established association (PS3.7 6.3, PS3.8 9.3.5 and annex E).

Commands are read whole; data sets piece by piece, each piece overwritten by the next.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from pacslite.dimse import commands, pdus
from pacslite.dimse.commands import Command
from pacslite.dimse.contexts import Context
from pacslite.dimse.pdus import AssociationEnded, PduReader, PdvReader, PeerAborted, ProtocolViolation, Released

_IS_COMMAND, _IS_LAST = 1, 2
_MAX_COMMAND_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """A request of the peer: its command set and the presentation context that it came in."""

    context: Context
    command: Command


class MessageReader:
    """What the peer sends once the association is established; whatever ends that is raised as AssociationEnded."""

    def __init__(self, sock: socket.socket, contexts: Mapping[int, Context], max_pdu_bytes: int, timeout_s: float) -> None:
        self._sock, self._contexts = sock, contexts
        self._pdvs = PdvReader(PduReader(sock, max_pdu_bytes, timeout_s), _end)
        self._context_id = 0

    def next_pdv(self) -> tuple[int, int, memoryview]:
        """Context id, message control header and value of the next PDV, of whatever message."""
        return self._pdvs.next()

    def command(self, first: tuple[int, int, memoryview]) -> Request:
        """The command set that begins with this PDV."""
        context_id, control, data = first
        if not control & _IS_COMMAND:
            raise ProtocolViolation("data set without a command", pdus.UNEXPECTED_PARAMETER)
        context = self._contexts.get(context_id)
        if context is None:
            raise ProtocolViolation(f"presentation context {context_id} was not accepted")
        self._context_id = context_id
        encoded = bytes(data)
        while not control & _IS_LAST:
            control, data = self._next_of_message(_IS_COMMAND)
            encoded += data
            if len(encoded) > _MAX_COMMAND_BYTES:
                raise ProtocolViolation("command set too long")
        return Request(context, commands.decode_command(encoded))

    def fragment(self) -> tuple[memoryview, bool]:
        """The next piece of the data set that follows the last command, and whether there are more."""
        control, data = self._next_of_message(0)
        return data, not control & _IS_LAST

    def _next_of_message(self, kind: int) -> tuple[int, memoryview]:
        try:
            context_id, control, data = self._pdvs.next()
        except Released:
            raise ProtocolViolation("release inside a message", pdus.UNEXPECTED_PDU) from None
        if context_id != self._context_id or control & _IS_COMMAND != kind:
            raise ProtocolViolation("message interrupted by another", pdus.UNEXPECTED_PARAMETER)
        return control, data

    def has_input(self) -> bool:
        """Whether something waits to be read; never waits itself."""
        return self._pdvs.has_input()

    def await_input(self, other: int, seconds: float) -> None:
        """Wait until the peer sends something, the descriptor `other` is readable, or the time is over."""
        if self._pdvs.holds_input():
            return
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(other, select.POLLIN)
        poll.poll(seconds * 1000)


def _end(kind: int) -> AssociationEnded:
    """What a PDU other than P-DATA-TF means to an established association (PS3.8 9.2, Sta6)."""
    if kind == pdus.RELEASE_RQ:
        return Released("released")
    if kind == pdus.ABORT:
        return PeerAborted("aborted")
    return ProtocolViolation(f"PDU of type {kind:02X}H", pdus.UNEXPECTED_PDU)
