"""Retention policies: what is old goes to the archive, to the trash, or for good, unless it is on legal hold; the trash is emptied.

Policies are settings (`retention_policies`). They are done once a day by a job, or when somebody asks, and can be tried without
changing anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from pacslite.catalog import retention as rows
from pacslite.catalog.changes import Origin
from pacslite.catalog.statements import time_text
from pacslite.core import archival, files, jobs, removal
from pacslite.core.archival import Wish
from pacslite.core.file_notes import Owner
from pacslite.core.jobs import Handler, Job, Run
from pacslite.core.parts import WithCatalog, WithSettings, WithSpool, WithStores
from pacslite.errors import Conflict, Gone, InvalidForm, NotFound

if TYPE_CHECKING:
    from pacslite.catalog.retention import OldFile, OldSeries
    from pacslite.core.archival import Watcher
    from pacslite.settings import Settings

KIND = "storage.policies"
ACTOR = "retention"
_PAGE = 200
_OWNER = Owner(None, ACTOR)
_ORIGIN = Origin("job", actor=ACTOR)


class Parts(WithSettings, WithCatalog, WithStores, WithSpool, Protocol):
    """What this needs of a process."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One rule. `dicom` among the file types, or modalities, mean series of instances."""

    name: str
    action: str
    older_than_days: float
    file_types: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    to: str | None = None

    @property
    def means_series(self) -> bool:
        """Whether it is about instances."""
        return bool(self.modalities) or "dicom" in self.file_types

    @property
    def of_files(self) -> tuple[str, ...]:
        """The types of files it is about; instances are a matter of series."""
        return tuple(name for name in self.file_types if name != "dicom")

    @property
    def wish(self) -> Wish:
        """What is to be archived."""
        return Wish(self.older_than_days, self.to, self.file_types, self.modalities)


@dataclass(slots=True)
class Applied:
    """What one policy has done, or would have: files and series that went, their bytes, and those that are held."""

    name: str
    action: str
    done: int = 0
    size_bytes: int = 0
    held: int = 0


def policies_of(settings: Settings) -> list[Policy]:
    """The policies of the settings, by name."""
    found = []
    for name, one in sorted(settings.retention_policies.items()):
        lists = {key: tuple(one.get(key, ())) for key in ("file_types", "modalities")}
        found.append(Policy(name, one["action"], float(one["older_than_days"]), to=one.get("to"), **lists))
    return found


def apply(parts: Parts, watcher: Watcher, *, dry_run: bool = False) -> dict[str, Any]:
    """Do all policies, one after the other; raises InvalidForm when one names what is not there."""
    policies, told = policies_of(parts.settings), []
    for policy in policies:
        archival.check(parts, policy.wish)
    for number, policy in enumerate(policies):
        watcher.check()
        told.append(
            asdict(_archive(parts, policy, watcher, dry_run) if policy.action == "archive" else _thin(parts, policy, watcher, dry_run))
        )
        watcher.progress(number + 1, len(policies))
    return {"policies": told, "dry_run": dry_run}


def _archive(parts: Parts, policy: Policy, watcher: Watcher, dry_run: bool) -> Applied:
    wish = Wish(policy.older_than_days, policy.to, policy.file_types, policy.modalities, dry_run)
    report = archival.archive(parts, wish, _Part(watcher))
    return Applied(policy.name, policy.action, report.archived, report.freed_bytes, report.held)


class _Part:
    """A part of the work of another watcher, whose progress is its own."""

    def __init__(self, watcher: Watcher) -> None:
        self.memo: dict[str, Any] = {}
        self._watcher = watcher

    def check(self) -> None:
        """As the other says."""
        self._watcher.check()

    def progress(self, done: int, total: int | None = None) -> None:
        """The other counts policies."""

    def remember(self, **memo: Any) -> None:
        """What is archived is not archived again."""


def _thin(parts: Parts, policy: Policy, watcher: Watcher, dry_run: bool) -> Applied:
    applied, before = Applied(policy.name, policy.action), _before(policy.older_than_days)
    if policy.of_files:
        states = ("live",) if policy.action == "trash" else ("live", "trash")
        act = files.delete if policy.action == "trash" else files.purge
        for old in _old_files(parts, before, policy.of_files, states):
            watcher.check()
            _one(applied, old, dry_run, lambda uid=old.uid: act(parts, uid, _OWNER, _ORIGIN))  # type: ignore[misc, arg-type]
    if policy.means_series:
        for one in _old_series(parts, before, policy.modalities):
            watcher.check()
            target = removal.Target(one.study_instance_uid, one.series_instance_uid)
            _one(applied, one, dry_run, lambda target=target: removal.remove(parts.catalog, target, _ORIGIN))  # type: ignore[misc]
    return applied


def _one(applied: Applied, old: OldFile | OldSeries, dry_run: bool, act: Callable[[], object]) -> None:
    if old.is_held:
        applied.held += 1
        return
    if not dry_run:
        try:
            act()
        except (Gone, NotFound):
            return  # somebody was faster
        except Conflict:
            applied.held += 1
            return
    applied.done += 1
    applied.size_bytes += old.size_bytes


def _before(days: float) -> str:
    return time_text(datetime.now(UTC) - timedelta(days=days))


def _old_files(parts: Parts, before: str, file_types: tuple[str, ...], states: tuple[str, ...]) -> Iterator[OldFile]:
    after = 0
    while True:
        with parts.catalog.read() as conn:
            page = rows.files_after(conn, after, before, _PAGE, file_types=file_types, states=states)
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].pk


def _old_series(parts: Parts, before: str, modalities: tuple[str, ...]) -> Iterator[OldSeries]:
    after = 0
    while True:
        with parts.catalog.read() as conn:
            page = rows.series_after(conn, after, before, _PAGE, modalities=modalities)
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].pk


def empty_trash(parts: Parts) -> int:
    """Erase for good what has been in the trash for `trash_days`; what is on hold stays. How many files."""
    days, erased, after = parts.settings.trash_days, 0, 0
    if not days:
        return 0
    while True:
        with parts.catalog.read() as conn:
            page = rows.trash_after(conn, after, _before(days), _PAGE)
        for old in page:
            applied = Applied("trash", "purge")
            _one(applied, old, False, lambda uid=old.uid: files.purge(parts, uid, _OWNER, _ORIGIN))  # type: ignore[misc, arg-type]
            erased += applied.done
        if len(page) < _PAGE:
            return erased
        after = page[-1].pk


def queue(parts: Parts, *, dry_run: bool, actor: str = "") -> Job:
    """Do the policies by a job; while the same is under way, that is meant."""
    return jobs.queue(parts.catalog, KIND, {"dry_run": dry_run}, HANDLER, actor, f"{KIND}:{dry_run}")


def _run(parts: Parts, run: Run) -> Mapping[str, Any]:
    try:
        return apply(parts, run, dry_run=bool(run.payload.get("dry_run")))
    except InvalidForm as error:
        raise jobs.Failed(str(error)) from None


HANDLER = Handler(_run, "policies")
