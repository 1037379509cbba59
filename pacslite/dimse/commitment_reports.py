"""Storage Commitment Push Model as SCU (PS3.4 annex J): the reports that peers send to our listener."""

from __future__ import annotations

import logging

from pacslite.core import remote_commit
from pacslite.dimse import commands
from pacslite.dimse.associations import Association
from pacslite.dimse.commitment_data import decode_report
from pacslite.dimse.contexts import COMMITMENT, Service
from pacslite.dimse.messages import Request
from pacslite.errors import BadRequest, NotFound, PacsliteError

_log = logging.getLogger(__name__)
# PS3.7 10.1.1.1.8 and annex C.
_PROCESSING_FAILURE, _INVALID_ARGUMENT, _NO_SUCH_INSTANCE, _NO_SUCH_CLASS = 0x0110, 0x0115, 0x0112, 0x0118


def serve(association: Association, request: Request) -> None:
    """N-EVENT-REPORT: hand the report to the job that waits for it; 0000H once that is durable."""
    if request.context.service is not Service.COMMITMENT:
        association.respond(request, commands.SOP_CLASS_NOT_SUPPORTED, "no storage commitment in this presentation context")
        return
    if request.command.uid(commands.AFFECTED_SOP_CLASS_UID) != COMMITMENT:
        association.respond(request, _NO_SUCH_CLASS, "AffectedSOPClassUID is not Storage Commitment Push Model")
        return
    try:
        transaction_uid, verdict = decode_report(association.data_set(), request.context.transfer_syntax)
        remote_commit.reported(association.pacs.catalog, association.calling_aet, transaction_uid, verdict)
    # Not by error_map: its statuses are those of the composite services.
    except PacsliteError as error:
        _log.info("report of storage commitment refused", extra={"calling_aet": association.calling_aet, "reason": str(error)})
        known = {NotFound: _NO_SUCH_INSTANCE, BadRequest: _INVALID_ARGUMENT}
        association.respond(request, known.get(type(error), _PROCESSING_FAILURE), str(error))
        return
    association.respond(request, commands.SUCCESS)
