"""`/metrics`, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from pacslite import metrics
from pacslite.core import lookups
from pacslite.core.access import Right
from pacslite.web.messages import Reply, Request, Route
from pacslite.web.operations import Operation

if TYPE_CHECKING:
    from pacslite.app import Pacs


def get_metrics(pacs: Pacs, request: Request) -> Reply:
    """What all processes of this data have counted."""
    body = metrics.exposition(pacs.settings.data, lookups.samples(pacs))
    return Reply(200, [("Content-Type", metrics.CONTENT_TYPE), ("Cache-Control", "no-store")], body)


def public(routes: Iterable[Route]) -> list[Route]:
    """The routes with `/metrics` for everybody, which is a matter of settings."""
    return [replace(route, right=Right.PUBLIC) if route.handler is get_metrics else route for route in routes]


OPERATIONS = (
    Operation("GET", "/metrics", get_metrics, "What is counted, for Prometheus", "health", {200: None}, Right.ADMIN, also_at=("/metrics",)),
)
