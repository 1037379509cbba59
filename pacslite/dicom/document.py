"""Search in one DICOM JSON object (PS3.18 Annex F): for attributes the catalog has no column for."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pacslite.dicom.matching import TIME_OF_DATE, DateTimeRange, Match, SequenceMatch, Universal, in_date_time_range, matches

Document = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class PrivateTag:
    """A private attribute by group, private creator and the low byte of its element: the block differs from file to file (PS3.5 7.8)."""

    group: int
    creator: str
    element: int


def tag_key(tag: int) -> str:
    """A tag as DICOM JSON writes it."""
    return f"{tag:08X}"


def values_of(element: dict[str, Any] | None) -> tuple[str, ...]:
    """The values of an element as text, empty ones left out; none for binary values and sequences."""
    if element is None or element.get("vr") == "SQ":
        return ()
    return tuple(_text(value) for value in element.get("Value", ()) if value is not None)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        groups = [value.get(name, "") for name in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    return str(value)


def items_of(element: dict[str, Any] | None) -> tuple[Document, ...]:
    """The items of a sequence."""
    if element is None or element.get("vr") != "SQ":
        return ()
    return tuple(item for item in element.get("Value", ()) if isinstance(item, dict))


def fits(document: Document, keys: Sequence[tuple[int | PrivateTag, Match]]) -> bool:
    """Whether the object fits all keys."""
    return all(_fits(document, tag, match) for tag, match in keys)


def _fits(document: Document, tag: int | PrivateTag, match: Match) -> bool:
    if isinstance(match, Universal):
        return True
    if isinstance(tag, PrivateTag):
        private = private_element(document, tag)
        return matches(match, _private_values(private[1]) if private else ())
    element = document.get(tag_key(tag))
    if isinstance(match, SequenceMatch):
        return all(isinstance(m, Universal) for _, m in match.keys) or any(fits(item, match.keys) for item in items_of(element))
    if isinstance(match, DateTimeRange):
        times = values_of(document.get(tag_key(TIME_OF_DATE[tag])))
        return any(in_date_time_range(match, date, times[0] if times else "") for date in values_of(element))
    return matches(match, values_of(element))


def _private_values(element: dict[str, Any]) -> tuple[str, ...]:
    """The values of a private attribute; of one that came without its VR, in Implicit VR or as UN, its text if it is such."""
    if element.get("vr") != "UN" or "InlineBinary" not in element:
        return values_of(element)
    raw = b64decode(element["InlineBinary"])
    return tuple(value.strip(" \0") for value in raw.decode().split("\\")) if raw.isascii() else ()


def private_element(document: Document, tag: PrivateTag) -> tuple[str, dict[str, Any]] | None:
    """Key and element of a private attribute in the block its creator has reserved in this object."""
    for block in range(0x10, 0x100):
        if tag.creator in values_of(document.get(tag_key(tag.group << 16 | block))):
            key = tag_key(tag.group << 16 | block << 8 | tag.element)
            element = document.get(key)
            if element is not None:
                return key, element
    return None
