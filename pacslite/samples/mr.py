"""An MR series of a drawn head, sagittal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydicom import Dataset
from pydicom.uid import MRImageStorage

from pacslite.samples.drawing import Canvas
from pacslite.samples.identity import MR_STUDY, image_pixel, instance_of, stable_uid

SLICES = 12
SIZE = 256
SPACING_MM = 0.9
SLICE_MM = 6.0


def _slice(number: int) -> Canvas:
    """Signal of one slice (from 1): the head is largest in the middle, the ventricle only there."""
    canvas = Canvas(SIZE, SIZE, 0)
    aside = abs(2 * number - SLICES - 1)
    head, brain = 100 - 3 * aside, 84 - 3 * aside
    canvas.rectangle((96, 190), (60, 66), 260)
    canvas.ellipse((128, 116), (head, head), 620)
    canvas.ellipse((128, 116), (head - 8, head - 8), 60)
    canvas.ellipse((128, 112), (brain, brain - 6), 380)
    canvas.ellipse((128, 108), (brain - 18, brain - 26), 470)
    if aside < 6:
        canvas.ellipse((122, 100), (34 - 4 * aside, 12 - aside), 110)
    canvas.ellipse((170, 160), (26 - aside, 20 - aside), 430)
    canvas.grain(canvas.values > 0, 14, number)
    canvas.number((8, 8), number, 3, 900)
    return canvas


def series() -> Iterator[Dataset]:
    """All slices from right to left."""
    for number in range(1, SLICES + 1):
        yield instance(number)


def instance(number: int) -> Dataset:
    """One slice, numbered from 1 (MR Image IOD, PS3.3 A.4)."""
    ds = instance_of(MR_STUDY, "t1", number, MRImageStorage)
    x = (number - 1 - (SLICES - 1) / 2) * SLICE_MM
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    ds.Modality = "MR"
    ds.SeriesDescription = "Drawn head, sagittal"
    ds.SeriesNumber = 1
    ds.BodyPartExamined = "HEAD"
    ds.PatientPosition = "HFS"
    ds.ScanningSequence = "SE"
    ds.SequenceVariant = "NONE"
    ds.ScanOptions = ""
    ds.MRAcquisitionType = "2D"
    ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength = 500, 14, 1
    ds.MagneticFieldStrength = 1.5
    ds.FrameOfReferenceUID = stable_uid("mr/frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.SliceThickness = SLICE_MM
    ds.SpacingBetweenSlices = SLICE_MM
    ds.PixelSpacing = [SPACING_MM, SPACING_MM]
    ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    half = SIZE * SPACING_MM / 2
    ds.ImagePositionPatient = [x, -half, half]
    ds.SliceLocation = x
    image_pixel(ds, SIZE, SIZE, bits=12)
    ds.WindowCenter, ds.WindowWidth = 350, 700
    ds.PixelData = np.clip(_slice(number).values, 0, 4095).astype("<u2").tobytes()
    return ds
