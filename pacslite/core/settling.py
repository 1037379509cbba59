"""Sees to it that small files, which were written ahead into the catalog, reach the disk in their storage.

A small instance costs several syncs when its file and directories are synced one after the other, and one when its bytes go
into the catalog's log beside its rows. So a small file is renamed into its place without a sync, its bytes are kept in the
catalog, and one sync of the whole file system a moment later serves hundreds of them. After a power failure the files that
did not make it are written again. See docs/decisions/0040.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pacslite.catalog import written_ahead
from pacslite.errors import BlobMissing, StorageError

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog
    from pacslite.catalog.written_ahead import Unsettled
    from pacslite.storage.blob_store import BlobStore
    from pacslite.storage.spool import Spool

_PAGE = 500
_LOOKED_AT_EVERY = 500
_MOST_WAITING = 4000
"""More than this, of 64 KiB at most each, and whoever stores another has to settle first: nobody else does."""


class Settling:
    """What one process does for the small files of one storage. Safe for threads, and beside other processes."""

    def __init__(self, catalog: Catalog, store: BlobStore, spool: Spool, max_bytes: int) -> None:
        self._catalog, self._store, self._spool = catalog, store, spool
        # With a database server, or storage that keeps bytes at once, there is nothing to be gained.
        self._max_bytes = max_bytes if catalog.is_sqlite and store.settles_at_once else -1
        self._lock = threading.Lock()
        self._written = 0
        self._has_failed = False

    def takes(self, content: bytes | None) -> bool:
        """Whether a file of these bytes is to be written ahead."""
        return content is not None and len(content) <= self._max_bytes

    def note(self) -> None:
        """A file was written ahead; now and then this takes the time to settle what waits, should nobody else do it."""
        self._written += 1
        if self._written % _LOOKED_AT_EVERY:
            return
        with self._catalog.read() as conn:
            waiting = written_ahead.span(conn)
        if waiting > _MOST_WAITING:
            self.settle()

    def settle_own(self) -> None:
        """Before the end of a process: settle if it has written anything ahead."""
        if self._written:
            self.settle()

    def settle(self, *, compare: bool = False) -> int:
        """Make all files that wait durable where they belong; how many there were.

        With `compare` the bytes of the files are read: after a failure of power, a file of the right size may hold anything.
        """
        settled, last = 0, 0
        with self._lock:
            while True:
                with self._catalog.read() as conn:
                    page = written_ahead.after(conn, last, _PAGE)
                if not page:
                    self._has_failed = False
                    return settled
                for file in page:
                    if self._has_failed or not self._is_there(file, compare=compare):
                        self._write_again(file)
                self._settle(page)
                self._catalog.write(lambda conn, pks=[file.pk for file in page]: written_ahead.drop(conn, pks))  # type: ignore[misc]
                settled, last = settled + len(page), page[-1].pk

    def _settle(self, page: list[Unsettled]) -> None:
        try:
            self._store.settle_all([file.storage_key for file in page])
        except StorageError:
            # A system tells of a failed write once and may then hold the bytes for written: the next round writes them again.
            self._has_failed = True
            raise

    def _is_there(self, file: Unsettled, *, compare: bool) -> bool:
        try:
            if self._store.size(file.storage_key) != file.size_bytes:
                return False
            if not compare:
                return True
            with self._store.open(file.storage_key) as stream:
                found = stream.read(file.size_bytes + 1)
        except BlobMissing:
            return False
        return found == self._content(file)

    def _content(self, file: Unsettled) -> bytes | None:
        with self._catalog.read() as conn:
            return written_ahead.content(conn, file.pk)

    def _write_again(self, file: Unsettled) -> None:
        """Put the bytes where they belong, unless they were deleted, or moved, or settled by somebody else."""
        with self._catalog.read() as conn:
            content = written_ahead.content(conn, file.pk)
            if content is None or not written_ahead.is_needed(conn, file):
                return
        with self._spool.create(".ahead") as writer:
            writer.write(content)
            spooled = writer.finish()
        self._store.delete(file.storage_key)  # a torn file; a whole one would not have come here
        self._store.put(spooled.path, file.storage_key)
