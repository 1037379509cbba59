"""Values that are searched by an index of their own: the words of person names, and attributes indexed by configuration.

They lie in one table per level, beside the row they belong to, and go with it (ON DELETE CASCADE). `search_conditions`
has the conditions on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import Connection

from pacslite.catalog.models import TABLE_OF_LEVEL
from pacslite.catalog.search_conditions import FLAVOURS, SOUND, word_key
from pacslite.dicom.attributes import Level
from pacslite.dicom.person_name import sound_of, words_of


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
