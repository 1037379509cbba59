"""Searches in the catalog: one statement for a page of rows with all they show, one more to count when there are more rows.

Statements are text: rendering a `select()` costs more than most of these take to run (docs/performance.md). Values are
always parameters; names come from the models.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import Connection

from pacslite.catalog.models import TABLE_OF_LEVEL
from pacslite.catalog.search_conditions import (
    FLAVOURS,
    SQLITE,
    Flavour,
    Sql,
    condition,
    conjunction,
    indexed_condition,
    is_anchored,
    scan_of,
)
from pacslite.catalog.search_order import OrderBy, after, terms_of
from pacslite.catalog.visibility import Sight
from pacslite.dicom.attributes import LEVELS, SEQUENCE_ITEMS, Attribute, Level, Source
from pacslite.dicom.matching import Match, Name, SequenceMatch

ITEM_SEPARATOR, VALUE_SEPARATOR = "\x1e", "\x1f"
"""Between the items of a sequence column, and between the values of one item in the order of `SEQUENCE_ITEMS`."""

# Rows asked for by number at once; far below the parameters a statement may have.
_BATCH = 500
# Rows that are looked up first when a pattern without a known begin fits no more.
_FEW = 2000
_TABLES = {level: TABLE_OF_LEVEL[level].name for level in LEVELS}
# Levels above, whose columns the order needs.
_ORDERED_BY: dict[Level, frozenset[Level]] = {level: frozenset() for level in LEVELS} | {Level.INSTANCE: frozenset({Level.SERIES})}
_COMPUTED = {
    "NumberOfPatientRelatedStudies": "(SELECT COUNT(*) FROM study AS s WHERE s.patient_pk = patient.pk)",
    "NumberOfPatientRelatedSeries": (
        "(SELECT COALESCE(SUM(s.number_of_study_related_series), 0) FROM study AS s WHERE s.patient_pk = patient.pk)"
    ),
    "NumberOfPatientRelatedInstances": (
        "(SELECT COALESCE(SUM(s.number_of_study_related_instances), 0) FROM study AS s WHERE s.patient_pk = patient.pk)"
    ),
}
# The same where not every study or series is seen: {0} and {1} are conditions on studies `t` and series `s`.
_SERIES_OF_PATIENT = "FROM study AS t JOIN series AS s ON s.study_pk = t.pk WHERE t.patient_pk = patient.pk{0}{1}"
_COMPUTED_IN_SIGHT = {
    "NumberOfPatientRelatedStudies": "(SELECT COUNT(*) FROM study AS t WHERE t.patient_pk = patient.pk{0})",
    "NumberOfPatientRelatedSeries": f"(SELECT COUNT(*) {_SERIES_OF_PATIENT})",
    "NumberOfPatientRelatedInstances": f"(SELECT COALESCE(SUM(s.number_of_series_related_instances), 0) {_SERIES_OF_PATIENT})",
}
# What studies tell of their series, where not every series is seen; {0} is the condition, {1} joins values.
_OF_PARTS = {
    "NumberOfStudyRelatedSeries": "(SELECT COUNT(*) FROM series AS s WHERE s.study_pk = study.pk{0})",
    "NumberOfStudyRelatedInstances": (
        "(SELECT COALESCE(SUM(s.number_of_series_related_instances), 0) FROM series AS s WHERE s.study_pk = study.pk{0})"
    ),
    "ModalitiesInStudy": (
        "(SELECT {1} FROM (SELECT DISTINCT s.modality AS one FROM series AS s "
        "WHERE s.study_pk = study.pk AND s.modality <> ''{0} ORDER BY one) AS of_parts)"
    ),
    "SOPClassesInStudy": (
        "(SELECT {1} FROM (SELECT DISTINCT i.sop_class_uid AS one FROM series AS s JOIN instance AS i ON i.series_pk = s.pk "
        "WHERE s.study_pk = study.pk{0} ORDER BY one) AS of_parts)"
    ),
}
# From a row to the newest version below it.
_VERSIONS_BELOW = {
    Level.PATIENT: "JOIN series AS s ON s.pk = i.series_pk JOIN study AS t ON t.pk = s.study_pk WHERE t.patient_pk = patient.pk",
    Level.STUDY: "JOIN series AS s ON s.pk = i.series_pk WHERE s.study_pk = study.pk",
    Level.SERIES: "WHERE i.series_pk = series.pk",
    Level.INSTANCE: "WHERE i.pk = instance.pk",
}


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for: rows of `level` that fit all conditions; `columns` are what each row shows after its number.

    With `after` only rows that come after the one of these values in the order; `()` begins, and has each page tell
    where the next one goes on. Only what is in `sight` is found, counted and told of; None for all.
    """

    level: Level
    conditions: tuple[tuple[Attribute, Match], ...]
    columns: tuple[Attribute, ...]
    limit: int
    offset: int = 0
    count_remaining: bool = True
    order: tuple[OrderBy, ...] = ()
    after: tuple[object, ...] | None = None
    sight: Sight | None = None

    @property
    def ordered_by(self) -> frozenset[Level]:
        """The levels whose columns the order needs."""
        return _ORDERED_BY[self.level] | {one.attribute.level for one in self.order}


Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """One page; the first value of a row is its number. `remaining` rows come after it (1 for any when not counted).

    `last` is the place of the last row in the order, for `Search.after`.
    """

    rows: list[Row]
    remaining: int
    last: tuple[object, ...] = ()


def find(connection: Connection, search: Search) -> Found:
    """One page in the order of the level: studies newest first, series and instances by their numbers."""
    if search.limit == 0:
        return Found([], 0)
    flavour = FLAVOURS[connection.dialect.name]
    where = _where(connection, search, flavour)
    rows = _fetch(connection, _page_statement(search, where, flavour), (*where.parameters, search.limit + 1, search.offset))
    if search.after is not None:
        return _page_with_place(rows, search)
    if len(rows) <= search.limit:
        return Found(rows, 0)
    if not search.count_remaining:
        return Found(rows[:-1], 1)
    # All matches are looked at here, so patients first is never the longer way.
    by_patient = flavour is SQLITE and Level.PATIENT in where.tables and search.level is not Level.PATIENT
    sql = f"SELECT COUNT(*) FROM {_joined(search.level, where.tables, by_patient)}{where.sql}"
    counted = _fetch(connection, sql, where.parameters)
    return Found(rows[:-1], max(_integer(counted[0][0]) - search.offset - search.limit, 1))


def _page_with_place(rows: list[Row], search: Search) -> Found:
    """The page without what was selected for the order alone."""
    more, shown = len(rows) > search.limit, len(search.columns) + 1
    rows = rows[: search.limit]
    return Found([row[:shown] for row in rows], int(more), rows[-1][shown:] if rows else ())


def numbers(connection: Connection, search: Search) -> list[int]:
    """The numbers of the rows that fit, in order, no more than the limit."""
    flavour = FLAVOURS[connection.dialect.name]
    where, order = _where(connection, search, flavour), _order_sql(search)
    source = _joined(search.level, where.tables | search.ordered_by, where.by_patient)
    sql = f"SELECT {_TABLES[search.level]}.pk FROM {source}{where.sql} ORDER BY {order} LIMIT {flavour.mark}"
    return [_integer(row[0]) for row in _fetch(connection, sql, (*where.parameters, search.limit))]


def rows_of(
    connection: Connection, level: Level, columns: tuple[Attribute, ...], pks: Sequence[int], sight: Sight | None = None
) -> list[Row]:
    """The rows with these numbers, in this order; they tell only of what is in sight."""
    flavour, found = FLAVOURS[connection.dialect.name], {}
    for start in range(0, len(pks), _BATCH):
        batch = tuple(pks[start : start + _BATCH])
        marks = ", ".join([flavour.mark] * len(batch))
        tables = frozenset(a.level for a in columns)
        sql = f"SELECT {_selected(level, columns, flavour, sight)} FROM {_joined(level, tables)} WHERE {_TABLES[level]}.pk IN ({marks})"
        found.update({row[0]: row for row in _fetch(connection, sql, batch)})
    return [found[pk] for pk in pks if pk in found]


def documents(connection: Connection, level: Level, pks: Sequence[int], sight: Sight | None = None) -> dict[int, bytes]:
    """The DICOM JSON of the instance stored last, of those in sight, below each of these rows."""
    flavour, table, found = FLAVOURS[connection.dialect.name], _TABLES[level], {}
    newest = (
        "(SELECT MAX(v.pk) FROM instance AS i JOIN version AS v ON v.instance_pk = i.pk AND v.number = i.version_number "
        f"{_VERSIONS_BELOW[level]}{_below_in_sight(level, sight)})"
    )
    for start in range(0, len(pks), _BATCH):
        batch = tuple(pks[start : start + _BATCH])
        marks = ", ".join([flavour.mark] * len(batch))
        sql = f"SELECT {table}.pk, m.json FROM {table} JOIN metadata AS m ON m.version_pk = {newest} WHERE {table}.pk IN ({marks})"
        for pk, packed in _fetch(connection, sql, batch):
            found[_integer(pk)] = zlib.decompress(bytes(packed))  # type: ignore[call-overload]
    return found


def _and(sql: str) -> str:
    return f" AND {sql}" if sql else ""


def _below_in_sight(level: Level, sight: Sight | None) -> str:
    if sight is None or level not in (Level.PATIENT, Level.STUDY):
        return ""
    return (_and(sight.study_condition("t")) if level is Level.PATIENT else "") + _and(sight.part_condition("s"))


def _fetch(connection: Connection, sql: str, parameters: tuple[object, ...]) -> list[Row]:
    # The driver's own cursor: its tuples need no wrapping.
    cursor = connection.connection.cursor()
    try:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())
    finally:
        cursor.close()


def _integer(value: object) -> int:
    assert isinstance(value, int)
    return value


@dataclass(frozen=True, slots=True)
class _Where:
    """The WHERE clause, the levels whose tables it needs, and whether patients are to be looked up first."""

    sql: str
    parameters: tuple[object, ...]
    tables: frozenset[Level]
    by_patient: bool


def _where(connection: Connection, search: Search, flavour: Flavour) -> _Where:
    """Conditions of the search.

    SQLite has no statistics here: without help it reads all studies for an alternative of three indexed columns, and walks
    through them by date for a pattern that few or none fit (0.8 s of 100,000, against 0.02 s).
    """
    own = LEVELS.index(search.level)
    parts: list[Sql] = []
    below: list[tuple[Attribute, Match]] = []
    tables: set[Level] = set()
    by_patient = False
    for attribute, match in search.conditions:
        if LEVELS.index(attribute.level) > own:
            below.append((attribute, match))
        else:
            tables.add(attribute.level)
            scan = scan_of(attribute, _TABLES[attribute.level], match, flavour) if flavour is SQLITE else None
            is_few = scan is not None and _is_few(connection, scan)
            if scan is not None and is_few:
                parts.append((f"{_TABLES[attribute.level]}.pk IN ({scan[0]})", scan[1]))
            else:
                parts.append(_one(attribute, match, flavour, search.sight))
            anchored = isinstance(match, Name) and is_anchored(match)
            by_patient |= flavour is SQLITE and own > 0 and attribute.level is Level.PATIENT and (is_few or anchored)
    if below:
        parts.append(_below(search.level, below, flavour, search.sight))
    if search.level is Level.PATIENT:  # who became part of another is found there
        parts.append(("patient.merged_into IS NULL", ()))
        tables.add(Level.PATIENT)
    if search.sight is not None and (seen := search.sight.conditions(search.level)):
        parts.append((seen, ()))
        tables |= set(LEVELS[1 : own + 1]) or {Level.PATIENT}
    if search.after:
        parts.append(after(terms_of(search.level, search.order), search.after, flavour))
        tables |= search.ordered_by
    if not parts:
        return _Where("", (), frozenset(), by_patient=False)
    sql, parameters = " AND ".join(sql for sql, _ in parts), tuple(p for _, ps in parts for p in ps)
    return _Where(" WHERE " + sql, parameters, frozenset(tables), by_patient)


def _is_few(connection: Connection, scan: Sql) -> bool:
    """Whether a pattern fits so few rows that they are worth looking up first; frequent ones end this soon."""
    counted = _fetch(connection, f"SELECT COUNT(*) FROM ({scan[0]} LIMIT {_FEW + 1})", scan[1])
    return _integer(counted[0][0]) <= _FEW


def _one(attribute: Attribute, match: Match, flavour: Flavour, sight: Sight | None) -> Sql:
    if isinstance(match, SequenceMatch):
        items = {a.tag: a for a in SEQUENCE_ITEMS[attribute.tag]}
        sql, parameters = conjunction([condition(items[tag], "r", inner, flavour) for tag, inner in match.keys])
        return f"series.pk IN (SELECT r.series_pk FROM request_attribute AS r WHERE {sql})", parameters
    if attribute.source is Source.INDEXED:
        return indexed_condition(attribute, match, flavour)
    if attribute.source is Source.COMPUTED:
        sql, parameters = condition(_as_column(attribute), "patient", match, flavour)
        return sql.replace("patient.computed", _expression(attribute, flavour, sight)), parameters
    sql, parameters = condition(attribute, _TABLES[attribute.level], match, flavour)
    if sight is not None and sight.hides_parts and attribute.keyword in _OF_PARTS:
        sql = sql.replace(f"study.{attribute.column}", _expression(attribute, flavour, sight))
    return sql, parameters


@lru_cache(maxsize=16)
def _as_column(attribute: Attribute) -> Attribute:
    return Attribute(attribute.keyword, attribute.tag, attribute.vr, attribute.level, "computed", ("computed",), source=Source.KEPT)


def _below(level: Level, conditions: list[tuple[Attribute, Match]], flavour: Flavour, sight: Sight | None) -> Sql:
    """Rows that have something below them, all in one line of descent, that fits the conditions."""
    child = LEVELS[LEVELS.index(level) + 1]
    deepest = max(LEVELS.index(attribute.level) for attribute, _ in conditions)
    tables = [_TABLES[child], *(_join(i) for i in range(LEVELS.index(child) + 1, deepest + 1))]
    wanted = [_one(attribute, match, flavour, sight) for attribute, match in conditions]
    if sight is not None:
        joined = LEVELS[LEVELS.index(child) : deepest + 1]
        seen = sight.study_condition("study") if Level.STUDY in joined else ""
        seen_parts = sight.part_condition("series") if Level.SERIES in joined else ""
        wanted += [(one, ()) for one in (seen, seen_parts) if one]
    sql, parameters = conjunction(wanted)
    parent = _TABLES[level]
    return f"{parent}.pk IN (SELECT {_TABLES[child]}.{parent}_pk FROM {' '.join(tables)} WHERE {sql})", parameters


def _join(i: int) -> str:
    """The table of the i-th level joined to the one above it."""
    table, parent = _TABLES[LEVELS[i]], _TABLES[LEVELS[i - 1]]
    return f"JOIN {table} ON {table}.{parent}_pk = {parent}.pk"


@lru_cache(maxsize=64)
def _joined(level: Level, needed: frozenset[Level], by_patient: bool = False) -> str:
    """The table of a level, joined upwards as far as needed, or from the patient downwards in that order."""
    own = LEVELS.index(level)
    if by_patient:
        # SQLite keeps the order of a CROSS JOIN.
        return " ".join(["patient CROSS " + _join(1), *(_join(i) for i in range(2, own + 1))])
    highest = min([LEVELS.index(one) for one in needed] + [own])
    joins = [_TABLES[level]]
    for i in range(own, highest, -1):
        table, parent = _TABLES[LEVELS[i]], _TABLES[LEVELS[i - 1]]
        joins.append(f"JOIN {parent} ON {parent}.pk = {table}.{parent}_pk")
    return " ".join(joins)


@lru_cache(maxsize=256)
def _selected(level: Level, columns: tuple[Attribute, ...], flavour: Flavour, sight: Sight | None = None) -> str:
    return ", ".join([f"{_TABLES[level]}.pk", *(_expression(a, flavour, sight) for a in columns)])


def _expression(attribute: Attribute, flavour: Flavour, sight: Sight | None) -> str:
    if attribute.source is Source.COMPUTED:
        if sight is None:
            return _COMPUTED[attribute.keyword]
        return _COMPUTED_IN_SIGHT[attribute.keyword].format(_and(sight.study_condition("t")), _and(sight.part_condition("s")))
    if sight is not None and sight.hides_parts and attribute.keyword in _OF_PARTS:
        return _OF_PARTS[attribute.keyword].format(_and(sight.part_condition("s")), f"{flavour.aggregate}(one, {flavour.character}(92))")
    if attribute.source is Source.ITEM:
        pieces = f" || {flavour.character}(31) || ".join(f"COALESCE(r.{a.column}, '')" for a in SEQUENCE_ITEMS[attribute.tag])
        items = f"(SELECT {pieces} AS one FROM request_attribute AS r WHERE r.series_pk = series.pk ORDER BY r.item) AS items"
        return f"(SELECT {flavour.aggregate}(one, {flavour.character}(30)) FROM {items})"
    return f"{_TABLES[attribute.level]}.{attribute.column}"


def _order_sql(search: Search) -> str:
    return ", ".join(term.sql for term in terms_of(search.level, search.order))


def _page_statement(search: Search, where: _Where, flavour: Flavour) -> str:
    level, order = search.level, _order_sql(search)
    selected = _selected(level, search.columns, flavour, search.sight)
    if search.after is not None:
        selected += "".join(f", {term.expression}" for term in terms_of(level, search.order))
    shown = frozenset(a.level for a in search.columns) | search.ordered_by
    tables = where.tables | search.ordered_by
    bounds = f"LIMIT {flavour.mark} OFFSET {flavour.mark}"
    if not search.offset:
        return f"SELECT {selected} FROM {_joined(level, tables | shown, where.by_patient)}{where.sql} ORDER BY {order} {bounds}"
    # The rows passed over are only counted, in an index where there is one; then the page itself is read.
    page = f"SELECT {_TABLES[level]}.pk FROM {_joined(level, tables, where.by_patient)}{where.sql} ORDER BY {order} {bounds}"
    return f"SELECT {selected} FROM {_joined(level, shown)} WHERE {_TABLES[level]}.pk IN ({page}) ORDER BY {order}"
