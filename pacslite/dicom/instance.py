"""One DICOM instance as the catalog needs it, read in one pass over its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pacslite.dicom import frame_index, vr
from pacslite.dicom.data_set import GE_PRIVATE, NATIVE, DataSetFile, open_data_set
from pacslite.dicom.frame_index import FrameIndex, PixelLayout
from pacslite.dicom.header import Encoding, Head, Header, check_end, name_of, skip_fragments
from pacslite.dicom.json_model import JsonReader
from pacslite.dicom.limits import Limits
from pacslite.dicom.part10 import FileMeta
from pacslite.dicom.uids import is_uid
from pacslite.errors import MissingAttribute

__all__ = ["Instance", "Limits", "read_instance"]

# Of the metadata's shape: stored metadata made by another version is rebuilt.
EXTRACTOR_VERSION = 1

_NUMBER_OF_FRAMES, _SAMPLES_PER_PIXEL, _PHOTOMETRIC = 0x00280008, 0x00280002, 0x00280004
_ROWS, _COLUMNS, _BITS_ALLOCATED = 0x00280010, 0x00280011, 0x00280100
_EXTENDED_OFFSETS, _EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002
_IDENTIFIERS = (
    (0x0020000D, "StudyInstanceUID"),
    (0x0020000E, "SeriesInstanceUID"),
    (0x00080018, "SOPInstanceUID"),
    (0x00080016, "SOPClassUID"),
)


@dataclass(frozen=True, slots=True)
class Instance:
    """What an instance is, without its bulk data.

    `metadata` is one DICOM JSON object (PS3.18 annex F), UTF-8, in which a raw NUL byte stands for the URL of the
    instance's bulk data: `"BulkDataURI":"\\0/7FE00010"`. `values` are the wanted attributes (`Limits.tags`) as decoded
    text; an attribute that is absent has no entry, one that is empty an empty tuple. Wanted sequences are in `header`.
    """

    meta: FileMeta
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    values: dict[int, tuple[str, ...]]
    header: Header
    metadata: bytes
    frame_index: FrameIndex | None
    warnings: tuple[str, ...]


def read_instance(file: Path | bytes, limits: Limits, lenient: bool = False) -> Instance:
    """Read a Part 10 file (or all its bytes) once; with `lenient` also a bare data set. Raises the leaves of InstanceRefused.

    Pixels are never read, only the heads of their fragments. Where file meta and data set disagree the data set wins.
    """
    with open_data_set(file, limits, lenient) as opened:
        pixels = _Pixels(opened)
        reader = JsonReader(opened.source, limits.tags, pixels.found)
        header, metadata = reader.read(opened.position, opened.encoding)
        study, series, sop_instance, sop_class = (_identifier(header, tag, keyword) for tag, keyword in _IDENTIFIERS)
        warnings = [*opened.warnings, *reader.warnings, *pixels.warnings]
        warnings += _disagreements(opened.meta, sop_class, sop_instance)
        elements = header.elements
        values = {tag: elements[tag].texts for tag in limits.tags if tag in elements and elements[tag].vr != "SQ"}
        index = pixels.index
        return Instance(opened.meta, study, series, sop_instance, sop_class, values, header, metadata, index, tuple(warnings))


def _identifier(header: Header, tag: int, keyword: str) -> str:
    values = header.texts(tag)
    if not values:
        raise MissingAttribute(f"{keyword} {name_of(tag)} is missing")
    if len(values) > 1 or not is_uid(values[0]):
        raise MissingAttribute(f"{keyword} {name_of(tag)} is not a UID: {values[0][:65]!r}")
    return values[0]


def _disagreements(meta: FileMeta, sop_class_uid: str, sop_instance_uid: str) -> list[str]:
    warnings = []
    if meta.sop_class_uid and meta.sop_class_uid != sop_class_uid:
        warnings.append("file meta and data set name different SOP classes")
    if meta.sop_instance_uid and meta.sop_instance_uid != sop_instance_uid:
        warnings.append("file meta and data set name different SOP instances")
    return warnings


class _Pixels:
    """Makes the frame index when the reader comes to the pixels."""

    def __init__(self, file: DataSetFile) -> None:
        self._file = file
        self.index: FrameIndex | None = None
        self.warnings: list[str] = []

    def found(self, head: Head, header: Header, encoding: Encoding) -> int:
        """Index the frames; gives where the pixels end. Raises TruncatedDataSet, NotDicom."""
        uid, source = self._file.meta.transfer_syntax_uid, self._file.source
        if head.length == vr.UNDEFINED:
            if uid in NATIVE:
                self.warnings.append("encapsulated pixels in a native transfer syntax")
                return skip_fragments(source, head, source.size, encoding.little)
            table = (self._raw(header, _EXTENDED_OFFSETS), self._raw(header, _EXTENDED_LENGTHS))
            frames = max(header.number(_NUMBER_OF_FRAMES, 1), 1)
            self.index, after = frame_index.encapsulated(uid, frames, source.read, head.start, source.size, table)
            counted = self.index.number_of_frames if self.index else 0
            if counted != frames and not frame_index.is_video(uid):
                self.warnings.append(f"{counted} frames are there, Number of Frames (0028,0008) says {frames}")
            return after
        after = check_end(head, source.size, source)
        layout = PixelLayout(
            header.number(_NUMBER_OF_FRAMES, 1),
            header.number(_ROWS),
            header.number(_COLUMNS),
            header.number(_SAMPLES_PER_PIXEL, 1),
            _FLOAT_BITS.get(head.tag) or header.number(_BITS_ALLOCATED),
            header.text(_PHOTOMETRIC) == "YBR_FULL_422",
        )
        self.index = frame_index.native(uid, layout, head.start, head.length, self._swap(head, encoding, layout), self._file.inflated)
        counted = self.index.number_of_frames if self.index else 0
        if layout.frame_bits and counted < max(layout.number_of_frames, 1):
            self.warnings.append(f"{counted} whole frames are there, Number of Frames (0028,0008) says {layout.number_of_frames}")
        return after

    def _swap(self, head: Head, encoding: Encoding, layout: PixelLayout) -> int:
        if self._file.meta.transfer_syntax_uid == GE_PRIVATE:
            return 2 if layout.bits_allocated > 8 else 0
        return 0 if encoding.little else vr.WORD_BYTES.get(head.vr, 0)

    def _raw(self, header: Header, tag: int) -> bytes:
        element = header.get(tag)
        if element is None or element.length > self._file.source.limits.max_header_bytes:
            return b""
        return self._file.source.read(element.offset, element.length) if element.raw is None else element.raw


_FLOAT_BITS = {0x7FE00008: 32, 0x7FE00009: 64}
