"""The storage beside the catalog: which stored bytes belong to which row, and which to none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from pacslite.catalog import inventory
from pacslite.storage.digests import Digests, digests_of
from pacslite.storage.keys import PATIENTS, RADIOLOGY, blob_uid, moved_uid

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.database import Catalog
    from pacslite.catalog.inventory import BlobRow
    from pacslite.storage.blob_store import BlobInfo, BlobStore
    from pacslite.storage.spool import Spool
    from pacslite.storage.stores import Located, Stores

Progress = Callable[[int, int], None]
"""Told how many are done, and of how many."""

KEPT_PREFIXES = (PATIENTS, RADIOLOGY)
"""What rows of the catalog name lies here."""

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Found:
    """Bytes that are in the storage, and the row that names exactly this key, if any."""

    info: BlobInfo
    row: BlobRow | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes are, for whoever has no row of them."""

    storage_key: str
    store_name: str


def take_stock(catalog: Catalog, store: BlobStore, *prefixes: str) -> Iterator[Found]:
    """Everything stored (under the prefixes, by default all that rows name) in the order of keys.

    One listing, one look-up per batch, bounded memory.
    """
    listing = chain.from_iterable(store.list(prefix) for prefix in prefixes or KEPT_PREFIXES)
    while batch := list(islice(listing, _BATCH)):
        with catalog.read() as conn:
            rows = rows_at(conn, store, [info.key for info in batch])
        for info in batch:
            yield Found(info, rows.get(info.key))


def rows_at(conn: Connection, store: BlobStore, keys: Sequence[str]) -> dict[str, BlobRow]:
    """The rows that name just these bytes of this store, by key: also those of bytes that were moved away and are not erased yet."""
    uids = [uid for key in keys for uid in (blob_uid(key), moved_uid(store.name, key))]
    return inventory.rows_at(conn, store.name, keys, uids)


def is_needed(catalog: Catalog, store: BlobStore, key: str) -> bool:
    """Whether a row names these bytes, or a job that is not done; asked in a write transaction, which waits for who is recording."""
    return catalog.write(lambda conn: bool(rows_at(conn, store, [key])) or inventory.is_named_by_job(conn, blob_uid(key)))


@contextmanager
def as_file(stores: Stores, spool: Spool, row: Located) -> Iterator[tuple[Path, Digests]]:
    """The bytes of a blob as a file, and their digests; bytes that are no file here are fetched into the spool for the while."""
    local = stores.local_path(row)
    with stores.open(row) as stream:
        if local is not None:
            yield local, digests_of(stream)
            return
        with spool.create(".fetched") as writer:
            digests = digests_of(stream, writer.write)
            file = writer.finish()
    try:
        yield file.path, digests
    finally:
        file.discard()


def rows_of(catalog: Catalog, after: int = 0) -> Iterator[BlobRow]:
    """Every blob of the catalog with a higher number, page by page, no transaction open in between."""
    while True:
        with catalog.read() as conn:
            page = inventory.blobs_after(conn, after, _BATCH)
        if not page:
            return
        yield from page
        after = page[-1].pk
