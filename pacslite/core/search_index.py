"""Brings the index of attributes that a setting names up to what is stored already; the worker calls `build`.

What arrives is indexed by its own transaction. What was there before is read here from the stored metadata documents, some
rows at a time in the order of their numbers, and how far that is stands in the catalog: after a kill it goes on there.
Searches use an index once it is complete.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from pacslite.catalog import search, search_values
from pacslite.dicom.indexed_attributes import IndexedAttributes, indexed_attributes

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.app import Pacs
    from pacslite.catalog.database import Catalog
    from pacslite.dicom.attributes import Attribute

_log = logging.getLogger(__name__)
_ROWS_AT_ONCE = 100


def build(pacs: Pacs) -> int:
    """Index what the setting names and drop what it names no longer; how many rows were looked at."""
    return build_index(pacs.catalog, indexed_attributes(pacs.settings.index_attributes))


def build_index(catalog: Catalog, wanted: IndexedAttributes) -> int:
    """The same for a catalog; it does nothing and writes nothing when all is done."""
    with catalog.read() as connection:
        known = search_values.indexes(connection)
    if {(a.hex, str(a.level)) for a in wanted.values()} != set(known):
        catalog.write(lambda connection: search_values.configure(connection, wanted))
        _log.info("indexed attributes changed", extra={"action": "index.build", "attributes": [a.keyword for a in wanted.values()]})
    rows = 0
    for attribute in wanted.values():
        if known.get((attribute.hex, str(attribute.level))) != search_values.READY:
            rows += _build_one(catalog, attribute)
    return rows


def _build_one(catalog: Catalog, attribute: Attribute) -> int:
    rows = 0
    while (done := catalog.write(lambda connection: _step(connection, attribute))) > 0:
        rows += done
    _log.info("attribute indexed", extra={"action": "index.build", "attributes": [attribute.keyword], "rows": rows})
    return rows


def _step(connection: Connection, attribute: Attribute) -> int:
    """The next rows of the level; how many. In one write, so that nothing older is put over what has just arrived."""
    pks = search_values.next_rows(connection, attribute, _ROWS_AT_ONCE)
    packed = search.documents(connection, attribute.level, pks)
    for pk in pks:
        values = search_values.values_in(attribute, json.loads(packed[pk], strict=False)) if pk in packed else []
        search_values.replace(connection, attribute.level, pk, values, search_values.names_of(attribute))
    search_values.mark_done(connection, attribute, pks)
    return len(pks)
