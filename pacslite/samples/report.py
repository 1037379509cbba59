"""A structured report with one measurement on the drawn CT: TID 1500, Measurement Report (PS3.16)."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.uid import ComprehensiveSRStorage

from pacslite.samples import ct
from pacslite.samples.identity import CT_STUDY, instance_of, stable_uid


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _item(relationship: str, value_type: str, name: Dataset) -> Dataset:
    """A content item (PS3.3 C.17.3)."""
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [name]
    return item


def _coded(relationship: str, name: Dataset, value: Dataset) -> Dataset:
    item = _item(relationship, "CODE", name)
    item.ConceptCodeSequence = [value]
    return item


def _container(relationship: str, name: Dataset, content: list[Dataset]) -> Dataset:
    item = _item(relationship, "CONTAINER", name)
    item.ContinuityOfContent = "SEPARATE"
    item.ContentSequence = content
    return item


def _reference(instance: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = instance.SOPClassUID
    reference.ReferencedSOPInstanceUID = instance.SOPInstanceUID
    return reference


def _diameter(image: Dataset) -> Dataset:
    """The diameter of the ball with the line it was measured on (TID 300, TID 320)."""
    (x, y), radius = ct.NODULE_CENTRE, ct.NODULE_RADIUS
    source = Dataset()
    source.RelationshipType, source.ValueType = "SELECTED FROM", "IMAGE"
    source.ReferencedSOPSequence = [_reference(image)]
    line = Dataset()
    line.RelationshipType, line.ValueType = "INFERRED FROM", "SCOORD"
    line.GraphicType = "POLYLINE"
    # Pixel centres lie at .5 (PS3.3 C.18.6.1.1).
    line.GraphicData = [x - radius + 0.5, y + 0.5, x + radius + 0.5, y + 0.5]
    line.ContentSequence = [source]
    value = Dataset()
    value.NumericValue = f"{2 * radius * ct.SPACING_MM:.1f}"
    value.MeasurementUnitsCodeSequence = [_code("mm", "UCUM", "millimeter")]
    number = _item("CONTAINS", "NUM", _code("410668003", "SCT", "Length"))
    number.MeasuredValueSequence = [value]
    number.ContentSequence = [line]
    return number


def _group(image: Dataset) -> Dataset:
    """TID 1501, Measurement and Qualitative Evaluation Group."""
    tracking = _item("HAS OBS CONTEXT", "TEXT", _code("112039", "DCM", "Tracking Identifier"))
    tracking.TextValue = "Ball in the right lung"
    tracking_uid = _item("HAS OBS CONTEXT", "UIDREF", _code("112040", "DCM", "Tracking Unique Identifier"))
    tracking_uid.UID = stable_uid("ct/ball")
    finding = _coded("CONTAINS", _code("121071", "DCM", "Finding"), _code("27925004", "SCT", "Nodule"))
    site = _coded("CONTAINS", _code("363698007", "SCT", "Finding Site"), _code("39607008", "SCT", "Lung"))
    group = _container("CONTAINS", _code("125007", "DCM", "Measurement Group"), [tracking, tracking_uid, finding, site, _diameter(image)])
    group.ContentTemplateSequence = [_template("1501")]
    return group


def _template(identifier: str) -> Dataset:
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", identifier
    return template


def _content(image: Dataset) -> list[Dataset]:
    observer_type = _coded("HAS OBS CONTEXT", _code("121005", "DCM", "Observer Type"), _code("121006", "DCM", "Person"))
    observer = _item("HAS OBS CONTEXT", "PNAME", _code("121008", "DCM", "Person Observer Name"))
    observer.PersonName = "Nobody^Norbert"
    return [
        _coded("HAS CONCEPT MOD", _code("121049", "DCM", "Language of Content Item and Descendants"), _code("en", "RFC5646", "English")),
        observer_type,
        observer,
        _coded("HAS CONCEPT MOD", _code("121058", "DCM", "Procedure reported"), _code("77477000", "SCT", "Computed tomography")),
        _container("CONTAINS", _code("126010", "DCM", "Imaging Measurements"), [_group(image)]),
    ]


def measurement_report() -> Dataset:
    """The report, in the study of the CT (Comprehensive SR IOD, PS3.3 A.35.3)."""
    image = ct.instance(ct.NODULE_SLICE)
    ds = instance_of(CT_STUDY, "report", 1, ComprehensiveSRStorage)
    ds.Modality = "SR"
    ds.SeriesDescription = "Measurement report"
    ds.SeriesNumber = 2
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
    series = Dataset()
    series.SeriesInstanceUID = image.SeriesInstanceUID
    series.ReferencedSOPSequence = [_reference(image)]
    evidence = Dataset()
    evidence.StudyInstanceUID = image.StudyInstanceUID
    evidence.ReferencedSeriesSequence = [series]
    ds.CurrentRequestedProcedureEvidenceSequence = [evidence]
    ds.ValueType = "CONTAINER"
    ds.ConceptNameCodeSequence = [_code("126000", "DCM", "Imaging Measurement Report")]
    ds.ContinuityOfContent = "SEPARATE"
    ds.ContentTemplateSequence = [_template("1500")]
    ds.ContentSequence = _content(image)
    return ds
