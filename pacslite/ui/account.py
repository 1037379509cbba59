"""The page of one's own account: the password, and tokens for programs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pacslite.core import api_tokens, users
from pacslite.core.access import RIGHTS_OF_ROLE, SCOPES, Right
from pacslite.errors import Conflict, Forbidden, InvalidForm, NotFound, TooManyRequests
from pacslite.ui.pages import first, form_of, login_path, page, prefix_of, redirect, visitor
from pacslite.web.audit import origin_of
from pacslite.web.messages import Reply, Request, Route

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.core.access import Principal

_DAYS = (7, 30, 90, 365)
_LONGEST_NAME = 100


def account(pacs: Pacs, request: Request) -> Reply:
    """The page; who is not logged in comes to it by the login page."""
    if not pacs.settings.auth:
        return redirect(prefix_of(request) + "/")
    found = visitor(pacs, request)
    if found is None:
        return redirect(login_path(request, prefix_of(request) + "/account"))
    return _page(pacs, request, found.principal, done=next(iter(request.arguments("done")), ""))


def change_password(pacs: Pacs, request: Request) -> Reply:
    """A new password, for which the present one is asked."""
    principal, form = _caller(request), form_of(request)
    new = first(form, "new_password")
    if new != first(form, "new_password_again"):
        return _page(pacs, request, principal, 400, password_error="The two new passwords differ.")
    try:
        pacs.limits.login(principal.username, request.address)
        users.change_own_password(pacs.accounts, principal, first(form, "current_password"), new, origin_of(request))
    except InvalidForm as error:
        return _page(pacs, request, principal, 400, password_error=_sentence(error))
    except TooManyRequests as error:
        reply = _page(pacs, request, principal, 429, password_error=f"Too many attempts. Try again in {error.retry_after_s} s.")
        reply.headers.append(("Retry-After", str(error.retry_after_s)))
        return reply
    return redirect(prefix_of(request) + "/account?done=password")


def make_token(pacs: Pacs, request: Request) -> Reply:
    """A token, shown once in the answer."""
    principal, form = _caller(request), form_of(request)
    name, days = first(form, "name").strip(), first(form, "days")
    scopes = [Right(scope) for scope in form.get("scope", []) if scope in SCOPES]
    if not name or len(name) > _LONGEST_NAME or days not in map(str, _DAYS):
        return _page(pacs, request, principal, 400, token_error="Give the token a name of at most 100 characters.")
    assert principal.account_id is not None
    try:
        made = api_tokens.create(pacs.accounts, principal, principal.account_id, name, scopes, int(days) * 86400, origin_of(request))
    except InvalidForm:
        return _page(pacs, request, principal, 400, token_error="Choose what the token may do.")
    except (Forbidden, Conflict) as error:
        return _page(pacs, request, principal, 403, token_error=str(error))
    return _page(pacs, request, principal, 201, made=made)


def remove_token(pacs: Pacs, request: Request, token_id: str) -> Reply:
    """Ends a token."""
    with suppress(NotFound):  # removed by another window
        api_tokens.remove(pacs.accounts, _caller(request), token_id, origin_of(request))
    return redirect(prefix_of(request) + "/account?done=token")


def _page(
    pacs: Pacs,
    request: Request,
    principal: Principal,
    status: int = 200,
    *,
    password_error: str = "",
    token_error: str = "",
    done: str = "",
    made: api_tokens.NewToken | None = None,
) -> Reply:
    assert principal.account_id is not None
    with_password = users.get(pacs.accounts, principal.account_id).password_hash is not None
    return page(
        request,
        "account.html",
        status,
        principal=principal,
        with_password=with_password,
        tokens=api_tokens.listed(pacs.accounts, principal, principal.account_id),
        scopes=sorted(RIGHTS_OF_ROLE[principal.role]),
        days=_DAYS,
        least=pacs.settings.password_min_length,
        password_error=password_error,
        token_error=token_error,
        done={"password": "The password is changed.", "token": "The token is removed."}.get(done, ""),
        made=made,
    )


def _caller(request: Request) -> Principal:
    principal = request.principal
    if principal is None or principal.account_id is None or principal.kind != "user":
        raise Conflict("This page is for the browsers of users who are logged in.")
    return principal


def _sentence(error: InvalidForm) -> str:
    return "; ".join(f"The {name.replace('_', ' ')} {message}." for name, message in error.fields) or str(error)


ROUTES = (
    Route("GET", "/account", account, Right.PUBLIC),
    Route("POST", "/account/password", change_password, Right.SELF, action="user.password"),
    Route("POST", "/account/tokens", make_token, Right.SELF, action="token.create"),
    Route("POST", "/account/tokens/<token_id>/remove", remove_token, Right.SELF, action="token.delete"),
)
