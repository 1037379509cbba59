"""All routes of the pages."""

from __future__ import annotations

from pacslite.ui import account, login, oidc, pages, viewer

ROUTES = (*viewer.ROUTES, *pages.ROUTES, *login.ROUTES, *oidc.ROUTES, *account.ROUTES)
