"""The query engine that C-FIND and QIDO-RS share: keys in, pages of rows out.

Keys with a column are answered by the catalog's indexes. Keys without one are looked up in the stored metadata documents
of what the columns leave over, at most `max_documents`; a wider search is refused and told to add a key. Below the
level of an instance that is the document of the instance stored last. A page is read in one short transaction.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from pacslite.catalog import search, search_values
from pacslite.catalog.search import ITEM_SEPARATOR, VALUE_SEPARATOR, Row, Search
from pacslite.catalog.search_order import OrderBy
from pacslite.core.query_keys import Key, name_of
from pacslite.dicom.attributes import BY_TAG, LEVELS, SEQUENCE_ITEMS, UNIQUE_KEYS, Attribute, Level, Source
from pacslite.dicom.document import Document, PrivateTag, fits
from pacslite.dicom.indexed_attributes import NONE, IndexedAttributes
from pacslite.dicom.matching import TIME_OF_DATE, DateTimeRange, Match, SequenceMatch, UidList
from pacslite.dicom.modules import level_names
from pacslite.errors import InvalidQuery, TooLarge

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.database import Catalog
    from pacslite.catalog.visibility import Sight

_DOCUMENTS_AT_ONCE = 200
_ORDERABLE = frozenset({Source.ELEMENT, Source.KEPT, Source.INDEXED})
Conditions = tuple[tuple[Attribute, Match], ...]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the next page goes on: behind the row of this place in the order, or at the rest of the numbers found."""

    after: tuple[object, ...] = ()
    rest: tuple[int, ...] = ()


BEGIN = Cursor()
"""The cursor of a first page that wants to know where the second one begins."""


@dataclass(frozen=True, slots=True)
class Query:
    """A search at one level.

    `fields` are the tags to answer; those of a lower level are left out (PS3.18 10.6.3.3.1), the UIDs of the level and
    the ones above are always there. `private_fields` come from documents. Without `count_remaining` it is only told
    whether more rows come. `order` are tags to order by, each with whether it descends. `indexed` are the attributes
    that have an index by configuration. Pages follow one another by `offset`, or by `cursor`.
    """

    level: Level
    keys: tuple[Key, ...]
    fields: tuple[int, ...]
    limit: int
    offset: int = 0
    private_fields: tuple[PrivateTag, ...] = ()
    count_remaining: bool = True
    order: tuple[tuple[int, bool], ...] = ()
    indexed: IndexedAttributes = field(default_factory=lambda: NONE)
    max_documents: int = 10_000
    cursor: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one search. `columns` describe the values of a row after its first, which is the row's number.

    `document_tags` are answered from `documents`, one for each row (empty when no such tag was asked for).
    `remaining` rows come after these; `cursor` is where.
    """

    columns: tuple[Attribute, ...]
    rows: list[Row]
    remaining: int
    document_tags: tuple[int, ...] = ()
    documents: tuple[Document, ...] = ()
    cursor: Cursor | None = None

    def records(self) -> Iterator[dict[int, tuple[str, ...]]]:
        """Each row as values by tag, without those that are answered from documents; sequences are left out."""
        for row in self.rows:
            yield {
                a.tag: tuple(str(value).split("\\")) if value is not None and value != "" else ()
                for a, value in zip(self.columns, row[1:], strict=True)
                if a.vr != "SQ"
            }


def uid_key(level: Level, uid: str) -> Key:
    """The key that names one study, series or instance."""
    return Key(UNIQUE_KEYS[level].tag, UidList((uid,)))


def level_of(tag: int, indexed: IndexedAttributes = NONE) -> Level:
    """The level an attribute describes; an attribute that no module above the instance has is the instance's."""
    attribute = BY_TAG.get(tag) or indexed.get(tag)
    return attribute.level if attribute else Level(level_names().get(tag, Level.INSTANCE))


def item_values(attribute: Attribute, value: str) -> tuple[dict[int, str], ...]:
    """The items of a sequence column, each as values by tag."""
    tags = [a.tag for a in SEQUENCE_ITEMS[attribute.tag]]
    return tuple(dict(zip(tags, item.split(VALUE_SEPARATOR), strict=True)) for item in value.split(ITEM_SEPARATOR))


@lru_cache(maxsize=256)
def _columns(level: Level, fields: tuple[int, ...], moved: tuple[tuple[int, Level], ...]) -> tuple[tuple[Attribute, ...], tuple[int, ...]]:
    """What is answered from columns, by tag, and which tags from documents; `moved` are levels that a setting gives."""
    own, levels = LEVELS.index(level), dict(moved)
    wanted = {tag for tag in fields if LEVELS.index(levels.get(tag) or level_of(tag)) <= own}
    wanted |= {UNIQUE_KEYS[above].tag for above in LEVELS[1 : own + 1]}
    columns = tuple(BY_TAG[tag] for tag in sorted(wanted) if tag in BY_TAG)
    return columns, tuple(sorted(tag for tag in wanted if tag not in BY_TAG))


def find(catalog: Catalog, query: Query) -> Page:
    """One page of a search; raises InvalidQuery, TooLarge, Busy."""
    columns, document_tags = _columns(query.level, query.fields, tuple((tag, a.level) for tag, a in query.indexed.items()))
    with catalog.read() as connection:
        sight = catalog.sight(connection)
        ready = _ready(connection, query)
        conditions, document_keys = _split(query, ready)
        order = _order(query, ready, sight)
        if document_keys:
            page = _page_of_documents(connection, query, columns, conditions, document_keys, order, sight)
        else:
            page = _page(connection, query, columns, conditions, order, sight)
        if (document_tags or query.private_fields) and page.rows:
            packed = search.documents(connection, query.level, [_number(row) for row in page.rows], sight)
            documents = tuple(_parse(packed.get(_number(row))) for row in page.rows)
            page = replace(page, document_tags=document_tags, documents=documents)
    return page


def _page(
    connection: Connection,
    query: Query,
    columns: tuple[Attribute, ...],
    conditions: Conditions,
    order: tuple[OrderBy, ...],
    sight: Sight | None,
) -> Page:
    after = query.cursor.after if query.cursor else None
    wanted = Search(query.level, conditions, columns, query.limit, query.offset, query.count_remaining, order, after, sight)
    found = search.find(connection, wanted)
    return Page(columns, found.rows, found.remaining, cursor=Cursor(found.last) if found.last and found.remaining else None)


def _page_of_documents(
    connection: Connection,
    query: Query,
    columns: tuple[Attribute, ...],
    conditions: Conditions,
    keys: tuple[tuple[int | PrivateTag, Match], ...],
    order: tuple[OrderBy, ...],
    sight: Sight | None,
) -> Page:
    """A page of what only the documents tell; the pages after the first look into none of them again."""
    if query.cursor and query.cursor.rest:
        matching = list(query.cursor.rest)
    else:
        candidates = search.numbers(connection, Search(query.level, conditions, (), query.max_documents + 1, order=order, sight=sight))
        _check_narrow(candidates, keys, query.max_documents)
        matching = _look_into(candidates, keys, partial(search.documents, connection, query.level, sight=sight))[query.offset :]
    rows = search.rows_of(connection, query.level, columns, matching[: query.limit], sight)
    rest = tuple(matching[query.limit :]) if matching[: query.limit] else ()
    return Page(columns, rows, len(rest), cursor=Cursor(rest=rest) if rest else None)


def _ready(connection: Connection, query: Query) -> IndexedAttributes:
    """Of the attributes indexed by configuration that this search needs, those whose index is complete."""
    needed = {key.tag for key in query.keys} | {tag for tag, _ in query.order}
    wanted = {tag: a for tag, a in query.indexed.items() if tag in needed}
    return search_values.ready(connection, wanted) if wanted else wanted


def _order(query: Query, ready: IndexedAttributes, sight: Sight | None) -> tuple[OrderBy, ...]:
    """The attributes to order by; raises InvalidQuery for those that have no column or describe a lower level.

    Where not every series is seen, what columns tell of all of them orders nothing.
    """
    order = []
    for tag, descending in query.order:
        attribute = BY_TAG.get(tag) or ready.get(tag)
        if attribute is None or not attribute.match_columns or attribute.source not in _ORDERABLE:
            raise InvalidQuery(f"orderby: {name_of(tag)} is not indexed")
        if sight is not None and sight.hides_parts and attribute.level is Level.STUDY and attribute.source is Source.KEPT:
            raise InvalidQuery(f"orderby: {name_of(tag)} is not indexed")
        if LEVELS.index(attribute.level) > LEVELS.index(query.level):
            raise InvalidQuery(f"orderby: {name_of(tag)} belongs to a lower level than the one searched")
        order.append(OrderBy(attribute, descending))
    return tuple(order)


def _number(row: Row) -> int:
    assert isinstance(row[0], int)
    return row[0]


def _split(query: Query, ready: IndexedAttributes) -> tuple[Conditions, tuple[tuple[int | PrivateTag, Match], ...]]:
    """Keys that columns answer, and keys for the documents."""
    conditions: list[tuple[Attribute, Match]] = []
    others: list[tuple[int | PrivateTag, Match]] = []
    for key in query.keys:
        attribute = BY_TAG.get(key.tag) or ready.get(key.tag) if isinstance(key.tag, int) else None
        if attribute is not None and _in_columns(attribute, key.match):
            conditions.append((attribute, key.match))
        else:
            if isinstance(key.tag, int) and LEVELS.index(level_of(key.tag, query.indexed)) > LEVELS.index(query.level):
                raise InvalidQuery(f"{name_of(key.tag)} belongs to a lower level than the one searched")
            others.append((key.tag, key.match))
    return tuple(conditions), tuple(others)


def _in_columns(attribute: Attribute, match: Match) -> bool:
    if isinstance(match, SequenceMatch):
        items = {a.tag for a in SEQUENCE_ITEMS.get(attribute.tag, ())}
        return all(tag in items and not isinstance(inner, SequenceMatch) for tag, inner in match.keys)
    if isinstance(match, DateTimeRange):
        return attribute.source is not Source.INDEXED and TIME_OF_DATE[attribute.tag] in BY_TAG
    return True


def _check_narrow(candidates: list[int], keys: tuple[tuple[int | PrivateTag, Match], ...], most: int) -> None:
    if len(candidates) > most:
        names = ", ".join(name_of(tag) if isinstance(tag, int) else f"private ({tag.group:04X})" for tag, _ in keys)
        raise TooLarge(
            f"add PatientID, StudyDate or StudyInstanceUID: {names} is not indexed and the other keys leave more than {most} "
            "matches to look into"
        )


def _look_into(
    candidates: list[int], keys: tuple[tuple[int | PrivateTag, Match], ...], load: Callable[[list[int]], dict[int, bytes]]
) -> list[int]:
    """The candidates whose documents fit the keys, in their order."""
    matching: list[int] = []
    for start in range(0, len(candidates), _DOCUMENTS_AT_ONCE):
        batch = candidates[start : start + _DOCUMENTS_AT_ONCE]
        packed = load(batch)
        matching += [pk for pk in batch if fits(_parse(packed.get(pk)), keys)]
    return matching


def _parse(packed: bytes | None) -> Document:
    # strict=False: a raw NUL stands for the base of bulk data URIs in stored documents.
    document: Document = json.loads(packed, strict=False) if packed else {}
    return document
