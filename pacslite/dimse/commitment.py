"""Storage Commitment Push Model as SCP (PS3.4 annex J): N-ACTION queued and answered at once, N-EVENT-REPORT when checked.

A requester that is a known peer gets its report from the worker over an association of our own, in which we propose the SCP
role. One that is unknown can only be told on the association it asked on: there its job is done, between its messages, and
goes back to the queue when the association ends first.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from pacslite.core import commitment, peers
from pacslite.core.commitment import Commitment, Verdict
from pacslite.dimse import commands, pdus
from pacslite.dimse.associations import Association
from pacslite.dimse.commands import Command
from pacslite.dimse.commitment_data import decode_action, encode_report
from pacslite.dimse.contexts import COMMITMENT, COMMITMENT_INSTANCE, Context, Service
from pacslite.dimse.messages import Request
from pacslite.dimse.pdus import AssociationEnded, ProtocolViolation
from pacslite.dimse.requestor import Remote, Requested, peer_errors
from pacslite.errors import BadRequest, Busy, Conflict, PacsliteError, PeerError, TooLarge, Unavailable
from pacslite.settings import Settings

if TYPE_CHECKING:
    from pacslite.app import Pacs

_log = logging.getLogger(__name__)
_REQUEST_COMMITMENT = b"\1\0"
_ALL_COMMITTED, _SOME_FAILED = 1, 2
_OFFER = ((COMMITMENT, ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")),)
_CONTEXT_ID = _MESSAGE_ID = 1
# PS3.7 10.1.4.1.10 and annex C.
_PROCESSING_FAILURE, _INVALID_ARGUMENT, _RESOURCE_LIMITATION = 0x0110, 0x0115, 0x0213
_NO_SUCH_INSTANCE, _NO_SUCH_CLASS, _NO_SUCH_ACTION = 0x0112, 0x0118, 0x0123
# Reports that a requester who does not listen, or does not answer, may have us keep in memory.
_MOST_OWED = 64


class _Interrupted(Exception):
    """The peer has sent something, which goes before a check that may take long."""


def serve(association: Association, request: Request) -> None:
    """N-ACTION: keep the request, then answer 0000H; what is wrong with it is answered at once."""
    pacs, requester = association.pacs, association.calling_aet
    try:
        refusal = _refusal(request)
        if refusal is None and association.owes > _MOST_OWED:
            refusal = _RESOURCE_LIMITATION, f"more than {_MOST_OWED} requests of this association are not reported yet"
        if refusal is not None:
            association.respond(request, *refusal)
            return
        owner = None if peers.find_entity(pacs.catalog, requester) else f"association-{association.id}"
        transaction_uid, references = decode_action(association.data_set(), request.context.transfer_syntax)
        job = commitment.queue(pacs.catalog, requester, transaction_uid, references, owner)
    # Not by error_map: its statuses are those of the composite services.
    except PacsliteError as error:
        _log.info("storage commitment refused", extra={"calling_aet": requester, "reason": str(error)})
        association.respond(request, _status_of(error), str(error))
        return
    extra = {"calling_aet": requester, "transaction_uid": transaction_uid, "total": len(references)}
    _log.info("storage commitment requested", extra=extra)
    association.respond(request, commands.SUCCESS)
    if job is not None and owner is not None:
        mine, context = commitment.of_job(job, owner), request.context
        association.when_idle(lambda: _report_here(association, context, mine))


def _status_of(error: PacsliteError) -> int:
    if isinstance(error, BadRequest | Conflict):
        return _INVALID_ARGUMENT
    return _RESOURCE_LIMITATION if isinstance(error, TooLarge | Busy | Unavailable) else _PROCESSING_FAILURE


def _refusal(request: Request) -> tuple[int, str] | None:
    """Status and reason when this is no request for storage commitment."""
    command = request.command
    if request.context.service is not Service.COMMITMENT or not request.context.as_scp:
        return commands.SOP_CLASS_NOT_SUPPORTED, "no storage commitment in this presentation context"
    if command.uid(commands.REQUESTED_SOP_CLASS_UID) != COMMITMENT:
        return _NO_SUCH_CLASS, "RequestedSOPClassUID is not Storage Commitment Push Model"
    if command.uid(commands.REQUESTED_SOP_INSTANCE_UID) != COMMITMENT_INSTANCE:
        return _NO_SUCH_INSTANCE, "RequestedSOPInstanceUID is not the well-known one"
    if command.values.get(commands.ACTION_TYPE_ID) != _REQUEST_COMMITMENT:
        return _NO_SUCH_ACTION, "ActionTypeID has to be 1"
    if not command.has_data_set:
        return _INVALID_ARGUMENT, "TransactionUID and ReferencedSOPSequence are missing"
    return None


def _report_here(association: Association, context: Context, mine: Commitment) -> None:
    """Check, and report on the association of the request; the acknowledgement comes as any other message."""
    pacs = association.pacs

    def go_on() -> None:
        association.check_stopping()
        if association.has_input():
            raise _Interrupted

    try:
        try:
            verdict = commitment.check(pacs.catalog, pacs.stores, mine, go_on)
        except _Interrupted:
            commitment.hold(pacs.catalog, mine, commitment.ASSOCIATION_LEASE_S)
            association.when_idle(lambda: _report_here(association, context, mine))
            return
        commitment.hold(pacs.catalog, mine, pacs.settings.network_timeout_s + commitment.LEASE_S, len(mine.references))
    except PacsliteError as error:
        _put_off(pacs, mine, str(error))
        return
    data_set = encode_report(mine.transaction_uid, verdict, pacs.settings.aet, context.transfer_syntax)
    message_id = association.invoke(context, lambda number: _event_report_rq(number, verdict), data_set)
    association.expected[message_id] = lambda response: _settle(pacs, mine, verdict, response)


def acknowledge(association: Association, response: Request) -> None:
    """The answer to a report that was sent on this association."""
    for _ in association.fragments():
        pass  # an Event Reply, which this service does not define
    settle = association.expected.pop(response.command.number(commands.MESSAGE_ID_RESPONDED_TO), None)
    if settle is None:
        raise ProtocolViolation("response to a request that was not made", pdus.UNEXPECTED_PARAMETER)
    settle(response.command)


def _settle(pacs: Pacs, mine: Commitment, verdict: Verdict, response: Command) -> None:
    status = response.number(commands.STATUS)
    try:
        if status == commands.SUCCESS:
            _finish(pacs, mine, verdict)
        else:
            _put_off(pacs, mine, f"N-EVENT-REPORT was answered with status {status:04X}H")
    except PacsliteError as error:  # the lease runs out, and the worker takes over
        _log.error("storage commitment not settled", extra={"transaction_uid": mine.transaction_uid, "reason": str(error)})


# In the worker


def report_due(pacs: Pacs) -> None:
    """Check and report whatever is due, one request after the other."""
    owner = f"worker-{os.getpid()}-{os.urandom(4).hex()}"
    while (mine := commitment.claim(pacs.catalog, owner)) is not None:
        try:
            verdict = _report(pacs, mine)
        except PacsliteError as error:
            _put_off(pacs, mine, str(error))
        else:
            _finish(pacs, mine, verdict)


def _report(pacs: Pacs, mine: Commitment) -> Verdict:
    """Check, and report over an association of our own; raises PacsliteError unless it was acknowledged."""
    peer = peers.find_entity(pacs.catalog, mine.requester)
    if peer is None:
        raise PeerError(f"{mine.requester} is not a known peer, so there is nowhere to report to; `pacslite peer add` makes it known")
    verdict = commitment.check(pacs.catalog, pacs.stores, mine)
    settings = pacs.settings
    patience_s = settings.acse_timeout_s + settings.network_timeout_s + commitment.LEASE_S
    commitment.hold(pacs.catalog, mine, patience_s, len(mine.references))
    status = _send(peer, settings, mine, verdict)
    if status != commands.SUCCESS:
        raise PeerError(f"{peer.aet} at {peer.host}:{peer.port}: N-EVENT-REPORT was answered with status {status:04X}H")
    return verdict


def _send(peer: Remote, settings: Settings, mine: Commitment, verdict: Verdict) -> int:
    """N-EVENT-REPORT in an association of our own; the status of its answer. Raises PeerError."""
    with peer_errors(peer):
        # A peer that does not answer the role selection is told all the same: it asked for the report.
        spans = settings.acse_timeout_s, settings.network_timeout_s
        association = Requested.connect(peer, settings.aet, _OFFER, *spans, as_scp=(COMMITMENT,), security=settings)
        try:
            if _CONTEXT_ID not in association.accepted:
                raise ProtocolViolation("Storage Commitment Push Model was not accepted")
            data_set = encode_report(mine.transaction_uid, verdict, settings.aet, association.accepted[_CONTEXT_ID])
            message = _event_report_rq(_MESSAGE_ID, verdict)
            association.send(pdus.encode_message(_CONTEXT_ID, message, data_set, association.max_pdu_bytes))
            response = association.response()
            if response.field != commands.N_EVENT_REPORT_RSP or response.number(commands.MESSAGE_ID_RESPONDED_TO) != _MESSAGE_ID:
                raise ProtocolViolation("another message than the response that is awaited")
            status = response.number(commands.STATUS)
        except AssociationEnded:
            association.abort()
            raise
        association.release()
    return status


def _finish(pacs: Pacs, mine: Commitment, verdict: Verdict) -> None:
    commitment.finish(pacs.catalog, mine, verdict)
    counts = {"total": len(mine.references), "failed": len(verdict.failed)}
    _log.info("storage commitment reported", extra={"calling_aet": mine.requester, "transaction_uid": mine.transaction_uid, **counts})


def _put_off(pacs: Pacs, mine: Commitment, reason: str) -> None:
    extra = {"calling_aet": mine.requester, "transaction_uid": mine.transaction_uid, "attempts": mine.attempts, "reason": reason}
    _log.warning("storage commitment not reported yet", extra=extra)
    commitment.postpone(pacs.catalog, mine, reason)


def _event_report_rq(message_id: int, verdict: Verdict) -> bytes:
    return commands.encode_command(
        {
            commands.AFFECTED_SOP_CLASS_UID: COMMITMENT.encode(),
            commands.COMMAND_FIELD: commands.N_EVENT_REPORT_RQ,
            commands.MESSAGE_ID: message_id,
            commands.DATA_SET_TYPE: commands.SOME_DATA_SET,
            commands.AFFECTED_SOP_INSTANCE_UID: COMMITMENT_INSTANCE.encode(),
            commands.EVENT_TYPE_ID: _SOME_FAILED if verdict.failed else _ALL_COMMITTED,
        }
    )
