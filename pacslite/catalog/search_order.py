"""The order of the rows of a search, and the place in it from which the next page goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pacslite.catalog.models import TABLE_OF_LEVEL
from pacslite.catalog.search_conditions import Flavour, Sql
from pacslite.dicom.attributes import Attribute, Level, Source


@dataclass(frozen=True, slots=True)
class OrderBy:
    """An attribute to order by, before the order that the level has by itself."""

    attribute: Attribute
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Term:
    """One expression of an order. What is unknown sorts before everything else, as in SQLite."""

    expression: str
    descending: bool = False
    nullable: bool = False

    @property
    def sql(self) -> str:
        """As ORDER BY has it; spelled out for PostgreSQL where NULL can be."""
        nulls = f" NULLS {'LAST' if self.descending else 'FIRST'}" if self.nullable else ""
        return self.expression + (" DESC" if self.descending else "") + nulls


_STUDY = (Term("study.study_date_normal", True), Term("study.study_time_normal", True), Term("study.pk", True))
_SERIES = (Term("series.study_pk"), Term("series.series_number_value", nullable=True), Term("series.pk"))
_OWN = {
    Level.PATIENT: (Term("patient.patient_name_alphabetic"), Term("patient.pk")),
    Level.STUDY: _STUDY,
    Level.SERIES: _SERIES,
    Level.INSTANCE: (*_SERIES, Term("instance.instance_number_value", nullable=True), Term("instance.pk")),
}


def terms_of(level: Level, asked: Sequence[OrderBy]) -> tuple[Term, ...]:
    """The whole order of a search: no two rows are equal in it, so that pages neither overlap nor skip."""
    return (*(_term(one) for one in asked), *_OWN[level])


def _term(asked: OrderBy) -> Term:
    attribute = asked.attribute
    table = TABLE_OF_LEVEL[attribute.level].name
    if attribute.source is Source.INDEXED:
        column = attribute.match_columns[0]
        values = f"{table}_value AS x WHERE x.{table}_pk = {table}.pk AND x.name = '{attribute.hex}'"
        # Without the group a database may walk through the index of all values, from the least on, to the first of this row.
        return Term(f"(SELECT MIN(x.{column}) FROM {values} GROUP BY x.{table}_pk)", asked.descending, nullable=True)
    return Term(f"{table}.{attribute.match_columns[0]}", asked.descending, nullable=True)


def after(terms: Sequence[Term], values: Sequence[object], flavour: Flavour) -> Sql:
    """The condition on rows that come after the one of these values."""
    mark = flavour.mark
    if len({term.descending for term in terms}) == 1 and not any(term.nullable for term in terms):
        # Compared as rows, which an index over the columns serves.
        sign = "<" if terms[0].descending else ">"
        return f"({', '.join(t.expression for t in terms)}) {sign} ({', '.join([mark] * len(terms))})", tuple(values)
    sql, parameters = "1 = 0", ()
    for term, value in zip(reversed(terms), reversed(values), strict=True):
        later, those = _later(term, value, mark)
        same, these = (f"{term.expression} IS NULL", ()) if value is None else (f"{term.expression} = {mark}", (value,))
        sql, parameters = f"({later} OR ({same} AND {sql}))", (*those, *these, *parameters)
    return sql, parameters


def _later(term: Term, value: object, mark: str) -> Sql:
    if value is None:
        return ("1 = 0" if term.descending else f"{term.expression} IS NOT NULL"), ()
    if not term.descending:
        return f"{term.expression} > {mark}", (value,)
    below = f"{term.expression} < {mark}"
    return (f"({below} OR {term.expression} IS NULL)" if term.nullable else below), (value,)
