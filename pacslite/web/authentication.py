"""The hook before every handler: who calls, and whether they have the right that the route names.

Programs show a token in `Authorization: Bearer`, browsers a cookie. A browser sends its cookie whoever asks it to, so what
changes something has to prove that a page of this server asked (`_check_origin`).
"""

from __future__ import annotations

import hmac
import re
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pacslite.core import shares
from pacslite.core.access import LOCAL_ADMIN, Principal, Right, require
from pacslite.core.accounts import Recognized
from pacslite.errors import Forbidden, Unauthenticated
from pacslite.web.messages import Request, Route

if TYPE_CHECKING:
    from pacslite.core.logins import BrowserLogin

COOKIE = "pacslite_session"
SHARE_COOKIE = "pacslite_share"
CSRF_HEADER = "X-CSRF-Token"
_BEARER = re.compile(r"Bearer +([A-Za-z0-9._~+/=-]+) *", re.IGNORECASE)
_SECRET = re.compile(r"[A-Za-z0-9_-]{20,100}")
_LOOPBACK = re.compile(r"127(\.\d{1,3}){3}|::1|::ffff:127(\.\d{1,3}){3}|")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LONGEST_COOKIES = 16384


def authenticate(pacs: Any, request: Request, route: Route) -> None:
    """Fills `request.principal`; raises Unauthenticated or Forbidden."""
    if route.right is Right.PUBLIC:
        return
    request.principal = principal_of(pacs, request)
    require(request.principal, route.right)


def principal_of(pacs: Any, request: Request) -> Principal | None:
    """Who calls, None when no credential is shown; raises Unauthenticated for one that does not count, Forbidden for a forged form."""
    if not pacs.settings.auth:
        if request.method not in _SAFE_METHODS:
            _check_local_origin(request, pacs.settings.cors_origins)
        return _local(request)
    authorization = request.header("Authorization")
    if authorization is not None:
        found = _BEARER.fullmatch(authorization)
        if found is None:
            raise Unauthenticated("Only bearer tokens are taken.", invalid=True)
        principal: Principal = pacs.accounts.recognize(found[1])
        return principal
    opened = _cookie(request, SHARE_COOKIE)
    try:
        recognized = browser_login_of(pacs, request)
    except Unauthenticated:
        if opened is None:
            raise
        recognized = None  # a login that is over does not stand in the way of a link
    if recognized is not None:
        return recognized.principal
    return shares.recognize(pacs, opened) if opened is not None and request.method in _SAFE_METHODS else None


def browser_login_of(pacs: Any, request: Request) -> Recognized | None:
    """The login that a browser's cookie stands for, None when there is no cookie; raises as `principal_of` does."""
    secret = _cookie(request)
    if secret is None:
        return None
    recognized: Recognized = pacs.accounts.recognize_cookie(secret)
    if request.method not in _SAFE_METHODS:
        _check_origin(request, recognized.csrf_token)
    return recognized


def check_same_origin(request: Request) -> None:
    """Raises Forbidden when a browser says that a page of another site has asked."""
    site, origin = request.header("Sec-Fetch-Site"), request.header("Origin")
    if site not in (None, "same-origin", "none") or (origin is not None and not _is_ours(request, origin)):
        raise Forbidden("A page of another site asked for this.")


def _check_origin(request: Request, csrf_token: str) -> None:
    """Raises Forbidden unless a page of ours asked: it knows the token, or the browser says so by headers no page can set."""
    check_same_origin(request)
    given = request.header(CSRF_HEADER)
    if given is not None:
        if not hmac.compare_digest(given.encode(), csrf_token.encode()):
            raise Forbidden(f"{CSRF_HEADER} is not that of this login.")
        return
    if request.header("Sec-Fetch-Site") != "same-origin" and request.header("Origin") is None:
        raise Forbidden(f"A call with a cookie that changes something needs {CSRF_HEADER}.")


def _check_local_origin(request: Request, allowed: tuple[str, ...]) -> None:
    """Raises Forbidden when a page of another site asks a server without logins: a browser sends it here without any cookie.

    A proxy may have changed Host, so that the browser's own word for "the same" goes before a look at Origin.
    """
    site, origin = request.header("Sec-Fetch-Site"), request.header("Origin")
    is_ours = site in ("same-origin", "none") if site is not None else origin is None or _is_ours(request, origin)
    if not is_ours and origin not in allowed:
        raise Forbidden("A page of another site asked for this.")


def _is_ours(request: Request, origin: str) -> bool:
    ours = urlsplit(request.base_url)
    return origin.lower() == f"{ours.scheme}://{_without_default_port(ours.scheme, ours.netloc)}".lower()


def _without_default_port(scheme: str, authority: str) -> str:
    return authority.removesuffix({"http": ":80", "https": ":443"}.get(scheme, ""))


def session_cookie(request: Request, login: BrowserLogin, seconds: int) -> tuple[str, str]:
    """The header that gives a browser its cookie."""
    return _set_cookie(request, login.secret, seconds)


def no_session_cookie(request: Request) -> tuple[str, str]:
    """The header that takes the cookie away."""
    return _set_cookie(request, "", 0)


def _set_cookie(request: Request, value: str, seconds: int, name: str = COOKIE) -> tuple[str, str]:
    path = urlsplit(request.base_url).path or "/"
    secure = "; Secure" if request.is_secure else ""
    return "Set-Cookie", f"{cookie_name(request, name)}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"


def cookie_name(request: Request, name: str = COOKIE) -> str:
    """The name by which a browser lets nobody else set the cookie: other hosts of the domain, or a page without TLS (RFC 6265bis 4.1.3)."""
    if not request.is_secure:
        return name
    return ("__Secure-" if urlsplit(request.base_url).path.strip("/") else "__Host-") + name


def share_cookie(request: Request, value: str, seconds: int) -> tuple[str, str]:
    """The header that lets a browser see what a link shares."""
    return _set_cookie(request, value, seconds, SHARE_COOKIE)


def _cookie(request: Request, name: str = COOKIE) -> str | None:
    given = request.header("Cookie")
    if given is None or name not in given or len(given) > _LONGEST_COOKIES:
        return None
    try:
        morsel = SimpleCookie(given).get(cookie_name(request, name))
    except CookieError:
        return None
    if morsel is None or not morsel.value:
        return None
    if not _SECRET.fullmatch(morsel.value):
        raise Unauthenticated("The cookie is not one of this server.", invalid=True)
    return morsel.value


def _local(request: Request) -> Principal:
    """Everybody on this machine, where nobody logs in; raises Forbidden for others, however they came to be let in."""
    if not _LOOPBACK.fullmatch(request.environ.get("REMOTE_ADDR", "")):
        raise Forbidden("Without logins only this machine is served.")
    return LOCAL_ADMIN
