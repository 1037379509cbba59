"""What an association request comes to: negotiation, then the policy of callers and user identities."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pacslite.core.callers import Caller, CallerRefused, Callers, Refusal
from pacslite.dimse import user_identity
from pacslite.dimse.negotiation import Agreed, Refused, negotiate
from pacslite.dimse.pdus import reject_pdu
from pacslite.errors import PacsliteError
from pacslite.settings import Settings

__all__ = ["Admitted", "Agreed", "Refused", "admit"]

# Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21): calling AE title not recognized; no reason given, which
# is all there is for user identities; temporary congestion.
_CALLING_NOT_RECOGNIZED, _NO_REASON, _CONGESTION = (1, 1, 3), (1, 1, 1), (2, 3, 1)
_REJECTIONS = {Refusal.UNKNOWN_CALLER: _CALLING_NOT_RECOGNIZED, Refusal.WRONG_ADDRESS: _CALLING_NOT_RECOGNIZED}


@dataclass(frozen=True, slots=True)
class Admitted:
    """An association that begins, and whose it is."""

    agreed: Agreed
    caller: Caller


def admit(associate_rq: bytes, address: str, settings: Settings, callers: Callers) -> Admitted | Refused:
    """The answer to an A-ASSOCIATE-RQ; raises ProtocolViolation when it is malformed."""
    pdu, claimed = user_identity.split(associate_rq)
    aet = settings.aet if settings.called_aet_policy == "own" else None
    result = negotiate(pdu, aet, settings.max_pdu_bytes)
    if isinstance(result, Refused):
        return result
    checks = settings.dicom_user_identity != "ignore"
    # With identities ignored nothing of them is read or answered, as by one who does not know them (PS3.7 D.3.3.7).
    identity, wants_answer = user_identity.decode(claimed) if checks and claimed is not None else (None, False)
    try:
        if checks and claimed is not None and identity is None:
            raise CallerRefused(Refusal.UNSUPPORTED_IDENTITY)
        caller = callers.admit(result.calling_aet, address, identity)
    except CallerRefused as error:
        return _refused(result, _REJECTIONS.get(error.reason, _NO_REASON), str(error))
    except PacsliteError as error:
        return _refused(result, _CONGESTION, str(error))
    return Admitted(replace(result, answer=user_identity.answered(result.answer)) if wants_answer else result, caller)


def _refused(agreed: Agreed, rejection: tuple[int, int, int], why: str) -> Refused:
    return Refused(reject_pdu(*rejection), agreed.calling_aet, agreed.called_aet, why)
