"""Backups: one state of the catalog, and the bytes that it names, in a directory of backups (`core.backup_repository`).

The order makes them whole while the server works on: a hold keeps all bytes from being erased; the catalog is read in one
transaction; then the bytes that this snapshot names are copied, which never change. Each is compared with the digest that the catalog
has of it. Contents that the directory has are not copied again (`full`: unless they are damaged there); so each backup costs what is
new, and is whole by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from pacslite import __version__
from pacslite.catalog import holds, inventory, snapshots
from pacslite.catalog.models import REVISION
from pacslite.catalog.statements import now_text
from pacslite.core.backup_repository import CATALOG, MANIFEST, Description, File, Repository, digest_of, write_lines
from pacslite.core.lookahead import ahead
from pacslite.core.parts import WithCatalog, WithSettings, WithStores
from pacslite.core.secret_keys import FILE_NAME as SECRET_KEY
from pacslite.core.stocktaking import Place
from pacslite.errors import BackupDamaged, BadRequest, BlobDamaged, BlobMissing, NotFound, PacsliteError, StorageError
from pacslite.storage.digests import digests_of
from pacslite.storage.keys import PACKED, new_version_id

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog
    from pacslite.settings import Settings

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int, int], object]

LISTED = 10_000
ANCHOR, SEGMENTS = "audit.anchor", "audit"


class Parts(WithSettings, WithCatalog, WithStores, Protocol):
    """What a backup is made of."""


@dataclass(slots=True)
class BackupReport:
    """What came of it. `missing`: keys of bytes that were not there, or not what the catalog says; they are in no backup."""

    id: str = ""
    is_full: bool = False
    blobs: int = 0
    size_bytes: int = 0
    copied: int = 0
    copied_bytes: int = 0
    missing_count: int = 0
    missing: list[tuple[str, str]] = field(default_factory=list)


def make(
    parts: Parts, directory: Path, *, full: bool = False, with_secret_key: bool = False, progress: Progress | None = None
) -> BackupReport:
    """Add a backup to the directory; raises BadRequest when that is no place for one, Busy when somebody else writes to it."""
    _check_place(parts.settings, directory)
    repository = Repository(directory)
    repository.create()
    with repository.locked(), _hold(parts.catalog) as hold:
        return _Backup(parts, repository, hold, full, with_secret_key, progress or (lambda done, total: None)).run()


def _check_place(settings: Settings, directory: Path) -> None:
    inner = [settings.resolved_storage_root] if settings.storage == "filesystem" else []
    for place in (settings.data, *inner):
        if directory.resolve().is_relative_to(place.resolve()):
            raise BadRequest(f"{directory} is within {place}: a backup beside what it is of is lost with it")


@contextmanager
def _hold(catalog: Catalog) -> Iterator[Callable[[], None]]:
    """Keeps bytes from being erased while the block lasts; what it gives raises StorageError when that has failed."""
    uid, stop, lost = new_version_id(), threading.Event(), threading.Event()

    def renew() -> None:
        while not stop.wait(holds.RENEW_S):
            with suppress(PacsliteError):  # tried again long before the lease ends
                if not catalog.write(lambda conn: holds.renew(conn, uid)):
                    lost.set()

    def check() -> None:
        if lost.is_set():
            raise StorageError("the backup was held up for too long: bytes that it needs may have been erased; make it again")

    catalog.write(lambda conn: holds.place(conn, uid), holds.ERASURE_KEYS)
    thread = threading.Thread(target=renew, name="backup-hold", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        stop.set()
        thread.join()
        catalog.write(lambda conn: holds.end(conn, uid))


class _Backup:
    def __init__(
        self, parts: Parts, repository: Repository, check_hold: Callable[[], None], full: bool, with_secret_key: bool, progress: Progress
    ) -> None:
        self._parts, self._repository, self._check_hold = parts, repository, check_hold
        self._full, self._with_secret_key, self._progress = full, with_secret_key, progress
        self._report = BackupReport(repository.new_id(), full)
        self._total = 0

    def run(self) -> BackupReport:
        place, at = self._repository.begin(self._report.id), now_text()
        data = list(self._anchor())
        with self._parts.catalog.read() as conn:
            catalog_sha256 = write_lines(place / CATALOG, snapshots.lines(conn))
            self._total = inventory.count_blobs(conn)
        data += [*self._segments(), *self._secret_key()]
        manifest_sha256 = write_lines(place / MANIFEST, (asdict(file) for file in self._all(data, catalog_sha256)))
        self._repository.sync_contents()
        self._check_hold()
        report = self._report
        self._repository.finish(
            Description(
                report.id,
                at,
                __version__,
                REVISION,
                report.is_full,
                report.blobs,
                report.size_bytes,
                report.copied,
                report.copied_bytes,
                report.missing_count,
                catalog_sha256,
                manifest_sha256,
                self._previous(),
            )
        )
        return report

    def _previous(self) -> str:
        try:
            return digest_of(self._repository.description())
        except (NotFound, BackupDamaged):
            return ""

    def _all(self, data: list[File], catalog_sha256: str) -> Iterator[File]:
        yield from data
        rows = snapshots.blob_rows(self._repository.snapshot(self._report.id, catalog_sha256))
        for file, was_copied in ahead((row for row in rows if _is_wanted(row)), self._kept):
            self._check_hold()
            self._count(file, was_copied)
            self._progress(self._report.blobs, self._total)
            yield file
        self._progress(self._total, self._total)

    def _count(self, file: File, was_copied: bool) -> None:
        self._report.blobs += 1
        if was_copied:
            self._report.copied += 1
            self._report.copied_bytes += file.size_bytes
        if file.problem:
            self._report.missing_count += 1
            if len(self._report.missing) < LISTED:
                self._report.missing.append((file.name, file.problem))
        else:
            self._report.size_bytes += file.size_bytes

    def _kept(self, row: dict[str, object]) -> tuple[File, bool]:
        """The content of a blob is in the directory then; whether it was copied now. Runs in a thread of its own."""
        # Under the key it has when it is not packed: so it is restored.
        key, sha256, size = str(row["storage_key"]).removesuffix(PACKED), str(row["sha256"]), int(str(row["size_bytes"]))
        if self._has(sha256, size):
            return File("blob", key, sha256, size), False
        try:
            stored = self._copy(row)
        except BlobMissing:
            return File("blob", key, sha256, size, "missing"), False
        return File("blob", key, sha256, size, "" if stored else "hash"), stored

    def _has(self, sha256: str, size_bytes: int) -> bool:
        known = self._repository.is_whole if self._full else self._repository.holds
        return known(sha256, size_bytes)

    def _copy(self, row: dict[str, object]) -> bool:
        sha256, size = str(row["sha256"]), int(str(row["size_bytes"]))
        place = Place(str(row["storage_key"]), str(row["store_name"]))
        try:
            with self._parts.stores.open(place) as stream:
                return self._repository.put(stream, sha256, size)
        except BlobMissing:
            now = self._present(str(row["uid"]))
            if now is None or (now.storage_key, now.store_name) == (place.storage_key, place.store_name):
                raise
            with self._parts.stores.open(now) as stream:
                return self._repository.put(stream, sha256, size)
        except BlobDamaged:
            return False

    def _present(self, uid: str) -> inventory.BlobRow | None:
        """Where bytes are now that have gone to another place since the snapshot."""
        with self._parts.catalog.read() as conn:
            return inventory.blobs_of(conn, [uid]).get(uid)

    # -- files of the data directory

    def _anchor(self) -> Iterator[File]:
        """Before the snapshot: so what it names is in there."""
        yield from self._data(ANCHOR)

    def _segments(self) -> Iterator[File]:
        """After the snapshot: what has left the log until then is in a file already."""
        directory = self._parts.settings.data / SEGMENTS
        for path in sorted(directory.glob("audit-*.jsonl.gz")) if directory.is_dir() else ():
            yield from self._data(f"{SEGMENTS}/{path.name}")

    def _secret_key(self) -> Iterator[File]:
        if self._with_secret_key:
            yield from self._data(SECRET_KEY)

    def _data(self, name: str) -> Iterator[File]:
        path = self._parts.settings.data / name
        try:
            with path.open("rb") as file:
                digests = digests_of(file)
                file.seek(0)
                if not self._has(digests.sha256, digests.size_bytes) and not self._repository.put(file, digests.sha256, digests.size_bytes):
                    raise StorageError(f"{name} has changed while it was read")
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"{name} cannot be read: {error.strerror}") from error
        yield File("data", name, digests.sha256, digests.size_bytes)


def _is_wanted(row: dict[str, object]) -> bool:
    """Neither put aside as damaged, nor claimed by the erasure already ("" is no time of deletion), nor left behind by a move."""
    if is_left_behind(row):
        return False
    return row["state"] == inventory.LIVE or (row["state"] == inventory.DOOMED and row["doomed_at"] != "")


def is_left_behind(row: Mapping[str, object]) -> bool:
    """Whether a row stands for bytes at a place from which they were moved: another row has them (`catalog.relocation`)."""
    return "~" in str(row["uid"])
