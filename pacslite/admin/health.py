"""`/health/live` and `/health/ready`: whether this process answers, and whether what it stands on works."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pacslite import __version__, run_state
from pacslite.core.access import Right
from pacslite.errors import OutOfSpace, PacsliteError, StorageError
from pacslite.run_state import RoleState
from pacslite.web.forms import rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import Operation, json_reply

if TYPE_CHECKING:
    from pacslite.app import Pacs

_LEAST_FREE_BYTES = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class Live:
    """This process answers."""

    status: Literal["live"]
    version: str


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the server stands on."""

    state: Literal["ok", "failed"]
    detail: str | None = field(default=None, metadata=rule("What is wrong."))


@dataclass(frozen=True, slots=True)
class Checks:
    """The things the server stands on."""

    catalog: Check
    storage: Check
    spool: Check


@dataclass(frozen=True, slots=True)
class Readiness:
    """`degraded` when requests are served but a process of this machine is down; `not-ready` (with 503) when a check failed."""

    status: Literal["ready", "degraded", "not-ready"]
    version: str
    checks: Checks
    roles: tuple[RoleState, ...] = field(metadata=rule("The processes that supervisors run on this machine and data."))


def get_live(pacs: Pacs, request: Request) -> Reply:
    """Answers."""
    return json_reply(Live("live", __version__))


def get_ready(pacs: Pacs, request: Request) -> Reply:
    """Looks at catalog, storage, spool and the processes."""
    checks = Checks(_checked(lambda: _check_catalog(pacs)), _checked(pacs.store.check), _checked(lambda: _check_spool(pacs)))
    states = run_state.read_all(pacs.settings.data)
    roles = tuple(role for state in states for role in state.roles)
    if "failed" in (checks.catalog.state, checks.storage.state, checks.spool.state):
        return json_reply(Readiness("not-ready", __version__, checks, roles), 503, [("Retry-After", "2")])
    served = all(role.state == run_state.READY for role in roles)
    return json_reply(Readiness("ready" if served else "degraded", __version__, checks, roles))


def _checked(check: Callable[[], None]) -> Check:
    try:
        check()
    except PacsliteError as error:
        return Check("failed", str(error))
    return Check("ok")


def _check_catalog(pacs: Pacs) -> None:
    pacs.catalog.check_revision()
    pacs.catalog.check_writable()


def _check_spool(pacs: Pacs) -> None:
    try:
        free = shutil.disk_usage(pacs.settings.spool_directory).free
    except OSError as error:
        raise StorageError(f"the spool cannot be read: {error.strerror}") from None
    if free < _LEAST_FREE_BYTES:
        raise OutOfSpace(f"the spool has {free} bytes left")


OPERATIONS = (
    Operation(
        "GET", "/health/live", get_live, "Whether the process answers", "health", {200: Live}, Right.PUBLIC, also_at=("/health/live",)
    ),
    Operation(
        "GET",
        "/health/ready",
        get_ready,
        "Whether what it stands on works",
        "health",
        {200: Readiness, 503: Readiness},
        Right.PUBLIC,
        also_at=("/health/ready",),
    ),
)
