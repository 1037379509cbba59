"""What a person says about the files of a foreign tree: whose they are, of which type, when they were made. From a CSV or JSON file.

A row with `path` is about files: a path, a folder (with a final slash), a pattern, or the bare name of a file anywhere. A row
with `number` is about a patient as the tree calls them.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any

from pacslite.core.file_types import MedicalCategory, MedicalFileType
from pacslite.dicom.uids import is_uid
from pacslite.errors import BadRequest

_MOST_BYTES = 256 * 1024 * 1024
_MOST_ROWS = 2_000_000
_MOST_PATTERNS = 10_000
_MOST_TEXT = 10_000
# More of them would let a pattern take forever over a long path.
_MOST_DEPTHS, _MOST_STARS = 3, 12
_MAGIC = re.compile(r"[*?\[]")
_TRUE = frozenset({"1", "true", "yes", "x"})


@dataclass(frozen=True, slots=True)
class Who:
    """A patient: our own number, or the number of the institution (`mrn`) with what to call one that has to be made."""

    patient_id: int | None = None
    mrn: str | None = None
    issuer: str | None = None
    name: str | None = None
    birth_date: str | None = None
    sex: str | None = None

    @property
    def is_told(self) -> bool:
        """Whether it names anybody."""
        return self.patient_id is not None or self.mrn is not None


@dataclass(frozen=True, slots=True)
class Told:
    """What is said about a file; None where nothing is."""

    who: Who = field(default_factory=Who)
    number: str | None = None
    file_type: MedicalFileType | None = None
    medical_category: MedicalCategory | None = None
    study_date: str | None = None
    body_part: str | None = None
    description: str | None = None
    study_instance_uid: str | None = None
    skip: bool = False


_WHO = tuple(one.name for one in fields(Who))
_ABOUT = tuple(one.name for one in fields(Told) if one.name not in ("who", "number"))
_COLUMNS = frozenset(("path", "number", *_WHO, *_ABOUT))
Row = dict[str, str]


class FileMapping:
    """The rows of a mapping, ready to be asked."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._exact: dict[str, Row] = {}
        self._patterns: list[tuple[re.Pattern[str], Row]] = []
        self._patients: dict[str, Who] = {}
        for number, row in enumerate(rows, 1):
            if number > _MOST_ROWS:
                raise BadRequest(f"the mapping has more than {_MOST_ROWS} rows")
            try:
                self._add(row)
            except ValueError as error:
                raise BadRequest(f"mapping, row {number}: {error}") from None

    def _add(self, row: Row) -> None:
        told = _told(row)  # whatever is wrong is said now
        path = row.get("path", "").replace("\\", "/").removeprefix("./")
        if not path:
            if told.number is None or not told.who.is_told:
                raise ValueError("needs a path, or a number and whose it is (mrn or patient_id)")
            self._patients[told.number.lstrip("0") or "0"] = told.who
        elif path.endswith("/") or _MAGIC.search(path):
            if len(self._patterns) >= _MOST_PATTERNS:
                raise ValueError(f"more than {_MOST_PATTERNS} patterns")
            self._patterns.append((_pattern(path), row))
            if not path.endswith("/"):
                self._exact.setdefault(path, row)  # files may be called so
        else:
            self._exact.setdefault(path, row)

    def about(self, path: str, root: str = "") -> Told:
        """What is said about a file by its path below the folder that was given, whose name is `root`.

        Of several rows the one that names the path itself comes first, then patterns in their order; each column counts by itself.
        """
        names = [path, f"{root}/{path}"] if root else [path]
        base = path.rpartition("/")[2]
        found = [self._exact[name] for name in dict.fromkeys((*names, base)) if name in self._exact]
        found += [row for pattern, row in self._patterns if any(pattern.fullmatch(name) for name in names)]
        merged: Row = {}
        for row in found:
            has_patient = any(merged.get(name) for name in _WHO)
            merged |= {name: value for name, value in row.items() if not merged.get(name) and not (has_patient and name in _WHO)}
        return _told(merged)

    def patient(self, number: str) -> Who | None:
        """Whom the tree means by a number."""
        return self._patients.get(number.lstrip("0") or "0")


def _told(row: Mapping[str, str]) -> Told:
    def one(name: str) -> str | None:
        return row.get(name) or None

    identifier = one("patient_id")
    if identifier is not None and not re.fullmatch(r"[1-9][0-9]{0,17}", identifier):
        raise ValueError("patient_id: is not a number of this catalog; numbers of the institution are in mrn")
    study = one("study_instance_uid")
    if study is not None and not is_uid(study):
        raise ValueError("study_instance_uid: is not a UID")
    return Told(
        Who(int(identifier) if identifier else None, one("mrn"), one("issuer"), one("name"), _day(row, "birth_date"), one("sex")),
        one("number"),
        MedicalFileType(_known("file_type", row, MedicalFileType)) if one("file_type") else None,
        MedicalCategory(_known("medical_category", row, MedicalCategory)) if one("medical_category") else None,
        _day(row, "study_date"),
        one("body_part"),
        one("description"),
        study,
        (one("skip") or "").lower() in _TRUE,
    )


def _known(name: str, row: Mapping[str, str], words: Any) -> str:
    if row[name] not in set(words):
        raise ValueError(f"{name}: is none of {', '.join(words)}")
    return row[name]


def _day(row: Mapping[str, str], name: str) -> str | None:
    text = row.get(name)
    if not text:
        return None
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"{name}: is not a date, YYYY-MM-DD") from None


def _pattern(text: str) -> re.Pattern[str]:
    """`*` and `?` stay within a folder, `**` goes on below; a final slash means everything in the folder."""
    if text.endswith("/"):
        text += "**"
    if text.count("**") > _MOST_DEPTHS or text.count("*") > _MOST_STARS:
        raise ValueError("path: has more stars than a pattern may have")
    out, at = "", 0
    while at < len(text):
        if text.startswith("**/", at):
            out, at = out + "(?:[^/]+/)*", at + 3
        elif text.startswith("**", at):
            out, at = out + ".*", at + 2
        elif text[at] == "[" and (end := text.find("]", at + 2)) > 0:
            # Doubled, these will mean something within brackets in a later Python.
            inner = re.sub(r"-(?=-)|[\\\[&~|]", lambda sign: "\\" + sign[0], text[at + 1 : end])
            out, at = out + f"[{'^' + inner[1:] if inner[0] == '!' else inner}]", end + 1
        else:
            out, at = out + {"*": "[^/]*", "?": "[^/]"}.get(text[at], re.escape(text[at])), at + 1
    try:
        return re.compile(out, re.DOTALL)
    except re.error:
        raise ValueError("path: is not a pattern") from None


def read_mapping(path: Path) -> FileMapping:
    """The mapping in a file: JSON when its name ends so, else CSV; raises BadRequest with what is wrong."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadRequest(f"the mapping is larger than {_MOST_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise BadRequest(f"the mapping cannot be read: {reason}") from None
    try:
        return FileMapping(_of_json(text) if path.suffix.lower() == ".json" else _of_csv(text))
    except (csv.Error, json.JSONDecodeError, RecursionError) as error:
        raise BadRequest(f"the mapping cannot be read: {error}") from None


def _of_csv(text: str) -> Iterator[Row]:
    first = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if first.count(";") > first.count(",") else ",", strict=True)
    for row in reader:
        if None in row or None in row.values():
            raise BadRequest(f"mapping, line {reader.line_num}: has not as many fields as the first line")
        yield _row({str(name): value for name, value in row.items()})


def _of_json(text: str) -> Iterator[Row]:
    """A list of rows; or an object whose members are lists of rows, in groups as their author likes (`patients`, `files`)."""
    found = json.loads(text)
    groups = found.values() if isinstance(found, dict) else [found]
    for group in groups:
        if not isinstance(group, list):
            raise BadRequest("the mapping is not a list of rows, nor an object of such lists")
        for row in group:
            if not isinstance(row, dict) or not all(isinstance(value, (str, int, bool, type(None))) for value in row.values()):
                raise BadRequest("the mapping has a row that is not an object of texts")
            yield _row(row)


def _row(row: Mapping[str, Any]) -> Row:
    texts = {name.strip().lower(): "" if value is None else str(value).strip() for name, value in row.items()}
    unknown = sorted(set(texts) - _COLUMNS)
    if unknown:
        raise BadRequest(f"the mapping has unknown columns: {', '.join(unknown)[:200]}; known are {', '.join(sorted(_COLUMNS))}")
    if any(len(value) > _MOST_TEXT for value in texts.values()):
        raise BadRequest(f"the mapping has a text of more than {_MOST_TEXT} characters")
    return {name: value for name, value in texts.items() if value}
