"""A colour ultrasound clip: a grey sector with a vessel whose flow changes colour from frame to frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import UltrasoundMultiFrameImageStorage

from pacslite.samples.drawing import Canvas
from pacslite.samples.identity import US_STUDY, image_pixel, instance_of

FRAMES = 12
ROWS, COLUMNS = 240, 320
FRAME_MS = 80


def _frame(number: int) -> NDArray[np.uint8]:
    """One RGB frame, numbered from 1: the upper half of a heart beat flows red, the lower half blue."""
    grey = Canvas(ROWS, COLUMNS, 0)
    sector = grey.inside((160, 10), (150, 210))
    sector[:30] = False
    grey.values[sector] = 70
    grey.grain(sector, 40, number)
    vessel = grey.inside((160, 130), (90, 20 + number % 6))
    grey.values[vessel] = 12
    rgb = np.repeat(grey.values[:, :, np.newaxis], 3, axis=2)
    swing = 255 - 36 * abs((number - 1) % (FRAMES // 2) - FRAMES // 4)
    flow = grey.inside((160, 130), (80, 12 + number % 6))
    rgb[flow] = (swing, 40, 20) if number <= FRAMES // 2 else (20, 60, swing)
    label = Canvas(ROWS, COLUMNS, 0)
    label.number((280, 10), number, 3, 1)
    rgb[label.values == 1] = (255, 220, 0)
    frame: NDArray[np.uint8] = rgb.astype(np.uint8)
    return frame


def _region() -> Dataset:
    """The calibration of the sector (PS3.3 C.8.5.5): 0.05 cm a pixel."""
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 2, 2
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 30
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = COLUMNS - 1, ROWS - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.05
    return region


def multi_frame() -> Dataset:
    """The clip as one instance (US Multi-frame Image IOD, PS3.3 A.7), native RGB."""
    ds = instance_of(US_STUDY, "clip", 1, UltrasoundMultiFrameImageStorage)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "", "0001"]
    ds.Modality = "US"
    ds.SeriesDescription = "Colour Doppler, 12 frames"
    ds.SeriesNumber = 1
    ds.Laterality = ""
    ds.PatientOrientation = ""
    ds.LossyImageCompression = "00"
    ds.SequenceOfUltrasoundRegions = [_region()]
    image_pixel(ds, ROWS, COLUMNS, bits=8, samples=3)
    ds.NumberOfFrames = FRAMES
    ds.FrameTime = FRAME_MS
    ds.FrameIncrementPointer = Tag("FrameTime")
    ds.CineRate = ds.RecommendedDisplayFrameRate = 1000 // FRAME_MS
    ds.PixelData = b"".join(_frame(number).tobytes() for number in range(1, FRAMES + 1))
    return ds
