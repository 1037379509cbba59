"""The hooks around authentication: calls of one kind by one account, or from one address, within a minute."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pacslite.core.limits import API, DICOMWEB, FILES
from pacslite.errors import Unauthenticated
from pacslite.web.messages import Request, Route
from pacslite.web.site import Hook

# Balancers and monitors ask as often as they like; what logs in is counted where the password is looked at.
_UNCOUNTED = ("/api/v1/health/", "/health/", "/metrics", "/api/v1/metrics")


def limited(authenticate: Hook) -> tuple[Hook, ...]:
    """The hook that finds who calls, and the limits on both who is found and who is not."""

    def recognize(pacs: Any, request: Request, route: Route) -> None:
        try:
            authenticate(pacs, request, route)
        except Unauthenticated:
            # Nobody known comes with wrong credentials as often as they like.
            pacs.limits.call(API, None, request.address)
            raise

    return recognize, limit_rate


def limit_rate(pacs: Any, request: Request, route: Route) -> None:
    """Counts the call; raises TooManyRequests."""
    kind = kind_of(route.rule)
    if kind and pacs.limits.is_limited(kind):
        pacs.limits.call(kind, request.principal, request.address)


@lru_cache(maxsize=512)
def kind_of(rule: str) -> str:
    """Which limit counts for the routes of a rule; "" for none, as for pages and pictures of the site."""
    if rule.startswith(_UNCOUNTED):
        return ""
    if rule.startswith("/api/v1/files/") and rule.endswith(("/content", "/signed")):
        return FILES
    if rule.startswith("/api/v1"):
        return API
    return DICOMWEB if rule.startswith("/dicom-web") else ""
