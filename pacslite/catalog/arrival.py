"""An instance on its way into the catalog: its attributes as rows, made before the write transaction begins."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pacslite.catalog.changes import Origin
from pacslite.catalog.search_values import IndexedValue, words_in
from pacslite.dicom.attributes import Attribute, Level, Source, of_level
from pacslite.dicom.person_name import normal_groups
from pacslite.dicom.temporal import date_time_interval, normal_date, normal_time

Values = Mapping[int, tuple[str, ...]]

# PostgreSQL takes 2,704 bytes in one index entry, at most four bytes a character.
_INDEXED_CHARACTERS = 512
_CHARACTERS = 16384
_PATIENT_ID, _ISSUER_OF_PATIENT_ID, _MODALITY = 0x00100020, 0x00100021, 0x00080060


@dataclass(frozen=True, slots=True)
class PatientIdentity:
    """Who a patient is: PatientID and issuer, trimmed. Without a PatientID it is the patient of one study (`study`)."""

    patient_id: str
    issuer: str
    study: str = ""
    issuer_given: bool = False

    @property
    def key(self) -> str:
        """Name of the lock of this patient."""
        return f"patient:{self.patient_id}\\{self.issuer}\\{self.study}"


@dataclass(frozen=True, slots=True)
class NewBlob:
    """Bytes that are in the store and not yet in the catalog; `content` when the catalog is to keep them for a while too."""

    uid: str
    storage_key: str
    store_name: str
    size_bytes: int
    sha256: str
    media_type: str = "application/dicom"
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """The columns of one level, a digest of what they were made from, and values with an index of their own."""

    columns: Mapping[str, Any]
    digest: bytes
    values: tuple[IndexedValue, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrival:
    """Everything about one instance that a write transaction puts into the catalog."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    identity: PatientIdentity
    modality: str
    patient: Row
    study: Row
    series: Row
    instance: Mapping[str, Any]
    request_attributes: tuple[tuple[str, str], ...]
    data_set_digest: str
    metadata: bytes
    extractor_version: int
    frame_index: bytes | None
    origin: Origin
    instance_values: tuple[IndexedValue, ...] = ()

    @property
    def uids(self) -> tuple[str, str, str]:
        """Study, series and SOP Instance UID."""
        return self.study_instance_uid, self.series_instance_uid, self.sop_instance_uid

    @property
    def keys(self) -> tuple[str, ...]:
        """What the transaction changes, for `Catalog.write`."""
        return f"study:{self.study_instance_uid}", self.identity.key


def identity_of(values: Values, study_instance_uid: str, default_issuer: str) -> PatientIdentity:
    """The patient an instance names; an empty PatientID makes one patient per study, and never joins people."""
    patient_id = _clean("\\".join(values.get(_PATIENT_ID, ())), _INDEXED_CHARACTERS).strip()
    if not patient_id:
        return PatientIdentity("", "", study_instance_uid)
    issuer = _clean("\\".join(values.get(_ISSUER_OF_PATIENT_ID, ())), _INDEXED_CHARACTERS).strip()
    return PatientIdentity(patient_id, issuer or default_issuer, "", bool(issuer))


def modality_of(values: Values) -> str:
    """The modality that counts for ModalitiesInStudy."""
    return _clean("\\".join(values.get(_MODALITY, ())), _INDEXED_CHARACTERS)


def _clean(text: str, limit: int) -> str:
    """Text every database can keep: no NUL, no half surrogates, no endless values."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("\0", "")[:limit]


def _number(text: str) -> float | None:
    first = text.split("\\", 1)[0].strip()
    try:
        value = float(first)
    except ValueError:
        return None
    # float() knows "nan", "inf" and "1_000", which are no IS or DS.
    return value if math.isfinite(value) and "_" not in first else None


def _normal_date(text: str) -> tuple[str]:
    return (normal_date(text.split("\\", 1)[0]) or "",)


def _normal_time(text: str) -> tuple[str]:
    return (normal_time(text.split("\\", 1)[0]) or "",)


def _interval(text: str) -> tuple[str, str]:
    return date_time_interval(text.split("\\", 1)[0]) or ("", "")


def _names(text: str) -> tuple[str, ...]:
    return tuple(group[:_INDEXED_CHARACTERS] for group in normal_groups(text))


_FORMS: dict[str, Callable[[str], tuple[Any, ...]]] = {
    "DA": _normal_date,
    "TM": _normal_time,
    "DT": _interval,
    "PN": _names,
    "IS": lambda text: (_number(text),),
    "DS": lambda text: (_number(text),),
}
_EMPTY_FORMS: dict[str, tuple[Any, ...]] = {"DA": ("",), "TM": ("",), "DT": ("", ""), "PN": ("", "", ""), "IS": (None,), "DS": (None,)}
_UIDS = frozenset({"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"})


def _of_elements(level: Level) -> tuple[Attribute, ...]:
    return tuple(a for a in of_level(level) if a.source is Source.ELEMENT and a.keyword not in _UIDS)


_ELEMENTS = {level: _of_elements(level) for level in Level}
_TAGS = {level: tuple(a.tag for a in attributes) for level, attributes in _ELEMENTS.items()}
COLUMNS = {
    level: tuple(name for a in attributes for name in (a.column, *(a.match_columns if a.has_normal_form else ())))
    for level, attributes in _ELEMENTS.items()
}
"""The columns that `columns_of` and `row_of` fill, by level."""

Raw = tuple[tuple[str, ...] | None, ...]
# For each attribute its column and how long it may be, its columns for matching and what makes them.
_Step = tuple[str, int, tuple[str, ...], Callable[[str], tuple[Any, ...]] | None]


def _step(attribute: Attribute) -> _Step:
    limit = _INDEXED_CHARACTERS if attribute.indexed else _CHARACTERS
    form = _FORMS[attribute.vr] if attribute.has_normal_form else None
    return attribute.column, limit, attribute.match_columns, form


def _blank(level: Level) -> dict[str, Any]:
    """The columns of a level of which nothing is known."""
    blank: dict[str, Any] = {}
    for attribute in _ELEMENTS[level]:
        blank[attribute.column] = None
        if attribute.has_normal_form:
            blank.update(zip(attribute.match_columns, _EMPTY_FORMS[attribute.vr], strict=True))
    return blank


_STEPS = {level: tuple(_step(a) for a in attributes) for level, attributes in _ELEMENTS.items()}
_BLANKS = {level: _blank(level) for level in Level}
_NAMES = {level: tuple((i, a.tag) for i, a in enumerate(attributes) if a.vr == "PN") for level, attributes in _ELEMENTS.items()}
"""The person names of a level: where they stand, and their tags."""


def _columns(level: Level, raw: Raw) -> dict[str, Any]:
    out = _BLANKS[level].copy()
    for (column, limit, names, form), values in zip(_STEPS[level], raw, strict=True):
        if values:
            text = _clean(values[0] if len(values) == 1 else "\\".join(values), limit)
            if text:
                out[column] = text
                if form is not None:
                    out.update(zip(names, form(text), strict=True))
    return out


def columns_of(level: Level, values: Values) -> dict[str, Any]:
    """The columns of a level from the attributes of an instance."""
    return _columns(level, tuple([values.get(tag) for tag in _TAGS[level]]))


# The instances of a series share all this, and senders send series by series.
@lru_cache(maxsize=256)
def _row(level: Level, raw: Raw, extra: tuple[tuple[str, str], ...]) -> Row:
    digest = hashlib.blake2b(repr((raw, extra)).encode("utf-8", "surrogatepass"), digest_size=12).digest()
    return Row(_columns(level, raw), digest, _words(level, raw))


def _words(level: Level, raw: Raw) -> tuple[IndexedValue, ...]:
    """The words of the person names."""
    named = [(tag, values) for place, tag in _NAMES[level] if (values := raw[place])]
    return tuple([word for tag, values in named for word in words_in(tag, _clean("\\".join(values), _INDEXED_CHARACTERS))])


def row_of(level: Level, values: Values, extra: tuple[tuple[str, str], ...] = (), indexed: Iterable[IndexedValue] = ()) -> Row:
    """The columns of a level with the digest that tells whether they differ from those in the catalog.

    `indexed` are values of attributes that are indexed by configuration.
    """
    row = _row(level, tuple([values.get(tag) for tag in _TAGS[level]]), extra)
    more = tuple(indexed)
    if not more:
        return row
    digest = hashlib.blake2b(row.digest + repr(more).encode("utf-8", "surrogatepass"), digest_size=12).digest()
    return Row(row.columns, digest, row.values + more)
