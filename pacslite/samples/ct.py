"""A CT series of a drawn phantom: a chest with lungs, heart and spine under a bar of rods of known density."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.uid import CTImageStorage

from pacslite.samples.drawing import Canvas
from pacslite.samples.identity import CT_STUDY, image_pixel, instance_of, stable_uid

SLICES = 24
SIZE = 512
SPACING_MM = 0.7
SLICE_MM = 3.0
WINDOW_CENTER, WINDOW_WIDTH = 40, 400
INTERCEPT = -1024
SERIES = "axial"

_AIR, _FAT, _TISSUE, _LUNG, _BONE, _VESSEL, _NODULE = -1000, -100, 40, -800, 700, 180, 90
_ROD_RADIUS = 20


@dataclass(frozen=True, slots=True)
class KnownPoint:
    """A pixel whose surroundings of 12 pixels all have the same value on every slice, in Hounsfield units."""

    column: int
    row: int
    hounsfield: int


# All of them inside the window of the series, far apart in grey.
KNOWN_POINTS = (
    KnownPoint(136, 60, -100),
    KnownPoint(196, 60, 0),
    KnownPoint(256, 60, 60),
    KnownPoint(316, 60, 120),
    KnownPoint(376, 60, 200),
)

# The ball in the right lung, which the structured report measures: centre, slice and radius in pixels.
NODULE_CENTRE, NODULE_SLICE, NODULE_RADIUS = (170, 240), 12, 24


def _slice(number: int) -> Canvas:
    """Hounsfield units of one slice (from 1): lungs and heart change along the body, a mark runs down the left edge."""
    canvas = Canvas(SIZE, SIZE, _AIR)
    canvas.rectangle((96, 420), (320, 10), -250)
    canvas.ellipse((256, 262), (196, 150), _FAT)
    canvas.ellipse((256, 262), (182, 136), _TISSUE)
    # Whole numbers: the lungs are widest in the middle of the series.
    reach = 16 + abs(2 * number - SLICES - 1) * 2
    for column in (166, 346):
        canvas.ellipse((column, 246), (78 - reach // 2, 96 - reach), _LUNG)
    canvas.grain(canvas.inside((256, 262), (182, 136)), 8, number)
    canvas.ellipse((266, 232), (24 + number, 34 + number // 2), 60)
    canvas.ellipse((288, 304), (14, 14), _VESSEL)
    canvas.ellipse((256, 346), (30, 26), _BONE)
    canvas.ellipse((256, 350), (10, 9), 20)
    across = NODULE_RADIUS**2 - (4 * (number - NODULE_SLICE)) ** 2
    if across > 0:
        radius = int(np.sqrt(across))
        canvas.ellipse(NODULE_CENTRE, (radius, radius), _NODULE)
    canvas.rectangle((100, 30), (312, 60), -150)
    for point in KNOWN_POINTS:
        canvas.ellipse((point.column, point.row), (_ROD_RADIUS, _ROD_RADIUS), point.hounsfield)
    canvas.rectangle((24, 60 + 16 * number), (16, 16), 300)
    canvas.number((214, 452), number, 7, 300)
    return canvas


def series() -> Iterator[Dataset]:
    """All slices from the feet up, 512 by 512, axial."""
    for number in range(1, SLICES + 1):
        yield instance(number)


def instance(number: int) -> Dataset:
    """One slice, numbered from 1 (CT Image IOD, PS3.3 A.3)."""
    ds = instance_of(CT_STUDY, SERIES, number, CTImageStorage)
    z = (number - 1) * SLICE_MM
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.AcquisitionDate, ds.AcquisitionTime = CT_STUDY.date, CT_STUDY.time
    ds.AcquisitionNumber = 1
    ds.Modality = "CT"
    ds.SeriesDescription = "Phantom, axial 3 mm"
    ds.SeriesNumber = 1
    ds.BodyPartExamined = "CHEST"
    ds.PatientPosition = "HFS"
    ds.FrameOfReferenceUID = stable_uid("ct/frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.KVP = 120
    ds.SliceThickness = SLICE_MM
    ds.SpacingBetweenSlices = SLICE_MM
    ds.ConvolutionKernel = "DRAWN"
    ds.PixelSpacing = [SPACING_MM, SPACING_MM]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [-SIZE * SPACING_MM / 2, -SIZE * SPACING_MM / 2, z]
    ds.SliceLocation = z
    image_pixel(ds, SIZE, SIZE, bits=12)
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = INTERCEPT, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = WINDOW_CENTER, WINDOW_WIDTH
    stored = np.clip(_slice(number).values - INTERCEPT, 0, 4095)
    ds.PixelData = stored.astype("<u2").tobytes()
    return ds
