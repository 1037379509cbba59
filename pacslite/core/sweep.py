"""Takes away bytes that nothing refers to: what a crash between storing and recording left behind.

Two sweeps at least an hour apart must find the bytes unreferenced; then they go to quarantine, where they lie another
week before they are erased. A wrong decision is thus found by somebody before it costs bytes.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pacslite.catalog import inventory
from pacslite.core.stocktaking import is_needed, rows_at, take_stock
from pacslite.errors import BlobMissing, StorageError
from pacslite.storage.keys import QUARANTINE, quarantine_key

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog
    from pacslite.storage.blob_store import BlobStore

BETWEEN_SWEEPS_S = 3600
QUARANTINE_S = 7 * 86400
_MAX_CANDIDATES = 100_000
# So many unreferenced blobs, and most of all there are, mean that the catalog is not the one of this storage.
_MANY = 100


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one sweep found (`candidates` wait for a second sweep), moved to quarantine, and erased from there."""

    checked: int
    candidates: int
    quarantined: tuple[str, ...]
    erased: int


def sweep(catalog: Catalog, store: BlobStore, memory: Path, now: float | None = None) -> SweepReport:
    """Sweep the storage; `memory` is the file that remembers the candidates of the sweeps before."""
    now = time.time() if now is None else now
    with catalog.read() as conn:
        if inventory.is_rebuilding(conn):
            raise StorageError("the catalog is not rebuilt to its end: nothing is swept")
    before, checked, unreferenced = _read(memory, store.name), 0, 0
    candidates: dict[str, float] = {}
    for found in take_stock(catalog, store):
        checked += 1
        if found.row is None and now - found.info.modified_at.timestamp() >= BETWEEN_SWEEPS_S:
            unreferenced += 1
            if len(candidates) < _MAX_CANDIDATES:
                candidates[found.info.key] = before.get(found.info.key, now)
    if unreferenced >= _MANY and unreferenced > checked // 2:
        raise StorageError(f"the catalog knows {checked - unreferenced} of {checked} stored blobs: nothing is swept; is a reindex due?")
    ripe = [key for key, first_seen in candidates.items() if now - first_seen >= BETWEEN_SWEEPS_S]
    quarantined = tuple(key for key in ripe if quarantine(catalog, store, key))
    for key in quarantined:
        del candidates[key]
    _write(memory, store.name, candidates)
    return SweepReport(checked, len(candidates), quarantined, _erase_old(catalog, store, now))


def quarantine(catalog: Catalog, store: BlobStore, key: str) -> bool:
    """Move bytes that nothing refers to into quarantine; False, and nothing changed, when something does.

    Asked within write transactions, which wait for everybody who is recording: before the move, and after it, when
    the bytes are moved back if a row has come to name them.
    """
    if is_needed(catalog, store, key):
        return False
    try:
        store.move(key, quarantine_key(key))
    except BlobMissing:
        return False  # gone by itself
    if not is_needed(catalog, store, key):
        return True
    store.move(quarantine_key(key), key)
    return False


def _erase_old(catalog: Catalog, store: BlobStore, now: float) -> int:
    """Erase what has been in quarantine for long; damaged bytes that a row still names stay for a person to look at."""
    erased = 0
    for info in store.list(QUARANTINE):
        if now - info.modified_at.timestamp() < QUARANTINE_S:
            continue
        key = info.key.removeprefix(QUARANTINE)
        with catalog.read() as conn:
            row = rows_at(conn, store, [key]).get(key)
        if row is not None and row.state == inventory.QUARANTINED:
            continue
        store.delete(info.key)
        erased += 1
    return erased


def _read(memory: Path, store_name: str) -> dict[str, float]:
    try:
        remembered = json.loads(memory.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        return {}  # a torn file only means that the wait begins anew
    except OSError as error:
        raise StorageError(f"{memory.name} cannot be read: {error.strerror}") from error
    if not isinstance(remembered, dict) or remembered.get("store") != store_name:
        return {}
    return {str(key): float(seen) for key, seen in remembered.get("candidates", {}).items()}


def _write(memory: Path, store_name: str, candidates: dict[str, float]) -> None:
    written = memory.with_suffix(".new")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        written.write_text(json.dumps({"store": store_name, "at": at, "candidates": candidates}))
        os.replace(written, memory)
    except OSError as error:
        raise StorageError(f"{memory.name} cannot be written: {error.strerror}") from error
