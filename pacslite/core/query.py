"""The query engine that C-FIND and QIDO-RS share: keys in, pages of rows out.

Keys with a column are answered by the catalog's indexes. Keys without one are looked up in the stored metadata documents
of what the columns leave over, at most `MAX_DOCUMENTS`; a wider search is refused and told to add a key. Below the
level of an instance that is the document of the instance stored last. A page is read in one short transaction.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from pacslite.catalog import search
from pacslite.catalog.search import ITEM_SEPARATOR, VALUE_SEPARATOR, Row, Search
from pacslite.core.query_keys import Key, name_of
from pacslite.dicom.attributes import BY_TAG, LEVELS, SEQUENCE_ITEMS, UNIQUE_KEYS, Attribute, Level
from pacslite.dicom.document import Document, PrivateTag, fits
from pacslite.dicom.matching import TIME_OF_DATE, DateTimeRange, Match, SequenceMatch, UidList
from pacslite.dicom.modules import level_names
from pacslite.errors import InvalidQuery, TooLarge

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog

MAX_DOCUMENTS = 10_000
"""Stored documents one search looks into."""
_DOCUMENTS_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Query:
    """A search at one level.

    `fields` are the tags to answer; those of a lower level are left out (PS3.18 10.6.3.3.1), the UIDs of the level and
    the ones above are always there. `private_fields` come from documents. Without `count_remaining` it is only told
    whether more rows come.
    """

    level: Level
    keys: tuple[Key, ...]
    fields: tuple[int, ...]
    limit: int
    offset: int = 0
    private_fields: tuple[PrivateTag, ...] = ()
    count_remaining: bool = True


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one search. `columns` describe the values of a row after its first, which is the row's number.

    `document_tags` are answered from `documents`, one for each row (empty when no such tag was asked for).
    `remaining` rows come after these.
    """

    columns: tuple[Attribute, ...]
    rows: list[Row]
    remaining: int
    document_tags: tuple[int, ...] = ()
    documents: tuple[Document, ...] = ()

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


def level_of(tag: int) -> Level:
    """The level an attribute describes; an attribute that no module above the instance has is the instance's."""
    attribute = BY_TAG.get(tag)
    return attribute.level if attribute else Level(level_names().get(tag, Level.INSTANCE))


def item_values(attribute: Attribute, value: str) -> tuple[dict[int, str], ...]:
    """The items of a sequence column, each as values by tag."""
    tags = [a.tag for a in SEQUENCE_ITEMS[attribute.tag]]
    return tuple(dict(zip(tags, item.split(VALUE_SEPARATOR), strict=True)) for item in value.split(ITEM_SEPARATOR))


@lru_cache(maxsize=256)
def _columns(level: Level, fields: tuple[int, ...]) -> tuple[tuple[Attribute, ...], tuple[int, ...]]:
    """What is answered from columns, by tag, and which tags from documents."""
    own = LEVELS.index(level)
    wanted = {tag for tag in fields if LEVELS.index(level_of(tag)) <= own}
    wanted |= {UNIQUE_KEYS[above].tag for above in LEVELS[1 : own + 1]}
    columns = tuple(BY_TAG[tag] for tag in sorted(wanted) if tag in BY_TAG)
    return columns, tuple(sorted(tag for tag in wanted if tag not in BY_TAG))


def find(catalog: Catalog, query: Query) -> Page:
    """One page of a search; raises InvalidQuery, TooLarge, Busy."""
    columns, document_tags = _columns(query.level, query.fields)
    conditions, document_keys = _split(query)
    with catalog.read() as connection:
        if document_keys:
            candidates = search.numbers(connection, Search(query.level, conditions, (), MAX_DOCUMENTS + 1))
            matching = _look_into(candidates, document_keys, partial(search.documents, connection, query.level))
            wanted = matching[query.offset : query.offset + query.limit]
            rows = search.rows_of(connection, query.level, columns, wanted)
            page = Page(columns, rows, max(0, len(matching) - query.offset - query.limit) if rows else 0)
        else:
            found = search.find(connection, Search(query.level, conditions, columns, query.limit, query.offset, query.count_remaining))
            page = Page(columns, found.rows, found.remaining)
        if (document_tags or query.private_fields) and page.rows:
            packed = search.documents(connection, query.level, [_number(row) for row in page.rows])
            documents = tuple(_parse(packed.get(_number(row))) for row in page.rows)
            page = Page(columns, page.rows, page.remaining, document_tags, documents)
    return page


def _number(row: Row) -> int:
    assert isinstance(row[0], int)
    return row[0]


def _split(query: Query) -> tuple[tuple[tuple[Attribute, Match], ...], tuple[tuple[int | PrivateTag, Match], ...]]:
    """Keys that columns answer, and keys for the documents."""
    conditions: list[tuple[Attribute, Match]] = []
    others: list[tuple[int | PrivateTag, Match]] = []
    for key in query.keys:
        attribute = BY_TAG.get(key.tag) if isinstance(key.tag, int) else None
        if attribute is not None and _in_columns(attribute, key.match):
            conditions.append((attribute, key.match))
        else:
            if isinstance(key.tag, int) and LEVELS.index(level_of(key.tag)) > LEVELS.index(query.level):
                raise InvalidQuery(f"{name_of(key.tag)} belongs to a lower level than the one searched")
            others.append((key.tag, key.match))
    return tuple(conditions), tuple(others)


def _in_columns(attribute: Attribute, match: Match) -> bool:
    if isinstance(match, SequenceMatch):
        items = {a.tag for a in SEQUENCE_ITEMS.get(attribute.tag, ())}
        return all(tag in items and not isinstance(inner, SequenceMatch) for tag, inner in match.keys)
    if isinstance(match, DateTimeRange):
        return TIME_OF_DATE[attribute.tag] in BY_TAG
    return True


def _look_into(
    candidates: list[int], keys: tuple[tuple[int | PrivateTag, Match], ...], load: Callable[[list[int]], dict[int, bytes]]
) -> list[int]:
    """The candidates whose documents fit the keys, in their order."""
    if len(candidates) > MAX_DOCUMENTS:
        names = ", ".join(name_of(tag) if isinstance(tag, int) else f"private ({tag.group:04X})" for tag, _ in keys)
        raise TooLarge(
            f"{names} is not indexed and the other keys leave more than {MAX_DOCUMENTS} matches to look into; add a key "
            "such as PatientID, StudyDate or StudyInstanceUID"
        )
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
