"""Administration over REST: health, peers, undeleting, and the description of the interface itself."""

from __future__ import annotations

from pacslite.admin import (
    access,
    audit,
    auth,
    changes,
    description,
    health,
    jobs,
    metrics,
    peers,
    quotas,
    remote,
    shares,
    studies,
    tokens,
    users,
)
from pacslite.web.messages import Route
from pacslite.web.operations import Operation
from pacslite.web.operations import routes as routes_of

OPERATIONS: tuple[Operation, ...] = (
    *health.OPERATIONS,
    *metrics.OPERATIONS,
    *peers.OPERATIONS,
    *remote.OPERATIONS,
    *jobs.OPERATIONS,
    *changes.OPERATIONS,
    *studies.OPERATIONS,
    *audit.OPERATIONS,
    *auth.OPERATIONS,
    *users.OPERATIONS,
    *quotas.OPERATIONS,
    *tokens.OPERATIONS,
    *access.OPERATIONS,
    *shares.OPERATIONS,
)


def routes() -> list[Route]:
    """The routes of all operations, and of the two that describe them."""
    return [*routes_of((*OPERATIONS, *description.describe(OPERATIONS))), *shares.ROUTES]
