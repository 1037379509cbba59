"""What the server stands on, looked at in bounded time: each answer says what is wrong, and none waits for a thing that hangs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pacslite import run_state
from pacslite.catalog import statistics
from pacslite.codec import video
from pacslite.core import certificates, quotas
from pacslite.core.questions import Questions
from pacslite.errors import OutOfSpace, PacsliteError, StorageError

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.run_state import RoleState

OK, WARNING, FAILED, UNKNOWN = "ok", "warning", "failed", "unknown"
NEEDED = ("catalog", "storage", "spool")
"""Without these no request is served; what else is wrong only degrades."""
ANSWER_WITHIN_S = 2.0
_LEAST_FREE_BYTES = 64 * 1024**2
_MOST_SKEW_S = 10.0
_MOST_AHEAD_S = 120.0
_CERTIFICATE_DAYS = 30
_questions: Questions[None] = Questions(ANSWER_WITHIN_S)


class Doubtful(Exception):
    """Something works and will not do so for long, or is partly down."""


class NobodyKnows(Exception):
    """What would tell is not on this machine, or not configured."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The state of one thing: ok, warning, failed or unknown; and why."""

    state: str
    detail: str | None = None


def look(pacs: Pacs) -> dict[str, Finding]:
    """Everything there is to look at, by name."""
    checks: dict[str, Callable[[], None]] = {
        "catalog": lambda: _check_catalog(pacs),
        "storage": pacs.store.check,
        "spool": lambda: _check_spool(pacs),
        "disk": lambda: _check_disk(pacs),
        "quota": lambda: _check_quota(pacs),
        "video": _check_video,
        "clock": lambda: _check_clock(pacs),
        "certificate": lambda: _check_certificate(pacs.settings.dicom_tls_certificate),
        **{role: (lambda role=role: _check_role(pacs.settings.data, role)) for role in ("worker", "dimse")},  # type: ignore[misc]
    }
    return {name: _finding(answer) for name, answer in _questions.ask(id(pacs), checks).items()}


def _finding(answer: Exception | None) -> Finding:
    if answer is None:
        return Finding(OK)
    if isinstance(answer, Doubtful):
        return Finding(WARNING, str(answer))
    if isinstance(answer, NobodyKnows):
        return Finding(UNKNOWN, str(answer))
    return Finding(FAILED, str(answer) if isinstance(answer, PacsliteError) else f"the check failed: {type(answer).__name__}")


def roles(data: Path) -> tuple[RoleState, ...]:
    """The processes that supervisors run on this machine and data."""
    return tuple(role for state in run_state.read_all(data) for role in state.roles)


def _check_catalog(pacs: Pacs) -> None:
    pacs.catalog.check_revision()
    pacs.catalog.check_writable()


def _check_spool(pacs: Pacs) -> None:
    free = free_bytes(pacs.settings.spool_directory)
    if free < _LEAST_FREE_BYTES:
        raise OutOfSpace(f"the spool has {free} bytes left")


def _check_disk(pacs: Pacs) -> None:
    for name, path in disks(pacs):
        free = free_bytes(path)
        if free < pacs.settings.disk_warning_bytes:
            raise Doubtful(f"the disk of {name} has {free} bytes left, less than disk_warning_bytes")


def _check_quota(pacs: Pacs) -> None:
    if not pacs.settings.total_quota_bytes:
        raise NobodyKnows("no total_quota_bytes is set")
    state = quotas.total_state(pacs)
    if state.level != quotas.OK:
        raise Doubtful(f"{state.used_bytes} of {state.quota_bytes} bytes that may be kept in files are used ({state.level})")


def _check_video() -> None:
    if not video.is_there():
        raise NobodyKnows(f"{video.MISSING} Videos are kept as they are sent.")


def disks(pacs: Pacs) -> Iterable[tuple[str, Path]]:
    """The directories whose disks fill up."""
    yield "data", pacs.settings.data
    yield "spool", pacs.settings.spool_directory
    if pacs.settings.storage == "filesystem":
        yield "storage", pacs.settings.resolved_storage_root


def free_bytes(path: Path) -> int:
    """Room on the disk of a directory; raises StorageError."""
    try:
        return shutil.disk_usage(path).free
    except OSError as error:
        raise StorageError(f"the directory cannot be read: {error.strerror}") from None


def _check_clock(pacs: Pacs) -> None:
    """A clock that goes wrong makes tokens end early, versions sort wrongly and object stores refuse what is signed."""
    with pacs.catalog.read() as conn:
        database_s, changed_at = statistics.database_time(conn), statistics.last_change_at(conn)
    now = time.time()
    if database_s is not None and abs(database_s - now) > _MOST_SKEW_S:
        raise Doubtful(f"the clock is {now - database_s:+.0f} s off that of the database")
    if changed_at:
        ahead_s = datetime.fromisoformat(changed_at).timestamp() - now
        if ahead_s > _MOST_AHEAD_S:
            raise Doubtful(f"the newest change is {ahead_s:.0f} s in the future: the clock was set back")


def _check_certificate(path: Path | None) -> None:
    if path is None:
        raise NobodyKnows("no certificate is set")
    left = certificates.ends_at(path) - datetime.now(UTC)
    if left.total_seconds() <= 0:
        raise PacsliteError("the certificate of the DICOM listener has ended")
    if left.days < _CERTIFICATE_DAYS:
        raise Doubtful(f"the certificate of the DICOM listener ends in {left.days} days")


def _check_role(data: Path, role: str) -> None:
    mine = [one for one in roles(data) if one.role == role]
    if not mine:
        raise NobodyKnows("no supervisor on this machine and data runs it")
    down = [f"{one.name} is {one.state}{f' ({one.last_exit})' if one.last_exit else ''}" for one in mine if one.state != run_state.READY]
    if down:
        raise Doubtful("; ".join(down))
