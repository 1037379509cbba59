"""`/tokens`: API tokens of the caller, and for administrators of anybody."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pacslite.core import api_tokens
from pacslite.core.access import Right
from pacslite.errors import Conflict
from pacslite.web.audit import origin_of
from pacslite.web.forms import parse, rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import Operation, json_reply
from pacslite.web.pages import PAGE, page_of

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.core.access import Principal

Scope = Literal["dicomweb:read", "dicomweb:write", "files:read", "files:write", "jobs", "admin"]


@dataclass(frozen=True, slots=True)
class TokenForm:
    """A token to make."""

    name: str = field(metadata=rule("What it is for.", minLength=1, maxLength=128))
    scopes: tuple[Scope, ...] = field(metadata=rule("What may be done by it; never more than its owner's role gives."))
    expires_in: int = field(
        default=api_tokens.DEFAULT_SECONDS,
        metadata=rule("Seconds until it is over; 90 days by default.", minimum=1, maximum=api_tokens.LONGEST_SECONDS),
    )
    user_id: int | None = field(
        default=None, metadata=rule("Its owner, for administrators; else the caller.", minimum=1, maximum=2**63 - 1)
    )


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token, without its secret."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: str
    expires_at: str
    last_used_at: str | None = field(metadata=rule("To the hour."))


@dataclass(frozen=True, slots=True)
class NewTokenView:
    """A token with its secret, which is told only now."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    expires_at: str
    token: str


@dataclass(frozen=True, slots=True)
class TokenList:
    """A page of tokens."""

    items: tuple[TokenView, ...]
    total: int
    next: str | None


def _view(token: api_tokens.ApiToken) -> TokenView:
    scopes = tuple(token.scopes.split())
    return TokenView(token.id, token.name, scopes, token.created_at, token.expires_at, token.last_used_at)  # type: ignore[arg-type]


def list_tokens(pacs: Pacs, request: Request) -> Reply:
    """A page of the caller's tokens."""
    caller = _caller(request)
    if caller.account_id is None:
        return json_reply(page_of(request, [], key=str))
    found = api_tokens.listed(pacs.accounts, caller, caller.account_id)
    return json_reply(page_of(request, sorted(map(_view, found), key=_order), key=_order))


def create_token(pacs: Pacs, request: Request) -> Reply:
    """Makes a token."""
    form, caller = parse(TokenForm, request), _caller(request)
    owner = form.user_id or caller.account_id
    if owner is None:
        raise Conflict("Nobody logs in here (--no-auth): name the owner by user_id.")
    scopes = [Right(scope) for scope in form.scopes]
    made = api_tokens.create(pacs.accounts, caller, owner, form.name, scopes, form.expires_in, origin_of(request))
    token = made.token
    return json_reply(NewTokenView(token.id, token.name, tuple(token.scopes.split()), token.expires_at, made.secret), 201)  # type: ignore[arg-type]


def remove_token(pacs: Pacs, request: Request, token_id: str) -> Reply:
    """Ends a token."""
    api_tokens.remove(pacs.accounts, _caller(request), token_id, origin_of(request))
    return Reply(204)


def _order(token: TokenView) -> str:
    return f"{token.created_at} {token.id}"


def _caller(request: Request) -> Principal:
    assert request.principal is not None
    return request.principal


OPERATIONS = (
    Operation("GET", "/tokens", list_tokens, "The caller's API tokens", "tokens", {200: TokenList}, Right.SELF, parameters=PAGE),
    Operation(
        "POST",
        "/tokens",
        create_token,
        "Make an API token; its secret is shown this once",
        "tokens",
        {201: NewTokenView},
        Right.SELF,
        form=TokenForm,
        problems=(403, 404, 409),
    ),
    Operation(
        "DELETE", "/tokens/{token_id}", remove_token, "End an API token, at once", "tokens", {204: None}, Right.SELF, problems=(404,)
    ),
)
