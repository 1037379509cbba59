"""Studies of every kind that the viewer has something for, drawn: one study a kind, small, each with something to see."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    ComprehensiveSRStorage,
    CTImageStorage,
    EncapsulatedPDFStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RTStructureSetStorage,
    SegmentationStorage,
    VLWholeSlideMicroscopyImageStorage,
)

from pacslite.codec.encoders import encode_frame
from pacslite.codec.pixels import PixelDescription
from pacslite.dicom.syntaxes import HTJ2K_REVERSIBLE, JPEG_2000_REVERSIBLE, JPEG_BASELINE, JPEG_LOSSLESS_SV1, JPEG_LS, RLE
from pacslite.samples import report, ultrasound
from pacslite.samples.identity import stable_uid

SIDE, SLICES = 64, 4
SPACING = 4.0
# The disc of every CT here, in pixels, and what is drawn on it by those that refer to it.
CENTRE, RADIUS = (32, 32), 20
MARKED = 12


def _start(kind: str, series: str, number: int, sop_class: str, modality: str) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, stable_uid(f"viewer/{kind}/{series}/{number}")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid(kind), stable_uid(f"viewer/{kind}/{series}")
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = "20250101"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "120000"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = f"Kind^{kind}", f"KIND-{kind}"[:64], "", "O"
    ds.AccessionNumber, ds.ReferringPhysicianName, ds.StudyID = "", "", "1"
    ds.StudyDescription, ds.SeriesDescription = f"A study of {kind}", series
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = modality, 1, number
    ds.Manufacturer = "pacslite"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    return ds


def study_uid(kind: str) -> str:
    """The study of a kind."""
    return str(stable_uid(f"viewer/{kind}"))


def _pixels(ds: Dataset, shape: tuple[int, int], bits: int, samples: int = 1) -> None:
    ds.Rows, ds.Columns = shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = samples, "RGB" if samples == 3 else "MONOCHROME2"
    if samples == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = 16 if bits > 8 else 8
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, 0


def _disc(radius: int) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    return (x - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2 < radius**2


def _drawn(number: int) -> np.ndarray:
    """A slice: a bright disc in a gradient, a dark hole that grows."""
    grey = np.tile(np.arange(SIDE, dtype=np.uint16) * 8, (SIDE, 1))
    grey[_disc(RADIUS)] = 1800
    grey[_disc(3 + number)] = 300
    return grey


def _position(number: int) -> list[float]:
    return [-SIDE * SPACING / 2, -SIDE * SPACING / 2, (number - 1) * 5.0]


def _slices(kind: str, syntax: str = ExplicitVRLittleEndian) -> Iterator[Dataset]:
    for number in range(1, SLICES + 1):
        ds = _start(kind, "axial", number, CTImageStorage, "CT")
        ds.ImageType, ds.PatientPosition, ds.KVP = ["ORIGINAL", "PRIMARY", "AXIAL"], "HFS", 120
        ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = stable_uid(f"viewer/{kind}/frame"), ""
        ds.PixelSpacing, ds.SliceThickness = [SPACING, SPACING], 5
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], _position(number)
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "HU"
        eight = syntax == JPEG_BASELINE
        _pixels(ds, (SIDE, SIDE), 8 if eight else 12)
        ds.WindowCenter, ds.WindowWidth = (128, 256) if eight else (1000, 2000)
        picture = (_drawn(number) // 8).astype(np.uint8) if eight else _drawn(number)
        _put(ds, [picture], syntax)
        yield ds


def _resonance(kind: str) -> Iterator[Dataset]:
    for ds in _slices(kind):
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
        ds.Modality, ds.ScanningSequence, ds.SequenceVariant = "MR", "SE", "NONE"
        ds.MRAcquisitionType, ds.EchoTime, ds.RepetitionTime, ds.MagneticFieldStrength = "2D", 30, 500, 1.5
        for name in ("KVP", "RescaleIntercept", "RescaleSlope", "RescaleType"):
            del ds[name]
        yield ds


def _put(ds: Dataset, frames: Sequence[np.ndarray], syntax: str) -> None:
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRLittleEndian:
        ds.PixelData = b"".join(frame.tobytes() for frame in frames)
        ds["PixelData"].VR = "OW" if ds.BitsAllocated == 16 else "OB"
        return
    description = PixelDescription(ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.SamplesPerPixel, ds.PhotometricInterpretation)
    encoded = [encode_frame(frame, ds.PhotometricInterpretation, description, syntax) for frame in frames]
    ds.PhotometricInterpretation = encoded[0].photometric_interpretation
    ds.PixelData = encapsulate([frame.data for frame in encoded])
    ds["PixelData"].VR = "OB"
    if syntax == JPEG_BASELINE:
        ds.LossyImageCompression, ds.LossyImageCompressionRatio, ds.LossyImageCompressionMethod = "01", "5", "ISO_10918_1"


def _ultrasound(kind: str, syntax: str) -> Iterator[Dataset]:
    ds = ultrasound.multi_frame()
    frames = list(ds.pixel_array[:6])
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid(kind), stable_uid(f"viewer/{kind}/clip")
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = stable_uid(f"viewer/{kind}/clip/1")
    ds.PatientName, ds.PatientID, ds.NumberOfFrames = f"Kind^{kind}", f"KIND-{kind}", len(frames)
    _put(ds, frames, syntax)
    yield ds


def _sequence_of(**values: object) -> list[Dataset]:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return [ds]


def _enhanced(kind: str) -> Iterator[Dataset]:
    """Enhanced CT (PS3.3 A.38): places and windows in functional groups."""
    ds = _start(kind, "enhanced", 1, EnhancedCTImageStorage, "CT")
    ds.ImageType, ds.PatientPosition = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "HFS"
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = stable_uid(f"viewer/{kind}/frame"), ""
    ds.NumberOfFrames = SLICES
    shared = Dataset()
    shared.PixelMeasuresSequence = _sequence_of(PixelSpacing=[SPACING, SPACING], SliceThickness=5, SpacingBetweenSlices=5)
    shared.PlaneOrientationSequence = _sequence_of(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.FrameVOILUTSequence = _sequence_of(WindowCenter=1000, WindowWidth=2000)
    shared.PixelValueTransformationSequence = _sequence_of(RescaleIntercept=0, RescaleSlope=1, RescaleType="HU")
    shared.CTImageFrameTypeSequence = _sequence_of(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
    ds.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for number in range(1, SLICES + 1):
        group = Dataset()
        group.FrameContentSequence = _sequence_of(StackID="1", InStackPositionNumber=number, DimensionIndexValues=[1, number])
        group.PlanePositionSequence = _sequence_of(ImagePositionPatient=_position(number))
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    _pixels(ds, (SIDE, SIDE), 12)
    _put(ds, [_drawn(number) for number in range(1, SLICES + 1)], JPEG_LS)
    yield ds


def _report(kind: str) -> Iterator[Dataset]:
    """A measurement report on a slice of the same study (TID 1500)."""
    slices = list(_slices(kind))
    yield from slices
    ds = report.measurement_report()
    made = _start(kind, "report", 1, ComprehensiveSRStorage, "SR")
    for element in made:
        ds[element.tag] = element
    ds.file_meta, ds.SeriesNumber = made.file_meta, 2
    seen = slices[1]
    series = ds.CurrentRequestedProcedureEvidenceSequence[0]
    series.StudyInstanceUID = seen.StudyInstanceUID
    series.ReferencedSeriesSequence[0].SeriesInstanceUID = seen.SeriesInstanceUID
    for item in (series.ReferencedSeriesSequence[0], *_items_of(ds.ContentSequence)):
        if "ReferencedSOPSequence" in item:
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = seen.SOPInstanceUID
        if "GraphicData" in item:
            item.GraphicData = [CENTRE[0] - RADIUS + 0.5, CENTRE[1] + 0.5, CENTRE[0] + RADIUS + 0.5, CENTRE[1] + 0.5]
        if "NumericValue" in item:
            item.NumericValue = str(2 * RADIUS * SPACING)
    yield ds


def _items_of(content: Sequence[Dataset]) -> Iterator[Dataset]:
    for item in content:
        yield item
        yield from item.get("MeasuredValueSequence", [])
        yield from _items_of(item.get("ContentSequence", []))


def _code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    return _sequence_of(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _segmentation(kind: str) -> Iterator[Dataset]:
    """A disc on every slice (PS3.3 A.51), single bits."""
    slices = list(_slices(kind))
    yield from slices
    ds = _start(kind, "segments", 1, SegmentationStorage, "SEG")
    ds.SeriesNumber, ds.ImageType = 2, ["DERIVED", "PRIMARY"]
    ds.ContentLabel, ds.ContentDescription, ds.ContentCreatorName = "DISC", "", "Nobody"
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = slices[0].FrameOfReferenceUID, ""
    ds.SegmentationType, ds.LossyImageCompression = "BINARY", "00"
    segment = Dataset()
    segment.SegmentNumber, segment.SegmentLabel, segment.SegmentAlgorithmType = 1, "Drawn disc", "MANUAL"
    segment.SegmentedPropertyCategoryCodeSequence = _code("123037004", "SCT", "Anatomical structure")
    segment.SegmentedPropertyTypeCodeSequence = _code("39607008", "SCT", "Lung")
    segment.RecommendedDisplayCIELabValue = [34885, 53485, 50171]
    ds.SegmentSequence = [segment]
    organization = stable_uid(f"viewer/{kind}/dimensions")
    ds.DimensionOrganizationSequence = _sequence_of(DimensionOrganizationUID=organization)
    ds.DimensionIndexSequence = [
        _sequence_of(DimensionOrganizationUID=organization, DimensionIndexPointer=Tag(pointer), FunctionalGroupPointer=Tag(group))[0]
        for pointer, group in (
            ("ReferencedSegmentNumber", "SegmentIdentificationSequence"),
            ("ImagePositionPatient", "PlanePositionSequence"),
        )
    ]
    ds.ReferencedSeriesSequence = _sequence_of(
        SeriesInstanceUID=slices[0].SeriesInstanceUID, ReferencedInstanceSequence=[_reference(one) for one in slices]
    )
    shared = Dataset()
    shared.PixelMeasuresSequence = _sequence_of(PixelSpacing=[SPACING, SPACING], SliceThickness=5, SpacingBetweenSlices=5)
    shared.PlaneOrientationSequence = _sequence_of(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.SegmentIdentificationSequence = _sequence_of(ReferencedSegmentNumber=1)
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [_segment_frame(one) for one in slices]
    _pixels(ds, (SIDE, SIDE), 8)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.NumberOfFrames = 1, 1, 0, SLICES
    ds.PixelData = np.packbits(np.stack([_disc(MARKED)] * SLICES).ravel(), bitorder="little").tobytes()
    ds["PixelData"].VR = "OB"
    yield ds


def _reference(ds: Dataset) -> Dataset:
    return _sequence_of(ReferencedSOPClassUID=ds.SOPClassUID, ReferencedSOPInstanceUID=ds.SOPInstanceUID)[0]


def _segment_frame(source: Dataset) -> Dataset:
    group, image, derivation = Dataset(), _reference(source), Dataset()
    image.PurposeOfReferenceCodeSequence = _code("121322", "DCM", "Source image for image processing operation")
    derivation.DerivationCodeSequence = _code("113076", "DCM", "Segmentation")
    derivation.SourceImageSequence = [image]
    group.DerivationImageSequence = [derivation]
    group.FrameContentSequence = _sequence_of(DimensionIndexValues=[1, int(source.InstanceNumber)])
    group.PlanePositionSequence = _sequence_of(ImagePositionPatient=source.ImagePositionPatient)
    group.SegmentIdentificationSequence = _sequence_of(ReferencedSegmentNumber=1)
    return group


def _structures(kind: str) -> Iterator[Dataset]:
    """A circle on every slice (PS3.3 A.19)."""
    slices = list(_slices(kind))
    yield from slices
    ds = _start(kind, "structures", 1, RTStructureSetStorage, "RTSTRUCT")
    ds.SeriesNumber, ds.StructureSetLabel, ds.StructureSetName = 2, "CIRCLES", "Circles"
    ds.StructureSetDate, ds.StructureSetTime = ds.StudyDate, ds.StudyTime
    series = _sequence_of(SeriesInstanceUID=slices[0].SeriesInstanceUID, ContourImageSequence=[_reference(one) for one in slices])
    studies = _sequence_of(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1", ReferencedSOPInstanceUID=ds.StudyInstanceUID, RTReferencedSeriesSequence=series
    )
    frame = slices[0].FrameOfReferenceUID
    ds.ReferencedFrameOfReferenceSequence = _sequence_of(FrameOfReferenceUID=frame, RTReferencedStudySequence=studies)
    ds.StructureSetROISequence = _sequence_of(
        ROINumber=1, ReferencedFrameOfReferenceUID=frame, ROIName="Drawn circle", ROIGenerationAlgorithm="MANUAL"
    )
    contours = []
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    for one in slices:
        x0, y0, z = (float(value) for value in one.ImagePositionPatient)
        points = [
            round(float(value), 3)
            for angle in angles
            for value in (
                x0 + SPACING * (CENTRE[0] + MARKED * np.cos(angle)),
                y0 + SPACING * (CENTRE[1] + MARKED * np.sin(angle)),
                z,
            )
        ]
        contours += _sequence_of(
            ContourImageSequence=[_reference(one)],
            ContourGeometricType="CLOSED_PLANAR",
            NumberOfContourPoints=len(angles),
            ContourData=points,
        )
    ds.ROIContourSequence = _sequence_of(ROIDisplayColor=[255, 0, 0], ContourSequence=contours, ReferencedROINumber=1)
    ds.RTROIObservationsSequence = _sequence_of(
        ObservationNumber=1, ReferencedROINumber=1, RTROIInterpretedType="ORGAN", ROIInterpreter="", ROIObservationLabel="circle"
    )
    yield ds


def _document(kind: str) -> Iterator[Dataset]:
    page = Image.new("RGB", (600, 800), "white")
    drawing = ImageDraw.Draw(page)
    drawing.rectangle((60, 60, 540, 300), fill=(200, 30, 30))
    drawing.text((80, 400), "A drawn page", fill="black")
    out = io.BytesIO()
    page.save(out, "PDF")
    content = out.getvalue()
    ds = _start(kind, "document", 1, EncapsulatedPDFStorage, "DOC")
    ds.ConversionType, ds.BurnedInAnnotation, ds.DocumentTitle = "WSD", "NO", "A drawn page"
    ds.ConceptNameCodeSequence = []
    ds.MIMETypeOfEncapsulatedDocument = "application/pdf"
    ds.EncapsulatedDocumentLength = len(content)
    ds.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    yield ds


TILE, TILES = 128, 4


def _slide(kind: str) -> Iterator[Dataset]:
    """Two levels of a pyramid of tiles (PS3.3 A.32.8), TILED_FULL."""
    whole = Image.new("RGB", (TILE * TILES, TILE * TILES), (235, 225, 235))
    drawing = ImageDraw.Draw(whole)
    for n in range(40):
        x, y = (n * 97) % 460 + 20, (n * 61) % 460 + 20
        drawing.ellipse((x - 18, y - 18, x + 18, y + 18), fill=(150, 60 + n * 2, 160))
        drawing.ellipse((x - 6, y - 6, x + 6, y + 6), fill=(60, 20, 110))
    for number, tiles in enumerate((TILES, TILES // 2, 1), 1):
        side = TILE * tiles
        pixels = np.asarray(whole.resize((side, side), Image.Resampling.BOX))
        frames = [
            np.ascontiguousarray(pixels[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE])
            for row in range(tiles)
            for column in range(tiles)
        ]
        yield _level(kind, number, side, frames)


def _level(kind: str, number: int, side: int, frames: Sequence[np.ndarray]) -> Dataset:
    ds = _start(kind, "slide", number, VLWholeSlideMicroscopyImageStorage, "SM")
    ds.ImageType = ["ORIGINAL" if number == 1 else "DERIVED", "PRIMARY", "VOLUME", "NONE" if number == 1 else "RESAMPLED"]
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = stable_uid(f"viewer/{kind}/frame"), "SLIDE_CORNER"
    ds.AcquisitionDateTime, ds.VolumetricProperties, ds.BurnedInAnnotation = "20250101120000", "VOLUME", "NO"
    ds.SpecimenLabelInImage, ds.FocusMethod, ds.ExtendedDepthOfField, ds.AcquisitionDuration = "NO", "AUTO", "NO", 1.0
    ds.ContainerIdentifier, ds.IssuerOfTheContainerIdentifierSequence = "SLIDE-1", []
    ds.ContainerTypeCodeSequence = _code("433466003", "SCT", "Microscope slide")
    specimen = _sequence_of(SpecimenIdentifier="S-1", SpecimenUID=stable_uid("viewer/specimen"), SpecimenPreparationSequence=[])
    specimen[0].IssuerOfTheSpecimenIdentifierSequence = []
    ds.SpecimenDescriptionSequence, ds.AcquisitionContextSequence = specimen, []
    ds.ImagedVolumeWidth = ds.ImagedVolumeHeight = 10.0
    ds.ImagedVolumeDepth = 1.0
    ds.TotalPixelMatrixColumns = ds.TotalPixelMatrixRows = side
    ds.TotalPixelMatrixOriginSequence = _sequence_of(XOffsetInSlideCoordinateSystem="0", YOffsetInSlideCoordinateSystem="0")
    ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    path = _sequence_of(OpticalPathIdentifier="1", IlluminationTypeCodeSequence=_code("111744", "DCM", "Brightfield illumination"))
    path[0].IlluminationColorCodeSequence = _code("414298005", "SCT", "Full Spectrum")
    ds.OpticalPathSequence, ds.NumberOfOpticalPaths, ds.TotalPixelMatrixFocalPlanes = path, 1, 1
    ds.DimensionOrganizationType = "TILED_FULL"
    spacing = 10.0 / side
    shared = Dataset()
    shared.PixelMeasuresSequence = _sequence_of(PixelSpacing=[spacing, spacing], SliceThickness=0.001)
    shared.WholeSlideMicroscopyImageFrameTypeSequence = _sequence_of(FrameType=ds.ImageType)
    shared.OpticalPathIdentificationSequence = _sequence_of(OpticalPathIdentifier="1")
    ds.SharedFunctionalGroupsSequence = [shared]
    _pixels(ds, (TILE, TILE), 8, 3)
    ds.NumberOfFrames, ds.LossyImageCompression = len(frames), "01"
    _put(ds, frames, JPEG_BASELINE)
    return ds


KINDS: dict[str, Callable[[str], Iterator[Dataset]]] = {
    "CT": _slices,
    "CT JPEG": lambda kind: _slices(kind, JPEG_BASELINE),
    "CT JPEG lossless": lambda kind: _slices(kind, JPEG_LOSSLESS_SV1),
    "CT JPEG-LS": lambda kind: _slices(kind, JPEG_LS),
    "CT JPEG 2000": lambda kind: _slices(kind, JPEG_2000_REVERSIBLE),
    "CT HTJ2K": lambda kind: _slices(kind, HTJ2K_REVERSIBLE),
    "CT RLE": lambda kind: _slices(kind, RLE),
    "MR": _resonance,
    "US": lambda kind: _ultrasound(kind, ExplicitVRLittleEndian),
    "US JPEG": lambda kind: _ultrasound(kind, JPEG_BASELINE),
    "enhanced": _enhanced,
    "SR": _report,
    "SEG": _segmentation,
    "RTSTRUCT": _structures,
    "PDF": _document,
    "slide": _slide,
}
