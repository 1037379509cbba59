"""Logging in and out by a page, and the start page that says where to go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacslite.core import logins
from pacslite.core.access import Right
from pacslite.core.audit import change_of
from pacslite.errors import Busy, Conflict, TooManyRequests, Unauthenticated
from pacslite.ui.pages import first, form_of, local_path, login_path, page, prefix_of, redirect, visitor
from pacslite.web.audit import login_attempt, origin_of
from pacslite.web.authentication import check_same_origin, no_session_cookie, session_cookie
from pacslite.web.messages import Headers, Reply, Request, Route

if TYPE_CHECKING:
    from pacslite.app import Pacs


def home(pacs: Pacs, request: Request) -> Reply:
    """The start page: who is logged in, and where to go."""
    login = visitor(pacs, request)
    principal = login.principal if login is not None else None
    root = prefix_of(request)
    return page(
        request,
        "start.html",
        principal=principal,
        auth=pacs.settings.auth,
        aet=pacs.settings.aet,
        viewer=root + "/viewer/" if principal or not pacs.settings.auth else login_path(request, root + "/viewer/"),
        docs=root + "/api/v1/docs" if principal or not pacs.settings.auth else login_path(request, root + "/api/v1/docs"),
    )


def login_page(pacs: Pacs, request: Request) -> Reply:
    """The form, or at once where it would lead to when somebody is logged in."""
    then = local_path(request, next(iter(request.arguments("next")), None))
    if not pacs.settings.auth or visitor(pacs, request) is not None:
        return redirect(then)
    return form_page(pacs, request, then)


def log_in(pacs: Pacs, request: Request) -> Reply:
    """Takes name and password, and leads on with a cookie."""
    if not pacs.settings.auth:
        raise Conflict("Nobody logs in here (--no-auth).")
    check_same_origin(request)
    form = form_of(request)
    username, password, then = first(form, "username"), first(form, "password"), local_path(request, first(form, "next"))
    try:
        with login_attempt(pacs, request, username) as origin:
            pacs.limits.login(username, request.address)
            begun = logins.begin_browser_login(pacs.accounts, username, password, origin)
    except Unauthenticated:
        return form_page(pacs, request, then, 401, "The name or the password is wrong.", username)
    except TooManyRequests as error:
        told = f"Too many attempts. Try again in {_span(error.retry_after_s)}."
        return form_page(pacs, request, then, 429, told, username, [("Retry-After", str(error.retry_after_s))])
    except Busy:
        return form_page(pacs, request, then, 503, "The server is busy. Try again in a moment.", username, [("Retry-After", "2")])
    return redirect(then, [session_cookie(request, begun, pacs.settings.session_seconds)])


def log_out(pacs: Pacs, request: Request) -> Reply:
    """Ends the login of the cookie."""
    found = visitor(pacs, request)
    if found is not None:
        request.principal = found.principal
        logins.logout(pacs.accounts, found.principal, None, origin_of(request))
    else:
        pacs.audit.record(change_of(origin_of(request), "auth.logout", reason="nobody was logged in"))
    return redirect(prefix_of(request) + "/login?out=1", [no_session_cookie(request), ("Clear-Site-Data", '"cache"')])


def form_page(
    pacs: Pacs, request: Request, then: str, status: int = 200, error: str = "", username: str = "", headers: Headers | None = None
) -> Reply:
    """The form, with what went wrong."""
    more: Headers = [("WWW-Authenticate", 'Bearer realm="pacslite"')] if status == 401 else []
    out = bool(request.arguments("out"))
    return page(
        request,
        "login.html",
        status,
        [*more, *(headers or [])],
        then=then,
        error=error,
        username=username[:256],
        out=out,
        oidc_name=pacs.settings.oidc_name if pacs.settings.oidc_issuer else "",
    )


def _span(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{-(-seconds // 60)} min"


ROUTES = (
    Route("GET", "/", home, Right.PUBLIC),
    Route("GET", "/login", login_page, Right.PUBLIC),
    Route("POST", "/login", log_in, Right.PUBLIC, action="auth.login"),
    Route("POST", "/logout", log_out, Right.PUBLIC, action="auth.logout"),
)
