"""Which attributes describe a patient, a study or a series (PS3.3 C.7.1-C.7.5): all others describe an instance.

For attributes outside the table of indexed ones: a search may ask to return or match them at their own level or below.
"""

from __future__ import annotations

from functools import cache

from pydicom.datadict import tag_for_keyword

# C.7.1.1 Patient, C.7.1.3 Clinical Trial Subject, C.7.1.4 Patient Group.
_PATIENT = """
    PatientName PatientID IssuerOfPatientID TypeOfPatientID IssuerOfPatientIDQualifiersSequence PatientBirthDate PatientBirthTime
    PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar PatientSex
    QualityControlSubject ReferencedPatientSequence OtherPatientIDs OtherPatientIDsSequence OtherPatientNames PatientBirthName
    PatientMotherBirthName MedicalRecordLocator PatientTelephoneNumbers PatientAddress MilitaryRank BranchOfService CountryOfResidence
    RegionOfResidence PatientReligiousPreference EthnicGroup EthnicGroupCodeSequence PatientComments
    PatientSpeciesDescription PatientSpeciesCodeSequence PatientBreedDescription PatientBreedCodeSequence BreedRegistrationSequence
    StrainDescription StrainNomenclature StrainCodeSequence ResponsiblePerson ResponsiblePersonRole ResponsibleOrganization
    PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence PatientPrimaryLanguageCodeSequence
    ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName ClinicalTrialSiteID ClinicalTrialSiteName
    ClinicalTrialSubjectID ClinicalTrialSubjectReadingID SourcePatientGroupIdentificationSequence
"""

# C.7.2.1 General Study, C.7.2.2 Patient Study, C.7.2.3 Clinical Trial Study.
_STUDY = """
    StudyInstanceUID StudyDate StudyTime AccessionNumber IssuerOfAccessionNumberSequence StudyID StudyDescription ReferringPhysicianName
    ReferringPhysicianIdentificationSequence ConsultingPhysicianName ConsultingPhysicianIdentificationSequence PhysiciansOfRecord
    PhysiciansOfRecordIdentificationSequence NameOfPhysiciansReadingStudy PhysiciansReadingStudyIdentificationSequence
    RequestingServiceCodeSequence ReferencedStudySequence ProcedureCodeSequence ReasonForPerformedProcedureCodeSequence
    RequestingPhysician RequestingService StudyComments TimezoneOffsetFromUTC
    AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence PatientAge PatientSize PatientWeight PatientBodyMassIndex
    MeasuredAPDimension MeasuredLateralDimension PatientSizeCodeSequence MedicalAlerts Allergies SmokingStatus PregnancyStatus
    LastMenstrualDate PatientState Occupation AdditionalPatientHistory AdmissionID IssuerOfAdmissionIDSequence ServiceEpisodeID
    IssuerOfServiceEpisodeIDSequence ServiceEpisodeDescription ReasonForVisit ReasonForVisitCodeSequence PatientSexNeutered
    InstitutionName InstitutionAddress
    ClinicalTrialTimePointID ClinicalTrialTimePointDescription LongitudinalTemporalOffsetFromEvent
"""

# C.7.3.1 General Series, C.7.3.2 Clinical Trial Series, C.7.4.1 Frame of Reference, C.7.5.1 General Equipment.
_SERIES = """
    Modality SeriesInstanceUID SeriesNumber Laterality SeriesDate SeriesTime PerformingPhysicianName
    PerformingPhysicianIdentificationSequence ProtocolName SeriesDescription SeriesDescriptionCodeSequence OperatorsName
    OperatorIdentificationSequence ReferencedPerformedProcedureStepSequence RelatedSeriesSequence BodyPartExamined PatientPosition
    SmallestPixelValueInSeries LargestPixelValueInSeries RequestAttributesSequence PerformedProcedureStepID
    PerformedProcedureStepStartDate PerformedProcedureStepStartTime PerformedProcedureStepEndDate PerformedProcedureStepEndTime
    PerformedProcedureStepDescription PerformedProtocolCodeSequence CommentsOnThePerformedProcedureStep TreatmentSessionUID
    ClinicalTrialCoordinatingCenterName ClinicalTrialSeriesID FrameOfReferenceUID PositionReferenceIndicator Manufacturer
    InstitutionalDepartmentName
    StationName ManufacturerModelName ManufacturerDeviceClassUID DeviceSerialNumber SoftwareVersions GantryID UDISequence DeviceUID
    SpatialResolution DateOfLastCalibration TimeOfLastCalibration AnatomicRegionSequence
"""


@cache
def level_names() -> dict[int, str]:
    """The level of every attribute named here, by tag: `PATIENT`, `STUDY` or `SERIES`."""
    named = (("PATIENT", _PATIENT), ("STUDY", _STUDY), ("SERIES", _SERIES))
    return {tag: level for level, keywords in named for keyword in keywords.split() if (tag := tag_for_keyword(keyword)) is not None}
