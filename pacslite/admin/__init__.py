"""Administration over REST: health, peers, undeleting, and the description of the interface itself."""

from __future__ import annotations

from collections.abc import Iterable

from pacslite.admin import (
    access,
    audit,
    auth,
    changes,
    description,
    health,
    jobs,
    metrics,
    patients,
    peers,
    quotas,
    remote,
    renditions,
    shares,
    storage,
    studies,
    tokens,
    users,
)
from pacslite.web.exactness import check_of
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
    *patients.OPERATIONS,
    *audit.OPERATIONS,
    *auth.OPERATIONS,
    *users.OPERATIONS,
    *quotas.OPERATIONS,
    *tokens.OPERATIONS,
    *access.OPERATIONS,
    *shares.OPERATIONS,
    *storage.OPERATIONS,
    *renditions.OPERATIONS,
)


def routes(more: Iterable[Operation] = ()) -> list[Route]:
    """The routes of all operations, of `more` of another adapter too, and of the two that describe them."""
    operations = (*OPERATIONS, *more)
    return [*routes_of((*operations, *description.describe(operations)), check_of), *shares.ROUTES]
