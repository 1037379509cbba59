"""The changes feed, kept beside the bytes: what only the catalog knows survives the loss of the catalog.

Files `journal/{yyyymmdd}/{time-ordered id}.jsonl.gz` hold one change a line, as the catalog tells it. The worker
writes what is new every few seconds and joins the files of a past day into one. A change may be in two files (a crash
between joining and erasing); its generation and number tell that it is the same. A generation is the life of one
catalog: numbers begin anew when a catalog is lost and not rebuilt.
"""

from __future__ import annotations

import gzip
import json
import uuid
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pacslite.catalog import changes, inventory
from pacslite.catalog.changes import Change
from pacslite.errors import StorageError
from pacslite.storage.keys import JOURNAL, journal_key, new_version_id, version_time_ms

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog
    from pacslite.storage.blob_store import BlobStore
    from pacslite.storage.spool import Spool

_LINES = 2000  # of one file as it is first written
_GENERATION = "generation"
_DIGESTS = ("size_bytes", "sha256", "data_set_digest")

_LINES_AT_ONCE = 200
_LEVEL = 6  # of zlib; the highest takes half as long again for 1 % less
_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_COLUMNS = tuple(Change.__slots__)
_values_of = attrgetter(*_COLUMNS)

Entry = dict[str, Any]
"""One change as a line of the journal: the columns that are not empty, and its generation."""


@dataclass(frozen=True, slots=True)
class Position:
    """The last change that is in the journal."""

    generation: str
    seq: int
    at: str


class Journal:
    """The journal of one storage."""

    def __init__(self, store: BlobStore, spool: Spool) -> None:
        self._store, self._spool = store, spool
        self._position: Position | None = None
        self._is_positioned = False

    def write_new(self, catalog: Catalog) -> int:
        """Write the changes that are not in the journal yet; how many. One process at a time."""
        if not self._is_positioned:
            self._position = self._continued(catalog, self.last())
            self._is_positioned = True
        written = 0
        while True:
            after = self._position.seq if self._position else 0
            until = changes.settled(catalog)
            with catalog.read() as conn:
                new = changes.after(conn, after, _LINES, until=until)
                digests = inventory.digests_of(conn, [change.blob_uid for change in new if change.blob_uid])
            if not new:
                return written
            generation = self._position.generation if self._position else str(uuid.uuid4())
            catalog.make_durable()  # the journal never tells of what the catalog may yet lose
            self._put(encode(change, generation, digests.get(change.blob_uid)) for change in new)
            self._position = Position(generation, new[-1].seq, new[-1].at)
            written += len(new)

    def is_continued_by(self, catalog: Catalog) -> bool:
        """Whether the journal ends with a change of this very catalog, or is empty like it."""
        last = self.last()
        if last is not None:
            return self._continued(catalog, last) is not None
        with catalog.read() as conn:
            return not changes.after(conn, 0, 1)

    def _continued(self, catalog: Catalog, last: Position | None) -> Position | None:
        """The position if it is one in this very catalog, else None: a new generation begins."""
        if last is None:
            return None
        with catalog.read() as conn:
            same = changes.after(conn, last.seq - 1, 1)
        return last if same and (same[0].seq, same[0].at) == (last.seq, last.at) else None

    def last(self) -> Position | None:
        """Where the journal ends; None when there is none."""
        keys = self._keys()
        if not keys:
            return None
        entry = next(iter(deque(self._read(keys[-1]), maxlen=1)), None)
        return Position(entry[_GENERATION], entry["seq"], entry["at"]) if entry else None

    def entries(self) -> Iterator[Entry]:
        """All changes in order, each once."""
        reached: dict[str, int] = {}
        for key in self._keys():
            for entry in self._read(key):
                if entry["seq"] > reached.get(entry[_GENERATION], 0):
                    reached[entry[_GENERATION]] = entry["seq"]
                    yield entry

    def join_past_days(self, today: str | None = None) -> int:
        """Make one file of the files of each day that is over; how many days were joined."""
        today = today or datetime.now(UTC).strftime("%Y%m%d")
        days: dict[str, list[str]] = {}
        for key in self._keys():
            days.setdefault(key.split("/")[1], []).append(key)
        joined = 0
        for day, keys in days.items():
            if day < today and len(keys) > 1:
                # Its id is that of the last file: it stands where they stood.
                self._put((entry for key in keys for entry in self._read(key)), day, _after(keys[-1]))
                for key in reversed(keys):  # what a crash leaves of them is a beginning, which `entries` can read before the whole
                    self._store.delete(key)
                joined += 1
        return joined

    def rewrite(self, catalog: Catalog) -> None:
        """Replace the journal by what the catalog tells, one generation; the old files go when the new ones are there."""
        old = self._keys()
        self._position, self._is_positioned = None, True
        self.write_new(catalog)
        for key in old:
            self._store.delete(key)

    def _keys(self) -> list[str]:
        """The files in the order in which they were written."""
        return sorted((info.key for info in self._store.list(JOURNAL)), key=lambda key: key.rpartition("/")[2])

    def _put(self, entries: Iterable[Entry], day: str | None = None, journal_id: str | None = None) -> None:
        journal_id = journal_id or new_version_id()
        day = day or datetime.fromtimestamp(version_time_ms(journal_id) / 1000, UTC).strftime("%Y%m%d")
        with self._spool.create(".journal") as writer:
            with gzip.GzipFile("", "wb", _LEVEL, cast(BinaryIO, writer), mtime=0) as packed:
                lines = map(_line, entries)
                while some := "".join(islice(lines, _LINES_AT_ONCE)):
                    packed.write(some.encode())
            self._store.put(writer.finish().path, journal_key(day, journal_id))

    def _read(self, key: str) -> Iterator[Entry]:
        try:
            with self._store.open(key) as stream, gzip.GzipFile(fileobj=stream, mode="rb") as unpacked:
                for line in unpacked:
                    yield json.loads(line)
        except (EOFError, gzip.BadGzipFile, zlib.error, ValueError) as error:
            raise StorageError(f"{key} is damaged: {error}") from error


def encode(change: Change, generation: str, digests: tuple[int, str, str | None] | None) -> Entry:
    """A change as a line of the journal, with what tells later whether its bytes are unharmed."""
    entry = {_GENERATION: generation, **{name: value for name, value in zip(_COLUMNS, _values_of(change), strict=True) if _tells(value)}}
    if digests is not None:
        entry |= {name: value for name, value in zip(_DIGESTS, digests, strict=True) if _tells(value)}
    return entry


def _tells(value: object) -> bool:
    return bool(value) or value == 0


def _line(entry: Entry) -> str:
    return _as_json(entry) + "\n"


def _after(key: str) -> str:
    """A new id that sorts right behind the one of the key."""
    old = key.rpartition("/")[2].partition(".")[0]
    return old[:24] + f"{(int(old[24:], 16) + 1) & 0xFFFFFFFFFFFF:012x}"
