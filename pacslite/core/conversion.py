"""Instances and frames in another transfer syntax than the stored one.

Among native ones bytes are moved while they are sent. What goes through a codec is made in codec processes and kept: once
for everybody who asks for it at the same time, and for the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from pacslite.codec import transfer_syntax
from pacslite.codec.pixels import PixelDescription, refusal
from pacslite.codec.processes import CodecProcesses
from pacslite.codec.transcode import TASK, can_transcode, transcode
from pacslite.core.content import FileBody, StreamBody
from pacslite.core.frames import frame
from pacslite.core.result_cache import ResultCache
from pacslite.core.retrieve import IN_MEMORY_BYTES, Frames, Item, Piece, local_copy
from pacslite.dicom.limits import Limits
from pacslite.dicom.syntaxes import IRREVERSIBLE
from pacslite.errors import UndecodablePixels
from pacslite.storage.stores import Stores

# Larger instances are sent while they are made.
_WHOLE_BYTES = 8 * 1024 * 1024
# Part of the names in the cache: to be raised when the same input gives another result.
_EDITION = 2


@dataclass(frozen=True, slots=True)
class Conversions:
    """What conversions work with."""

    stores: Stores
    limits: Limits
    codecs: CodecProcesses
    results: ResultCache

    def instance(self, item: Item, target_uid: str) -> bytes | FileBody | StreamBody:
        """The Part 10 file; raises UndecodablePixels, Busy, BlobMissing and leaves of InstanceRefused.

        A large one is made while it is sent, and fails then.
        """
        if transfer_syntax.can_convert(item.transfer_syntax_uid, target_uid):
            return self._moved(item, target_uid)
        if item.size_bytes > _WHOLE_BYTES:
            return StreamBody(None, lambda: self.results.follow(_name(item, target_uid), lambda: self._coded(item, target_uid)))
        file, size = self.results.open(_name(item, target_uid), lambda: self._coded(item, target_uid))
        return FileBody(self.results.directory, 0, size, file)

    def moved(self, item: Item, target_uid: str, with_meta: bool = True) -> Iterator[bytes]:
        """A native Part 10 file, or its data set, in another native transfer syntax while it is made."""
        with local_copy(self.stores, item, self.limits.scratch) as path, path.open("rb") as file:
            yield from transfer_syntax.convert(file, target_uid, self.limits, with_meta)

    def _moved(self, item: Item, target_uid: str) -> bytes | StreamBody:
        def pieces() -> Iterator[bytes]:
            return self.moved(item, target_uid)

        return b"".join(pieces()) if item.size_bytes <= IN_MEMORY_BYTES else StreamBody(None, pieces)

    def _coded(self, item: Item, target_uid: str) -> Iterator[bytes]:
        with local_copy(self.stores, item, self.limits.scratch) as path:
            yield from transcode(path, target_uid, self.limits, self.codecs, item.sha256)

    def frame(self, image: Frames, description: PixelDescription, number: int, target_uid: str) -> FileBody:
        """One frame through a codec, native ones as explicit little endian; raises UndecodablePixels, FrameNotFound, Busy."""

        def make() -> Iterator[bytes]:
            source = image.item.transfer_syntax_uid
            encoded = b"".join(_bytes_of(piece) for piece in frame(self.stores, image, number, self.limits))
            yield self.codecs.run(TASK, encoded, description, source, target_uid)[0]

        image.index.segments(number)
        reason = refusal(description, target_uid)
        if reason:
            raise UndecodablePixels(reason)
        file, size = self.results.open(_name(image.item, target_uid, number), make)
        return FileBody(self.results.directory, 0, size, file)


def _bytes_of(piece: Piece) -> bytes:
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, StreamBody):
        return b"".join(piece.chunks())
    with piece.path.open("rb") as file:
        file.seek(piece.offset)
        return file.read(piece.length)


def _name(item: Item, target_uid: str, frame_number: int = 0) -> str:
    """Of the stored bytes, not of the instance: another version is another result."""
    return hashlib.sha256(f"{_EDITION}|{item.storage_key}|{item.sha256}|{target_uid}|{frame_number}".encode()).hexdigest()


def is_possible(source_uid: str, target_uid: str, *, may_lose: bool = False) -> bool:
    """Whether instances of one transfer syntax can be given in another, for all that the transfer syntaxes tell.

    What loses something makes another instance of it (PS3.3 C.7.6.1.1.5), so it has to be asked for.
    """
    if transfer_syntax.can_convert(source_uid, target_uid):
        return True
    return can_transcode(source_uid, target_uid) and (may_lose or target_uid not in IRREVERSIBLE)
