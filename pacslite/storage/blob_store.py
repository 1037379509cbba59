"""What every store of bytes can do; `filesystem` and `s3` do it, one contract suite holds both to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """One stored blob as a listing shows it."""

    key: str
    size_bytes: int
    modified_at: datetime


class Placing(Protocol):
    """Bytes on their way from the spool into a store: `place`, then `settle`, and only then are they kept."""

    def place(self, key: str) -> None:
        """Give the bytes their key and take the spool file away; see BlobStore.put for what it raises."""

    def settle(self) -> None:
        """Returns once the bytes are durable under their key; may be called again. Raises StorageError."""


class BlobStore(Protocol):
    """Immutable bytes under keys that are written once.

    Every method raises StorageError (or its leaves) when the store fails, with a text fit for an operator.
    """

    @property
    def name(self) -> str:
        """Name of the store, kept with each blob in the catalog."""

    @property
    def kind(self) -> str:
        """`filesystem` or `s3`."""

    def put(self, spool_file: Path, key: str) -> None:
        """Keep the bytes of the file under the key and take the file away.

        Durable when it returns. StorageError when the key exists, OutOfSpace when there is no room. When it raises,
        the caller discards the spool file; the worst that can remain is a blob that nothing refers to.
        """

    @property
    def settles_at_once(self) -> bool:
        """Whether `settle_all` makes many files durable for about the price of one."""

    def begin(self, spool_file: Path, *, unsettled: bool = False) -> Placing:
        """The first step of `put`, for callers who have something else to do while the store works.

        `unsettled`: the bytes are kept elsewhere until `settle_all` has returned, so nothing has to be durable before; the
        store may ignore it.
        """

    def settle_all(self, keys: Sequence[str]) -> None:
        """Returns once what was placed under these keys is durable; keys without bytes are passed over."""

    def open(self, key: str, offset: int = 0, length: int | None = None) -> BinaryIO:
        """The bytes, or `length` of them from `offset`, as a stream to be closed; raises BlobMissing."""

    def size(self, key: str) -> int:
        """Size in bytes; raises BlobMissing."""

    def delete(self, key: str) -> None:
        """Erase the bytes; nothing happens when they are gone already."""

    def move(self, key: str, new_key: str) -> None:
        """Keep the bytes under another key, stamped with the present time; raises BlobMissing."""

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        """All blobs whose keys start with the prefix, in the order of their keys; in bounded memory."""

    def local_path(self, key: str) -> Path | None:
        """The file that holds the bytes, when there is one (it need not exist)."""

    def presign(self, key: str, expires_s: int) -> str | None:
        """A URL under which anybody can GET the bytes for a while, when the store can give one."""

    def check(self) -> None:
        """Raises StorageError when the store cannot be used now."""
