"""The vocabulary of files: types with their folders and prefixes in keys, categories, types of versions, variants.

The words are those of the public contract; anything else is refused where it comes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class MedicalFileType(StrEnum):
    """What a file is for its users."""

    PHOTO = "photo"
    XRAY = "xray"
    PANORAMIC = "panoramic"
    CT_SCAN = "ct_scan"
    DICOM = "dicom"
    MRI = "mri"
    STL_MODEL = "stl_model"
    OBJ_MODEL = "obj_model"
    PLY_MODEL = "ply_model"
    PDF = "pdf"
    DOCUMENT = "document"
    REPORT = "report"
    VIDEO = "video"
    PHOTO_SERIES = "photo_series"


class MedicalCategory(StrEnum):
    """In what part of the care a file was made."""

    CLINICAL = "clinical"
    DIAGNOSTIC = "diagnostic"
    TREATMENT = "treatment"
    SURGICAL = "surgical"


class FileVersionType(StrEnum):
    """What a version stands for; the first is the baseline."""

    BASELINE = "baseline"
    FOLLOWUP = "followup"
    TREATMENT = "treatment"
    SURGICAL = "surgical"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class KeyNames:
    """How a type is called in storage keys: its folder, and the prefix of names in it."""

    folder: str
    prefix: str


KEY_NAMES: dict[MedicalFileType, KeyNames] = {
    MedicalFileType.PHOTO: KeyNames("photos", "photo"),
    MedicalFileType.XRAY: KeyNames("xrays", "xray"),
    MedicalFileType.PANORAMIC: KeyNames("panoramics", "pano"),
    MedicalFileType.CT_SCAN: KeyNames("ct_scans", "ct"),
    MedicalFileType.DICOM: KeyNames("dicoms", "dicom"),
    MedicalFileType.MRI: KeyNames("mris", "mri"),
    MedicalFileType.STL_MODEL: KeyNames("stl_models", "stl"),
    MedicalFileType.OBJ_MODEL: KeyNames("obj_models", "obj"),
    MedicalFileType.PLY_MODEL: KeyNames("ply_models", "ply"),
    MedicalFileType.PDF: KeyNames("pdfs", "pdf"),
    MedicalFileType.DOCUMENT: KeyNames("documents", "doc"),
    MedicalFileType.REPORT: KeyNames("reports", "report"),
    MedicalFileType.VIDEO: KeyNames("videos", "video"),
    MedicalFileType.PHOTO_SERIES: KeyNames("photo_series", "series"),
}


class Variant(StrEnum):
    """Smaller pictures of a file, and the file as it was sent."""

    LARGE = "large"
    MEDIUM = "medium"
    THUMBNAIL = "thumbnail"
    ORIGINAL = "original"


@dataclass(frozen=True, slots=True)
class PictureSize:
    """A picture's largest dimension in pixels, its JPEG quality, and the folder of such pictures in keys."""

    pixels: int
    quality: int
    folder: str


PICTURE_SIZES: dict[Variant, PictureSize] = {
    Variant.LARGE: PictureSize(1200, 85, "large"),
    Variant.MEDIUM: PictureSize(800, 80, "medium"),
    Variant.THUMBNAIL: PictureSize(200, 75, "thumbnails"),
}
