"""Bytes of files on their way into the store: kept once however often they come, durable before the catalog names them.

Bytes that are there already are only counted, if they still are when the rows are written; otherwise they get a key of their own.
Few bytes are written ahead into the catalog, by the transaction that records them (docs/decisions/0040). Who shares them then needs
nothing more: the row that keeps them was committed before, and stays until their storage has them on the disk.
Whatever ends this in between leaves at worst bytes that nothing refers to, which the sweep finds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from pacslite.catalog import blobs, written_ahead
from pacslite.catalog.arrival import NewBlob
from pacslite.catalog.blobs import LIVE, StoredBlob
from pacslite.core.parts import WithCatalog, WithIngest, WithStore, WithStores
from pacslite.errors import BlobMissing, Busy, OutcomeUnknown, PacsliteError, StorageError
from pacslite.storage.keys import blob_uid

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.storage.blob_store import Placing
    from pacslite.storage.spool import SpoolFile
    from pacslite.storage.stores import Stores

T = TypeVar("T")
_ATTEMPTS = 10
_MOST_AHEAD = 16
"""More files at once are synced each: the catalog keeps a second of arrivals, not a whole series of photos."""
_log = logging.getLogger(__name__)


class Parts(WithCatalog, WithStore, WithStores, WithIngest, Protocol):
    """What this needs of a process."""


class _Overtaken(PacsliteError):
    """Bytes that were there when they were looked for are not any more."""


@dataclass(slots=True)
class Incoming:
    """Bytes that arrived; `new_key` makes the key they get if they are not there yet."""

    file: SpoolFile
    media_type: str
    new_key: Callable[[], str]
    known: StoredBlob | None = field(default=None, init=False)
    placed: NewBlob | None = field(default=None, init=False)
    placing: Placing | None = field(default=None, init=False)


@dataclass(slots=True)
class Linked:
    """The blob that bytes became; `repaired` when it got its bytes anew by them."""

    pk: int
    uid: str
    repaired: StoredBlob | None = None


def keep(parts: Parts, incoming: Sequence[Incoming], record: Callable[[Connection, list[Linked]], T], keys: tuple[str, ...]) -> T:
    """What `record` gives, written in one transaction with references to the bytes, which are durable by then.

    `record` may run more than once and does nothing but SQL. The spool files are taken, or left for the caller to discard.
    """
    try:
        for _ in range(_ATTEMPTS):
            for one in incoming:
                _prepare(parts, one, may_be_ahead=len(incoming) <= _MOST_AHEAD)
            try:
                result, unused = parts.catalog.write(
                    lambda conn: _write(conn, incoming, record), keys + _locks(incoming), _settle(incoming)
                )
            except _Overtaken:
                continue
            for blob in unused:
                _drop(parts, blob)
            for one in incoming:
                if one.placed is not None and one.placed.content is not None:
                    parts.ingest.settling.note()
            return result
        raise Busy("others keep removing these bytes")
    except OutcomeUnknown:
        raise  # the catalog may name the bytes: the sweep finds out
    except PacsliteError:
        for one in incoming:
            if one.placed is not None:
                _drop(parts, one.placed)
        raise


def lock_names(accounts: Iterable[int | None] = (), digests: Iterable[str] = ()) -> tuple[str, ...]:
    """For `Catalog.write` of what changes counts of bytes and of accounts.

    Taken in one order before anything else is, so that two who change the same do not wait for each other in a circle.
    """
    return (*{f"quota:{account_id or 0}" for account_id in accounts}, *{f"blob:{digest}" for digest in digests})


def _locks(incoming: Sequence[Incoming]) -> tuple[str, ...]:
    return lock_names(digests=(one.file.sha256 for one in incoming))


def _settle(incoming: Sequence[Incoming]) -> Callable[[], None]:
    def settle() -> None:
        for one in incoming:
            if one.placing is not None and one.placed is not None:
                one.placing.settle()

    return settle


def _prepare(parts: Parts, one: Incoming, *, may_be_ahead: bool) -> None:
    """Finds the bytes among those that are there, or gives them a key."""
    if one.placed is not None:
        return
    with parts.catalog.read() as conn:
        one.known = blobs.find_shared(conn, one.file.sha256)
    if one.known is not None and one.known.state == LIVE and is_whole(parts.stores, one.known):
        return
    key = one.new_key()
    content = one.file.content if may_be_ahead and parts.ingest.settling.takes(one.file.content) else None
    one.placing = parts.store.begin(one.file.path, unsettled=content is not None)
    one.placing.place(key)
    one.placed = NewBlob(blob_uid(key), key, parts.store.name, one.file.size_bytes, one.file.sha256, one.media_type, content)


def is_whole(stores: Stores, found: StoredBlob) -> bool:
    """Whether the bytes of a blob are where they belong, of the right size."""
    try:
        return stores.size(found) == found.size_bytes
    except (BlobMissing, FileNotFoundError):
        return False


def _write(conn: Connection, incoming: Sequence[Incoming], record: Callable[[Connection, list[Linked]], T]) -> tuple[T, list[NewBlob]]:
    unused: list[NewBlob] = []
    linked = []
    for one in incoming:
        link = _link(conn, one)
        if one.placed is not None and link.uid != one.placed.uid:
            unused.append(one.placed)
        linked.append(link)
    return record(conn, linked), unused


def _link(conn: Connection, one: Incoming) -> Linked:
    if one.placed is None:
        pk = blobs.link_or_none(conn, one.file.sha256, one.file.size_bytes)
        if pk is None or one.known is None or one.known.pk != pk:
            raise _Overtaken("the bytes are being removed")
        return Linked(pk, one.known.uid)
    pk, is_new = blobs.insert_shared(conn, one.placed)
    if is_new:
        _write_ahead(conn, one.placed)
        return Linked(pk, one.placed.uid)
    there = blobs.find(conn, pk)
    assert there is not None
    # Somebody was faster with the same bytes, unless these are the ones that were found to be lost.
    if one.known is not None and there.pk == one.known.pk and there.storage_key == one.known.storage_key:
        blobs.repair(conn, pk, one.placed)
        _write_ahead(conn, one.placed)
        return Linked(pk, one.placed.uid, repaired=there)
    return Linked(pk, there.uid)


def _write_ahead(conn: Connection, blob: NewBlob) -> None:
    if blob.content is not None:
        written_ahead.add(conn, blob.uid, blob.storage_key, blob.content)


def _drop(parts: Parts, blob: NewBlob) -> None:
    """Erase bytes that the catalog does not name."""
    try:
        parts.store.delete(blob.storage_key)
    except StorageError as error:
        _log.warning("bytes nobody refers to are left for the sweep: %s", error, extra={"blob_uid": blob.uid})
