"""Verifies backups, and makes an archive of one: into an empty place, of whatever database and storage its settings name.

Bytes come first, each compared with its digest; the catalog comes last, in one transaction, so a place that is half restored has no
catalog. A mark in the data directory tells which backup is being restored: the same one goes on when it was interrupted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pacslite.catalog import snapshots
from pacslite.catalog.models import REVISION
from pacslite.core.backup import LISTED, Progress, is_left_behind
from pacslite.core.backup_repository import Description, File, Repository
from pacslite.core.journal import Journal
from pacslite.core.lookahead import ahead
from pacslite.core.parts import WithCatalog, WithSettings, WithSpool, WithStore
from pacslite.durability import sync_directory, write_durably
from pacslite.errors import BackupDamaged, BlobMissing, Conflict, StorageError
from pacslite.storage.digests import digests_of
from pacslite.storage.keys import JOURNAL, PACKED, PATIENTS, QUARANTINE, RADIOLOGY
from pacslite.storage.spool import storage_error

_MARK = "restoring.json"
# What may be in a new data directory: the server makes these by itself, and the key may have been put there.
_NAMES_ALLOWED = frozenset({"storage", "spool", "cache", "run", "viewer", "secret.key", _MARK})


class Parts(WithSettings, WithCatalog, WithStore, WithSpool, Protocol):
    """What an archive is restored to."""


@dataclass(slots=True)
class RestoreReport:
    """What came of it. `damaged` and `missing` name files and what is wrong with them; what is missing was so when the backup was made."""

    id: str = ""
    files: int = 0
    size_bytes: int = 0
    rows: int = 0
    damaged_count: int = 0
    damaged: list[tuple[str, str]] = field(default_factory=list)
    missing_count: int = 0
    missing: list[tuple[str, str]] = field(default_factory=list)


def verify(directory: Path, backup_id: str = "", progress: Progress | None = None) -> RestoreReport:
    """Read everything that belongs to a backup (the newest without an id) and compare it; raises BackupDamaged for its lists."""
    repository = Repository(directory)
    repository.check()
    description = repository.description(backup_id)
    repository.check_lists(description)
    report = RestoreReport(description.id)

    def look(file: File) -> tuple[File, str]:
        return file, "" if file.problem else repository.problem_of(file.sha256, file.size_bytes)

    for file, problem in ahead(repository.files(description), look):
        _count(report, file, problem)
        if progress is not None:
            progress(report.files + report.damaged_count, description.blobs)
    return report


def _count(report: RestoreReport, file: File, problem: str) -> None:
    if problem:
        report.damaged_count += 1
        if len(report.damaged) < LISTED:
            report.damaged.append((file.name, problem))
        return
    report.files += 1
    if file.problem:
        report.missing_count += 1
        if len(report.missing) < LISTED:
            report.missing.append((file.name, file.problem))
    else:
        report.size_bytes += file.size_bytes


def restore(
    parts: Parts, directory: Path, backup_id: str = "", *, without_damaged: bool = False, progress: Progress | None = None
) -> RestoreReport:
    """Make the archive of a backup in an empty place; raises Conflict when the place is not empty, BackupDamaged naming what is.

    With `without_damaged` what is damaged is left out and listed, and everything else comes back.
    """
    repository = Repository(directory)
    repository.check()
    description = repository.description(backup_id)
    repository.check_lists(description)
    if description.revision > REVISION:
        raise Conflict(f"backup {description.id} has schema {description.revision}, this release knows {REVISION}: take a newer one")
    restoring = _Restoring(parts, repository, description, progress or (lambda done, total: None))
    restoring.check_empty()
    report = restoring.put_files()
    if report.damaged_count and not without_damaged:
        raise BackupDamaged(_told(report), tuple(name for name, _ in report.damaged))
    restoring.fill_catalog()
    return report


def _told(report: RestoreReport) -> str:
    shown = ", ".join(f"{name} ({problem})" for name, problem in report.damaged[:20])
    more = f" and {report.damaged_count - 20} more" if report.damaged_count > 20 else ""
    return f"backup {report.id} is damaged, no catalog was made: {shown}{more}"


class _Restoring:
    def __init__(self, parts: Parts, repository: Repository, description: Description, progress: Progress) -> None:
        self._parts, self._repository, self._description, self._progress = parts, repository, description, progress
        self._mark = parts.settings.data / _MARK
        self._report = RestoreReport(description.id)
        self._goes_on = False

    def check_empty(self) -> None:
        """Raises Conflict unless nothing is there, or what this very backup has left when it was interrupted."""
        marked = self._mark.read_text() if self._mark.exists() else ""
        self._goes_on = marked == self._description.id
        if marked and not self._goes_on:
            raise Conflict(f"backup {marked} is being restored to {self._parts.settings.data}")
        with self._parts.catalog.read() as conn:
            if not snapshots.is_empty(conn):
                raise Conflict("the catalog is not empty: a backup is restored to an empty place only")
        if self._goes_on:
            return
        for prefix in (RADIOLOGY, PATIENTS, JOURNAL, QUARANTINE):
            if next(self._parts.store.list(prefix), None) is not None:
                raise Conflict("the storage is not empty: a backup is restored to an empty place only")
        names = set(os.listdir(self._parts.settings.data)) - _NAMES_ALLOWED
        if strangers := sorted(name for name in names if not name.startswith((".", "catalog.db"))):
            raise Conflict(f"{self._parts.settings.data} is not empty: there is {strangers[0]}")
        write_durably(self._mark, self._description.id.encode())

    def put_files(self) -> RestoreReport:
        """Everything but the catalog; what is damaged is left out and told."""
        total = self._description.blobs
        for file, problem in ahead(self._repository.files(self._description), self._put):
            _count(self._report, file, problem)
            self._progress(self._report.files + self._report.damaged_count, max(total, 1))
        return self._report

    def _put(self, file: File) -> tuple[File, str]:
        """Put one file where it was; what is wrong with it. Runs in a thread of its own."""
        if file.problem:
            return file, ""
        if file.kind == "data":
            return file, self._put_data(file)
        if self._goes_on and self._is_there(file):
            return file, ""
        try:
            with self._repository.path_of(file.sha256).open("rb") as stream:
                spooled = self._parts.spool.copy(stream, ".restored")
        except FileNotFoundError:
            return file, "missing"
        except OSError as error:
            raise storage_error("the backup cannot be read", error) from error
        try:
            if (spooled.sha256, spooled.size_bytes) != (file.sha256, file.size_bytes):
                return file, "size" if spooled.size_bytes != file.size_bytes else "hash"
            self._parts.store.put(spooled.path, file.name)
        finally:
            spooled.discard()
        return file, ""

    def _is_there(self, file: File) -> bool:
        try:
            with self._parts.store.open(file.name) as stream:
                if digests_of(stream).sha256 == file.sha256:
                    return True
        except BlobMissing:
            return False
        self._parts.store.delete(file.name)
        return False

    def _put_data(self, file: File) -> str:
        path = self._parts.settings.data / file.name
        problem = self._repository.problem_of(file.sha256, file.size_bytes)
        if problem or not _is_data_name(file.name):
            return problem or "name"
        try:
            path.parent.mkdir(mode=0o750, exist_ok=True)
            path.unlink(missing_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
                with self._repository.path_of(file.sha256).open("rb") as source:
                    shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
            sync_directory(path.parent)
        except OSError as error:
            raise StorageError(f"{file.name} cannot be written: {error.strerror}") from error
        return ""

    def fill_catalog(self) -> None:
        """The schema of the backup, its rows in one transaction, then the schema of this release and the journal."""
        catalog, description = self._parts.catalog, self._description
        catalog.migrate(description.revision)

        def work(conn: Any) -> int:
            lines = self._repository.snapshot(description.id, description.catalog_sha256)
            return snapshots.restore(conn, lines, _changed(self._parts.store.name))

        self._report.rows = catalog.write(work)
        catalog.migrate()
        Journal(self._parts.store, self._parts.spool).write_new(catalog)
        self._mark.unlink()
        sync_directory(self._mark.parent)


def _is_data_name(name: str) -> bool:
    parts = name.split("/")
    return 1 <= len(parts) <= 2 and all(part and not part.startswith(".") for part in parts)


def _changed(store_name: str) -> Callable[[str, dict[str, Any]], bool]:
    """Rows as they are right in the new place: all bytes are in its storage, as they were sent; nobody works on a job any more."""

    def changed(table: str, row: dict[str, Any]) -> bool:
        if table == "blob":
            if is_left_behind(row):
                return False  # nothing was left behind here, and its key may be one where the bytes are now
            row["store_name"], row["storage_key"] = store_name, row["storage_key"].removesuffix(PACKED)
            row |= dict.fromkeys(row.keys() & {"encoding", "stored_bytes"})
        elif table == "job" and row["state"] == "running":
            row["lease_until_at"] = ""
        elif table == "upload":
            return bool(row["state"] == "complete")  # what had arrived of others was in the spool
        return True

    return changed
