"""Old bytes go to an archive storage, or are packed where they are: a job, a command, and what retention policies call."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from pacslite.catalog import relocation as rows
from pacslite.catalog.relocation import Choice
from pacslite.catalog.statements import time_text
from pacslite.core import jobs
from pacslite.core.file_types import MedicalFileType
from pacslite.core.jobs import Handler, Job, Run
from pacslite.core.relocation import Outcome, Parts, relocate
from pacslite.errors import InvalidForm

if TYPE_CHECKING:
    from pacslite.catalog.inventory import BlobRow

KIND = "storage.archive"
_PAGE = 200
_REMEMBER_EVERY = 20
# Less than a disk's block is not won back by packing.
_MIN_PACKED_BYTES = 8192
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be archived: older than that, of these types or modalities (all when empty), to a storage or packed where it is."""

    older_than_days: float
    to: str | None = None
    file_types: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    dry_run: bool = False


@dataclass(slots=True)
class Archived:
    """What came of it; `held` were left alone for a legal hold, `failed` by kind of failure."""

    archived: int = 0
    freed_bytes: int = 0
    held: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    dry_run: bool = False


class Watcher(Protocol):
    """Whoever wants to know how far long work is, and may stop it by raising: a run of a job, or a command."""

    memo: dict[str, Any]

    def check(self) -> None:
        """Raises when the work should end."""

    def progress(self, done: int, total: int | None = None) -> None:
        """Told now and then."""

    def remember(self, **memo: Any) -> None:
        """Keeps values for a later run."""


def check(parts: Parts, wish: Wish) -> None:
    """Raises InvalidForm naming the field that means nothing here."""
    if wish.to is not None and not parts.stores.knows(wish.to):
        known = ", ".join(store.name for store in parts.stores.all)
        raise InvalidForm(f"to: there is no storage {wish.to!r}", (("to", f"is none of {known}"),))
    for name in wish.file_types:
        if name not in list(MedicalFileType):
            raise InvalidForm(f"file_types: {name!r} is no file type", (("file_types", f"is none of {', '.join(MedicalFileType)}"),))


def archive(parts: Parts, wish: Wish, watcher: Watcher) -> Archived:
    """Move or pack what the wish means, one blob after the other; raises StorageError when a storage fails."""
    check(parts, wish)
    before = time_text(datetime.now(UTC) - timedelta(days=wish.older_than_days))
    smallest = _MIN_PACKED_BYTES if wish.to is None else 0
    choice = Choice(before, wish.to, wish.file_types, wish.modalities, smallest)
    report = Archived(**watcher.memo["archived"]) if "archived" in watcher.memo else Archived(dry_run=wish.dry_run)
    with parts.catalog.read() as conn:
        total, total_bytes = rows.count(conn, choice)
        report.held = rows.count(conn, Choice(before, wish.to, wish.file_types, wish.modalities, smallest, held=True))[0]
    if wish.dry_run:
        report.archived, report.freed_bytes = total, total_bytes if wish.to is not None else 0
        return report
    done = after = 0
    while True:
        with parts.catalog.read() as conn:
            page = rows.chosen_after(conn, choice, after, _PAGE)
        for row in page:
            watcher.check()
            _archive_one(parts, row, wish, report)
            done += 1
            watcher.progress(done, max(total, done))
            if done % _REMEMBER_EVERY == 0:
                watcher.remember(archived=asdict(report))
        if len(page) < _PAGE:
            return report
        after = page[-1].pk


def _archive_one(parts: Parts, row: BlobRow, wish: Wish, report: Archived) -> None:
    if not parts.stores.knows(row.store_name):
        report.skipped["unknown_storage"] = report.skipped.get("unknown_storage", 0) + 1
        return
    moved = relocate(parts, row, wish.to)
    if moved.outcome is Outcome.MOVED:
        report.archived += 1
        report.freed_bytes += moved.freed_bytes
        return
    report.skipped[moved.outcome] = report.skipped.get(moved.outcome, 0) + 1
    if moved.outcome is Outcome.NOT_SMALLER:
        parts.catalog.write(lambda conn: rows.leave_as_it_is(conn, row))
    elif moved.outcome is Outcome.DAMAGED:
        _log.error("bytes that were to be archived are damaged", extra={"action": KIND, "object_id": row.storage_key, "outcome": "failed"})


def queue(parts: Parts, wish: Wish, actor: str = "") -> Job:
    """Archive by a job; raises InvalidForm."""
    check(parts, wish)
    return jobs.queue(parts.catalog, KIND, asdict(wish), HANDLER, actor)


def wish_of(payload: Mapping[str, Any]) -> Wish:
    """The wish that a job carries."""
    lists = {name: tuple(payload.get(name) or ()) for name in ("file_types", "modalities")}
    return Wish(float(payload["older_than_days"]), payload.get("to"), dry_run=bool(payload.get("dry_run")), **lists)


def _run(parts: Parts, run: Run) -> Mapping[str, Any]:
    try:
        return asdict(archive(parts, wish_of(run.payload), run))
    except InvalidForm as error:  # the settings have changed since
        raise jobs.Failed(str(error)) from None


HANDLER = Handler(_run, "blobs")
