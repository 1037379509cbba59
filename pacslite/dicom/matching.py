"""Attribute matching of PS3.4 C.2.2.2 as values: what a key asks, parsed once, understood by everybody.

Nobody else parses `*`, `?`, `-` or lists. `catalog.search` turns these values into SQL; `matches` here is the same rule in
Python, for attributes that have no column and as the reference the SQL is tested against.

Choices that the standard leaves open (they are in the conformance statement):
- A lone `*` is universal for every VR. Wildcards elsewhere than in AE CS LO LT PN SH ST UC UR UT are literal.
- UI and CS take lists by comma or backslash, any of them fits. A comma elsewhere is literal.
- Dates, times and date-times of less precision are intervals; two fit when they overlap. A range is inclusive.
- PN: case, accents and padding do not count. A key of one component group fits in any group of the stored name; of several
  groups, each that is not empty has to fit its own. `*` and `?` never cross a group. `Doe^*` fits `Doe` too, since trailing
  empty components may be left out (PS3.5 6.2.1.1).
- Fuzzy names (when asked for): every word of the key has to begin or to sound like (Cologne phonetics, Latin letters) a word
  of the name, in any order and component. A word with `*` or `?` is a pattern for a word.
- Multiple values (when asked for) are divided by a backslash, of AS, AT and CS by a comma too; wildcards in them are taken.
- Numbers are compared as numbers. An element that is absent or empty fits universal matching only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from pacslite.dicom.match_values import (
    AllOf,
    AnyOf,
    DateTimeRange,
    Empty,
    FuzzyName,
    FuzzyWord,
    Match,
    Name,
    NamePart,
    Number,
    Range,
    SequenceMatch,
    Single,
    UidList,
    Universal,
    Wildcard,
)
from pacslite.dicom.person_name import GROUPS, normal_groups, sound_of, words_of
from pacslite.dicom.temporal import DATE_TIME_PATTERN, date_time_interval, normal_date, normal_time
from pacslite.errors import InvalidQuery

__all__ = [
    "EMPTY",
    "IGNORE_CASE_VRS",
    "LAST",
    "LIST_VRS",
    "MAX_KEY_CHARACTERS",
    "MAX_LIST_ITEMS",
    "MULTIPLE_VRS",
    "NUMBER_VRS",
    "PLAIN",
    "TEMPORAL_VRS",
    "TIME_OF_DATE",
    "UNIVERSAL",
    "UNMATCHABLE_VRS",
    "WILDCARD_VRS",
    "AllOf",
    "AnyOf",
    "DateTimeRange",
    "Empty",
    "FuzzyName",
    "FuzzyWord",
    "Match",
    "Name",
    "NamePart",
    "Number",
    "Options",
    "Range",
    "SequenceMatch",
    "Single",
    "UidList",
    "Universal",
    "Wildcard",
    "case_variants",
    "check_time",
    "combine",
    "in_date_time_range",
    "matches",
    "parse",
    "prefixes",
]
WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
IGNORE_CASE_VRS = frozenset({"LO", "SH"})
LIST_VRS = frozenset({"UI", "CS"})
MULTIPLE_VRS = frozenset({"AE", "AS", "AT", "CS", "LO", "PN", "SH", "UC"})
NUMBER_VRS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
TEMPORAL_VRS = frozenset({"DA", "TM", "DT"})
# Values that no key can name.
UNMATCHABLE_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})
MAX_KEY_CHARACTERS = 1024
MAX_LIST_ITEMS = 5000
# Dates and the times that belong to them: two ranges of a pair make one interval.
TIME_OF_DATE = {0x00080020: 0x00080030, 0x00080021: 0x00080031, 0x00080022: 0x00080032, 0x00080023: 0x00080033, 0x00400244: 0x00400245}
# Sorts after everything a DA, TM or DT may hold, so that `high + LAST` ends the interval of an incomplete time.
LAST = "~"

UNIVERSAL = Universal()
EMPTY = Empty()
_EMPTY_KEY = '""'


@dataclass(frozen=True, slots=True)
class Options:
    """Kinds of matching that a caller has to ask for.

    `ignore_case` concerns LO and SH only. `fuzzy` names (PS3.4 C.2.2.2.1.1), `empty` values (C.2.2.2.7), and `multiple`
    values (C.2.2.2.8) of an attribute that may have several.
    """

    ignore_case: bool = False
    fuzzy: bool = False
    empty: bool = False
    multiple: bool = False


PLAIN = Options()


def parse(vr: str, text: str, *, name: str = "key", options: Options = PLAIN) -> Match:
    """What a key asks of values of a VR. `name` is the keyword or tag that an error names; raises InvalidQuery."""
    text = text.rstrip(" \0") if vr in ("LT", "ST", "UT") else text.strip(" \0")
    if not text.strip("* "):
        return UNIVERSAL
    if options.empty and text == _EMPTY_KEY:
        return EMPTY
    if ("\0" in text.strip(" \0") and vr != "UI") or (not text.isascii() and re.search("[\ud800-\udfff]", text)):
        raise InvalidQuery(f"{name}: holds a NUL or half a character")
    if vr in UNMATCHABLE_VRS or vr == "SQ":
        raise InvalidQuery(f"{name}: values of VR {vr} cannot be matched")
    if options.multiple and vr in MULTIPLE_VRS:
        several = _parse_several(vr, text, name, options)
        if several is not None:
            return several
    return _parse_values(vr, text, name, options)


def _parse_values(vr: str, text: str, name: str, options: Options) -> Match:
    """What a key of one value, or of a list of which any fits, asks."""
    if vr in LIST_VRS:
        return _parse_list(vr, text, name)
    if len(text) > MAX_KEY_CHARACTERS:
        raise InvalidQuery(f"{name}: longer than {MAX_KEY_CHARACTERS} characters")
    if vr == "PN":
        return _parse_fuzzy(text) if options.fuzzy else _parse_name(text)
    if vr in TEMPORAL_VRS:
        return _parse_temporal(vr, text, name)
    if vr in NUMBER_VRS:
        return _parse_number(text, name)
    if vr == "AT":
        return Single(text.upper())
    if vr in WILDCARD_VRS:
        return _text(text, ignore_case=options.ignore_case and vr in IGNORE_CASE_VRS)
    return Single(text)


def _parse_several(vr: str, text: str, name: str, options: Options) -> AllOf | None:
    """All values of a list, which are divided by a backslash (coded strings by a comma too); None when it is only one."""
    values = [v.strip(" \0") for v in re.split(r"[,\\]" if vr in ("AS", "AT", "CS") else r"\\", text)]
    if len(values) > MAX_LIST_ITEMS:
        raise InvalidQuery(f"{name}: more than {MAX_LIST_ITEMS} values")
    alone = replace(options, multiple=False, empty=False)
    found = [parse(vr, value, name=name, options=alone) for value in dict.fromkeys(values) if value]
    wanted = tuple(one for one in found if isinstance(one, Single | Wildcard | Name | FuzzyName))
    return AllOf(wanted) if len(wanted) > 1 else None


def _parse_fuzzy(text: str) -> Match:
    """A word with `*` or `?` in it is a pattern; another is the begin of a word, or what one sounds like."""
    words = words_of(text)
    if all(not word.strip("*?") for word in words):
        return UNIVERSAL
    return FuzzyName(tuple(_fuzzy_word(word) for word in words if word.strip("*")))


def _fuzzy_word(word: str) -> FuzzyWord:
    if "*" in word or "?" in word:
        return FuzzyWord(_text(word))
    return FuzzyWord(Wildcard(word + "*"), sound_of(word))


def _text(text: str, *, ignore_case: bool = False) -> Single | Wildcard:
    if "*" in text or "?" in text or (ignore_case and text.lower() != text.upper()):
        return Wildcard(re.sub(r"\*+", "*", text), ignore_case)
    return Single(text)


def _parse_list(vr: str, text: str, name: str) -> Match:
    items = [item.strip(" \0") for item in re.split(r"[,\\]", text)]
    items = list(dict.fromkeys(item for item in items if item))
    if len(items) > MAX_LIST_ITEMS:
        raise InvalidQuery(f"{name}: more than {MAX_LIST_ITEMS} values")
    if vr == "UI":
        for item in items:
            if len(item) > 64 or not re.fullmatch(r"\d+(?:\.\d+)*", item):
                raise InvalidQuery(f"{name}: {item[:80]!r} is not a UID")
        return UidList(tuple(items)) if items else UNIVERSAL
    if any(not item.strip("*") for item in items) or not items:
        return UNIVERSAL
    if any(len(item) > MAX_KEY_CHARACTERS for item in items):
        raise InvalidQuery(f"{name}: longer than {MAX_KEY_CHARACTERS} characters")
    alternatives = tuple(_text(item) for item in items)
    return alternatives[0] if len(alternatives) == 1 else AnyOf(alternatives)


def _parse_name(text: str) -> Match:
    groups = normal_groups(text.replace("\\", " "))
    if "=" not in text:
        return Name((NamePart(None, _name_alternatives(groups[0])),)) if groups[0].strip("*^") else UNIVERSAL
    parts = tuple(NamePart(i, _name_alternatives(groups[i])) for i in range(GROUPS) if groups[i].strip("*^"))
    return Name(parts) if parts else UNIVERSAL


def _name_alternatives(pattern: str) -> tuple[Single | Wildcard, ...]:
    stem = re.sub(r"(?:\^\**)+$", "", pattern)
    if stem == pattern or not stem:
        return (_text(pattern),)
    return _text(stem), _text(stem + "^*")


def _parse_number(text: str, name: str) -> Number:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or abs(value.adjusted()) > 400:
        raise InvalidQuery(f"{name}: not a number")
    return Number(value)


def _parse_temporal(vr: str, text: str, name: str) -> Range:
    """Single value and range matching; an old `YYYY.MM.DD` or `HH:MM:SS` is understood."""
    pattern = {"DA": r"[\d.]+", "TM": r"[\d:.]+", "DT": DATE_TIME_PATTERN}[vr]
    found = re.fullmatch(rf"({pattern})?\s*(-)?\s*({pattern})?", text)
    if not found or not (found[1] or found[3]) or (found[3] and not found[2]):
        raise InvalidQuery(f"{name}: neither a value of VR {vr} nor a range of them")
    ends = (found[1], found[3]) if found[2] else (found[1], found[1])
    low, high = (_end(vr, end, name, is_high) if end else None for end, is_high in zip(ends, (False, True), strict=True))
    # A time range is read as such even when it crosses midnight: only `combine` may give that a meaning.
    if vr != "TM" and low is not None and high is not None and low > high:
        raise InvalidQuery(f"{name}: the range ends before it begins")
    return Range(vr, low, high)


def _end(vr: str, text: str, name: str, is_high: bool) -> str:
    if vr == "DT":
        interval = date_time_interval(text)
        normal = interval[1 if is_high else 0] if interval else None
    else:
        normal = normal_date(text) if vr == "DA" else normal_time(text)
    if normal is None:
        raise InvalidQuery(f"{name}: not a valid value of VR {vr}")
    return normal


def check_time(match: Match, name: str) -> Match:
    """The match itself; raises InvalidQuery for a time range across midnight, which needs a date beside it."""
    if isinstance(match, Range) and match.vr == "TM" and match.low is not None and match.high is not None and match.low > match.high + LAST:
        raise InvalidQuery(f"{name}: a time range must not cross midnight without a range of dates")
    return match


def combine(date: Match, time: Match) -> DateTimeRange | None:
    """One interval from a date key and a time key, or None when they have to be matched each alone.

    Two ranges make one interval (PS3.18 8.3.4.1.1). An end without a time is the begin or the end of its day.
    """
    if not (isinstance(date, Range) and isinstance(time, Range)) or date.low == date.high or _is_single_time(time):
        return None
    low = (date.low, time.low or "") if date.low is not None else None
    high = (date.high, (time.high or "") + LAST) if date.high is not None else None
    return DateTimeRange(low, high) if low or high else None


def _is_single_time(time: Range) -> bool:
    return time.low == time.high


def prefixes(time: str) -> tuple[str, ...]:
    """Every less precise time whose interval holds the begin of this one, the unknown time "" not among them."""
    digits, _, fraction = time.partition(".")
    found = [digits[:n] for n in (2, 4, 6) if n <= len(digits)]
    found += [f"{digits}.{fraction[:n]}" for n in range(1, len(fraction) + 1)]
    return tuple(p for p in found if p != time)


def matches(match: Match, values: Sequence[str]) -> bool:
    """Whether an element with these values fits; several values fit when one of them does (PS3.4 C.2.2.2.1).

    Not for `DateTimeRange` and `SequenceMatch`, which need more than one element.
    """
    if isinstance(match, Universal):
        return True
    if isinstance(match, Empty):
        return not any(values)
    if isinstance(match, AllOf):
        return all(matches(one, values) for one in match.matches)
    if isinstance(match, FuzzyName):
        return _fits_fuzzy(match, "\\".join(values))
    return any(_fits(match, value) for value in values if value)


def _fits(match: Match, value: str) -> bool:
    if isinstance(match, Single):
        return value == match.value
    if isinstance(match, Wildcard):
        return _regex(match).fullmatch(value) is not None
    if isinstance(match, UidList):
        return value in match.uids
    if isinstance(match, AnyOf):
        return any(_fits(one, value) for one in match.alternatives)
    if isinstance(match, Range):
        return _in_range(match, value)
    if isinstance(match, Number):
        return _is_number(match.value, value)
    if isinstance(match, Name):
        return _fits_name(match, value)
    raise TypeError(f"{type(match).__name__} needs more than one element")


@lru_cache(maxsize=256)
def _regex(match: Wildcard) -> re.Pattern[str]:
    """The pattern without backtracking: what stands between two `*` is taken where it first occurs, which is always right.

    Else a caller could keep the server busy for hours with `*a*a*a*b` and a long text.
    """
    first, *others = (_literal(part, match.ignore_case) for part in match.pattern.split("*"))
    middle = "".join(f"(?>.*?{part})" for part in others[:-1])
    return re.compile(first + middle + "".join(f".*{part}" for part in others[-1:]), re.DOTALL)


def _literal(part: str, ignore_case: bool) -> str:
    return "".join("." if c == "?" else f"[{re.escape(case_variants(c))}]" if ignore_case else re.escape(c) for c in part)


def case_variants(character: str) -> str:
    """The character and its single-character upper and lower case forms, which is what ignoring case means here and in SQL."""
    forms = {character, character.lower(), character.upper()}
    return "".join(sorted(form for form in forms if len(form) == 1))


def _in_range(match: Range, value: str) -> bool:
    if match.vr == "DT":
        interval = date_time_interval(value)
        if interval is None:
            return False
        return (match.low is None or interval[1] >= match.low) and (match.high is None or interval[0] <= match.high)
    normal = normal_date(value) if match.vr == "DA" else normal_time(value)
    if normal is None:
        return False
    if match.vr == "DA":
        return (match.low is None or normal >= match.low) and (match.high is None or normal <= match.high)
    return (match.low is None or normal + LAST >= match.low) and (match.high is None or normal <= match.high + LAST)


def in_date_time_range(match: DateTimeRange, date: str, time: str) -> bool:
    """Whether a stored date and time lie in the interval."""
    day = normal_date(date)
    clock = normal_time(time) or ""
    if day is None:
        return False
    return (match.low is None or (day, clock + LAST) >= match.low) and (match.high is None or (day, clock) <= match.high)


def _is_number(wanted: Decimal, value: str) -> bool:
    try:
        return Decimal(value.strip(" \0")) == wanted
    except InvalidOperation:
        return False


def _fits_fuzzy(match: FuzzyName, value: str) -> bool:
    words = words_of(value)
    sounds = {sound_of(word) for word in words} - {""}
    return all(one.sound in sounds or any(_fits(one.pattern, word) for word in words) for one in match.words)


def _fits_name(match: Name, value: str) -> bool:
    groups = normal_groups(value)
    for part in match.parts:
        candidates = [g for g in (groups if part.group is None else groups[part.group : part.group + 1]) if g]
        if not any(_fits(one, group) for group in candidates for one in part.alternatives):
            return False
    return True
