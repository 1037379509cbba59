"""`/health/live` and `/health/ready`: whether this process answers, and whether what it stands on works."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pacslite import __version__
from pacslite.core import health
from pacslite.core.access import Right
from pacslite.run_state import READY, RoleState
from pacslite.web.forms import rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import Operation, json_reply

if TYPE_CHECKING:
    from pacslite.app import Pacs


@dataclass(frozen=True, slots=True)
class Live:
    """This process answers."""

    status: Literal["live"]
    version: str


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the server stands on; `unknown` when nothing on this machine tells, or none is set."""

    state: Literal["ok", "warning", "failed", "unknown"]
    detail: str | None = field(default=None, metadata=rule("What is wrong, or why nobody knows."))


@dataclass(frozen=True, slots=True)
class Checks:
    """The things the server stands on. Without the first three no request is served; the others degrade it."""

    catalog: Check
    storage: Check
    spool: Check
    disk: Check
    quota: Check
    video: Check
    clock: Check
    certificate: Check
    worker: Check
    dimse: Check


@dataclass(frozen=True, slots=True)
class Readiness:
    """`degraded` when requests are served but something else is wrong; `not-ready` (with 503) when catalog, storage or spool failed."""

    status: Literal["ready", "degraded", "not-ready"]
    version: str
    checks: Checks
    roles: tuple[RoleState, ...] = field(metadata=rule("The processes that supervisors run on this machine and data."))


def get_live(pacs: Pacs, request: Request) -> Reply:
    """Answers."""
    return json_reply(Live("live", __version__))


def get_ready(pacs: Pacs, request: Request) -> Reply:
    """Looks at everything, for a bounded time."""
    found = health.look(pacs)
    checks = Checks(**{name: Check(one.state, one.detail) for name, one in found.items()})  # type: ignore[arg-type]
    roles = health.roles(pacs.settings.data)
    if any(found[name].state == health.FAILED for name in health.NEEDED):
        return json_reply(Readiness("not-ready", __version__, checks, roles), 503, [("Retry-After", "2")])
    is_well = all(one.state in (health.OK, health.UNKNOWN) for one in found.values()) and all(role.state == READY for role in roles)
    return json_reply(Readiness("ready" if is_well else "degraded", __version__, checks, roles))


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
