"""Logging in by an OpenID provider: to it, back from it, and out of it."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import re
import time
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pacslite.core import external_logins
from pacslite.core.access import Right
from pacslite.errors import Forbidden, NotFound, PeerError, TooManyRequests, Unauthenticated
from pacslite.ui.login import form_page
from pacslite.ui.pages import local_path, prefix_of, redirect
from pacslite.web.audit import login_attempt
from pacslite.web.authentication import cookie_name, session_cookie
from pacslite.web.messages import Reply, Request, Route

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.oidc.provider import Provider

COOKIE = "pacslite_oidc"
_LIFE_S = 600
_VALUE = re.compile(r"[A-Za-z0-9_=.-]{1,4000}")
_log = logging.getLogger(__name__)


def start(pacs: Pacs, request: Request) -> Reply:
    """To the provider, with a cookie that tells this browser's answer from those of others."""
    provider, attempt = _provider(pacs), external_logins.new_attempt()
    then = local_path(request, next(iter(request.arguments("next")), None))
    pacs.limits.login("", request.address)
    try:
        url = provider.authorization_url(attempt, _callback(request))
    except PeerError as error:
        return _failed(pacs, request, then, 502, error)
    kept = _signed(pacs, {"s": attempt.state, "n": attempt.nonce, "v": attempt.verifier, "t": then, "e": int(time.time()) + _LIFE_S})
    return redirect(url, [_cookie(request, kept, _LIFE_S)])


def callback(pacs: Pacs, request: Request) -> Reply:
    """Back from the provider, with a code for this browser's own attempt, which serves once."""
    provider, kept = _provider(pacs), _kept(pacs, request)
    given = {name: request.arguments(name) for name in ("state", "code", "iss", "error")}
    then = local_path(request, kept["t"] if kept else None)
    try:
        with login_attempt(pacs, request, "") as origin:
            pacs.limits.login("", request.address)
            if kept is None or given["state"] != [kept["s"]]:
                raise Unauthenticated("This is no answer to a login of this browser.")
            if len(given["code"]) != 1:
                raise Unauthenticated("The provider did not log in anybody.")
            attempt = external_logins.Attempt(kept["s"], kept["n"], kept["v"])
            claims = provider.claims(given["code"][0], next(iter(given["iss"]), None), attempt, _callback(request))
            begun = external_logins.begin(pacs.accounts, claims, origin)
            request.principal = begun.recognized.principal
    except Unauthenticated as error:
        return _failed(pacs, request, then, 401, error)
    except Forbidden as error:
        return _failed(pacs, request, then, 403, error)
    except TooManyRequests as error:
        return _failed(pacs, request, then, 429, error)
    except PeerError as error:
        return _failed(pacs, request, then, 502, error)
    return redirect(then, [session_cookie(request, begun, pacs.settings.session_seconds), _cookie(request, "", 0)])


def log_out(pacs: Pacs, request: Request) -> Reply:
    """To where the browser's login with the provider ends, for who wants that too."""
    back = request.base_url + "/login?out=1"
    return redirect(_provider(pacs).end_session_url(back) or prefix_of(request) + "/login?out=1")


def _provider(pacs: Pacs) -> Provider:
    found = external_logins.provider_of(pacs.settings) if pacs.settings.auth else None
    if found is None:
        raise NotFound("There is no login by another provider here.")
    return found


def _failed(pacs: Pacs, request: Request, then: str, status: int, error: Exception) -> Reply:
    _log.info("login by the OpenID provider failed", extra={"reason": str(error)})
    reply = form_page(pacs, request, then, status, f"The login failed. {error}")
    if isinstance(error, TooManyRequests):
        reply.headers.append(("Retry-After", str(error.retry_after_s)))
    reply.headers.append(_cookie(request, "", 0))
    return reply


def _callback(request: Request) -> str:
    return request.base_url + "/login/oidc/callback"


def _key(pacs: Pacs) -> bytes:
    key: bytes = pacs.accounts.keys.derive("oidc")
    return key


def _signed(pacs: Pacs, values: dict[str, Any]) -> str:
    text = base64.urlsafe_b64encode(json.dumps(values, separators=(",", ":")).encode()).decode()
    return f"{text}.{hmac.digest(_key(pacs), text.encode(), 'sha256').hex()}"


def _kept(pacs: Pacs, request: Request) -> dict[str, Any] | None:
    """What `start` has put into the cookie; None when it is not there, altered, or too old."""
    try:
        morsel = SimpleCookie((request.header("Cookie") or "")[:16384]).get(cookie_name(request, COOKIE))
    except CookieError:
        return None
    if morsel is None or not _VALUE.fullmatch(morsel.value):
        return None
    text, _, signature = morsel.value.partition(".")
    if not hmac.compare_digest(signature, hmac.digest(_key(pacs), text.encode(), "sha256").hex()):
        return None
    values: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text))
    return values if values["e"] > time.time() else None


def _cookie(request: Request, value: str, seconds: int) -> tuple[str, str]:
    secure = "; Secure" if request.is_secure else ""
    path = urlsplit(request.base_url).path or "/"
    return "Set-Cookie", f"{cookie_name(request, COOKIE)}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"


ROUTES = (
    Route("GET", "/login/oidc", start, Right.PUBLIC),
    Route("GET", "/login/oidc/callback", callback, Right.PUBLIC, action="auth.login"),
    Route("GET", "/login/oidc/logout", log_out, Right.PUBLIC),
)
