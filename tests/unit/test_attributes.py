"""The table of indexed attributes agrees with the data dictionary and with what the standard asks of servers."""

from __future__ import annotations

import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag

from pacslite.dicom import attributes
from pacslite.dicom.attributes import BY_KEYWORD, Attribute, Level, Returned, Source, of_level

EVERY = [*attributes.ATTRIBUTES, *(a for items in attributes.SEQUENCE_ITEMS.values() for a in items)]

# PS3.18 Table 10.6.1-5: what every server matches.
REQUIRED_KEYS = {
    Level.STUDY: "StudyDate StudyTime AccessionNumber ModalitiesInStudy ReferringPhysicianName StudyInstanceUID StudyID",
    Level.PATIENT: "PatientName PatientID",
    Level.SERIES: "Modality SeriesInstanceUID SeriesNumber PerformedProcedureStepStartDate PerformedProcedureStepStartTime "
    "RequestAttributesSequence",
    Level.INSTANCE: "SOPClassUID SOPInstanceUID InstanceNumber",
}
# PS3.18 Tables 10.6.3-3 to 10.6.3-5: what answers hold, whether known or not.
ALWAYS_RETURNED = {
    Level.PATIENT: "PatientName PatientID PatientBirthDate PatientSex",
    Level.STUDY: "StudyDate StudyTime AccessionNumber ModalitiesInStudy ReferringPhysicianName StudyInstanceUID StudyID "
    "NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances",
    Level.SERIES: "Modality SeriesInstanceUID SeriesNumber NumberOfSeriesRelatedInstances",
    Level.INSTANCE: "SOPClassUID SOPInstanceUID InstanceNumber",
}


@pytest.mark.parametrize("attribute", EVERY, ids=lambda a: a.keyword)
def test_every_attribute_is_as_in_the_data_dictionary(attribute: Attribute) -> None:
    assert keyword_for_tag(attribute.tag) == attribute.keyword
    assert dictionary_VR(attribute.tag) == attribute.vr


@pytest.mark.parametrize("level", list(Level))
def test_required_keys_and_return_attributes_are_in_the_table(level: Level) -> None:
    assert {BY_KEYWORD[k].level for k in REQUIRED_KEYS[level].split()} == {level}
    assert {a.keyword for a in of_level(level) if a.returned is Returned.ALWAYS} == set(ALWAYS_RETURNED[level].split())


@pytest.mark.parametrize("level", list(Level))
def test_no_two_attributes_of_a_level_share_a_column(level: Level) -> None:
    columns = [c for a in of_level(level) for c in {a.column, *a.match_columns} if c]
    assert len(columns) == len(set(columns))


def test_columns_are_named_like_the_keywords() -> None:
    names = {a.keyword: a.column for a in EVERY}
    assert names["SOPInstanceUID"] == "sop_instance_uid"
    assert names["IssuerOfPatientID"] == "issuer_of_patient_id"
    assert names["AdmittingDiagnosesDescription"] == "admitting_diagnoses_description"
    assert names["NumberOfPatientRelatedStudies"] == names["RequestAttributesSequence"] == ""


def test_only_elements_of_the_data_set_are_extracted() -> None:
    assert {a.tag for a in EVERY if a.source is Source.ELEMENT} == attributes.EXTRACTED_TAGS
    assert BY_KEYWORD["PatientName"].hex == "00100010"
