"""Forms with files (multipart/form-data, RFC 7578): files are streamed into the spool, fields are checked as those of JSON bodies are.

Whatever ends a form before its end takes the spool files along: a client that vanishes leaves nothing.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import unquote_to_bytes

from pacslite.core import quotas
from pacslite.core.file_types import FileVersionType, MedicalCategory, MedicalFileType
from pacslite.core.files import Arrived, Description, owner_of
from pacslite.dicom.uids import clean_uid
from pacslite.errors import InvalidForm, InvalidMultipart, InvalidUid, TooLarge, UnsupportedContent
from pacslite.web.forms import hints_of, parse_value, rule
from pacslite.web.incoming import arriving_body
from pacslite.web.multipart import Limits, MultipartReader, Part, checked_boundary

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.storage.spool import SpoolFile
    from pacslite.web.messages import Request

T = TypeVar("T")

FORM_DATA = "multipart/form-data"
_WITHOUT_FILE = "application/x-www-form-urlencoded"  # what many clients send of a form that has no file
MOST_FILES = 1000
_MOST_FIELDS = 32
_MOST_FIELD_BYTES = 64 * 1024
_FORM_BYTES = 1024 * 1024
"""What a form may have beside its files."""
_PARAMETER = re.compile(r';\s*([A-Za-z0-9*_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))\s*')
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[A-Za-z0-9-]*'(.*)", re.IGNORECASE)
_ESCAPED_BY_BROWSERS = {"%22": '"', "%0D": "\r", "%0A": "\n"}
_TRUE, _FALSE = frozenset({"true", "1", "on", "yes"}), frozenset({"false", "0", "off", "no"})

FileTypeName = Literal[
    "photo",
    "xray",
    "panoramic",
    "ct_scan",
    "dicom",
    "mri",
    "stl_model",
    "obj_model",
    "ply_model",
    "pdf",
    "document",
    "report",
    "video",
    "photo_series",
]
CategoryName = Literal["clinical", "diagnostic", "treatment", "surgical"]
VersionTypeName = Literal["baseline", "followup", "treatment", "surgical", "final"]

PATIENT = rule("Number of an existing patient.", minimum=1, maximum=2**63 - 1)
CATEGORY = rule("In what part of the care it was made.")
STUDY_DATE = rule("Day it was made, YYYY-MM-DD.", format="date", pattern=r"^\d{4}-\d\d-\d\d$")
BODY_PART = rule("What it shows.", maxLength=200)
DESCRIPTION = rule("What there is to say of it.", maxLength=4000)
STUDY = rule("Study Instance UID of the study it belongs to.", maxLength=64)
_FILE = rule("The file; several, in order, of a photo series.", format="binary")


@dataclass(frozen=True, slots=True)
class UploadForm:
    """A new file of a patient. With `expand` a ZIP file, whose entries are taken in."""

    patient_id: int = field(metadata=PATIENT)
    file_type: FileTypeName | None = field(default=None, metadata=rule("What kind of file it is; may be left out with `expand`."))
    medical_category: CategoryName | None = field(default=None, metadata=CATEGORY)
    study_date: str | None = field(default=None, metadata=STUDY_DATE)
    body_part: str | None = field(default=None, metadata=BODY_PART)
    description: str | None = field(default=None, metadata=DESCRIPTION)
    study_instance_uid: str | None = field(default=None, metadata=STUDY)
    expand: bool = field(default=False, metadata=rule("Whether the entries of a ZIP file are taken in, each by itself."))
    file: tuple[str, ...] = field(default=(), metadata=_FILE)


@dataclass(frozen=True, slots=True)
class VersionForm:
    """A new version of a file."""

    version_type: VersionTypeName
    version_description: str | None = field(default=None, metadata=rule("What is new in it.", maxLength=4000))
    file: tuple[str, ...] = field(default=(), metadata=_FILE)


def description_of(form: UploadForm) -> Description:
    """What the form says of a file; raises InvalidForm when it does not say what kind it is."""
    if form.file_type is None:
        raise InvalidForm.at("file_type", "is missing")
    category = MedicalCategory(form.medical_category) if form.medical_category is not None else None
    check_described(form.study_date, form.study_instance_uid)
    return Description(
        form.patient_id,
        MedicalFileType(form.file_type),
        category,
        form.study_date,
        form.body_part,
        form.description,
        form.study_instance_uid,
    )


def discard(arrived: Sequence[Arrived]) -> None:
    """Removes what arrived from the spool."""
    for one in arrived:
        one.file.discard()


def check_described(study_date: str | None, study_uid: str | None) -> None:
    """Raises InvalidForm for what is no day, or no UID."""
    if study_date is not None:
        try:
            date.fromisoformat(study_date)
        except ValueError:
            raise InvalidForm.at("study_date", "is no day") from None
    if study_uid is not None:
        try:
            clean_uid(study_uid)
        except InvalidUid as error:
            raise InvalidForm.at("study_instance_uid", str(error)) from None


def version_type_of(form: VersionForm) -> FileVersionType:
    """The type as the core knows it."""
    return FileVersionType(form.version_type)


def receive(pacs: Pacs, request: Request, form: type[T]) -> tuple[T, list[Arrived]]:
    """The fields and files of a form, the files in the spool: whoever gets them discards them.

    Raises UnsupportedContent, InvalidMultipart, InvalidForm, TooLarge, OutOfSpace, QuotaExceeded; nothing stays in the spool then.
    """
    most, boundary = pacs.settings.max_upload_bytes, _boundary(request)
    _check_room(pacs, request, most)
    reader = MultipartReader(arriving_body(request.environ), boundary, Limits(most + _FORM_BYTES, MOST_FILES + _MOST_FIELDS))
    fields: dict[str, str] = {}
    arrived: list[Arrived] = []
    with ExitStack() as kept:
        for part in reader.parts():
            name, filename = _disposition(part)
            if name == "file":
                file = _spooled(pacs, part, most)
                kept.callback(file.discard)
                if filename == "" and not file.size_bytes:
                    file.discard()  # of a form of a browser in which nobody chose a file (HTML, "constructing the entry list")
                else:
                    arrived.append(Arrived(file, filename or ""))
            elif filename is not None:
                raise InvalidForm.at(name[:100], "is no field for a file")
            elif name in fields:
                raise InvalidForm.at(name[:100], "is given twice")
            else:
                fields[name] = _text(part, name)
        found = typed(form, fields)
        kept.pop_all()
        return found, arrived


def _check_room(pacs: Pacs, request: Request, most: int) -> None:
    """Refuses what its announced length shows to be too much.

    What comes without a length, or is beyond by no more than a form has beside its files, is found out when it is there.
    """
    length = request.content_length or 0
    if length > most + _FORM_BYTES:
        raise TooLarge(f"The body is larger than {most} bytes.")
    pacs.spool.check_space(length)
    quotas.check(pacs, owner_of(request.principal), max(0, length - _FORM_BYTES))


def _boundary(request: Request) -> bytes:
    content_type = request.header("Content-Type") or ""
    kind, _, rest = content_type.partition(";")
    if kind.strip().lower() == _WITHOUT_FILE:
        raise InvalidForm("file: is missing", (("file", "is missing"),))
    if kind.strip().lower() != FORM_DATA:
        raise UnsupportedContent(f"The body must be {FORM_DATA}.", (FORM_DATA,))
    if (request.header("Content-Encoding") or "identity").strip().lower() != "identity":
        raise UnsupportedContent("Bodies with a content coding are not taken here.", (FORM_DATA,))
    return checked_boundary(_parameters(";" + rest).get("boundary"))


def _parameters(text: str) -> dict[str, str]:
    """Parameters of a header; a backslash escapes quotes and itself only, as some clients send whole paths."""
    found: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(text[:8192]):
        found.setdefault(name.lower(), re.sub(r'\\(["\\])', r"\1", quoted) if quoted else plain)
    return found


def _disposition(part: Part) -> tuple[str, str | None]:
    """The name of a field and that of a file, None for a field that is none."""
    header = part.headers.get("content-disposition", "")
    kind, _, rest = header.partition(";")
    given = _parameters(";" + rest)
    if kind.strip().lower() != "form-data" or "name" not in given:
        raise InvalidMultipart("A part has no Content-Disposition: form-data with a name.")
    if part.headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
        raise InvalidMultipart("A part has a Content-Transfer-Encoding that is not taken.")
    return _utf8(given["name"]), _filename(given)


def _filename(given: dict[str, str]) -> str | None:
    extended = _EXTENDED.fullmatch(given.get("filename*", ""))
    if extended:
        return unquote_to_bytes(extended[2]).decode(extended[1], "replace")
    if "filename" not in given:
        return None
    name = _utf8(given["filename"])
    for escaped, character in _ESCAPED_BY_BROWSERS.items():  # HTML, "multipart/form-data encoding algorithm"
        name = name.replace(escaped, character)
    return name


def _utf8(text: str) -> str:
    """Headers are read as Latin-1; names in them are UTF-8 (RFC 7578 5.1), from old programs Latin-1."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeDecodeError:
        return text


def _text(part: Part, name: str) -> str:
    data = bytearray()
    for piece in part.data():
        data += piece
        if len(data) > _MOST_FIELD_BYTES:
            raise InvalidForm.at(name[:100], "is too long")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidForm.at(name[:100], "is not UTF-8") from None
    if "\0" in text:
        raise InvalidForm.at(name[:100], "holds a NUL")
    return text


def _spooled(pacs: Pacs, part: Part, most: int) -> SpoolFile:
    with pacs.spool.create(".upload", most) as writer:
        for piece in part.data():
            writer.write(piece)
        return writer.finish()


def typed(form: type[T], fields: dict[str, str]) -> T:
    """Texts as values of the form; what is empty and may be left out is left out."""
    hints = hints_of(form)
    known = {f.name: f for f in dataclasses.fields(form) if f.name != "file"}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, text in fields.items():
        if name not in known:
            values[name if name != "file" else "file (not a file)"] = text
        elif text or known[name].default is dataclasses.MISSING:
            values[name] = _value(_plain(hints[name]), text)
    return parse_value(form, values)


def _plain(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        return next(part for part in get_args(kind) if part is not type(None))
    return kind


def _value(kind: Any, text: str) -> Any:
    if kind is int:
        return int(text) if text.isascii() and text.strip().isdigit() and len(text) <= 30 else text
    if kind is bool and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    return text
