"""Bulk data: the values that metadata only names."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from pacslite.catalog import retrieval
from pacslite.catalog.database import Catalog
from pacslite.core import retrieve
from pacslite.core.content import FileBody, StreamBody
from pacslite.core.retrieve import PIECE_BYTES, Item, Resource
from pacslite.dicom.bulk import BulkValue, find_bulk
from pacslite.dicom.data_set import open_data_set
from pacslite.dicom.limits import Limits
from pacslite.dicom.values import swapped
from pacslite.errors import NotFound, TruncatedDataSet
from pacslite.storage.blob_store import BlobStore

PIXEL_DATA = "7FE00010"
_ENCAPSULATED_DOCUMENT = "00420011"
_MIME_TYPE_OF_DOCUMENT = "00420012"
_MIME_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")
# Types that a browser would run under our name are not repeated after a sender.
_ACTIVE_TYPE = re.compile(r"text/html|application/xhtml.*|.*javascript|.*ecmascript|image/svg.*|(?:text|application)/xml", re.IGNORECASE)


# What may be bulk data (PS3.18 10.4.3.3.2).
_BULK_VRS = frozenset(
    ("DS", "FL", "FD", "IS", "LT", "OB", "OD", "OF", "OL", "OV", "OW", "SL", "SS", "ST", "SV", "UC", "UL", "UN", "US", "UT", "UV")
)


@dataclass(frozen=True, slots=True)
class BulkData:
    """One value, little endian; `media_type` is the document's own, None for octets."""

    item: Item
    pieces: tuple[FileBody | StreamBody, ...]
    media_type: str | None


def find(catalog: Catalog, store: BlobStore, resource: Resource, bulk_path: str, limits: Limits) -> BulkData:
    """The value that a BulkDataURI of the instance names; raises NotFound, Gone."""
    item = retrieve.plan(catalog, resource)[0]
    with retrieve.local_copy(store, item, limits.scratch) as path:
        value = find_bulk(path, bulk_path, limits)
    media_type = _media_type(catalog, resource) if bulk_path == _ENCAPSULATED_DOCUMENT else None
    if value.vr not in _BULK_VRS:
        raise NotFound("There is no such bulk data.")
    if value.inflated:
        return BulkData(item, (StreamBody(value.length, lambda: _inflated(store, item, value, limits)),), media_type)
    if value.swap_bytes:
        turned = tuple(retrieve.swapped_extent(store, item, *segment, value.swap_bytes) for segment in value.segments)
        return BulkData(item, turned, media_type)
    return BulkData(item, tuple(retrieve.extent(store, item, *segment) for segment in value.segments), media_type)


def _media_type(catalog: Catalog, resource: Resource) -> str | None:
    """MIME Type of Encapsulated Document, when it is one that is safe to repeat."""
    with catalog.read() as conn:
        row = next(retrieval.documents(conn, *retrieve.uids(resource)), None)
    if row is None:
        raise NotFound("There is no such instance.")
    values = json.loads(zlib.decompress(row.json).replace(b"\0", b"")).get(_MIME_TYPE_OF_DOCUMENT, {}).get("Value")
    name = str(values[0]).strip() if values else ""
    return name.lower() if _MIME_TYPE.fullmatch(name) and not _ACTIVE_TYPE.fullmatch(name) else None


def _inflated(store: BlobStore, item: Item, value: BulkValue, limits: Limits) -> Iterator[bytes]:
    with retrieve.local_copy(store, item, limits.scratch) as path, open_data_set(path, limits) as opened:
        for offset, length in value.segments:
            for at in range(offset, offset + length, PIECE_BYTES):
                wanted = min(PIECE_BYTES, offset + length - at)
                piece = opened.source.read(at, wanted)
                if len(piece) != wanted:
                    raise TruncatedDataSet("the inflated data set is shorter than it was")
                yield swapped(piece, value.swap_bytes)
