"""The one table of indexed attributes: what ingest extracts, the catalog keeps in columns, and queries match and return.

Sources: PS3.4 C.6.1.1 and C.6.2.1 (query keys), PS3.18 Table 10.6.1-5 (keys every server matches) and Tables 10.6.3-3 to
10.6.3-5 (what answers hold). A column holds the text of the element as it was sent, values joined by a backslash; VRs
whose text can be written in several ways have columns in normal form beside it, and those are what matching compares.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum


class Level(StrEnum):
    """A level of the information model (PS3.4 C.6)."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    INSTANCE = "IMAGE"


LEVELS = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.INSTANCE)


class Returned(Enum):
    """When an answer of the attribute's own level holds it."""

    ALWAYS = "always"  # present, empty when unknown
    KNOWN = "known"  # present when it has a value
    ASKED = "asked"  # present when the caller asks for it


class Source(Enum):
    """Where the value comes from."""

    ELEMENT = "element"  # the top level of the data set
    ITEM = "item"  # items of a sequence, in a table of their own
    KEPT = "kept"  # a column that the ingest transaction keeps: counts and lists over the levels below
    COMPUTED = "computed"  # made by the query, no column
    INDEXED = "indexed"  # indexed by configuration: values in a table beside that of the level


# Beside the text, a column in a form in which equal things are equal text and text order is time order.
_NORMAL = {"DA": ("normal",), "TM": ("normal",), "DT": ("first", "last"), "PN": ("alphabetic", "ideographic", "phonetic")}
# Numbers have a column of numbers; US and UL are written in one way only.
_NUMBER = {"IS": ("value",), "DS": ("value",)}


# Rows of the table are compared by identity: they are keys of caches on every search.
@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """One indexed attribute.

    `column` is in the table of `level` (of the sequence's own table when `sequence` is set), "" when computed.
    `match_columns` are what matching compares: DA, TM one normal form, "" when unknown or not a date or time;
    DT first and last microsecond in UTC ("" when unknown); PN the normal form of the three component groups ("" for one
    that is missing); IS, DS the number or NULL; all others the text itself, NULL when unknown or empty.
    """

    keyword: str
    tag: int
    vr: str
    level: Level
    column: str
    match_columns: tuple[str, ...]
    returned: Returned = Returned.ASKED
    source: Source = Source.ELEMENT
    sequence: int | None = None
    indexed: bool = False

    @property
    def hex(self) -> str:
        """The tag as DICOM JSON writes it."""
        return f"{self.tag:08X}"

    @property
    def has_normal_form(self) -> bool:
        """Whether `match_columns` are other columns than `column`."""
        return self.match_columns != (self.column,)


def _snake(keyword: str) -> str:
    """`SOPInstanceUID` -> `sop_instance_uid`, `StudyDate` -> `study_date`."""
    out = ""
    for i, c in enumerate(keyword):
        if c.isupper() and i and (not keyword[i - 1].isupper() or keyword[i + 1 : i + 2].islower()):
            out += "_"
        out += c.lower()
    return out


_COLUMN_NAMES = {
    "SOPClassesInStudy": "sop_classes_in_study",
    "IssuerOfPatientID": "issuer_of_patient_id",
    "TimezoneOffsetFromUTC": "timezone_offset_from_utc",
    "AvailableTransferSyntaxUID": "transfer_syntax_uid",
}


def _attribute(
    level: Level,
    tag: int,
    vr: str,
    keyword: str,
    *flags: str,
    returned: Returned = Returned.ASKED,
    source: Source = Source.ELEMENT,
    sequence: int | None = None,
) -> Attribute:
    column = "" if source is Source.COMPUTED or vr == "SQ" else _COLUMN_NAMES.get(keyword) or _snake(keyword)
    forms: tuple[str, ...] = ()
    if source is Source.ELEMENT:
        forms = _NORMAL.get(vr) or _NUMBER.get(vr) or ()
    match_columns = tuple(f"{column}_{form}" for form in forms) if forms else (column,) if column else ()
    return Attribute(keyword, tag, vr, level, column, match_columns, returned, source, sequence, "index" in flags)


def _table() -> Iterable[Attribute]:
    patient, study, series, instance = LEVELS
    always, known = Returned.ALWAYS, Returned.KNOWN

    yield _attribute(patient, 0x00100010, "PN", "PatientName", "index", returned=always)
    yield _attribute(patient, 0x00100020, "LO", "PatientID", "index", returned=always)
    yield _attribute(patient, 0x00100021, "LO", "IssuerOfPatientID", returned=known)
    yield _attribute(patient, 0x00100030, "DA", "PatientBirthDate", "index", returned=always)
    yield _attribute(patient, 0x00100032, "TM", "PatientBirthTime")
    yield _attribute(patient, 0x00100040, "CS", "PatientSex", returned=always)
    yield _attribute(patient, 0x00102160, "SH", "EthnicGroup")
    yield _attribute(patient, 0x00104000, "LT", "PatientComments")
    yield _attribute(patient, 0x00201200, "IS", "NumberOfPatientRelatedStudies", source=Source.COMPUTED)
    yield _attribute(patient, 0x00201202, "IS", "NumberOfPatientRelatedSeries", source=Source.COMPUTED)
    yield _attribute(patient, 0x00201204, "IS", "NumberOfPatientRelatedInstances", source=Source.COMPUTED)

    yield _attribute(study, 0x00080020, "DA", "StudyDate", "index", returned=always)
    yield _attribute(study, 0x00080030, "TM", "StudyTime", "index", returned=always)
    yield _attribute(study, 0x00080050, "SH", "AccessionNumber", "index", returned=always)
    yield _attribute(study, 0x00080061, "CS", "ModalitiesInStudy", returned=always, source=Source.KEPT)
    yield _attribute(study, 0x00080062, "UI", "SOPClassesInStudy", source=Source.KEPT)
    yield _attribute(study, 0x00080090, "PN", "ReferringPhysicianName", "index", returned=always)
    yield _attribute(study, 0x00080201, "SH", "TimezoneOffsetFromUTC", returned=known)
    yield _attribute(study, 0x00081030, "LO", "StudyDescription", returned=known)
    yield _attribute(study, 0x00081060, "PN", "NameOfPhysiciansReadingStudy")
    yield _attribute(study, 0x00081080, "LO", "AdmittingDiagnosesDescription")
    yield _attribute(study, 0x00101010, "AS", "PatientAge")
    yield _attribute(study, 0x00101020, "DS", "PatientSize")
    yield _attribute(study, 0x00101030, "DS", "PatientWeight")
    yield _attribute(study, 0x0020000D, "UI", "StudyInstanceUID", "index", returned=always)
    yield _attribute(study, 0x00200010, "SH", "StudyID", "index", returned=always)
    yield _attribute(study, 0x00201206, "IS", "NumberOfStudyRelatedSeries", returned=always, source=Source.KEPT)
    yield _attribute(study, 0x00201208, "IS", "NumberOfStudyRelatedInstances", returned=always, source=Source.KEPT)

    yield _attribute(series, 0x00080021, "DA", "SeriesDate", returned=known)
    yield _attribute(series, 0x00080031, "TM", "SeriesTime", returned=known)
    yield _attribute(series, 0x00080060, "CS", "Modality", "index", returned=always)
    yield _attribute(series, 0x00080070, "LO", "Manufacturer")
    yield _attribute(series, 0x00080080, "LO", "InstitutionName")
    yield _attribute(series, 0x00081010, "SH", "StationName")
    yield _attribute(series, 0x0008103E, "LO", "SeriesDescription", returned=known)
    yield _attribute(series, 0x00081040, "LO", "InstitutionalDepartmentName")
    yield _attribute(series, 0x00081050, "PN", "PerformingPhysicianName")
    yield _attribute(series, 0x00081070, "PN", "OperatorsName")
    yield _attribute(series, 0x00081090, "LO", "ManufacturerModelName")
    yield _attribute(series, 0x00180015, "CS", "BodyPartExamined")
    yield _attribute(series, 0x00181030, "LO", "ProtocolName")
    yield _attribute(series, 0x0020000E, "UI", "SeriesInstanceUID", "index", returned=always)
    yield _attribute(series, 0x00200011, "IS", "SeriesNumber", returned=always)
    yield _attribute(series, 0x00200052, "UI", "FrameOfReferenceUID")
    yield _attribute(series, 0x00200060, "CS", "Laterality")
    yield _attribute(series, 0x00201209, "IS", "NumberOfSeriesRelatedInstances", returned=always, source=Source.KEPT)
    yield _attribute(series, 0x00400244, "DA", "PerformedProcedureStepStartDate", returned=known)
    yield _attribute(series, 0x00400245, "TM", "PerformedProcedureStepStartTime", returned=known)
    yield _attribute(series, 0x00400253, "SH", "PerformedProcedureStepID")
    yield _attribute(series, 0x00400254, "LO", "PerformedProcedureStepDescription")
    yield _attribute(series, REQUEST_ATTRIBUTES_SEQUENCE, "SQ", "RequestAttributesSequence", returned=known, source=Source.ITEM)
    for tag, keyword in ((0x00400009, "ScheduledProcedureStepID"), (0x00401001, "RequestedProcedureID")):
        yield _attribute(series, tag, "SH", keyword, "index", source=Source.ITEM, sequence=REQUEST_ATTRIBUTES_SEQUENCE)

    yield _attribute(instance, 0x00080008, "CS", "ImageType")
    yield _attribute(instance, 0x00080012, "DA", "InstanceCreationDate")
    yield _attribute(instance, 0x00080013, "TM", "InstanceCreationTime")
    yield _attribute(instance, 0x00080016, "UI", "SOPClassUID", returned=always)
    yield _attribute(instance, 0x00080018, "UI", "SOPInstanceUID", "index", returned=always)
    yield _attribute(instance, 0x00080022, "DA", "AcquisitionDate")
    yield _attribute(instance, 0x00080023, "DA", "ContentDate")
    yield _attribute(instance, 0x0008002A, "DT", "AcquisitionDateTime")
    yield _attribute(instance, 0x00080032, "TM", "AcquisitionTime")
    yield _attribute(instance, 0x00080033, "TM", "ContentTime")
    yield _attribute(instance, 0x00083002, "UI", "AvailableTransferSyntaxUID", returned=known, source=Source.KEPT)
    yield _attribute(instance, 0x00200012, "IS", "AcquisitionNumber")
    yield _attribute(instance, 0x00200013, "IS", "InstanceNumber", returned=always)
    yield _attribute(instance, 0x00201041, "DS", "SliceLocation")
    yield _attribute(instance, 0x00280008, "IS", "NumberOfFrames", returned=known)
    yield _attribute(instance, 0x00280010, "US", "Rows", returned=known)
    yield _attribute(instance, 0x00280011, "US", "Columns", returned=known)
    yield _attribute(instance, 0x00280100, "US", "BitsAllocated", returned=known)
    yield _attribute(instance, 0x00700080, "CS", "ContentLabel")
    yield _attribute(instance, 0x00700081, "LO", "ContentDescription")
    yield _attribute(instance, 0x0040A491, "CS", "CompletionFlag")
    yield _attribute(instance, 0x0040A493, "CS", "VerificationFlag")


REQUEST_ATTRIBUTES_SEQUENCE = 0x00400275

_ALL = tuple(_table())
ATTRIBUTES = tuple(a for a in _ALL if a.sequence is None)
SEQUENCE_ITEMS: dict[int, tuple[Attribute, ...]] = {REQUEST_ATTRIBUTES_SEQUENCE: tuple(a for a in _ALL if a.sequence is not None)}
BY_TAG = {a.tag: a for a in ATTRIBUTES}
BY_KEYWORD = {a.keyword: a for a in ATTRIBUTES}
UNIQUE_KEYS = {
    Level.PATIENT: BY_KEYWORD["PatientID"],
    Level.STUDY: BY_KEYWORD["StudyInstanceUID"],
    Level.SERIES: BY_KEYWORD["SeriesInstanceUID"],
    Level.INSTANCE: BY_KEYWORD["SOPInstanceUID"],
}
_OF_LEVEL = {level: tuple(a for a in ATTRIBUTES if a.level is level) for level in LEVELS}
EXTRACTED_TAGS = frozenset(a.tag for a in ATTRIBUTES if a.source is Source.ELEMENT)
"""What the header reader has to hand to ingest as text; sequences are asked for apart."""


def of_level(level: Level) -> tuple[Attribute, ...]:
    """The attributes of one level, by tag."""
    return _OF_LEVEL[level]
