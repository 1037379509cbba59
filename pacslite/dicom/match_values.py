"""What a search key asks (PS3.4 C.2.2.2), as values; `dicom.matching` makes them and says what fits them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Universal:
    """Fits everything, even what lacks the attribute (PS3.4 C.2.2.2.3)."""


@dataclass(frozen=True, slots=True)
class Single:
    """Fits a value that equals `value` (C.2.2.2.1)."""

    value: str


@dataclass(frozen=True, slots=True)
class Wildcard:
    """Fits a value that has the form of `pattern`, in which `*` and `?` are the only special characters (C.2.2.2.4)."""

    pattern: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class UidList:
    """Fits any of these UIDs (C.2.2.2.2)."""

    uids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Fits when one of the alternatives does: a list of coded strings."""

    alternatives: tuple[Single | Wildcard, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """Fits a date, time or date-time whose interval overlaps the one from `low` to `high`, both inclusive (C.2.2.2.5).

    DA: `YYYYMMDD`. TM: `HHMMSS.FFFFFF` cut off anywhere a component ends. DT: complete to the microsecond, in UTC.
    None is an open end.
    """

    vr: str
    low: str | None
    high: str | None


@dataclass(frozen=True, slots=True)
class DateTimeRange:
    """Fits a pair of a date and a time that lies in one interval (C.2.2.2.5.4, PS3.18 8.3.4.1.1); None is an open end.

    A stored date without a time is the whole day.
    """

    low: tuple[str, str] | None
    high: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Number:
    """Fits a numeric value that is equal, however it is written."""

    value: Decimal


@dataclass(frozen=True, slots=True)
class NamePart:
    """Alternatives in normal form that have to fit one component group, any group when `group` is None."""

    group: int | None
    alternatives: tuple[Single | Wildcard, ...]


@dataclass(frozen=True, slots=True)
class Name:
    """Fits a person name when all parts do."""

    parts: tuple[NamePart, ...]


@dataclass(frozen=True, slots=True)
class FuzzyWord:
    """One word of a name: begins as `pattern` says, or sounds like `sound` ("" when it is not looked for by sound)."""

    pattern: Single | Wildcard
    sound: str = ""


@dataclass(frozen=True, slots=True)
class FuzzyName:
    """Fits a person name that has all these words, in any order and component (C.2.2.2.1.1)."""

    words: tuple[FuzzyWord, ...]


@dataclass(frozen=True, slots=True)
class Empty:
    """Fits what is absent or has no value (C.2.2.2.7)."""


@dataclass(frozen=True, slots=True)
class AllOf:
    """Fits an element of several values when each of these fits one of them (C.2.2.2.8)."""

    matches: tuple[Single | Wildcard | Name | FuzzyName, ...]


@dataclass(frozen=True, slots=True)
class SequenceMatch:
    """Fits when one item fits all keys, each a tag and its match (C.2.2.2.6)."""

    keys: tuple[tuple[int, Match], ...]


Match = Universal | Empty | Single | Wildcard | UidList | AnyOf | AllOf | Range | DateTimeRange | Number | Name | FuzzyName | SequenceMatch
