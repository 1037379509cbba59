"""Blobs as objects in a bucket of any S3 implementation.

Uses only what all of them have: PUT (whole, multipart), ranged GET, HEAD, LIST, DELETE, presigned GET. A process that
dies within a multipart upload leaves parts without an object: give the bucket a lifecycle rule that aborts them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pacslite.errors import BlobMissing, OutOfSpace, StorageError
from pacslite.storage.blob_store import BlobInfo
from pacslite.storage.keys import check_key
from pacslite.storage.spool import storage_error
from pacslite.storage.window import FileWindow

if TYPE_CHECKING:
    from pacslite.settings import Settings

PART_BYTES = 16 * 1024**2
_MAX_PARTS = 9000  # S3 allows 10,000
_READ_BYTES = 256 * 1024
_ATTEMPTS = 4

_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_FULL = frozenset({"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientCapacity", "507"})
_REFUSED = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "401", "403"})


@dataclass(frozen=True, slots=True)
class S3Options:
    """Where the bucket is and how to get in."""

    bucket: str
    endpoint: str | None = None
    public_endpoint: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    region: str | None = None
    prefix: str = ""


class _Placing:
    """A file on its way into a bucket: uploaded, durable and gone from the spool when `place` returns."""

    __slots__ = ("_spool_file", "_store")

    def __init__(self, store: S3Store, spool_file: Path) -> None:
        self._store, self._spool_file = store, spool_file

    def place(self, key: str) -> None:
        """Upload it."""
        self._store.put(self._spool_file, key)

    def settle(self) -> None:
        """An upload that was answered is durable."""


class S3Store:
    """A BlobStore in an S3 bucket; boto3 is imported and the client made at the first use."""

    kind = "s3"
    settles_at_once = False

    def __init__(self, options: S3Options, name: str = "s3", part_bytes: int = PART_BYTES) -> None:
        self.name = name
        self._options = options
        self._prefix = options.prefix.strip("/") + "/" if options.prefix.strip("/") else ""
        self._part_bytes = part_bytes
        self._clients: dict[str | None, Any] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: Settings) -> S3Store:
        """The store that the `s3_*` settings describe."""
        return cls(
            S3Options(
                bucket=settings.s3_bucket or "",
                endpoint=settings.s3_endpoint,
                public_endpoint=settings.s3_public_endpoint,
                access_key=settings.s3_access_key,
                secret_key=settings.s3_secret_key,
                region=settings.s3_region,
                prefix=settings.s3_prefix,
            ),
            settings.s3_name,
        )

    @classmethod
    def archive_from_settings(cls, settings: Settings) -> S3Store:
        """The store that the `archive_s3_*` settings describe; what they leave out is as in `s3_*`."""
        return cls(
            S3Options(
                bucket=settings.archive_s3_bucket or "",
                endpoint=settings.archive_s3_endpoint or settings.s3_endpoint,
                access_key=settings.archive_s3_access_key or settings.s3_access_key,
                secret_key=settings.archive_s3_secret_key or settings.s3_secret_key,
                region=settings.archive_s3_region or settings.s3_region,
                prefix=settings.archive_s3_prefix,
            ),
            settings.archive_name,
        )

    def client(self, endpoint: str | None = None) -> Any:
        """The boto3 client of an endpoint (by default the one of the settings), made at the first call."""
        endpoint = endpoint or self._options.endpoint
        with self._lock:  # making a client is not thread-safe, using it is
            if endpoint not in self._clients:
                self._clients[endpoint] = _make_client(self._options, endpoint)
            return self._clients[endpoint]

    def close(self) -> None:
        """Close the connections; the next use makes new ones."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._options.bucket, "Key": self._prefix + check_key(key)}

    def _failure(self, key: str, error: Exception) -> StorageError:
        return _failure(error, key, self._options.bucket)

    @contextmanager
    def _told(self, key: str = "") -> Iterator[None]:
        """Errors of boto3 and of the network as StorageError."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (ClientError, BotoCoreError) as error:
            raise self._failure(key, error) from error
        except OSError as error:
            raise storage_error(f"the S3 bucket {self._options.bucket!r} failed", error) from error

    def put(self, spool_file: Path, key: str) -> None:
        """Upload the file, look at what arrived, then remove it here."""
        at = self._at(key)
        try:
            size = spool_file.stat().st_size
        except OSError as error:
            raise storage_error("the spool file cannot be read", error) from error
        self._put(at, key, size, lambda offset, length: FileWindow(spool_file, offset, length))
        try:
            spool_file.unlink()
        except OSError as error:
            raise storage_error("the spool file cannot be removed", error) from error

    def _put(self, at: dict[str, str], key: str, size: int, part: Callable[[int, int], io.RawIOBase | io.BytesIO]) -> None:
        if self._stored_size(at, key) is not None:
            raise StorageError(f"{key} is stored already; a key is written once")
        with self._told(key):
            if size <= self._part_bytes:
                with part(0, size) as body:
                    self.client().put_object(**at, Body=body, ContentLength=size, ContentMD5=_md5(body))
            else:
                self._put_in_parts(at, size, part)
        arrived = self._stored_size(at, key)
        if arrived != size:
            self.delete(key)
            raise StorageError(f"{key}: {size} bytes were sent to the S3 bucket, {arrived} arrived")

    def _put_in_parts(self, at: dict[str, str], size: int, part: Callable[[int, int], io.RawIOBase | io.BytesIO]) -> None:
        client, step = self.client(), max(self._part_bytes, -(-size // _MAX_PARTS))
        upload = {**at, "UploadId": client.create_multipart_upload(**at)["UploadId"]}
        parts: list[dict[str, Any]] = []
        try:
            for number, offset in enumerate(range(0, size, step), 1):
                length = min(step, size - offset)
                with part(offset, length) as body:
                    sent = client.upload_part(**upload, PartNumber=number, Body=body, ContentLength=length, ContentMD5=_md5(body))
                parts.append({"PartNumber": number, "ETag": sent["ETag"]})
            client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            client.abort_multipart_upload(**upload)
            raise

    def _stored_size(self, at: dict[str, str], key: str) -> int | None:
        try:
            with self._told(key):
                return int(self.client().head_object(**at)["ContentLength"])
        except BlobMissing:
            return None

    def size(self, key: str) -> int:
        """Size in bytes, asked of the bucket."""
        with self._told(key):
            return int(self.client().head_object(**self._at(key))["ContentLength"])

    def open(self, key: str, offset: int = 0, length: int | None = None) -> BinaryIO:
        """A stream over one ranged GET, taken up again where it broke; it cannot seek."""
        if length == 0:
            self.size(key)
            return io.BytesIO()
        raw = _ObjectStream(self, key, offset, None if length is None else offset + length)
        return cast(BinaryIO, io.BufferedReader(raw, _READ_BYTES))

    def get(self, key: str, offset: int, end: int | None) -> Any:
        """The body of a ranged GET, or None when the range begins at or past the end of the object."""
        from botocore.exceptions import ClientError

        wanted = {} if offset == 0 and end is None else {"Range": f"bytes={offset}-{'' if end is None else end - 1}"}
        try:
            with self._told(key):
                return self.client().get_object(**self._at(key), **wanted)["Body"]
        except StorageError as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and _status(cause) == 416:
                return None
            raise

    def local_path(self, key: str) -> Path | None:
        """Objects are no files."""
        return None

    def delete(self, key: str) -> None:
        """Erase the object."""
        try:
            with self._told(key):
                self.client().delete_object(**self._at(key))
        except BlobMissing:
            return  # some services tell that it was gone already

    def begin(self, spool_file: Path, *, unsettled: bool = False) -> _Placing:
        """Nothing starts before the key is known."""
        return _Placing(self, spool_file)

    def settle_all(self, keys: Sequence[str]) -> None:
        """What was put is durable."""

    def move(self, key: str, new_key: str) -> None:
        """Read and write part by part (server-side copies are not the same everywhere), then erase the first."""
        size = self.size(key)

        def part(offset: int, length: int) -> io.BytesIO:
            with self.open(key, offset, length) as stream:
                return io.BytesIO(stream.read())

        self._put(self._at(new_key), new_key, size, part)
        self.delete(key)

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        """Page by page, in the order of the bucket, which is that of the keys."""
        cut = len(self._prefix)
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self._options.bucket, Prefix=self._prefix + prefix)
        following = iter(pages)
        while True:
            with self._told():
                page = next(following, None)
            if page is None:
                return
            for found in page.get("Contents", ()):
                yield BlobInfo(found["Key"][cut:], found["Size"], found["LastModified"].astimezone(UTC))

    def presign(self, key: str, expires_s: int) -> str:
        """A URL that GETs the object from the public endpoint."""
        with self._told(key):
            client = self.client(self._options.public_endpoint)
            return str(client.generate_presigned_url("get_object", Params=self._at(key), ExpiresIn=expires_s))

    def check(self) -> None:
        """Whether the bucket answers."""
        with self._told():
            self.client().list_objects_v2(Bucket=self._options.bucket, MaxKeys=1, Prefix=self._prefix)


class _ObjectStream(io.RawIOBase):
    """The bytes of an object from `offset` up to `end`; a connection that breaks is replaced by a new ranged GET."""

    def __init__(self, store: S3Store, key: str, offset: int, end: int | None) -> None:
        super().__init__()
        self._store, self._key, self._offset, self._end = store, key, offset, end
        self._failures = 0
        self._body = store.get(key, offset, end)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        from botocore.exceptions import BotoCoreError, HTTPClientError

        while self._body is not None:
            try:
                data = self._body.read(len(buffer))
            except (BotoCoreError, HTTPClientError, OSError) as error:
                self._resume(error)
                continue
            buffer[: len(data)] = data
            self._offset += len(data)
            return len(data)
        return 0

    def _resume(self, error: Exception) -> None:
        self._failures += 1
        self._body.close()
        if self._failures >= _ATTEMPTS:
            raise StorageError(f"{self._key}: the S3 service broke off {self._failures} times: {error}") from error
        self._body = self._store.get(self._key, self._offset, self._end) if self._offset != self._end else None

    def close(self) -> None:
        if not self.closed and self._body is not None:
            self._body.close()
        super().close()


def _md5(body: io.RawIOBase | io.BytesIO) -> str:
    """Content-MD5, the one check of an upload that every service makes; rewinds the body."""
    digest = hashlib.md5(usedforsecurity=False)
    while data := body.read(_READ_BYTES):
        digest.update(data)
    body.seek(0)
    return base64.b64encode(digest.digest()).decode()


def _make_client(options: S3Options, endpoint: str | None) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        signature_version="s3v4",
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=32,
        # A service of one's own rarely has a DNS name for each bucket.
        s3={"addressing_style": "path" if options.endpoint else "auto"},
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name=options.region or "us-east-1",
        aws_access_key_id=options.access_key,
        aws_secret_access_key=options.secret_key,
        config=config,
    )


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _failure(error: Any, key: str, bucket: str) -> StorageError:
    from botocore.exceptions import ClientError

    if not isinstance(error, ClientError):
        return StorageError(f"the S3 service of bucket {bucket!r} cannot be reached: {error}")
    code = str(error.response.get("Error", {}).get("Code", ""))
    message = error.response.get("Error", {}).get("Message") or f"HTTP status {_status(error)}"
    if code in _MISSING and key:
        return BlobMissing(f"the bytes of {key} are missing from the S3 bucket {bucket!r}")
    if code == "NoSuchBucket":
        return StorageError(f"there is no S3 bucket {bucket!r}")
    if code in _FULL or _status(error) == 507:
        return OutOfSpace(f"the S3 bucket {bucket!r} is full: {message}")
    if code in _REFUSED:
        return StorageError(f"the S3 service refused the credentials for bucket {bucket!r}: {code} {message}")
    return StorageError(f"the S3 bucket {bucket!r} failed: {code} {message}")
