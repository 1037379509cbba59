"""The bytes of one request on their way into an upload: written, hashed, synced and told while more of them come."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from pacslite.catalog import uploads as rows
from pacslite.catalog.statements import now_text, time_text
from pacslite.catalog.uploads import Upload
from pacslite.core import quotas
from pacslite.errors import BadRequest, Busy, ChecksumMismatch, Locked, OutOfSpace, QuotaExceeded, TooLarge
from pacslite.storage.digests import HEAD_BYTES, Digests

if TYPE_CHECKING:
    from pacslite.core.file_arrivals import Parts
    from pacslite.storage.upload_files import UploadWriter

CHECKSUMS: dict[str, Callable[[], Any]] = {
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
    "md5": lambda: hashlib.md5(usedforsecurity=False),
}
"""What `Upload-Checksum` may name (tus 1.0.0, "Checksum")."""
_PIECE_BYTES = 256 * 1024
_LOOKED_BYTES = 16 * 1024 * 1024
# What was written is told after so much, or so long: what a killed process costs its clients.
_TOLD_BYTES, _TOLD_S = 64 * 1024 * 1024, 2.0
_MOST_KEPT_DIGESTS = 64
_HASHED_ASIDE_BYTES = 64 * 1024

# What goes on while bytes come. Threads start with the first piece of work, so in the process that has it.
_syncing = ThreadPoolExecutor(4, thread_name_prefix="upload-sync")
_hashing = ThreadPoolExecutor(2, thread_name_prefix="upload-hash")


class Stream(Protocol):
    """The body of a request: `read(n)` gives what has come, at most n bytes, none at the end; OSError when it breaks off."""

    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the bytes of one request are to hash to."""

    algorithm: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Receiving:
    """What a request says of its bytes: where they belong, how many there are if that is known, their checksum, the upload's length."""

    offset: int
    announced: int | None = None
    length: int | None = None
    checksum: Checksum | None = None

    def run(self, parts: Parts, upload: Upload, writer: UploadWriter, stream: Stream) -> Upload:
        """Take in what the stream gives; the upload as it is then."""
        return _Run(parts, upload, writer, self, stream).do()

    @staticmethod
    def joined(uid: str) -> _Hashed:
        """Hashes bytes that come from elsewhere than a request."""
        return _Hashed(uid, 0)


# Hashing goes on from request to request while they come to the same process; whoever finds nothing here reads the bytes again.
_kept: OrderedDict[str, Digests] = OrderedDict()
_kept_lock = threading.Lock()


def digests_so_far(uid: str, offset: int) -> Digests | None:
    """The digests of the first `offset` bytes of an upload, if this process has seen them all pass."""
    with _kept_lock:
        found = _kept.pop(uid, None)
    if offset == 0:
        return Digests()
    return found if found is not None and found.size_bytes == offset else None


def forget_digests(uid: str) -> None:
    """Nobody asks for them any more."""
    with _kept_lock:
        _kept.pop(uid, None)


class _Hashed:
    """The digests of an upload, as far as this process has seen its bytes; a piece is hashed while the next one comes."""

    def __init__(self, uid: str, offset: int) -> None:
        self._uid, self._digests = uid, digests_so_far(uid, offset)
        self._under_way: Future[None] | None = None

    def update(self, piece: bytes) -> None:
        if self._digests is None:
            return
        self._settle()
        if not self._digests.size_bytes:
            if len(piece) < HEAD_BYTES:
                self._digests = None  # too little to tell what it is: whoever needs the digests reads the bytes again
                return
            self._digests.begin(piece[:HEAD_BYTES])
        if len(piece) < _HASHED_ASIDE_BYTES:
            self._digests.update(piece)
        else:
            self._under_way = _hashing.submit(self._digests.update, piece)

    def _settle(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def keep(self) -> None:
        self._settle()
        if self._digests is not None and self._digests.size_bytes:
            with _kept_lock:
                _kept[self._uid] = self._digests
                while len(_kept) > _MOST_KEPT_DIGESTS:
                    _kept.popitem(last=False)


@dataclass(slots=True)
class _Run:
    """One request that writes."""

    parts: Parts
    upload: Upload
    writer: UploadWriter
    coming: Receiving
    stream: Stream
    position: int = 0
    told: int = 0
    told_at: float = 0.0
    looked: int = 0
    telling: Future[None] | None = None
    checksum: Any = field(default=None)

    def do(self) -> Upload:
        self.position = self.told = self.looked = self.upload.offset
        self.told_at = time.monotonic()
        self._check_room()
        self.writer.begin(self.upload.offset)
        hashed = _Hashed(self.upload.uid, self.upload.offset)
        if self.coming.checksum is not None:
            self.checksum = CHECKSUMS[self.coming.checksum.algorithm]()
        try:
            self._take_in(hashed)
        except (OSError, Busy) as error:
            self._keep(hashed)
            if isinstance(error, OSError):
                raise BadRequest("The body broke off.") from None
            raise
        except (OutOfSpace, QuotaExceeded, TooLarge):
            self._keep(hashed)
            raise
        finally:
            self._wait()
        self._check()
        hashed.keep()
        upload = dataclasses.replace(self.upload, offset=self.position)
        # The last bytes are told by the transaction that makes the file; what is put into the store is synced there.
        if not upload.is_whole or upload.kind == rows.PARTIAL:
            upload = self._tell(self.position)
        return upload

    def _take_in(self, hashed: _Hashed) -> None:
        most = self.upload.length if self.upload.length is not None else self.parts.settings.max_upload_bytes
        while piece := self.stream.read(_PIECE_BYTES):
            if self.position + len(piece) > most:
                raise TooLarge(f"The upload has {most} bytes, and more have come.")
            self.writer.write(piece)
            hashed.update(piece)
            if self.checksum is not None:
                self.checksum.update(piece)
            self.position += len(piece)
            self._look()
        if self.coming.announced is not None and self.position - self.upload.offset < self.coming.announced:
            raise ConnectionResetError("the client has gone")

    def _check_room(self) -> None:
        """Raises OutOfSpace, or QuotaExceeded, when what comes is too much; asked at each request, however few bytes it brings."""
        self.parts.spool.check_space()
        if self.upload.length is None:
            more = self.position - self.told
            with self.parts.catalog.read() as conn:
                quotas.check_quota(conn, self.parts.settings, self.upload.owner_id, more or 1)

    def _look(self) -> None:
        """Every now and then: is there room, and is it time to tell how far it is?"""
        if self.position - self.looked >= _LOOKED_BYTES:
            self.looked = self.position
            self._check_room()
        if self.checksum is not None or (self.telling is not None and not self.telling.done()):
            return
        due = self.position - self.told >= _TOLD_BYTES or time.monotonic() - self.told_at >= _TOLD_S
        if due and self.position > self.told:
            self._wait()
            position, self.told_at = self.position, time.monotonic()
            self.telling = _syncing.submit(self._told, position)

    def _told(self, position: int) -> None:
        self._tell(position)
        self.told = position

    def _tell(self, position: int) -> Upload:
        """Put on record that so much is on stable storage; raises Locked when another writes now."""
        self.writer.sync()
        now = now_text()
        until = time_text(datetime.now(UTC) + timedelta(seconds=self.parts.settings.upload_expiry_s))
        upload, token = self.upload, self.writer.token
        if not self.parts.catalog.write(lambda conn: rows.advance(conn, upload.uid, token, position, upload.length, now, until)):
            raise Locked("Another request writes this upload now, or it has ended.")
        return dataclasses.replace(upload, offset=position, updated_at=now, expires_at=until)

    def _wait(self) -> None:
        telling, self.telling = self.telling, None
        if telling is not None:
            telling.result()

    def _keep(self, hashed: _Hashed) -> None:
        """The request ends early: what came is kept, unless it had to prove itself by a checksum."""
        self._wait()
        if self.checksum is None and self.position > self.told:
            self._tell(self.position)
            hashed.keep()

    def _check(self) -> None:
        if self.coming.checksum is not None and self.checksum.digest() != self.coming.checksum.digest:
            self.writer.begin(self.upload.offset)
            raise ChecksumMismatch(f"The bytes do not have the {self.coming.checksum.algorithm} that came with them; none is kept.")
