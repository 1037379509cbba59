"""What a file is, decided from its content and checked against what it is said to be.

A kept table of signatures (puremagic) says what a file begins like; a reader of that kind then walks its structure, and
what no reader confirms is not taken. Text and models have no signatures: they are read whole. Nothing is decoded, unpacked
or run, and memory does not depend on the file's size. docs/files.md lists what is taken and what is not, and why.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from pacslite.core import file_kinds as kinds
from pacslite.core import inspection_foreign as foreign
from pacslite.core.file_kinds import ALLOWED, KNOWN_EXTENSIONS, RUNNABLE_EXTENSIONS, Family, Kind, type_of
from pacslite.core.file_names import extension_of
from pacslite.core.file_types import MedicalFileType
from pacslite.core.inspection_sniffing import sniffed
from pacslite.core.inspection_source import Source
from pacslite.errors import PacsliteError, RefusedContent, StorageError
from pacslite.settings import Settings

# What readers of the standard library and ours stumble over in files that are broken on purpose.
_BROKEN = (ValueError, ArithmeticError, LookupError, EOFError, RecursionError, NotImplementedError, struct.error, zlib.error, zipfile.error)


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a file is. `extension` is the name's own in lower case, or the kind's when it has none; with its dot."""

    media_type: str
    extension: str
    file_type: MedicalFileType
    warnings: tuple[str, ...] = ()


def inspect(path: Path, filename: str, file_type: MedicalFileType | None, settings: Settings) -> Inspected:
    """What the file is, if it is one that may be filed under `file_type` (None: under whatever fits it).

    Raises RefusedContent (an UnsupportedContent), naming the reason, for everything else.
    """
    try:
        with path.open("rb") as file:
            return _inspected(Source(file), filename, file_type, settings)
    except PacsliteError:
        raise
    except _BROKEN as error:
        raise RefusedContent("the file is broken") from error
    except OSError as error:
        raise StorageError(f"the file cannot be read: {error.strerror or 'input error'}") from error


def _inspected(source: Source, filename: str, file_type: MedicalFileType | None, settings: Settings) -> Inspected:
    extension = extension_of(filename)
    if not source.size:
        raise RefusedContent("the file is empty")
    if extension in RUNNABLE_EXTENSIONS:
        raise RefusedContent(f"files whose names end in {extension} may be run, and are not taken")
    kind = sniffed(source, extension)
    if file_type is not None and kind not in ALLOWED[file_type]:
        raise RefusedContent(f"the content is {kind.name}, which is not taken as {file_type}")
    _check_extension(kind, extension)
    warnings = _check(kind, source, settings)
    return Inspected(kind.media_type, extension or kind.extensions[0], file_type or type_of(kind), warnings)


def _check_extension(kind: Kind, extension: str) -> None:
    if not extension or extension in kind.extensions:
        return
    # Names of DICOM files end in anything: a number of the image, a part of a UID.
    if kind is kinds.DICOM and extension not in KNOWN_EXTENSIONS:
        return
    raise RefusedContent(f"the name ends in {extension}, the content is {kind.name}")


def _check(kind: Kind, source: Source, settings: Settings) -> tuple[str, ...]:
    """Warnings of the reader of that kind; raises RefusedContent."""
    if kind not in (kinds.DOCX, kinds.XLSX, kinds.PPTX, kinds.ODT, kinds.ODS, kinds.ODP):
        # Word keeps the theme of a document as an archive within a DOC.
        foreign.check_no_archive_at_end(source, strictly=kind not in (kinds.DOC, kinds.XLS))
    if kind.family is Family.PICTURE:
        return _check_picture(kind, source, settings)
    if kind.family is Family.VIDEO:
        return _check_video(kind, source)
    if kind.family is Family.DICOM:
        foreign.check_preamble(source.head)
        return ()
    if kind.family is Family.MODEL:
        from pacslite.core.inspection_models import check_model

        return check_model(kind, source)
    from pacslite.core.inspection_documents import check_document

    return check_document(kind, source)


def _check_picture(kind: Kind, source: Source, settings: Settings) -> tuple[str, ...]:
    from pacslite.core.inspection_pictures import read_picture

    picture = read_picture(kind, source, settings.max_picture_pixels)
    foreign.check_words(source)
    return foreign.check_trailing(source, picture.end) if picture.end is not None else ()


def _check_video(kind: Kind, source: Source) -> tuple[str, ...]:
    from pacslite.core.inspection_boxes import check_movie

    if kind in (kinds.MP4, kinds.MOV, kinds.THREE_GP):
        return check_movie(source)
    if kind is kinds.AVI and 8 + int.from_bytes(source.head[4:8], "little") > source.size:
        return ("the video is cut off",)
    return ()
