"""C-STORE as SCP (PS3.4 annex B, PS3.7 9.1.1): the data set goes from the socket into the spool, then to ingest."""

from __future__ import annotations

from pacslite.core.ingest import Expected, Origin
from pacslite.dimse import commands
from pacslite.dimse.associations import Association
from pacslite.dimse.contexts import Service
from pacslite.dimse.messages import Request
from pacslite.dimse.receiving import receive
from pacslite.errors import NotDicom


def serve(association: Association, request: Request) -> None:
    """Receive and store one instance; success is answered after `ingest.accept` has made it durable."""
    context, command = request.context, request.command
    if context.service is not Service.STORAGE or not context.as_scp:
        association.respond(request, commands.SOP_CLASS_NOT_SUPPORTED, "no storage in this presentation context")
        return
    sop_class_uid = command.uid(commands.AFFECTED_SOP_CLASS_UID)
    sop_instance_uid = command.uid(commands.AFFECTED_SOP_INSTANCE_UID)
    if not command.has_data_set:
        raise NotDicom("C-STORE without a data set")
    pacs = association.pacs
    with pacs.spool.create(".dcm", association.settings.max_upload_bytes) as writer:
        aet, agreed = association.calling_aet, context.transfer_syntax
        syntax = receive(writer, association.fragments(), sop_class_uid, sop_instance_uid, agreed, aet)
        spool_file = writer.finish()
    origin = Origin("dimse", calling_aet=association.calling_aet, address=association.address, association_id=association.id)
    accepted = pacs.ingest.accept(spool_file, origin, Expected(sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid))
    association.instances_received += 1
    association.bytes_received += spool_file.size_bytes
    warnings = accepted.warnings if syntax == agreed else (f"the data set is in the transfer syntax {syntax}", *accepted.warnings)
    if warnings and _is_warned(association):
        association.respond(request, commands.COERCED, warnings[0])
    else:
        association.respond(request, commands.SUCCESS)


def _is_warned(association: Association) -> bool:
    """Whether the sender is told of accepted deviations: as its peer says, else as the setting does."""
    peer = association.caller.peer
    if peer is None or peer.coercion_warnings is None:
        return association.settings.coercion_warnings
    return peer.coercion_warnings
