"""All routes of the pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pacslite.core.access import Right
from pacslite.ui import account, login, oidc, pages, viewer
from pacslite.web.messages import Reply, Request, Route

if TYPE_CHECKING:
    from pacslite.app import Pacs


def routes(conformance: Callable[[], str]) -> list[Route]:
    """The routes; the text of the conformance statement is made when somebody asks for it."""

    def get_conformance(pacs: Pacs, request: Request) -> Reply:
        """The conformance statement, which says nothing of anybody's data."""
        return Reply(200, [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-cache")], conformance().encode())

    statement = Route("GET", "/conformance", get_conformance, Right.PUBLIC)
    return [*viewer.ROUTES, *pages.ROUTES, *login.ROUTES, *oidc.ROUTES, *account.ROUTES, statement]
