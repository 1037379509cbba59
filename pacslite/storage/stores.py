"""All configured stores by their names. What is written goes to the active one; what is read comes from where its row says.

A row names its store and its key. A packed blob (`packing`) is told by its key, and read as the bytes that were packed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from pacslite.errors import StorageError
from pacslite.storage import packing
from pacslite.storage.blob_store import BlobStore
from pacslite.storage.keys import PACKED
from pacslite.storage.read_ahead import AHEAD, open_each
from pacslite.storage.spool import Spool


class Located(Protocol):
    """What a row says about where bytes are."""

    @property
    def storage_key(self) -> str:
        """Their key."""

    @property
    def store_name(self) -> str:
        """The store."""


class Stores:
    """The stores of one process. Safe for threads."""

    def __init__(self, active: BlobStore, others: Iterable[BlobStore] = (), spools: Mapping[str, Spool] | None = None) -> None:
        self.active, self._spools = active, dict(spools or {})
        self._by_name = {store.name: store for store in (*others, active)}
        self._files = {name for name, store in self._by_name.items() if store.kind == "filesystem"}

    @property
    def all(self) -> Sequence[BlobStore]:
        """Every store, the active one first."""
        return (self.active, *(store for store in self._by_name.values() if store is not self.active))

    def knows(self, name: str) -> bool:
        """Whether a store of this name is configured."""
        return name in self._by_name

    def named(self, name: str) -> BlobStore:
        """The store of that name; raises StorageError when none is configured."""
        try:
            return self._by_name[name]
        except KeyError:
            raise StorageError(f"the storage {name!r} is not configured") from None

    @property
    def spools(self) -> Sequence[Spool]:
        """The spools of stores that have one of their own."""
        return tuple(self._spools.values())

    def spool_of(self, name: str, usual: Spool) -> Spool:
        """The spool on the device of a store that has one of its own, else the usual one."""
        return self._spools.get(name, usual)

    def of(self, row: Located) -> BlobStore:
        """The store that holds the bytes of a row."""
        return self.named(row.store_name)

    def open(self, row: Located, offset: int = 0, length: int | None = None) -> BinaryIO:
        """The bytes, or `length` of them from `offset`, as a stream to be closed; raises BlobMissing, StorageError."""
        store = self.named(row.store_name)
        if row.storage_key.endswith(PACKED):
            return packing.open_packed(store, row.storage_key, offset, length)
        return store.open(row.storage_key, offset, length)

    def size(self, row: Located) -> int:
        """Size in bytes, of a packed blob that of what was packed; raises BlobMissing, StorageError."""
        store = self.named(row.store_name)
        if row.storage_key.endswith(PACKED):
            return packing.index_of(store, row.storage_key).size_bytes
        return store.size(row.storage_key)

    def local_path(self, row: Located) -> Path | None:
        """The file on this machine that holds just these bytes, when there is one (it need not exist)."""
        if row.storage_key.endswith(PACKED):
            return None
        return self.named(row.store_name).local_path(row.storage_key)

    def is_local(self, row: Located) -> bool:
        """Whether there is such a file."""
        return row.store_name in self._files and not row.storage_key.endswith(PACKED)

    @contextmanager
    def as_file(self, row: Located, spool: Spool) -> Iterator[Path]:
        """The bytes as a file on this machine; those that lie elsewhere, or packed, are in the spool for the while."""
        local = self.local_path(row)
        if local is not None:
            yield local
            return
        with self.open(row) as stream:
            file = spool.copy(stream, ".fetched")
        try:
            yield file.path
        finally:
            file.discard()

    def open_each(self, rows: Sequence[_Sized], ahead: int = AHEAD) -> Iterator[BinaryIO]:
        """The whole bytes of each row in order, those of distant stores asked for in advance (`read_ahead.open_each`)."""
        if all(row.store_name in self._files for row in rows):
            ahead = 0
        return open_each(self, ((row, 0, row.size_bytes) for row in rows), ahead)

    def presign(self, row: Located, expires_s: int) -> str | None:
        """A URL of the store's own under which anybody can GET the bytes for a while, when there can be one."""
        if row.storage_key.endswith(PACKED):
            return None
        return self.named(row.store_name).presign(row.storage_key, expires_s)

    def delete(self, row: Located) -> None:
        """Erase the bytes of a row."""
        self.named(row.store_name).delete(row.storage_key)


class _Sized(Located, Protocol):
    @property
    def size_bytes(self) -> int:
        """Size of the original bytes."""
