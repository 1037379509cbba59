"""Requests that we make as SCU (PS3.7 9.3, 10.3), and what their responses say."""

from __future__ import annotations

from pacslite.dimse import commands, contexts, pdus
from pacslite.dimse.commands import Command
from pacslite.dimse.pdus import AssociationEnded
from pacslite.dimse.requestor import Requested


def send_request(association: Requested, context_id: int, field: int, model: str, identifier: bytes, destination: str = "") -> None:
    values: dict[int, bytes | int] = {
        commands.AFFECTED_SOP_CLASS_UID: _padded(model, b"\0"),
        commands.COMMAND_FIELD: field,
        commands.MESSAGE_ID: 1,
    }
    if destination:
        values[commands.MOVE_DESTINATION] = _padded(destination, b" ")
    values |= {commands.PRIORITY: 0, commands.DATA_SET_TYPE: commands.SOME_DATA_SET}
    association.send(pdus.encode_message(context_id, commands.encode_command(values), identifier, association.max_pdu_bytes))


def cancel_rq() -> bytes:
    values: dict[int, bytes | int] = {commands.COMMAND_FIELD: commands.C_CANCEL_RQ, commands.MESSAGE_ID_RESPONDED_TO: 1}
    return commands.encode_command(values | {commands.DATA_SET_TYPE: commands.NO_DATA_SET})


def action_rq() -> bytes:
    return commands.encode_command(
        {
            commands.REQUESTED_SOP_CLASS_UID: _padded(contexts.COMMITMENT, b"\0"),
            commands.COMMAND_FIELD: commands.N_ACTION_RQ,
            commands.MESSAGE_ID: 1,
            commands.DATA_SET_TYPE: commands.SOME_DATA_SET,
            commands.REQUESTED_SOP_INSTANCE_UID: _padded(contexts.COMMITMENT_INSTANCE, b"\0"),
            commands.ACTION_TYPE_ID: 1,
        }
    )


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii")
    return value + padding * (len(value) % 2)


def status_of(response: Command, field: int) -> int:
    if response.field != field | commands.RESPONSE:
        raise AssociationEnded("another message than the response that is awaited")
    return response.number(commands.STATUS)


def comment_of(response: Command) -> str:
    comment = response.title(commands.ERROR_COMMENT)
    return f" ({comment})" if comment else ""
