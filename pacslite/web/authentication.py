"""The hook before every handler: who calls, and whether they have the right that the route names."""

from __future__ import annotations

from typing import Any

from pacslite.core.access import LOCAL_ADMIN, require
from pacslite.web.messages import Request, Route


def authenticate(pacs: Any, request: Request, route: Route) -> None:
    """Fills `request.principal`; raises Unauthenticated or Forbidden."""
    if not pacs.settings.auth:
        request.principal = LOCAL_ADMIN
    require(request.principal, route.right)
