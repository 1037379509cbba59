"""The bytes of files: which ones a version, an item or a variant is, and URLs that give them to whoever has one."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from pacslite.catalog import blobs
from pacslite.catalog.blobs import LIVE, StoredBlob
from pacslite.catalog.statements import time_text
from pacslite.core import renditions
from pacslite.core.audit import note
from pacslite.core.content import FileBody, StreamBody
from pacslite.core.file_notes import Owner, event_of
from pacslite.core.file_records import FAILED, PENDING, FilePart, FileRecord, FileVersion, live_row, record_of, versions_of
from pacslite.core.file_types import Variant
from pacslite.core.parts import WithAccounts, WithCatalog, WithStores
from pacslite.errors import BlobMissing, Forbidden, NotFound

if TYPE_CHECKING:
    from pacslite.catalog.changes import Origin
    from pacslite.storage.stores import Stores

_LABEL = "file url"
_PIECE_BYTES = 512 * 1024
_EXPIRES = re.compile(r"[0-9]{1,12}")


class Parts(WithCatalog, WithStores, Protocol):
    """What this needs of a process."""


class SigningParts(Parts, WithAccounts, Protocol):
    """The same, where URLs are signed."""


@dataclass(frozen=True, slots=True)
class Which:
    """Which bytes of a file: of the newest version or another, of which part, as they are given out or a variant."""

    version: int | None = None
    item: int | None = None
    variant: Variant | None = None

    @property
    def text(self) -> str:
        """For a signature."""
        return f"{self.version or ''}/{'' if self.item is None else self.item}/{self.variant or ''}"


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes of a file, and what they are called."""

    record: FileRecord
    version: FileVersion
    blob: StoredBlob
    filename: str


def find(parts: Parts, file_id: str, which: Which) -> Content:
    """The bytes asked for; raises NotFound, Gone, NotReady, BlobMissing."""
    with parts.catalog.read() as conn:
        row = live_row(conn, file_id, parts.catalog.sight(conn))
        record = record_of(conn, row)
        found = [record.version] if which.version in (None, record.version.number) else versions_of(conn, row.pk, which.version)
    if not found:
        raise NotFound("There is no such version.")
    part = next((part for part in found[0].parts if part.position == (which.item or 0)), None)
    if part is None:
        raise NotFound("There is no such item.")
    if part.blob_pk is None:
        raise BlobMissing("The stored bytes are missing.")
    blob, filename = _chosen(parts, part, part.blob_pk, which.variant)
    if blob.state != LIVE:
        raise BlobMissing("The stored bytes are damaged.")
    return Content(record, found[0], blob, filename)


def _chosen(parts: Parts, part: FilePart, blob_pk: int, variant: Variant | None) -> tuple[StoredBlob, str]:
    """A picture, or the content: of a video the MP4 (what was sent, if none can be made of it), else what was sent."""
    stem = part.original_filename.rpartition(".")[0] or part.original_filename
    if variant not in (None, Variant.ORIGINAL):
        return renditions.open(parts, blob_pk, variant.value), f"{stem}.jpg"
    if variant is None and part.processing not in (None, FAILED):
        return renditions.open(parts, blob_pk, renditions.SERVED), f"{stem}.mp4"
    with parts.catalog.read() as conn:
        found = blobs.find(conn, blob_pk)
    if found is None:
        raise BlobMissing("The stored bytes are missing.")
    return found, part.original_filename


def is_pending(part: FilePart) -> bool:
    """Whether the content is being made yet."""
    return part.processing == PENDING


def body_of(stores: Stores, blob: StoredBlob) -> FileBody | StreamBody:
    """The bytes as they are sent: a file when there is one on this machine, else a stream of which ranges can be had."""
    path = stores.local_path(blob)
    if path is not None:
        return FileBody(path, 0, blob.size_bytes)

    def part(offset: int, length: int) -> Iterator[bytes]:
        with stores.open(blob, offset, length) as stream:
            left = length
            while left > 0:
                piece = stream.read(min(left, _PIECE_BYTES))
                if not piece:
                    raise BlobMissing("The stored bytes are shorter than the catalog says.")
                left -= len(piece)
                yield piece

    return StreamBody(blob.size_bytes, lambda: part(0, blob.size_bytes), part)


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """Where the bytes may be had until then: at the storage (`url`), else here, by a query that holds the signature."""

    url: str | None
    query: dict[str, str]
    expires_at: str


def sign(parts: SigningParts, file_id: str, which: Which, expires_in: int, owner: Owner, origin: Origin) -> SignedUrl:
    """A URL for what the file's version is now; raises what `find` raises. It is on record before it is given out."""
    content = find(parts, file_id, which)
    fixed = Which(content.version.number, which.item, which.variant)
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=expires_in)
    expires = str(int(until.timestamp()))
    url = parts.stores.presign(content.blob, expires_in)
    study = content.record.study_instance_uid or ""
    detail = {"version": fixed.version, "expires_at": time_text(until)}
    parts.catalog.write(lambda conn: note(conn, event_of("file.url", file_id, content.record.patient_id, owner, origin, study, detail)))
    query = {"version": str(fixed.version), "expires": expires}
    if fixed.item is not None:
        query["item"] = str(fixed.item)
    if fixed.variant is not None:
        query["variant"] = fixed.variant.value
    query["signature"] = _signature(parts.accounts.keys.derive(_LABEL), file_id, fixed, expires)
    return SignedUrl(url, query, time_text(until))


def check_signature(parts: SigningParts, file_id: str, which: Which, expires: str, signature: str) -> None:
    """Raises Forbidden unless this server has signed just this, and its time is not over."""
    keys = parts.accounts.keys.derive_all(_LABEL)
    if not any(hmac.compare_digest(_signature(key, file_id, which, expires).encode(), signature.encode()) for key in keys):
        raise Forbidden("The signature of this URL is not valid.")
    if not _EXPIRES.fullmatch(expires) or int(expires) <= datetime.now(UTC).timestamp():
        raise Forbidden("This URL has expired.")


def _signature(key: bytes, file_id: str, which: Which, expires: str) -> str:
    return hmac.digest(key, f"{file_id}/{which.text}/{expires}".encode(), "sha256").hex()
