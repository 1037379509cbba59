"""What callers in Python give for a file: bytes, a path or an open file; numbers, dates and words in the forms they have them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pacslite.core.file_types import MedicalCategory, MedicalFileType
from pacslite.core.files import Arrived, Description
from pacslite.errors import BadRequest
from pacslite.storage.spool import Spool

Content = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
"""Bytes, the path of a file, or an open binary file."""

_PIECE_BYTES = 1024 * 1024
_ABOUT = frozenset({"medical_category", "study_date", "body_part", "description", "study_instance_uid", "file_id"})


def pieces_of(content: Content) -> Iterator[bytes]:
    """The bytes in pieces; raises BadRequest for a path that cannot be read."""
    if isinstance(content, (bytes, bytearray, memoryview)):
        view = memoryview(content).cast("B")
        for at in range(0, len(view), _PIECE_BYTES):
            yield bytes(view[at : at + _PIECE_BYTES])
    elif isinstance(content, (str, os.PathLike)):
        try:
            with open(content, "rb") as file:
                yield from _read(file)
        except OSError as error:
            raise BadRequest(f"the file cannot be read: {error.strerror}") from error
    else:
        yield from _read(content)


def _read(file: BinaryIO) -> Iterator[bytes]:
    piece: Any
    while piece := file.read(_PIECE_BYTES):
        if not isinstance(piece, bytes):
            raise BadRequest("the file is open as text, not as bytes")
        yield piece


def several(content: Content | Sequence[Content]) -> list[Content]:
    """One content, or those of a photo series."""
    if isinstance(content, (list, tuple)):
        return list(content)
    return [content]  # type: ignore[list-item]


def names_of(contents: Sequence[Content], given: str | Sequence[str] | None) -> list[str]:
    """What the files are called: as given, else by their paths."""
    if isinstance(given, str):
        given = [given]
    if given is not None:
        if len(given) != len(contents):
            raise BadRequest(f"{len(given)} names for {len(contents)} files")
        return list(given)
    return [_name_of(content) for content in contents]


def _name_of(content: Content) -> str:
    if isinstance(content, (str, os.PathLike)):
        return Path(content).name
    name = getattr(content, "name", None) if isinstance(content, io.IOBase) else None
    return Path(name).name if isinstance(name, str) else "file"


def spooled(spool: Spool, most_bytes: int, contents: Sequence[Content], names: Sequence[str]) -> list[Arrived]:
    """Copies in the spool, where the core takes them from; all or none."""
    done: list[Arrived] = []
    try:
        for content, name in zip(contents, names, strict=True):
            with spool.create("", most_bytes) as writer:
                for piece in pieces_of(content):
                    writer.write(piece)
                done.append(Arrived(writer.finish(), name))
    except BaseException:
        for one in done:
            one.file.discard()
        raise
    return done


def number_of(patient_id: int | str) -> int:
    """The number of a patient; raises BadRequest."""
    text = str(patient_id).strip()
    if isinstance(patient_id, bool) or not (text.isascii() and text.isdigit()) or not 0 < int(text[:20]) < 2**63:
        raise BadRequest("patient_id: is not a number above 0")
    return int(text)


def day_of(given: date | str | None) -> str | None:
    """A date as YYYY-MM-DD; raises BadRequest."""
    if given is None or given == "":
        return None
    if isinstance(given, datetime):
        return given.date().isoformat()
    if isinstance(given, date):
        return given.isoformat()
    try:
        return datetime.fromisoformat(given).date().isoformat()
    except ValueError:
        raise BadRequest("study_date: is no date") from None


def description_of(patient_id: int, kind: MedicalFileType, about: Mapping[str, Any]) -> Description:
    """What is said of a file; raises BadRequest for what is unknown."""
    unknown = sorted(set(about) - _ABOUT)
    if unknown:
        raise BadRequest(f"unknown: {', '.join(unknown)}")
    category = about.get("medical_category")
    return Description(
        patient_id,
        kind,
        None if category is None else word(MedicalCategory, category),
        day_of(about.get("study_date")),
        about.get("body_part"),
        about.get("description"),
        about.get("study_instance_uid"),
        about.get("file_id"),
    )


def word(words: Any, given: Any) -> Any:
    """A member of an enumeration, given so or as text; raises BadRequest."""
    try:
        return words(given)
    except ValueError:
        raise BadRequest(f"{given!r} is none of {', '.join(words)}") from None
