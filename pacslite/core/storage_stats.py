"""How much is stored: in all, by type of file, by storage, and what equal bytes have saved."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pacslite.catalog import statistics
from pacslite.core.parts import WithCatalog, WithSettings, WithSpool, WithStores
from pacslite.errors import StorageError

if TYPE_CHECKING:
    from pacslite.storage.blob_store import BlobStore


class Parts(WithSettings, WithCatalog, WithStores, WithSpool, Protocol):
    """What this needs of a process."""


@dataclass(frozen=True, slots=True)
class TypeStats:
    """Files of a type that are not in the trash; under `dicom` all instances that are not files of another type."""

    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Backend:
    """A storage. `compression` is how packed blobs of it are packed, null when there are none; `encryption` is null when there is none."""

    name: str
    kind: str
    active: bool
    size_bytes: int
    encryption: str | None
    compression: str | None


@dataclass(frozen=True, slots=True)
class StorageStats:
    """What is stored. `available_bytes` is the room on the disk of the active storage, null where only its provider knows."""

    total_size_bytes: int
    file_count: int
    available_bytes: int | None
    by_type: dict[str, TypeStats]
    dedup_saved_bytes: int
    backends: tuple[Backend, ...]


def stats(parts: Parts) -> StorageStats:
    """Adds up the catalog."""
    with parts.catalog.read() as conn:
        stores = statistics.by_store(conn)
        types = {name: TypeStats(*sums) for name, sums in statistics.by_file_type(conn).items()}
        saved = statistics.shared_bytes(conn)
    backends = tuple(_backend(store, store is parts.stores.active, stores.get(store.name)) for store in parts.stores.all)
    total, count = sum(one.stored_bytes for one in stores.values()), sum(one.count for one in types.values())
    return StorageStats(total, count, available_bytes(parts), types, saved, backends)


def _backend(store: BlobStore, active: bool, found: statistics.StoreSums | None) -> Backend:
    packed = found is not None and found.packed_count > 0
    return Backend(store.name, store.kind, active, found.stored_bytes if found else 0, None, "gzip" if packed else None)


def available_bytes(parts: Parts) -> int | None:
    """Room on the disk of the active storage, without what is kept free; None when it is no disk of this machine."""
    root = getattr(parts.stores.active, "root", None)
    if root is None:
        return None
    return max(0, _free(root) - parts.settings.free_space_reserve_bytes)


def has_room(parts: Parts, required_bytes: int) -> bool:
    """Whether so many bytes fit into the spool and the active storage."""
    free = [_free(parts.spool.directory)]
    root = getattr(parts.stores.active, "root", None)
    if root is not None:
        free.append(_free(root))
    return required_bytes <= min(free) - parts.settings.free_space_reserve_bytes


def _free(directory: os.PathLike[str]) -> int:
    try:
        found = os.statvfs(directory)
    except OSError as error:
        raise StorageError(f"the storage cannot be read: {error.strerror}") from error
    return found.f_bavail * found.f_frsize
