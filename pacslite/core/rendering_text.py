"""Texts of a data set for people: names, dates, and what is burnt into a picture on request (PS3.18 8.3.5.1.1)."""

from __future__ import annotations

import re
from collections.abc import Collection

from pacslite.dicom.document import Document, values_of

PATIENT, TECHNIQUE = "patient", "technique"
ANNOTATIONS = (PATIENT, TECHNIQUE)
_MOST_CHARACTERS = 100
_TECHNIQUE = (
    ("Slice thickness", "00180050", " mm"),
    ("KVP", "00180060", ""),
    ("Exposure", "00181152", " mAs"),
    ("TR", "00180080", " ms"),
    ("TE", "00180081", " ms"),
)


def first(document: Document, key: str) -> str:
    """The first value as text."""
    return next(iter(values_of(document.get(key))), "").strip()


def person(text: str) -> str:
    """A person name as it is read: family name, given names; further groups in brackets."""
    groups = [_plain_name(group) for group in text.split("=")]
    names = [group for group in groups if group]
    return names[0] + "".join(f" ({other})" for other in names[1:]) if names else ""


def _plain_name(group: str) -> str:
    family, _, rest = group.partition("^")
    given = " ".join(part for part in rest.split("^") if part)
    return ", ".join(part for part in (family.strip(), given) if part)


def date(text: str) -> str:
    """A date or date-time of DICOM, as ISO 8601 writes it."""
    found = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)(?:(\d\d)(\d\d)?(\d\d)?(\.\d{1,6})?)?([+-]\d{4})?", text)
    if not found:
        return text
    year, month, day, hour, minute, second, _, zone = found.groups()
    clock = ":".join(part for part in (hour, minute, second) if part)
    return f"{year}-{month}-{day}" + (f" {clock}" if clock else "") + (f" {zone}" if zone else "")


def time(text: str) -> str:
    """A time of DICOM, as ISO 8601 writes it."""
    found = re.fullmatch(r"(\d\d)(\d\d)?(\d\d)?(\.\d{1,6})?", text)
    return ":".join(part for part in found.groups()[:3] if part) if found else text


def annotation_lines(document: Document, wanted: Collection[str]) -> tuple[str, ...]:
    """The lines of the annotations wanted."""
    lines: list[str] = []
    if PATIENT in wanted:
        identity = (person(first(document, "00100010")), first(document, "00100020"))
        born, sex = date(first(document, "00100030")), first(document, "00100040")
        lines += [*identity, " ".join(part for part in (born and f"*{born}", sex) if part)]
    if TECHNIQUE in wanted:
        lines += [" ".join(part for part in (first(document, "00080060"), first(document, "00081030")) if part)]
        series, number = first(document, "0008103E"), first(document, "00200011")
        lines += [" ".join(part for part in (number and f"Series {number}", series) if part)]
        lines += [" ".join(part for part in (date(first(document, "00080020")), time(first(document, "00080030"))) if part)]
        lines += [f"{name} {value}{unit}" for name, key, unit in _TECHNIQUE if (value := first(document, key))]
    # Characters that break the line or change its direction are no part of a caption.
    clean = (re.sub(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", " ", line) for line in lines)
    return tuple(line[:_MOST_CHARACTERS] for line in clean if line.strip())
