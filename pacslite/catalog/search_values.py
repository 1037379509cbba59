"""Values that are searched by an index of their own: the words of person names, and attributes indexed by configuration.

They lie in one table per level, beside the row they belong to, and go with it (ON DELETE CASCADE). `search_conditions`
has the conditions on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from pydicom.datadict import keyword_for_tag
from sqlalchemy import Connection, delete, select, update
from sqlalchemy import insert as insert_into

from pacslite.catalog.models import TABLE_OF_LEVEL, VALUES_OF_LEVEL, search_index
from pacslite.catalog.search_conditions import FLAVOURS, SOUND, word_key
from pacslite.dicom.attributes import Attribute, Level
from pacslite.dicom.document import Document, values_of
from pacslite.dicom.indexed_attributes import IndexedAttributes, indexed_attributes
from pacslite.dicom.matching import NUMBER_VRS
from pacslite.dicom.person_name import normal_groups, sound_of, words_of
from pacslite.dicom.temporal import date_time_interval, normal_date, normal_time

BUILDING, READY = "building", "ready"
_MAX_VALUES, _MAX_CHARACTERS = 64, 512


class IndexedValue(NamedTuple):
    """One value: under which name it is searched, its place among those of that name, and its form for matching."""

    name: str
    item: int
    value: str
    value1: str = ""
    value2: str = ""
    number: float | None = None


def words_in(tag: int, name: str) -> Iterable[IndexedValue]:
    """The words of a person name and what they sound like."""
    words = words_of(name)
    sounds = dict.fromkeys(SOUND + sound for word in words if (sound := sound_of(word)))
    key = word_key(tag)
    return [IndexedValue(key, item, text) for item, text in enumerate((*words, *sounds))]


def values_in(attribute: Attribute, document: Document) -> list[IndexedValue]:
    """The values of an attribute indexed by configuration in a metadata document, in the forms that matching compares."""
    texts = [text for text in values_of(document.get(attribute.hex)) if text][:_MAX_VALUES]
    found = [IndexedValue(attribute.hex, item, *_form(attribute.vr, text[:_MAX_CHARACTERS])) for item, text in enumerate(texts)]
    return [*found, *words_in(attribute.tag, "\\".join(texts))] if attribute.vr == "PN" else found


def _form(vr: str, text: str) -> tuple[str, str, str, float | None]:
    if vr in NUMBER_VRS:
        try:
            number = float(text)
        except ValueError:
            return text, "", "", None
        return text, "", "", number if math.isfinite(number) else None
    if vr == "PN":
        return (*normal_groups(text), None)
    if vr == "DT":
        return (*(date_time_interval(text) or ("", "")), "", None)
    if vr in ("DA", "TM"):
        return (normal_date if vr == "DA" else normal_time)(text) or "", "", "", None
    return text, "", "", None


def names_of(attribute: Attribute) -> tuple[str, ...]:
    """The names under which an attribute indexed by configuration is searched."""
    return (attribute.hex, word_key(attribute.tag)) if attribute.vr == "PN" else (attribute.hex,)


def ready(conn: Connection, wanted: IndexedAttributes) -> IndexedAttributes:
    """Those of the attributes whose index holds everything that is stored."""
    statement = select(search_index.c.tag, search_index.c.level).where(search_index.c.state == READY)
    complete = {(tag, level) for tag, level in conn.execute(statement)}
    return {tag: a for tag, a in wanted.items() if (a.hex, str(a.level)) in complete}


def insert(conn: Connection, level: Level, pk: int, values: Sequence[IndexedValue]) -> None:
    """Put the values of a new row."""
    if values:
        cursor = conn.connection.cursor()
        try:
            cursor.executemany(_insert_sql(level, conn.dialect.name), [(pk, *value) for value in values])
        finally:
            cursor.close()


def replace(conn: Connection, level: Level, pk: int, values: Sequence[IndexedValue], names: Sequence[str] = ()) -> None:
    """Put the values of a row in the place of those it had, of all names or of these."""
    mark, table = FLAVOURS[conn.dialect.name].mark, TABLE_OF_LEVEL[level].name
    sql = f"DELETE FROM {table}_value WHERE {table}_pk = {mark}"
    if names:
        sql += f" AND name IN ({', '.join([mark] * len(names))})"
    cursor = conn.connection.cursor()
    try:
        cursor.execute(sql, (pk, *names))
    finally:
        cursor.close()
    insert(conn, level, pk, values)


@lru_cache(maxsize=16)
def _insert_sql(level: Level, dialect: str) -> str:
    mark, table = FLAVOURS[dialect].mark, TABLE_OF_LEVEL[level].name
    columns = ", ".join((f"{table}_pk", *IndexedValue._fields))
    return f"INSERT INTO {table}_value ({columns}) VALUES ({', '.join([mark] * (len(IndexedValue._fields) + 1))})"


def indexes(conn: Connection) -> dict[tuple[str, str], str]:
    """The attributes indexed by configuration, by tag and level, and whether what is stored is in their index."""
    rows = conn.execute(select(search_index.c.tag, search_index.c.level, search_index.c.state))
    return {(tag, level): state for tag, level, state in rows}


def attributes_of(conn: Connection, level: Level) -> list[Attribute]:
    """The attributes indexed by configuration at a level, as the catalog knows them."""
    levels = {Level.PATIENT: "patient", Level.STUDY: "study", Level.SERIES: "series", Level.INSTANCE: "instance"}
    tags = conn.execute(select(search_index.c.tag).where(search_index.c.level == str(level))).scalars()
    names = tuple(f"{keyword_for_tag(int(tag, 16))}:{levels[level]}" for tag in tags)
    return list(indexed_attributes(names).values())


def configure(conn: Connection, wanted: IndexedAttributes) -> None:
    """Note what is to be indexed; what is not wanted any more is forgotten with its values."""
    named = {(a.hex, str(a.level)) for a in wanted.values()}
    known = indexes(conn)
    for tag, level in known.keys() - named:
        table = VALUES_OF_LEVEL[Level(level)]
        conn.execute(delete(table).where(table.c.name.in_((tag, word_key(int(tag, 16))))))
        conn.execute(delete(search_index).where(search_index.c.tag == tag))
    for tag, level in sorted(named - known.keys()):
        conn.execute(insert_into(search_index).values(tag=tag, level=level, state=BUILDING, last_pk=0))


def next_rows(conn: Connection, attribute: Attribute, count: int) -> list[int]:
    """The next rows of an attribute's level that were not looked at, locked until the transaction ends."""
    table = TABLE_OF_LEVEL[attribute.level]
    last = conn.execute(select(search_index.c.last_pk).where(search_index.c.tag == attribute.hex)).scalar()
    if last is None:
        return []
    return list(conn.execute(select(table.c.pk).where(table.c.pk > last).order_by(table.c.pk).limit(count).with_for_update()).scalars())


def mark_done(conn: Connection, attribute: Attribute, pks: Sequence[int]) -> None:
    """Note how far the index is; without rows it is complete."""
    change = {"last_pk": pks[-1]} if pks else {"state": READY}
    conn.execute(update(search_index).where(search_index.c.tag == attribute.hex).values(**change))
