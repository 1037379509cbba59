"""The Image Pixel Module of stored instances, from their metadata: what a frame needs beside its bytes to be decoded."""

from __future__ import annotations

import json
import threading
import zlib
from collections import OrderedDict
from typing import Any

from pacslite.catalog import retrieval
from pacslite.catalog.database import Catalog
from pacslite.codec.pixels import PixelDescription
from pacslite.core.retrieve import Item, Resource, uids
from pacslite.errors import NotFound

_KEPT = 2048
_FLOATS = {"7FE00008": 32, "7FE00009": 64}


class _Kept:
    """The descriptions last used. A storage key never means other bytes."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, PixelDescription] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> PixelDescription | None:
        with self._lock:
            return self._found.get(key)

    def keep(self, key: str, description: PixelDescription) -> None:
        with self._lock:
            self._found[key] = description
            if len(self._found) > _KEPT:
                self._found.popitem(last=False)


_KEPT_DESCRIPTIONS = _Kept()


def describe(catalog: Catalog, resource: Resource, item: Item) -> PixelDescription:
    """What the metadata of an instance says of its frames; raises NotFound when the instance has gone meanwhile."""
    found = _KEPT_DESCRIPTIONS.get(item.storage_key)
    if found is None:
        with catalog.read() as conn:
            row = next(retrieval.documents(conn, *uids(resource), resource.version, catalog.sight(conn)), None)
        if row is None:
            raise NotFound("There is no such instance.")
        found = _description(json.loads(zlib.decompress(row.json).replace(b"\0", b"")))
        _KEPT_DESCRIPTIONS.keep(item.storage_key, found)
    return found


def _description(document: dict[str, Any]) -> PixelDescription:
    def number(key: str, default: int = 0) -> int:
        value = next(iter(document.get(key, {}).get("Value", ())), default)
        return value if isinstance(value, int) else default

    float_bits = next((bits for key, bits in _FLOATS.items() if key in document), 0)
    high_bit = number("00280102", -1)
    return PixelDescription(
        rows=number("00280010"),
        columns=number("00280011"),
        bits_allocated=float_bits or number("00280100"),
        bits_stored=number("00280101"),
        samples_per_pixel=number("00280002", 1),
        photometric_interpretation=str(next(iter(document.get("00280004", {}).get("Value", ())), "")),
        signed=number("00280103") == 1,
        planar=number("00280006") == 1,
        high_bit=high_bit if high_bit >= 0 else None,
        is_float=bool(float_bits),
    )
