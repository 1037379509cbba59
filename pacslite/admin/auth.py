"""`/auth`: logging in and out, for programs by tokens and for browsers by a cookie."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pacslite.core import logins
from pacslite.core.access import Right
from pacslite.core.accounts import Recognized
from pacslite.errors import Conflict, Unauthenticated
from pacslite.web.audit import login_attempt, origin_of
from pacslite.web.authentication import (
    browser_login_of,
    check_same_origin,
    no_session_cookie,
    principal_of,
    session_cookie,
)
from pacslite.web.forms import parse, rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import Operation, json_reply

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.core.access import Principal

_NAME = rule("Name of the user.", minLength=1, maxLength=256)
_PASSWORD = rule("Password.", minLength=1, maxLength=1024)
_REFRESH = rule("A refresh token, which serves once.", minLength=1, maxLength=256)


@dataclass(frozen=True, slots=True)
class LoginForm:
    """Who logs in."""

    username: str = field(metadata=_NAME)
    password: str = field(metadata=_PASSWORD)


@dataclass(frozen=True, slots=True)
class RefreshForm:
    """What new tokens are asked with."""

    refresh_token: str = field(metadata=_REFRESH)


@dataclass(frozen=True, slots=True)
class LogoutForm:
    """The login to end, beside that of the access token shown."""

    refresh_token: str | None = field(default=None, metadata=_REFRESH)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a program shows from now on: the access token with every call, the refresh token once, for the next pair."""

    access_token: str
    token_type: str
    expires_in: int = field(metadata=rule("Seconds."))
    refresh_token: str = field()


@dataclass(frozen=True, slots=True)
class SessionView:
    """The login of a browser. Calls that change something show the token as X-CSRF-Token."""

    username: str
    role: str
    csrf_token: str
    expires_at: str


def login(pacs: Pacs, request: Request) -> Reply:
    """Access and refresh token for name and password."""
    _check_on(pacs)
    form = parse(LoginForm, request)
    with login_attempt(pacs, request, form.username) as origin:
        pacs.limits.login(form.username, request.address)
        pair = logins.login(pacs.accounts, form.username, form.password, origin)
    return _tokens(pair)


def refresh(pacs: Pacs, request: Request) -> Reply:
    """The next pair of tokens."""
    _check_on(pacs)
    return _tokens(logins.refresh(pacs.accounts, parse(RefreshForm, request).refresh_token, origin_of(request)))


def logout(pacs: Pacs, request: Request) -> Reply:
    """Ends the login of the tokens that are shown; either of them will do, so that an access token that is over does not keep it."""
    _check_on(pacs)
    principal = _principal_if_any(pacs, request)
    shown = request.header("Content-Type") is not None
    if principal is None and not shown:
        raise Unauthenticated("This needs a login.")
    refresh_token = parse(LogoutForm, request).refresh_token if shown else None
    logins.logout(pacs.accounts, principal, refresh_token, origin_of(request))
    request.principal = principal
    return Reply(204, [("Cache-Control", "no-store")])


def begin_session(pacs: Pacs, request: Request) -> Reply:
    """A cookie for name and password."""
    _check_on(pacs)
    check_same_origin(request)
    form = parse(LoginForm, request)
    with login_attempt(pacs, request, form.username) as origin:
        pacs.limits.login(form.username, request.address)
        begun = logins.begin_browser_login(pacs.accounts, form.username, form.password, origin)
    return json_reply(_view(begun.recognized), headers=[session_cookie(request, begun, pacs.settings.session_seconds)])


def get_session(pacs: Pacs, request: Request) -> Reply:
    """The login of the cookie."""
    return json_reply(_view(_login_of_browser(pacs, request)))


def end_session(pacs: Pacs, request: Request) -> Reply:
    """Ends the login of the cookie."""
    logins.logout(pacs.accounts, _login_of_browser(pacs, request).principal, None, origin_of(request))
    return Reply(204, [no_session_cookie(request), ("Cache-Control", "no-store")])


def _login_of_browser(pacs: Pacs, request: Request) -> Recognized:
    found = browser_login_of(pacs, request) if pacs.settings.auth else None
    if found is None:
        raise Conflict("This call was not made with the cookie of a browser.")
    return found


def _principal_if_any(pacs: Pacs, request: Request) -> Principal | None:
    try:
        return principal_of(pacs, request)
    except Unauthenticated:
        return None


def _check_on(pacs: Pacs) -> None:
    if not pacs.settings.auth:
        raise Conflict("Nobody logs in here (--no-auth).")


def _tokens(pair: logins.TokenPair) -> Reply:
    return json_reply(Tokens(pair.access_token, "bearer", pair.expires_in, pair.refresh_token))


def _view(login: Recognized) -> SessionView:
    expires_at = datetime.fromtimestamp(login.until, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return SessionView(login.principal.username, login.principal.role.value, login.csrf_token, expires_at)


_LOGIN = (401, 409, 429)
OPERATIONS = (
    Operation(
        "POST", "/auth/login", login, "Log in by name and password", "auth", {200: Tokens}, Right.PUBLIC, form=LoginForm, problems=_LOGIN
    ),
    Operation(
        "POST",
        "/auth/refresh",
        refresh,
        "The next tokens for a refresh token; one that is shown twice ends the login",
        "auth",
        {200: Tokens},
        Right.PUBLIC,
        form=RefreshForm,
        problems=_LOGIN,
    ),
    Operation(
        "POST",
        "/auth/logout",
        logout,
        "End the login of the tokens shown",
        "auth",
        {204: None},
        Right.PUBLIC,
        form=LogoutForm,
        problems=(401, 409),
    ),
    Operation(
        "POST",
        "/auth/session",
        begin_session,
        "Log a browser in: it gets a cookie",
        "auth",
        {200: SessionView},
        Right.PUBLIC,
        form=LoginForm,
        problems=(*_LOGIN, 403),
        action="auth.login",
    ),
    Operation(
        "GET", "/auth/session", get_session, "Who is logged in by the cookie", "auth", {200: SessionView}, Right.SELF, problems=(401, 409)
    ),
    Operation(
        "DELETE",
        "/auth/session",
        end_session,
        "End the login of the cookie",
        "auth",
        {204: None},
        Right.SELF,
        problems=(401, 403, 409),
        action="auth.logout",
    ),
)
