"""One DICOM instance as the catalog needs it, read in one pass over its file."""

from __future__ import annotations

from dataclasses import dataclass

from pacslite.dicom.frame_index import FrameIndex
from pacslite.dicom.limits import Limits
from pacslite.dicom.part10 import FileMeta

__all__ = ["Instance", "Limits"]


@dataclass(frozen=True, slots=True)
class Instance:
    """What an instance is, without its bulk data.

    `metadata` is one DICOM JSON object (PS3.18 annex F), UTF-8, in which a raw NUL byte stands for the URL of the
    instance's bulk data: `"BulkDataURI":"\\0/7FE00010"`. `values` are the wanted attributes (`Limits.tags`) as decoded
    text; an attribute that is absent has no entry, one that is empty an empty tuple.
    """

    meta: FileMeta
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    values: dict[int, tuple[str, ...]]
    metadata: bytes
    frame_index: FrameIndex | None
    warnings: tuple[str, ...]
