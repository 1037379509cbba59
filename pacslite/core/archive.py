"""Instances as a ZIP file with DICOMDIR (PS3.18 8.7.3.1, PS3.10 8): files as stored, under names that tell nothing; others beside them.

The same content is the same file to the byte, whoever makes it and when: a download that broke off goes on with a range.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, BinaryIO, Protocol

from pacslite.core import retrieve
from pacslite.core.content import StreamBody
from pacslite.core.file_cache import FileCache
from pacslite.core.parts import WithCatalog, WithSettings, WithStores
from pacslite.core.retrieve import PIECE_BYTES, Item, Resource
from pacslite.core.zip_stream import Entry, ZipStream
from pacslite.dicom import directory
from pacslite.dicom.directory import DirectoryFile
from pacslite.errors import BlobMissing, Busy

if TYPE_CHECKING:
    from pathlib import Path

    from pacslite.catalog.database import Catalog
    from pacslite.storage.stores import Stores

_FORM = "1"  # changes whenever the same content would give other bytes
DICOMDIR = "DICOMDIR"


class Parts(WithSettings, WithCatalog, WithStores, Protocol):
    """What an archive needs of a process."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive ready to be sent. `digest` is another whenever its bytes are; ranges can be given of `body`."""

    digest: str
    file_name: str
    body: StreamBody


@dataclass(frozen=True, slots=True)
class Instances:
    """Instances of one resource, as they were planned."""

    resource: Resource
    items: Sequence[Item]


class Stored(Protocol):
    """Where the bytes of an entry are."""

    @property
    def storage_key(self) -> str:
        """Their key."""

    @property
    def store_name(self) -> str:
        """The store."""

    @property
    def size_bytes(self) -> int:
        """How many they are."""

    @property
    def sha256(self) -> str:
        """Their digest."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A file that lies beside the instances, under a path that is no other's."""

    path: str
    stored: Stored


def open_archive(parts: Parts, resource: Resource) -> Archive:
    """The archive of a resource; raises NotFound, Gone, TooLarge, and BlobMissing when bytes are missing."""
    items = retrieve.plan_whole(parts.catalog, parts.stores, resource, parts.settings.max_retrieve_instances)
    retrieve.check_files(parts.stores, items)
    lowest = resource.sop_instance_uid or resource.series_instance_uid or resource.study_instance_uid
    return assembled(parts, [Instances(resource, items)], (), f"{lowest}.zip")


def assembled(parts: Parts, groups: Sequence[Instances], beside: Sequence[Beside], file_name: str) -> Archive:
    """The archive of instances, with a DICOMDIR when there are any, and of files beside them. That the bytes are there was seen to."""
    items = [item for group in groups for item in group.items]
    told = [*(f"{item.storage_key} {item.sha256} {item.version_number}" for item in items)]
    told += [f"{one.stored.storage_key} {one.stored.sha256} {one.path}" for one in beside]
    digest = hashlib.sha256("|".join([_FORM, *told]).encode()).hexdigest()
    kept = _cache(parts.settings.cache_directory, parts.settings.cache_bytes)
    file_ids = _file_ids(items)
    first: list[bytes] = []
    if items:
        file, _ = kept.open(f"{digest}.dicomdir", lambda out: _write(out, _directory(parts.catalog, groups, file_ids, digest)))
        with file:
            file.seek(0)
            first = [file.read()]
    entries = [Entry(DICOMDIR, len(data)) for data in first]
    entries += [Entry("/".join(name), item.size_bytes) for name, item in zip(file_ids, items, strict=True)]
    entries += [Entry(one.path, one.stored.size_bytes) for one in beside]
    contents = _Contents(parts.stores, [*items, *(one.stored for one in beside)], first, entries, kept, digest)
    return Archive(digest, file_name, StreamBody(contents.length, lambda: contents.part(0, contents.length), contents.part))


@cache
def _cache(cache_directory: Path, max_bytes: int) -> FileCache:
    return FileCache(cache_directory / "archives", max_bytes)


def _file_ids(items: Sequence[Item]) -> list[tuple[str, ...]]:
    """File IDs in the order of the items: names of at most 8 characters of the few that media allow (PS3.10 8.2, 8.5)."""
    series: dict[tuple[str, str], list[int]] = {}
    names: list[tuple[str, ...]] = []
    for item in items:
        place = series.setdefault((item.study_instance_uid, item.series_instance_uid), [len(series) + 1, 0])
        place[1] += 1
        names.append(("DICOM", f"SE{place[0]:06d}", f"IM{place[1]:06d}"))
    return names


def _directory(catalog: Catalog, groups: Sequence[Instances], file_ids: Sequence[tuple[str, ...]], digest: str) -> bytes:
    names = iter(file_ids)

    def files() -> Iterator[DirectoryFile]:
        for group in groups:
            documents = _documents(catalog, group)
            for number, item in enumerate(group.items):
                document = json.loads(zlib.decompress(documents.pop(number)), strict=False)  # a NUL stands for the base URL
                yield DirectoryFile(next(names), item.sop_class_uid, item.sop_instance_uid, item.transfer_syntax_uid, document)

    # The UID of the directory follows from its content, as the bytes do (PS3.5 B.2: 2.25 and a number of 128 bits).
    return directory.encode(files(), f"2.25.{int(digest[:32], 16)}")


def _documents(catalog: Catalog, group: Instances) -> dict[int, bytes]:
    """The compressed documents of a group by the number of the instance; raises Busy when it is not as planned any more."""
    wanted = {(item.series_instance_uid, item.sop_instance_uid): number for number, item in enumerate(group.items)}
    kept: dict[int, bytes] = {}
    with retrieve.documents(catalog, group.resource) as rows:
        for row in rows:
            at = wanted.get((row.series_instance_uid, row.sop_instance_uid))
            if at is not None and row.version_number == group.items[at].version_number:
                kept[at] = row.json
    if len(kept) < len(group.items):
        raise Busy("The study is changing at this moment.")
    return kept


class _Contents:
    """The archive's bytes, and what of their checksums is known from an earlier time."""

    def __init__(
        self, stores: Stores, items: Sequence[Stored], first: Sequence[bytes], entries: Sequence[Entry], kept: FileCache, digest: str
    ) -> None:
        self._stores, self._items, self._first, self._entries = stores, items, first, entries
        self._kept, self._name = kept, f"{digest}.crc"
        self.length = self._stream({}, 0).length

    def part(self, offset: int, length: int) -> Iterator[bytes]:
        """A range of the archive."""
        checksums = self._known()
        complete = len(checksums) == len(self._entries)
        stream = self._stream(checksums, offset)
        yield from stream.part(offset, length)
        if not complete and len(checksums) == len(self._entries):
            packed = struct.pack(f"<{len(checksums)}I", *(checksums[number] for number in range(len(checksums))))
            self._kept.open(self._name, lambda out: _write(out, packed))[0].close()

    def _known(self) -> dict[int, int]:
        found = self._kept.find(self._name)
        if found is None:
            return {}
        with found[0] as file:
            data = file.read()
        return dict(enumerate(struct.unpack(f"<{len(data) // 4}I", data)))

    def _stream(self, checksums: dict[int, int], offset: int) -> ZipStream:
        ahead = _Ahead(self._stores, self._items, offset > 0)
        return ZipStream(self._entries, partial(self._read, ahead), checksums)

    def _read(self, ahead: _Ahead, number: int, offset: int, length: int) -> Iterator[bytes]:
        if number < len(self._first):
            yield self._first[number][offset : offset + length]
            return
        yield from ahead.read(number - len(self._first), offset, length)


class _Ahead:
    """The files one after the other, the next ones of a distant store asked for in advance while whole ones are read in order."""

    def __init__(self, stores: Stores, items: Sequence[Stored], from_the_middle: bool) -> None:
        self._stores, self._items = stores, items
        self._all_local = all(map(stores.is_local, items))
        self._next = -1 if from_the_middle else 0
        self._streams: Iterator[BinaryIO] | None = None

    def read(self, number: int, offset: int, length: int) -> Iterator[bytes]:
        """A range of one file in pieces."""
        item = self._items[number]
        if number == self._next and length == item.size_bytes and not self._all_local:
            self._next += 1
            if self._streams is None:
                self._streams = self._stores.open_each(self._items)
            yield from _pieces(next(self._streams), length)
            return
        with self._stores.open(item, offset, length) as stream:
            yield from _pieces(stream, length)


def _pieces(stream: BinaryIO, length: int) -> Iterator[bytes]:
    while length > 0:
        piece = stream.read(min(length, PIECE_BYTES))
        if not piece:
            raise BlobMissing("The stored bytes are shorter than the catalog says.")
        length -= len(piece)
        yield piece


def _write(out: BinaryIO, data: bytes) -> None:
    """The file is unbuffered: one write may take less than all."""
    view = memoryview(data)
    while view:
        view = view[out.write(view) :]
