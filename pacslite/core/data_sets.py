"""Data sets of stored instances on their way to a DICOM receiver: the bytes behind the file meta information, undecoded.

As stored where the receiver takes that transfer syntax, else converted. A data set is read into the room that its sender
has ready, so that bytes are moved once.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from typing import BinaryIO, Protocol

from pacslite.codec.transfer_syntax import can_convert
from pacslite.core.content import FileBody, StreamBody
from pacslite.core.conversion import Conversions
from pacslite.core.retrieve import IN_MEMORY_BYTES, PIECE_BYTES, Item
from pacslite.dicom.part10 import MAX_META_BYTES, parse_file_meta
from pacslite.errors import BlobMissing, NotDicom, PacsliteError, StorageError
from pacslite.storage.stores import Stores

# Holds the file meta information of nearly every file.
_HEAD_BYTES = 4096
_OTHER_LENGTH = "The stored bytes are not as long as the catalog says."
_NOTHING = memoryview(b"")

Wanted = tuple[Item, str]
"""An instance and the transfer syntax in which it is to go out."""


class DataSet(Protocol):
    """An open data set; the one who reads it closes it."""

    @property
    def finished(self) -> bool:
        """Whether all has been read."""

    def read_into(self, room: Sequence[memoryview]) -> int:
        """Fills the pieces of room one after the other, up to the end of the data set; how many bytes that were.

        Raises StorageError and InstanceRefused leaves.
        """

    def close(self) -> None:
        """Releases what is held."""


def open_data_sets(stores: Stores, wanted: Sequence[Wanted], conversions: Conversions) -> Iterator[tuple[Item, DataSet | PacsliteError]]:
    """The data sets in order, each opened when its turn comes; in place of one that cannot be opened the reason.

    A distant store is asked for the next ones in advance: finish with one before taking the next.
    """
    distant = [item for item, target in wanted if target == item.transfer_syntax_uid and not stores.is_local(item)]
    streams = _streams(stores, distant) if distant else iter(())
    for item, target in wanted:
        yield item, _open(stores, item, target, conversions, streams)


def _open(
    stores: Stores, item: Item, target: str, conversions: Conversions, streams: Iterator[BinaryIO | PacsliteError]
) -> DataSet | PacsliteError:
    try:
        if target != item.transfer_syntax_uid:
            return _converted(conversions, item, target)
        path = stores.local_path(item)
        if path is not None:
            return _FileDataSet(os.fspath(path), item)
        stream = next(streams)
        return stream if isinstance(stream, PacsliteError) else _PiecewiseDataSet(_without_meta(_read(stream, item.size_bytes)))
    except PacsliteError as error:
        return error


def _streams(stores: Stores, items: Sequence[Item]) -> Iterator[BinaryIO | PacsliteError]:
    """Each file as a stream, or why there is none; reading ahead goes on behind one that is missing."""
    at = 0
    while at < len(items):
        try:
            for stream in stores.open_each(items[at:]):
                at += 1
                yield stream
        except PacsliteError as error:
            at += 1
            yield error


class _FileDataSet:
    """The data set of a file on this machine."""

    __slots__ = ("_end", "_file", "_offset")

    def __init__(self, path: str, item: Item) -> None:
        self._file = -1
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            size = os.fstat(self._file).st_size
            head = os.pread(self._file, _HEAD_BYTES, 0)
            if parse_file_meta(head, len(head) == size) is None:
                head = os.pread(self._file, MAX_META_BYTES, 0)
            if size != item.size_bytes:
                raise BlobMissing(_OTHER_LENGTH)
            self._offset, self._end = _data_set_offset(head, len(head) == size), size
        except FileNotFoundError:
            raise BlobMissing("The stored bytes are missing.") from None
        except OSError as error:
            self.close()
            raise _unreadable(error) from error
        except PacsliteError:
            self.close()
            raise

    @property
    def finished(self) -> bool:
        return self._offset >= self._end

    def read_into(self, room: Sequence[memoryview]) -> int:
        try:
            count = os.preadv(self._file, room, self._offset)
        except OSError as error:
            raise _unreadable(error) from error
        self._offset += count
        if not self.finished and count < sum(map(len, room)):
            raise BlobMissing(_OTHER_LENGTH)
        return count

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class _PiecewiseDataSet:
    """A data set that is made or fetched piece by piece."""

    __slots__ = ("_piece", "_pieces")

    def __init__(self, pieces: Generator[bytes]) -> None:
        self._pieces = pieces
        self._piece = _NOTHING
        self._advance()

    def _advance(self) -> None:
        self._piece = memoryview(next((piece for piece in self._pieces if piece), b""))

    @property
    def finished(self) -> bool:
        return not self._piece

    def read_into(self, room: Sequence[memoryview]) -> int:
        total = 0
        for place in room:
            at = 0
            while at < len(place) and self._piece:
                count = min(len(place) - at, len(self._piece))
                place[at : at + count] = self._piece[:count]
                at, self._piece = at + count, self._piece[count:]
                if not self._piece:
                    self._advance()
            total += at
        return total

    def close(self) -> None:
        self._pieces.close()


def _read(stream: BinaryIO, left: int) -> Iterator[bytes]:
    while left:
        piece = stream.read(min(left, PIECE_BYTES))
        if not piece:
            raise BlobMissing(_OTHER_LENGTH)
        left -= len(piece)
        yield piece


def _without_meta(pieces: Iterator[bytes]) -> Generator[bytes]:
    """What comes behind the file meta information."""
    head, found = b"", False
    for piece in pieces:
        if found:
            yield piece
            continue
        head += piece
        meta = parse_file_meta(head)
        if meta is not None or len(head) >= MAX_META_BYTES:
            found = True
            yield head[_data_set_offset(head, False) :]
    if not found:
        yield head[_data_set_offset(head, True) :]


def _converted(conversions: Conversions, item: Item, target: str) -> _PiecewiseDataSet:
    """In another transfer syntax; a small one is made whole, so that what is wrong with it shows before it is sent."""
    if not can_convert(item.transfer_syntax_uid, target):
        return _PiecewiseDataSet(_without_meta(_pieces_of(conversions.instance(item, target))))
    pieces = conversions.moved(item, target, with_meta=False)
    if item.size_bytes > IN_MEMORY_BYTES:
        return _PiecewiseDataSet(piece for piece in pieces)
    whole = b"".join(pieces)
    return _PiecewiseDataSet(piece for piece in (whole,))


def _pieces_of(body: bytes | FileBody | StreamBody) -> Iterator[bytes]:
    if isinstance(body, bytes):
        yield body
    elif isinstance(body, StreamBody):
        yield from body.chunks()
    else:
        with body.file or body.path.open("rb", buffering=0) as file:
            file.seek(body.offset)
            yield from _read(file, body.length)


def _data_set_offset(head: bytes, whole: bool) -> int:
    meta = parse_file_meta(head, whole)
    if meta is None:
        raise NotDicom("the stored file ends inside its file meta information")
    return meta.data_set_offset


def _unreadable(error: OSError) -> StorageError:
    return StorageError(f"The stored bytes cannot be read: {error.strerror}")
