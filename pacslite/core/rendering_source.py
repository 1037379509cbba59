"""What rendering reads of an instance: its metadata, bulk values, and the bytes of one frame."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection
from typing import Any

from pacslite.catalog.database import Catalog
from pacslite.codec.transfer_syntax import frame_bytes
from pacslite.core import retrieve
from pacslite.core.retrieve import Frames, Item, Resource
from pacslite.dicom.bulk import BulkValue, find_each
from pacslite.dicom.charset import of_value
from pacslite.dicom.data_set import open_data_set
from pacslite.dicom.document import Document
from pacslite.dicom.limits import Limits
from pacslite.dicom.values import swapped
from pacslite.errors import NotFound, TooLarge
from pacslite.storage.stores import Stores

CHARSET = "00080005"
# Tables, profiles and long texts; not pixels.
_MOST_VALUE_BYTES = 16 * 1024 * 1024


def document(catalog: Catalog, resource: Resource) -> Document:
    """The metadata of an instance; a BulkDataURI is `/` and the path of its value."""
    with retrieve.documents(catalog, resource) as rows:
        row = next(rows, None)
        if row is None:
            raise NotFound("The instance was deleted a moment ago.")
        packed = row.json
    # Numbers keep their digits.
    found: Document = json.loads(zlib.decompress(packed).replace(b"\0", b""), parse_float=str)
    return found


def links(element: dict[str, Any]) -> str | None:
    """The path of a value that the metadata only names."""
    uri = element.get("BulkDataURI")
    return uri.lstrip("/") if isinstance(uri, str) else None


def bulk_values(stores: Stores, item: Item, paths: Collection[str], limits: Limits) -> dict[str, bytes]:
    """Values by their paths, little endian, in one pass over the file; what is not there is left out. Raises TooLarge."""
    found: dict[str, bytes] = {}
    with retrieve.local_copy(stores, item, limits.scratch) as file:
        values = find_each(file, frozenset(paths), limits)
        if sum(value.length for value in values.values()) > _MOST_VALUE_BYTES:
            raise TooLarge(f"The values needed are larger than {_MOST_VALUE_BYTES} bytes.")
        with open_data_set(file, limits, lenient=True) as opened:
            for path, value in values.items():
                found[path] = _read(opened.source.read, value)
    return found


def _read(read: Any, value: BulkValue) -> bytes:
    data = b"".join(read(offset, length) for offset, length in value.segments)
    return swapped(data, value.swap_bytes) if value.swap_bytes else data


def texts(stores: Stores, item: Item, paths: Collection[str], limits: Limits) -> dict[str, str]:
    """Long texts by their paths, decoded by the character set of the data set."""
    raw = bulk_values(stores, item, {*paths, CHARSET}, limits)
    charset = of_value(raw.pop(CHARSET, b""))
    return {path: charset.decode(value).rstrip(" \0") for path, value in raw.items()}


def frame(stores: Stores, image: Frames, number: int, limits: Limits, most_bytes: int) -> bytes:
    """One frame, little endian and whole bytes when native, the code stream when compressed; raises FrameNotFound, TooLarge."""
    index, item = image.index, image.item
    if sum(length for _, length in index.segments(number)) > most_bytes:
        raise TooLarge(f"The frame is larger than {most_bytes} bytes.")
    if index.inflated:
        with retrieve.local_copy(stores, item, limits.scratch) as path, open_data_set(path, limits) as opened:
            return frame_bytes(opened.source.read, index, number)
    return frame_bytes(lambda offset, length: retrieve.read_extent(stores, item, offset, length), index, number)
