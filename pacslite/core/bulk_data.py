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
from pacslite.dicom.bulk import BulkValue, find_each, is_path
from pacslite.dicom.data_set import open_data_set
from pacslite.dicom.frame_index import FrameIndex
from pacslite.dicom.limits import Limits
from pacslite.dicom.values import swapped
from pacslite.errors import FrameNotFound, InstanceRefused, NotFound, TruncatedDataSet
from pacslite.storage.stores import Stores

PIXEL_DATA = "7FE00010"
PIXEL_DATA_PATHS = frozenset((PIXEL_DATA, "7FE00008", "7FE00009"))
"""Pixel Data, Float Pixel Data and Double Float Pixel Data of an image; that of icons lies in a sequence."""
_ENCAPSULATED_DOCUMENT = "00420011"
_MIME_TYPE_OF_DOCUMENT = "00420012"
# JSON holds no NUL, so this is nothing that a sender wrote.
_LINK = re.compile(rb'"BulkDataURI":"\0/([0-9A-F/]+)"')
_MIME_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")
# Types that a browser would run under our name are not repeated after a sender.
_ACTIVE_TYPE = re.compile(r"text/html|application/xhtml.*|.*javascript|.*ecmascript|image/svg.*|(?:text|application)/xml", re.IGNORECASE)


# What may be bulk data (PS3.18 10.4.3.3.2); so is other text that is too long for its VR, which metadata calls UN (PS3.5 6.2.2, note 5).
_BULK_VRS = frozenset(
    ("DS", "FL", "FD", "IS", "LT", "OB", "OD", "OF", "OL", "OV", "OW", "SL", "SS", "ST", "SV", "UC", "UL", "UN", "US", "UT", "UV")
)


@dataclass(frozen=True, slots=True)
class BulkData:
    """One value, little endian; `media_type` is the document's own, None for octets.

    `encapsulated` is pixel data in fragments, which goes out frame by frame.
    """

    item: Item
    path: str
    pieces: tuple[FileBody | StreamBody, ...]
    media_type: str | None
    encapsulated: bool = False

    @property
    def length(self) -> int:
        """Bytes of the value."""
        return sum(piece.length or 0 for piece in self.pieces)


def named(catalog: Catalog, item: Item) -> tuple[tuple[str, ...], str | None]:
    """Paths of all values that the metadata of an instance names by BulkDataURI, and the type of an encapsulated document."""
    resource = Resource(item.study_instance_uid, item.series_instance_uid, item.sop_instance_uid, item.version_number)
    document = _document(catalog, resource)
    return tuple(path.decode() for path in _LINK.findall(document)), _media_type(document)


def each(catalog: Catalog, stores: Stores, item: Item, wanted: frozenset[str] | None, limits: Limits) -> list[BulkData]:
    """The bulk data of an instance in the order of the data set, all of it or what is `wanted`."""
    paths, media_type = named(catalog, item)
    if wanted is not None:
        paths = tuple(path for path in paths if path in wanted)
    if not paths:
        return []
    index = _index(catalog, item)
    known = {PIXEL_DATA: _by_index(stores, item, index)} if index is not None and PIXEL_DATA in paths else {}
    others = frozenset(path for path in paths if known.get(path) is None)
    values = _values(stores, item, others, index, limits) if others else {}
    for path in others & values.keys():
        known[path] = _bulk_data(stores, item, path, values[path], media_type, limits)
    found = (known.get(path) for path in paths)
    return [value for value in found if value is not None]


def _index(catalog: Catalog, item: Item) -> FrameIndex | None:
    resource = Resource(item.study_instance_uid, item.series_instance_uid, item.sop_instance_uid, item.version_number)
    try:
        return retrieve.plan_frames(catalog, resource).index
    except FrameNotFound:
        return None


def _by_index(stores: Stores, item: Item, index: FrameIndex) -> BulkData | None:
    """Pixel data where the catalog knows its place, so that no file has to be read for it."""
    if index.inflated:
        return None
    if index.encapsulated:
        return BulkData(item, PIXEL_DATA, (), None, True)
    if index.swap_bytes:
        return BulkData(item, PIXEL_DATA, (retrieve.swapped_extent(stores, item, index.offset, index.length, index.swap_bytes),), None)
    return BulkData(item, PIXEL_DATA, (retrieve.extent(stores, item, index.offset, index.length),), None)


def _values(stores: Stores, item: Item, paths: frozenset[str], index: FrameIndex | None, limits: Limits) -> dict[str, BulkValue]:
    """Where the values lie. Of an image in a distant store only what lies before the pixels is fetched, as long as that is enough."""
    before = 0
    if index is not None and not index.inflated:
        before = min(index.offsets) if index.offsets else index.offset
    if 0 < before < item.size_bytes and stores.local_path(item) is None:
        with retrieve.local_copy(stores, item, limits.scratch, before) as file:
            try:
                found = find_each(file, paths, limits)
            except InstanceRefused:  # it ends early, after all
                found = {}
        if len(found) == len(paths):
            return found
    with retrieve.local_copy(stores, item, limits.scratch) as file:
        return find_each(file, paths, limits)


def find(catalog: Catalog, stores: Stores, resource: Resource, bulk_path: str, limits: Limits) -> BulkData:
    """The value that a BulkDataURI of the instance names; raises NotFound, Gone."""
    item = retrieve.plan(catalog, resource)[0]
    wanted = bulk_path.upper()
    if not is_path(wanted):
        raise NotFound("There is no such bulk data.")
    index = _index(catalog, item)
    # Float pixel data has an index of frames as well.
    if wanted == PIXEL_DATA and index is not None and not index.encapsulated and PIXEL_DATA in named(catalog, item)[0]:
        pixels = _by_index(stores, item, index)
        if pixels is not None:
            return pixels
    value = _values(stores, item, frozenset((wanted,)), index, limits).get(wanted)
    if value is None or (value.vr not in _BULK_VRS and wanted not in named(catalog, item)[0]):
        raise NotFound("There is no such bulk data.")
    media_type = _media_type(_document(catalog, resource)) if wanted == _ENCAPSULATED_DOCUMENT else None
    return _bulk_data(stores, item, bulk_path, value, media_type, limits)


def _bulk_data(stores: Stores, item: Item, path: str, value: BulkValue, media_type: str | None, limits: Limits) -> BulkData:
    own_type = media_type if path == _ENCAPSULATED_DOCUMENT else None
    if value.inflated:
        pieces: tuple[FileBody | StreamBody, ...] = (StreamBody(value.length, lambda: _inflated(stores, item, value, limits)),)
    elif value.swap_bytes:
        pieces = tuple(retrieve.swapped_extent(stores, item, *segment, value.swap_bytes) for segment in value.segments)
    else:
        pieces = tuple(retrieve.extent(stores, item, *segment) for segment in value.segments)
    return BulkData(item, path, pieces, own_type, value.encapsulated)


def _document(catalog: Catalog, resource: Resource) -> bytes:
    """The metadata of an instance, with a NUL where the URL of its bulk data goes."""
    with catalog.read() as conn:
        row = next(retrieval.documents(conn, *retrieve.uids(resource), resource.version, catalog.sight(conn)), None)
    if row is None:
        raise NotFound("There is no such instance.")
    return zlib.decompress(row.json)


def _media_type(document: bytes) -> str | None:
    """MIME Type of Encapsulated Document, when it is one that is safe to repeat."""
    if f'"{_MIME_TYPE_OF_DOCUMENT}":'.encode() not in document:
        return None
    values = json.loads(document.replace(b"\0", b"")).get(_MIME_TYPE_OF_DOCUMENT, {}).get("Value")
    name = str(values[0]).strip() if values else ""
    return name.lower() if _MIME_TYPE.fullmatch(name) and not _ACTIVE_TYPE.fullmatch(name) else None


def _inflated(stores: Stores, item: Item, value: BulkValue, limits: Limits) -> Iterator[bytes]:
    with retrieve.local_copy(stores, item, limits.scratch) as path, open_data_set(path, limits) as opened:
        for offset, length in value.segments:
            for at in range(offset, offset + length, PIECE_BYTES):
                wanted = min(PIECE_BYTES, offset + length - at)
                piece = opened.source.read(at, wanted)
                if len(piece) != wanted:
                    raise TruncatedDataSet("the inflated data set is shorter than it was")
                yield swapped(piece, value.swap_bytes)
