"""Association negotiation (PS3.8 7.1, PS3.7 annex D)."""

from __future__ import annotations

import struct

import pytest
from pydicom.uid import UID_dictionary
from pynetdicom import pdu_primitives as primitives
from pynetdicom.presentation import StoragePresentationContexts

from pacslite.dicom.syntaxes import DEFLATED_FRAMES
from pacslite.dimse.contexts import Service
from pacslite.dimse.negotiation import Agreed, Refused, negotiate, service_of
from pacslite.dimse.pdus import ProtocolViolation
from tests.support.dimse import (
    CT,
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    PATIENT_ROOT_FIND,
    STUDY_ROOT_FIND,
    VERIFICATION,
    Offer,
    accepted,
    associate_rq,
)

ALL_SYNTAXES = sorted(uid for uid, row in UID_dictionary.items() if row[1] == "Transfer Syntax")
PRIVATE_SYNTAX = "1.3.6.1.4.1.99999.2.1"


def agree(offer: Offer, **options: object) -> Agreed:
    result = negotiate(associate_rq(offer, **options), "PACSLITE", 131072)  # type: ignore[arg-type]
    assert isinstance(result, Agreed)
    return result


def outcome(offer: Offer) -> dict[int, tuple[int, str]]:
    """(result, transfer syntax) of each context."""
    answer = accepted(agree(offer).answer[6:])
    return {cx.context_id: (cx.result, str(cx.transfer_syntax)) for cx in answer.presentation_context}


@pytest.mark.parametrize("syntax", [*ALL_SYNTAXES, DEFLATED_FRAMES, PRIVATE_SYNTAX])
def test_every_transfer_syntax_of_the_dictionary_and_private_ones_are_taken_for_storage(syntax: str) -> None:
    assert outcome([(CT, [syntax])]) == {1: (0, syntax)}


def test_every_storage_sop_class_that_pynetdicom_knows_is_accepted() -> None:
    assert len(StoragePresentationContexts) > 100
    assert {service_of(str(cx.abstract_syntax)) for cx in StoragePresentationContexts} == {Service.STORAGE}


@pytest.mark.parametrize(
    "uid", ["1.2.826.0.1.3680043.2.1", "1.3.12.2.1107.5.9.1", "1.2.840.10008.5.1.4.1.1.4711", "1.2.840.10008.5.1.1.30"]
)
def test_private_future_and_retired_storage_classes_are_accepted(uid: str) -> None:
    assert service_of(uid) is Service.STORAGE


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.5.1.4.31",  # Modality Worklist
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol Storage: of no study
        "1.2.840.10008.5.1.4.1.1.201.2",  # Inventory FIND
        "1.2.840.10008.1.3.10",  # Media Storage Directory
        "1.2.840.10008.1.2.1",  # a transfer syntax
    ],
)
def test_other_services_are_refused_context_by_context(uid: str) -> None:
    assert outcome([(uid, [EXPLICIT_LE]), (VERIFICATION, [IMPLICIT_LE])]) == {1: (3, EXPLICIT_LE), 3: (0, IMPLICIT_LE)}


def test_storage_takes_the_first_syntax_offered_and_private_ones_last() -> None:
    offer = [(CT, [IMPLICIT_LE, EXPLICIT_LE]), (CT, [PRIVATE_SYNTAX, EXPLICIT_BE, EXPLICIT_LE])]
    assert outcome(offer) == {1: (0, IMPLICIT_LE), 3: (0, EXPLICIT_BE)}


@pytest.mark.parametrize("model", [PATIENT_ROOT_FIND, STUDY_ROOT_FIND])
def test_queries_prefer_explicit_little_endian(model: str) -> None:
    assert outcome([(model, [EXPLICIT_BE, DEFLATED_LE, IMPLICIT_LE, EXPLICIT_LE])]) == {1: (0, EXPLICIT_LE)}


def test_unknown_standard_syntaxes_are_refused_as_syntaxes() -> None:
    assert outcome([(CT, ["1.2.840.10008.1.2.4711"]), (STUDY_ROOT_FIND, [PRIVATE_SYNTAX])]) == {
        1: (4, "1.2.840.10008.1.2.4711"),
        3: (4, PRIVATE_SYNTAX),
    }


def test_128_contexts_are_negotiated_in_one_association() -> None:
    classes = [str(cx.abstract_syntax) for cx in StoragePresentationContexts][:100]
    offer = [(uid, [EXPLICIT_LE]) for uid in classes + classes[:28]]
    assert set(outcome(offer).values()) == {(0, EXPLICIT_LE)}
    assert len(outcome(offer)) == 128


def test_the_answer_names_our_maximum_length_and_implementation_and_nothing_unasked() -> None:
    user = accepted(agree([(CT, [EXPLICIT_LE])]).answer[6:]).user_information
    assert user is not None
    assert [user.maximum_length, user.implementation_version_name] == [131072, "PACSLITE"]
    assert str(user.implementation_class_uid).startswith("2.25.")
    assert len(user.user_data) == 3


def test_role_selection_is_answered_and_inverted_roles_are_kept() -> None:
    role = primitives.SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = CT, False, True
    agreed = agree([(CT, [EXPLICIT_LE])], user=[role])
    user = accepted(agreed.answer[6:]).user_information
    assert user is not None
    (answer,) = user.role_selection.values()
    assert (answer.scu_role, answer.scp_role) == (0, 1)
    assert (agreed.contexts[1].as_scp, agreed.contexts[1].as_scu) == (False, True)


def test_optional_negotiation_is_parsed_and_left_unanswered() -> None:
    window = primitives.AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 0
    identity = primitives.UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field, identity.secondary_field = 2, b"user", b"password"
    identity.positive_response_requested = False
    common = primitives.SOPClassCommonExtendedNegotiation()
    common.sop_class_uid, common.service_class_uid = CT, "1.2.840.10008.4.2"
    extended = primitives.SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = CT, b"\x02\x00\x03\x00\x01\x00"
    user = accepted(agree([(CT, [EXPLICIT_LE])], user=[window, identity, common, extended]).answer[6:]).user_information
    assert user is not None
    assert len(user.user_data) == 3


def test_kinds_of_matching_are_granted_when_asked_for_and_there() -> None:
    """Checklist 70: time zones and the conversion of enhanced multi-frames are not there (PS3.4 C.5.1.1)."""
    extended = primitives.SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = STUDY_ROOT_FIND, b"\x01\x00\x01\x01\x01\x01\x00"
    agreed = agree([(STUDY_ROOT_FIND, [EXPLICIT_LE]), (PATIENT_ROOT_FIND, [EXPLICIT_LE])], user=[extended])
    user = accepted(agreed.answer[6:]).user_information
    assert user is not None
    (answer,) = user.ext_neg
    assert (answer.uid, answer.app_info) == (STUDY_ROOT_FIND, b"\x01\x00\x01\x00\x00\x01\x00")
    assert (agreed.contexts[1].relational, agreed.contexts[1].combined_date_time, agreed.contexts[3].relational) == (True, False, False)
    context = agreed.contexts[1]
    assert (context.fuzzy_names, context.empty_values, context.multiple_values) == (True, True, False)


def test_items_of_unknown_type_are_ignored() -> None:
    pdu = associate_rq([(CT, [EXPLICIT_LE])])
    item = struct.pack(">BxH", 0x77, 4) + b"what"
    result = negotiate(pdu + item, "PACSLITE", 16384)
    assert isinstance(result, Agreed)
    assert result.contexts[1].transfer_syntax == EXPLICIT_LE


def test_ae_titles_padded_by_nul_or_led_by_spaces_are_trimmed() -> None:
    pdu = bytearray(associate_rq())
    pdu[10:26] = b"  PACSLITE\0\0\0\0\0\0"
    result = negotiate(bytes(pdu), "PACSLITE", 16384)
    assert isinstance(result, Agreed)
    assert result.called_aet == "PACSLITE"


def test_wrong_called_title_is_refused_by_policy() -> None:
    pdu = associate_rq(called="ANOTHER")
    refused = negotiate(pdu, "PACSLITE", 16384)
    assert isinstance(refused, Refused)
    assert refused.answer[6:] == bytes((0, 1, 1, 7))
    assert isinstance(negotiate(pdu, None, 16384), Agreed)


@pytest.mark.parametrize("title", [b" " * 16, bytes(16), "Ärzte".encode().ljust(16), b"A\\B".ljust(16), b"A\nB".ljust(16)])
@pytest.mark.parametrize(("place", "reason"), [(slice(10, 26), 7), (slice(26, 42), 3)])
def test_titles_that_are_none_are_refused_as_not_recognized(title: bytes, place: slice, reason: int) -> None:
    """PS3.8 table 9-21: who reads the refusal sees which title to mend."""
    pdu = bytearray(associate_rq())
    pdu[place] = title[:16]
    refused = negotiate(bytes(pdu), None, 16384)
    assert isinstance(refused, Refused)
    assert refused.answer[6:] == bytes((0, 1, 1, reason))


def test_other_protocol_version_or_application_context_is_refused() -> None:
    pdu = associate_rq()
    version = negotiate(pdu[:6] + b"\0\2" + pdu[8:], "PACSLITE", 16384)
    context = negotiate(pdu.replace(b"10008.3.1.1.1", b"10008.3.1.1.9"), "PACSLITE", 16384)
    assert isinstance(version, Refused)
    assert isinstance(context, Refused)
    assert (version.answer[6:], context.answer[6:]) == (bytes((0, 1, 2, 2)), bytes((0, 1, 1, 2)))


def test_every_truncation_and_every_single_damaged_byte_is_answered_or_a_protocol_violation() -> None:
    pdu = associate_rq([(CT, [EXPLICIT_LE, IMPLICIT_LE]), (VERIFICATION, [IMPLICIT_LE])])
    damaged = [pdu[:cut] for cut in range(6, len(pdu))]
    damaged += [pdu[:at] + bytes((value,)) + pdu[at + 1 :] for at in range(6, len(pdu)) for value in (0, 0x7F, 0xFF)]
    outcomes = set()
    for candidate in damaged:
        try:
            outcomes.add(type(negotiate(candidate, "PACSLITE", 16384)))
        except ProtocolViolation:
            outcomes.add(ProtocolViolation)
    assert outcomes == {Agreed, Refused, ProtocolViolation}
