"""Retrieval: `plan` says which bytes a study, series or instance is, `stored` and `extent` give them.

Shared by WADO-RS, C-MOVE and C-GET. A plan is frozen and its transaction is over: nothing that streams touches the catalog.
"""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pacslite.catalog import retrieval
from pacslite.catalog.database import Catalog
from pacslite.core.content import FileBody, StreamBody
from pacslite.dicom import frame_index as frame_indexes
from pacslite.dicom.attributes import Level
from pacslite.dicom.frame_index import FrameIndex
from pacslite.dicom.limits import Limits
from pacslite.dicom.values import swapped
from pacslite.errors import BlobMissing, FrameNotFound, Gone, NotFound, TooLarge
from pacslite.settings import Settings
from pacslite.storage.keys import RADIOLOGY
from pacslite.storage.stores import Stores

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.visibility import Sight

PIECE_BYTES = 512 * 1024
# What is smaller is read at once: it costs less than to open it twice.
SMALL_BYTES = 64 * 1024
# What may be made in memory, so that its length and its ranges are known before it is sent.
IN_MEMORY_BYTES = 4 * 1024 * 1024
# Of more instances that are missing only the number is told.
_NAMED = 10
_KEPT_INDEX_BYTES = 64 * 1024
_KEPT_INDEXES_BYTES = 8 * 1024 * 1024

Item = retrieval.ItemRow
DocumentRow = retrieval.DocumentRow
Piece = bytes | FileBody | StreamBody


@dataclass(frozen=True, slots=True)
class Resource:
    """A study, one of its series, or one instance of that; UIDs as `dicom.uids.clean_uid` gives them.

    `version` is the number of a version of an instance, or a time as the catalog writes it: what was there then of what is
    still there. None is the newest.
    """

    study_instance_uid: str
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    version: int | str | None = None


@dataclass(frozen=True, slots=True)
class Frames:
    """The item and frame index of one image."""

    item: Item
    index: FrameIndex


def plan(catalog: Catalog, resource: Resource) -> tuple[Item, ...]:
    """The instances of the resource, in order; raises NotFound, or Gone when it is known to be deleted."""
    if found := _found_at_once(catalog, resource):
        return tuple(found)
    with catalog.read() as conn:
        return tuple(_found(conn, resource, catalog.sight(conn)))


def plan_whole(catalog: Catalog, stores: Stores, resource: Resource, most: int) -> tuple[Item, ...]:
    """As `plan`, for an answer that carries all of it: raises BlobMissing when bytes are missing, TooLarge above `most` instances.

    Once an answer has begun, a failure could only break it off. Files are looked at by whoever sends them; of a distant
    store one listing tells about a thousand objects, and only what it leaves out is asked for.
    """
    items = plan(catalog, resource)
    if len(items) > most:
        raise TooLarge(f"{len(items)} instances are more than one request may retrieve ({most}); retrieve series or instances one by one.")
    _check_distant(stores, resource, items)
    return items


def check_whole(stores: Stores, resource: Resource, items: Sequence[Item]) -> None:
    """The bytes of all instances of a plan are there and whole; raises BlobMissing."""
    _check_distant(stores, resource, items)
    check_files(stores, items)


def _check_distant(stores: Stores, resource: Resource, items: Sequence[Item]) -> None:
    if len(items) > 1 and (distant := [item for item in items if not stores.is_local(item)]):
        _look_ahead(stores, resource, distant, len(items))


def check_files(stores: Stores, items: Sequence[Item]) -> None:
    """Files of this machine are there and whole, for an answer that its sender cannot check; raises BlobMissing."""
    _refuse_lost([item for item in items if stores.is_local(item) and not _is_whole(stores, item)], len(items))


def _look_ahead(stores: Stores, resource: Resource, items: Sequence[Item], total: int) -> None:
    wanted = {(item.store_name, item.storage_key): item for item in items}
    for name in {item.store_name for item in items}:
        for found in stores.named(name).list(RADIOLOGY + "/".join(uid for uid in uids(resource) if uid is not None) + "/"):
            item = wanted.get((name, found.key))
            if item is not None and item.size_bytes == found.size_bytes:
                del wanted[name, found.key]
    _refuse_lost([item for item in wanted.values() if not _is_whole(stores, item)], total)


def _refuse_lost(lost: Sequence[Item], total: int) -> None:
    if lost:
        names = ", ".join(item.sop_instance_uid for item in lost[:_NAMED])
        raise BlobMissing(
            f"The stored bytes of {len(lost)} of {total} instances are missing: {names}{', ...' if len(lost) > _NAMED else ''}"
        )


def _is_whole(stores: Stores, item: Item) -> bool:
    try:
        return stores.size(item) == item.size_bytes
    except BlobMissing:
        return False


def _found_at_once(catalog: Catalog, resource: Resource) -> list[Item]:
    """The instances, for somebody from whom nothing is hidden; none when that, or what it means, takes more than one statement."""
    return [] if catalog.visibility.is_limited else retrieval.items_now(catalog, *uids(resource), resource.version)


def _found(conn: Connection, resource: Resource, sight: Sight | None) -> list[Item]:
    found = retrieval.items(conn, *uids(resource), resource.version, sight=sight)
    if found:
        return found
    if resource.version is not None and retrieval.items(conn, *uids(resource), sight=sight):
        raise NotFound("There is no such version.")
    raise absent(resource, retrieval.was_deleted(conn, *uids(resource), sight=sight))


def versions(catalog: Catalog, resource: Resource) -> list[retrieval.VersionRow]:
    """All versions of an instance, newest first; raises NotFound, Gone."""
    study, series, instance = uids(resource)
    with catalog.read() as conn:
        sight = catalog.sight(conn)
        found = retrieval.versions(conn, study, series or "", instance or "", sight)
        if not found:
            raise absent(resource, retrieval.was_deleted(conn, *uids(resource), sight=sight))
    return found


@dataclass(frozen=True, slots=True)
class Selection:
    """What a C-MOVE or C-GET asks for: values of the unique key of `level`, and one for each level above that is named.

    An issuer narrows the patients down where a PatientID is given.
    """

    level: Level
    values: tuple[str, ...]
    above: Mapping[Level, str]
    issuer_of_patient_id: str = ""


def select(catalog: Catalog, selection: Selection) -> tuple[Item, ...]:
    """The newest versions of the instances selected, none twice; empty when nothing fits."""
    found: dict[int, Item] = {}
    shared: dict[str, str] = {}
    with catalog.read() as conn:
        sight = catalog.sight(conn)
        for value in selection.values:
            for item in retrieval.selected(conn, {**selection.above, selection.level: value}, selection.issuer_of_patient_id, sight):
                found[item.version_pk] = _slim(item, shared)
    return tuple(found.values())


def _slim(item: Item, shared: dict[str, str]) -> Item:
    """The item with texts that others have too kept once: a plan may be of a hundred thousand."""
    return item._replace(
        study_instance_uid=shared.setdefault(item.study_instance_uid, item.study_instance_uid),
        series_instance_uid=shared.setdefault(item.series_instance_uid, item.series_instance_uid),
        sop_class_uid=shared.setdefault(item.sop_class_uid, item.sop_class_uid),
        transfer_syntax_uid=shared.setdefault(item.transfer_syntax_uid, item.transfer_syntax_uid),
        store_name=shared.setdefault(item.store_name, item.store_name),
    )


def uids(resource: Resource) -> tuple[str, str | None, str | None]:
    """The three UIDs, None below the level of the resource."""
    return resource.study_instance_uid, resource.series_instance_uid, resource.sop_instance_uid


def absent(resource: Resource, deleted: bool) -> NotFound | Gone:
    """The error for a resource that is not there."""
    kind = "instance" if resource.sop_instance_uid else "series" if resource.series_instance_uid else "study"
    return Gone(f"The {kind} was deleted.") if deleted else NotFound(f"There is no such {kind}.")


def change_number(catalog: Catalog, resource: Resource) -> str:
    """What changes whenever the metadata of the resource does; raises NotFound, Gone."""
    with catalog.read() as conn:
        sight = catalog.sight(conn)
        if resource.sop_instance_uid is not None:
            item = _found(conn, resource, sight)[0]
            return f"{item.version_number}-{item.storage_key}"
        number = retrieval.change_number(conn, resource.study_instance_uid, resource.series_instance_uid, sight)
        if number is None:
            raise absent(resource, retrieval.was_deleted(conn, *uids(resource), sight=sight))
    return number


@contextmanager
def documents(catalog: Catalog, resource: Resource) -> Iterator[Iterator[DocumentRow]]:
    """The metadata documents of the instances, in order, while the `with` block lasts."""
    with catalog.read() as conn:
        yield retrieval.documents(conn, *uids(resource), resource.version, catalog.sight(conn))


def plan_frames(catalog: Catalog, resource: Resource) -> Frames:
    """The one image of an instance resource; raises NotFound, Gone, FrameNotFound when it has no frames."""
    at_once = _found_at_once(catalog, resource)
    index = _INDEXES.get(at_once[0].storage_key) if at_once else None
    if index is not None:
        return Frames(at_once[0], index)
    with catalog.read() as conn:
        found = _found(conn, resource, catalog.sight(conn))
        index = _INDEXES.get(found[0].storage_key)
        encoded = retrieval.frame_index(conn, found[0].version_pk) if index is None else None
    if index is None:
        if encoded is None:
            raise FrameNotFound("The instance has no frames.")
        index = frame_indexes.decode(encoded)
        _INDEXES.keep(found[0].storage_key, index, len(encoded))
    return Frames(found[0], index)


class _FrameIndexes:
    """The decoded frame indexes last used, a bounded amount of them. A storage key never means other bytes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[FrameIndex, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> FrameIndex | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def keep(self, key: str, index: FrameIndex, size_bytes: int) -> None:
        # An entry costs more than its bytes; numbers become twice as wide.
        size_bytes = 1024 + 2 * size_bytes
        if size_bytes > 2 * _KEPT_INDEX_BYTES:
            return
        with self._lock:
            if key not in self._kept:
                self._kept[key] = (index, size_bytes)
                self._bytes += size_bytes
            while self._bytes > _KEPT_INDEXES_BYTES:
                self._bytes -= self._kept.popitem(last=False)[1][1]


_INDEXES = _FrameIndexes()


def stored(stores: Stores, item: Item) -> FileBody | StreamBody:
    """The Part 10 file as it is stored."""
    return extent(stores, item, 0, item.size_bytes)


def extent(stores: Stores, item: Item, offset: int, length: int) -> FileBody | StreamBody:
    """A range of the stored file: as a file when there is one on this machine, else as a stream."""
    path = stores.local_path(item)
    if path is not None:
        return FileBody(path, offset, length)

    def part(start: int, size: int) -> Iterator[bytes]:
        return _read(stores, item, offset + start, size)

    return StreamBody(length, lambda: part(0, length), part)


def stored_each(stores: Stores, items: Sequence[Item]) -> list[FileBody | StreamBody]:
    """The files of several items, to be sent in this order: a distant store is asked for the next ones in advance."""
    distant = [item for item in items if not stores.is_local(item)]
    if not distant:
        return [stored(stores, item) for item in items]
    opened = stores.open_each(distant)

    def chunks(item: Item) -> Iterator[bytes]:
        with next(opened) as stream:
            yield from _pieces_of(stream, item.size_bytes)

    return [stored(stores, item) if stores.is_local(item) else StreamBody(item.size_bytes, partial(chunks, item)) for item in items]


def _read(stores: Stores, item: Item, offset: int, length: int) -> Iterator[bytes]:
    with stores.open(item, offset, length) as stream:
        yield from _pieces_of(stream, length)


def _pieces_of(stream: BinaryIO, length: int) -> Iterator[bytes]:
    while length > 0:
        piece = stream.read(min(length, PIECE_BYTES))
        if not piece:
            raise BlobMissing("The stored bytes are shorter than the catalog says.")
        length -= len(piece)
        yield piece


def read_extent(stores: Stores, item: Item, offset: int, length: int) -> bytes:
    """A range of the stored file in memory; for small ones."""
    with stores.open(item, offset, length) as stream:
        data = stream.read(length)
    if len(data) != length:
        raise BlobMissing("The stored bytes are shorter than the catalog says.")
    return data


def swapped_extent(stores: Stores, item: Item, offset: int, length: int, word_bytes: int) -> StreamBody:
    """A range of whole words in the other byte order."""

    def pieces() -> Iterator[bytes]:
        for at in range(offset, offset + length, PIECE_BYTES):
            yield swapped(read_extent(stores, item, at, min(PIECE_BYTES, offset + length - at)), word_bytes)

    return StreamBody(length, pieces)


def read_small(body: FileBody | StreamBody) -> bytes | FileBody | StreamBody:
    """A stream of moderate length as bytes, of which ranges can be given; anything else as it is."""
    if isinstance(body, StreamBody) and body.part is None and body.length is not None and body.length <= IN_MEMORY_BYTES:
        return b"".join(body.chunks())
    return body


@contextmanager
def local_copy(stores: Stores, item: Item, scratch: Path, length: int | None = None) -> Iterator[Path]:
    """The stored file as a file on this machine, copied when it is elsewhere; for work that has to go back and forth in it.

    With `length` a copy may end there.
    """
    path = stores.local_path(item)
    if path is not None:
        if not path.exists():
            raise BlobMissing("The stored bytes are missing.")
        yield path
        return
    with tempfile.NamedTemporaryFile(dir=scratch, prefix="retrieve-") as copy:
        for piece in _read(stores, item, 0, item.size_bytes if length is None else length):
            copy.write(piece)
        copy.flush()
        yield Path(copy.name)


def limits_of(settings: Settings, scratch: Path) -> Limits:
    """The bounds on reading a stored file again; what has to be copied or inflated goes to `scratch`."""
    return Limits(
        max_header_bytes=settings.max_header_bytes,
        max_depth=settings.max_sequence_depth,
        bulk_threshold_bytes=settings.bulk_threshold_bytes,
        max_inflated_bytes=settings.max_inflated_bytes,
        reserve_bytes=settings.free_space_reserve_bytes,
        scratch=scratch,
    )
