"""Matches of PS3.4 C.2.2.2 as SQL conditions that mean the same on SQLite and PostgreSQL.

A condition is text with one placeholder per parameter. Names of tables and columns come from `dicom.attributes` and
`catalog.models` only; whatever a caller wrote is a parameter. `dicom.matching.matches` is the reference, and
tests/integration/query compares the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from pydicom.datadict import dictionary_VM

from pacslite.catalog.models import TABLE_OF_LEVEL
from pacslite.dicom.attributes import BY_TAG, Attribute, Source
from pacslite.dicom.matching import (
    LAST,
    TIME_OF_DATE,
    AllOf,
    AnyOf,
    DateTimeRange,
    Empty,
    FuzzyName,
    FuzzyWord,
    Match,
    Name,
    Number,
    Range,
    Single,
    UidList,
    Wildcard,
    case_variants,
    prefixes,
)

Sql = tuple[str, tuple[object, ...]]
NEVER: Sql = ("1 = 0", ())
SOUND = "~"
"""Before what a word sounds like, among the indexed words; no word begins so."""
_COUNT_VRS = frozenset({"IS"})


@dataclass(frozen=True, slots=True)
class Flavour:
    """What differs between the databases. `several` makes one row per value of a column of several, named `one.value`."""

    name: str
    mark: str
    several: str
    position: str
    character: str
    aggregate: str


SQLITE = Flavour(
    "sqlite",
    "?",
    # The text as a JSON string with its (escaped) backslashes turned into string ends is an array of the values.
    """json_each('[' || replace(json_quote({column}), '\\\\', '","') || ']') AS one""",
    "instr",
    "char",
    "group_concat",
)
POSTGRESQL = Flavour(
    "postgresql",
    "%s",
    "unnest(string_to_array({column}, '\\')) AS one(value)",
    "strpos",
    "chr",
    "string_agg",
)
FLAVOURS = {"sqlite": SQLITE, "postgresql": POSTGRESQL}


@lru_cache(maxsize=1024)
def is_multiple(tag: int) -> bool:
    """Whether PS3.6 allows several values, which a column holds joined by backslashes."""
    try:
        return dictionary_VM(tag) != "1"
    except KeyError:
        return False


def condition(attribute: Attribute, table: str, match: Match, flavour: Flavour) -> Sql:
    """The condition on one attribute, whose columns are in `table`."""
    columns = [f"{table}.{name}" for name in attribute.match_columns]
    if isinstance(match, Empty):
        return _empty(f"{table}.{attribute.column}", attribute)
    if isinstance(match, AllOf):
        return conjunction([condition(attribute, table, one, flavour) for one in match.matches])
    if isinstance(match, FuzzyName):
        return conjunction([_fuzzy(attribute, table, word, flavour) for word in match.words])
    if isinstance(match, DateTimeRange):
        time = BY_TAG[TIME_OF_DATE[attribute.tag]]
        return _date_time(columns[0], f"{table}.{time.match_columns[0]}", match, flavour)
    if isinstance(match, Range):
        return _range(columns, match, flavour)
    if isinstance(match, Number):
        return _number(columns[0], attribute, match, flavour)
    if isinstance(match, Name):
        return _name(columns, attribute, match, flavour)
    return _texts(columns[0], attribute, match, flavour)


def _empty(column: str, attribute: Attribute) -> Sql:
    if attribute.source in (Source.ELEMENT, Source.ITEM) or attribute.vr not in _COUNT_VRS:
        text = f"REPLACE({column}, '\\', '')" if is_multiple(attribute.tag) else column  # several empty values are none
        return f"({column} IS NULL OR {text} = '')", ()
    return NEVER  # a count has a value always


def _fuzzy(attribute: Attribute, table: str, word: FuzzyWord, flavour: Flavour) -> Sql:
    """One word of a name, by the words that are indexed beside the names (`catalog.search_values`)."""
    values, owner, key = f"{table}_value", f"{table}_pk", word_key(attribute.tag)
    where = f"SELECT w.{owner} FROM {values} AS w WHERE w.name = {flavour.mark} AND"
    begins, parameters = text_condition("w.value", word.pattern, flavour)
    sql, parameters = f"{where} {begins}", (key, *parameters)
    if word.sound:
        sql, parameters = f"{sql} UNION ALL {where} w.value = {flavour.mark}", (*parameters, key, SOUND + word.sound)
    return f"{table}.pk IN ({sql})", parameters


def indexed_condition(attribute: Attribute, match: Match, flavour: Flavour) -> Sql:
    """The condition on an attribute indexed by configuration: each of its values is a row (`catalog.search_values`)."""
    table = TABLE_OF_LEVEL[attribute.level].name
    values, owner = f"{table}_value", f"{table}_pk"
    if isinstance(match, Empty):
        return f"NOT EXISTS (SELECT 1 FROM {values} AS x WHERE x.{owner} = {table}.pk AND x.name = {flavour.mark})", (attribute.hex,)
    if isinstance(match, AllOf):
        return conjunction([indexed_condition(attribute, one, flavour) for one in match.matches])
    if isinstance(match, FuzzyName):
        return condition(attribute, table, match, flavour)
    # One value a row: told by a tag that never has several.
    sql, parameters = condition(replace(attribute, tag=0), "x", match, flavour)
    return f"{table}.pk IN (SELECT x.{owner} FROM {values} AS x WHERE x.name = {flavour.mark} AND {sql})", (attribute.hex, *parameters)


def scan_of(attribute: Attribute, table: str, match: Match, flavour: Flavour) -> Sql | None:
    """The numbers of the rows that fit a pattern without a known begin, read from the indexes alone; None for other matches."""
    if not attribute.indexed or attribute.source is not Source.ELEMENT or is_multiple(attribute.tag):
        return None
    columns = [f"{table}.{name}" for name in attribute.match_columns]
    if isinstance(match, Wildcard) and attribute.vr != "PN" and match.pattern[0] in "*?":
        found = [text_condition(columns[0], match, flavour)]
    elif isinstance(match, Name) and len(match.parts) == 1 and not is_anchored(match):
        part = match.parts[0]
        shown = [(i, column) for i, column in enumerate(columns) if part.group in (None, i)]
        found = [_group_condition(i, column, one, flavour) for i, column in shown for one in part.alternatives]
    else:
        return None
    sql = " UNION ALL ".join(f"SELECT {table}.pk FROM {table} WHERE {sql}" for sql, _ in found)
    return sql, tuple(p for _, parameters in found for p in parameters)


def is_anchored(match: Name) -> bool:
    """Whether a name is looked up in its indexes: some group has to be, or to start with, something known."""
    return any(all(isinstance(one, Single) or one.pattern[0] not in "*?" for one in part.alternatives) for part in match.parts)


def _group_condition(group: int, column: str, match: Single | Wildcard, flavour: Flavour) -> Sql:
    sql, parameters = text_condition(column, match, flavour)
    # Groups after the first are indexed where they are not empty.
    return (f"({column} <> '' AND {sql})" if group else sql), parameters


def word_key(tag: int) -> str:
    """Under which name the words of a person name are indexed."""
    return f"{tag:08X}~"


def conjunction(parts: list[Sql], word: str = " AND ") -> Sql:
    """All of the conditions (or any of them, with ` OR `), in parentheses when there are several."""
    if len(parts) == 1:
        return parts[0]
    return "(" + word.join(sql for sql, _ in parts) + ")", tuple(p for _, parameters in parts for p in parameters)


def _texts(column: str, attribute: Attribute, match: Match, flavour: Flavour) -> Sql:
    multiple = is_multiple(attribute.tag)

    def one(m: Single | Wildcard) -> Sql:
        return _any_value(column, m, flavour) if multiple else text_condition(column, m, flavour)

    if isinstance(match, UidList):
        if multiple:
            return conjunction([one(Single(uid)) for uid in match.uids], " OR ")
        return _one_of(column, match.uids, flavour)
    if isinstance(match, AnyOf):
        if not multiple and all(isinstance(a, Single) for a in match.alternatives):
            return _one_of(column, tuple(a.value for a in match.alternatives if isinstance(a, Single)), flavour)
        return conjunction([one(a) for a in match.alternatives], " OR ")
    if isinstance(match, Single | Wildcard):
        return one(match)
    raise TypeError(f"{type(match).__name__} is no match of text")


def _one_of(column: str, values: tuple[str, ...], flavour: Flavour) -> Sql:
    if len(values) == 1:
        return f"{column} = {flavour.mark}", values
    return f"{column} IN ({', '.join([flavour.mark] * len(values))})", values


def text_condition(column: str, match: Single | Wildcard, flavour: Flavour) -> Sql:
    """Equality, a prefix as a range that an index serves, or a pattern."""
    mark = flavour.mark
    if isinstance(match, Single):
        return f"{column} = {mark}", (match.value,)
    if match.ignore_case:
        return _pattern(column, match, flavour)
    prefix = re.split(r"[*?]", match.pattern, maxsplit=1)[0]
    if prefix + "*" == match.pattern:
        return _starts_with(column, prefix, mark)
    return conjunction(
        [_starts_with(column, prefix, mark), _pattern(column, match, flavour)] if prefix else [_pattern(column, match, flavour)]
    )


def _starts_with(column: str, prefix: str, mark: str) -> Sql:
    end = _after(prefix)
    return (f"({column} >= {mark} AND {column} < {mark})", (prefix, end)) if end else (f"{column} >= {mark}", (prefix,))


def _after(prefix: str) -> str:
    """The first text, by code point, after all that start with the prefix; "" when there is none."""
    for i in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[i])
        if code < 0x10FFFF:
            return prefix[:i] + chr(0xE000 if code == 0xD7FF else code + 1)
    return ""


def _pattern(column: str, match: Wildcard, flavour: Flavour) -> Sql:
    if flavour is SQLITE:
        return f"{column} GLOB ?", (_glob(match),)
    if match.ignore_case:
        return f"{column} ~ %s", (_posix(match),)
    escaped = re.sub(r"([\\%_])", r"\\\1", match.pattern)
    return f"{column} LIKE %s", (escaped.replace("*", "%").replace("?", "_"),)


def _glob(match: Wildcard) -> str:
    """GLOB compares by code point; `[` opens a set, which is also how case is ignored beyond ASCII."""
    out = []
    for character in match.pattern:
        variants = case_variants(character) if match.ignore_case else character
        out.append(f"[{variants}]" if len(variants) > 1 or character == "[" else character)
    return "".join(out)


def _posix(match: Wildcard) -> str:
    out = []
    for character in match.pattern:
        variants = case_variants(character)
        if character in "*?":
            out.append(".*" if character == "*" else ".")
        elif len(variants) > 1:
            out.append(f"[{variants}]")
        else:
            out.append(character if character.isalnum() or not character.isascii() else "\\" + character)
    return "^" + "".join(out) + "$"


def _any_value(column: str, match: Single | Wildcard, flavour: Flavour) -> Sql:
    """One of several values, which the column holds joined by backslashes."""
    if isinstance(match, Single):
        if "\\" in match.value:
            return NEVER
        return f"{flavour.position}('\\' || {column} || '\\', {flavour.mark}) > 0", (f"\\{match.value}\\",)
    sql, parameters = text_condition("one.value", match, flavour)
    return f"EXISTS (SELECT 1 FROM {flavour.several.format(column=column)} WHERE {sql})", parameters


def _range(columns: list[str], match: Range, flavour: Flavour) -> Sql:
    mark = flavour.mark
    if match.vr == "DT":
        parts: list[Sql] = [(f"{columns[1]} >= {mark}", (match.low,))] if match.low else [(f"{columns[0]} > ''", ())]
        if match.high:
            parts.append((f"{columns[0]} <= {mark}", (match.high,)))
        return conjunction(parts)
    column = columns[0]
    if match.vr == "DA" and match.low == match.high:
        return f"{column} = {mark}", (match.low,)
    parts = [_not_before(column, match.low, mark, vr=match.vr)] if match.low else [(f"{column} > ''", ())]
    if match.high:
        parts.append((f"{column} <= {mark}", (match.high if match.vr == "DA" else match.high + LAST,)))
    return conjunction(parts)


def _not_before(column: str, low: str, mark: str, *, vr: str, unknown: bool = False) -> Sql:
    """At or after `low`; a time of less precision, when its interval holds `low` (with `unknown`, also no time at all)."""
    less_precise = prefixes(low) if vr == "TM" else ()
    if unknown:
        less_precise += ("",)
    if not less_precise:
        return f"{column} >= {mark}", (low,)
    return f"({column} >= {mark} OR {column} IN ({', '.join([mark] * len(less_precise))}))", (low, *less_precise)


def _date_time(date: str, time: str, match: DateTimeRange, flavour: Flavour) -> Sql:
    mark = flavour.mark
    parts: list[Sql] = [(f"{date} > ''", ())]
    if match.low:
        day, clock = match.low
        parts = [(f"{date} >= {mark}", (day,))]
        if clock:
            late_enough, parameters = _not_before(time, clock, mark, vr="TM", unknown=True)
            parts.append((f"({date} > {mark} OR {late_enough})", (day, *parameters)))
    if match.high:
        day, clock = match.high
        parts.append((f"{date} <= {mark}", (day,)))
        parts.append((f"({date} < {mark} OR {time} <= {mark})", (day, clock)))
    return conjunction(parts)


def _number(column: str, attribute: Attribute, match: Number, flavour: Flavour) -> Sql:
    if attribute.has_normal_form:
        return f"{column} = {flavour.mark}", (float(match.value),)
    if match.value != match.value.to_integral_value() or abs(match.value) >= 2**31:
        return NEVER
    whole = int(match.value)
    # Counts are columns of integers, US and UL columns of text, written in one way only.
    return f"{column} = {flavour.mark}", (whole if attribute.source is Source.KEPT else str(whole),)


def _name(columns: list[str], attribute: Attribute, match: Name, flavour: Flavour) -> Sql:
    multiple = is_multiple(attribute.tag)
    parts: list[Sql] = []
    for part in match.parts:
        alternatives: list[Sql] = []
        for i, column in enumerate(columns):
            if part.group in (None, i):
                for one in part.alternatives:
                    if multiple:
                        sql, parameters = _any_value(column, one, flavour)
                        alternatives.append((f"({column} <> '' AND {sql})" if i else sql, parameters))
                    else:
                        alternatives.append(_group_condition(i, column, one, flavour))
        parts.append(conjunction(alternatives, " OR "))
    return conjunction(parts)
