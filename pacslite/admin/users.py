"""`/users`: the accounts, kept by administrators, and what everybody may know and change of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pacslite.core import users
from pacslite.core.access import Right, Role
from pacslite.web.audit import origin_of
from pacslite.web.forms import parse, rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import ROOT, Operation, json_reply
from pacslite.web.pages import PAGE, number_of, page_of

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.core.access import Principal

RoleName = Literal["admin", "clinician", "viewer", "service"]
_NAME = rule("1 to 64 letters, digits and .@+-_; told apart without regard to case.", minLength=1, maxLength=64)
_PASSWORD = rule("At least as long as the setting password_min_length wants, and none that is tried first.", minLength=1, maxLength=256)
_ROLE = rule("admin; clinician (reads and writes); viewer (reads); service (what its tokens say).")
_GROUPS = rule("Groups the user is in.", maxLength=64)


@dataclass(frozen=True, slots=True)
class UserForm:
    """A new user."""

    username: str = field(metadata=_NAME)
    password: str = field(metadata=_PASSWORD)
    role: RoleName = field(metadata=_ROLE)
    groups: tuple[str, ...] = field(default=(), metadata=_GROUPS)


@dataclass(frozen=True, slots=True)
class UserPatch:
    """What to change of a user; what is left out stays. It counts at once for everything the user is logged in by."""

    role: RoleName | None = field(default=None, metadata=_ROLE)
    password: str | None = field(default=None, metadata=_PASSWORD)
    disabled: bool | None = field(default=None, metadata=rule("Whether the user cannot log in."))
    groups: tuple[str, ...] | None = field(default=None, metadata=_GROUPS)


@dataclass(frozen=True, slots=True)
class PasswordForm:
    """A user's own new password; all other logins end."""

    current_password: str = field(metadata=rule("The old password.", minLength=1, maxLength=1024))
    password: str = field(metadata=_PASSWORD)


@dataclass(frozen=True, slots=True)
class UserView:
    """A user."""

    id: int
    username: str
    role: RoleName
    created_at: str
    disabled: bool
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UserList:
    """A page of the users, by name."""

    items: tuple[UserView, ...]
    total: int
    next: str | None


@dataclass(frozen=True, slots=True)
class Me:
    """Who calls; `id` is null where nobody logs in."""

    id: int | None
    username: str
    role: RoleName
    groups: tuple[str, ...]
    rights: tuple[str, ...] = field(metadata=rule("What this login may do."))


def _view(user: users.Account) -> UserView:
    return UserView(user.id, user.username, user.role, user.created_at, user.disabled, tuple(sorted(user.groups)))  # type: ignore[arg-type]


def list_users(pacs: Pacs, request: Request) -> Reply:
    """A page of users."""
    found = sorted(map(_view, users.listed(pacs.accounts)), key=lambda user: user.username)
    return json_reply(page_of(request, found, key=lambda user: user.username))


def create_user(pacs: Pacs, request: Request) -> Reply:
    """Adds a user."""
    form = parse(UserForm, request)
    made = users.create(pacs.accounts, form.username, form.password, Role(form.role), form.groups, origin_of(request))
    return json_reply(_view(made), 201, [("Location", f"{request.base_url}{ROOT}/users/{made.id}")])


def get_user(pacs: Pacs, request: Request, user_id: str) -> Reply:
    """One user."""
    return json_reply(_view(users.get(pacs.accounts, number_of(user_id, "user"))))


def patch_user(pacs: Pacs, request: Request, user_id: str) -> Reply:
    """Changes a user."""
    form = parse(UserPatch, request)
    wanted = users.Change(Role(form.role) if form.role else None, form.password, form.disabled, form.groups)
    return json_reply(_view(users.change(pacs.accounts, number_of(user_id, "user"), wanted, origin_of(request))))


def remove_user(pacs: Pacs, request: Request, user_id: str) -> Reply:
    """Forgets a user."""
    users.remove(pacs.accounts, number_of(user_id, "user"), origin_of(request))
    return Reply(204)


def get_me(pacs: Pacs, request: Request) -> Reply:
    """Who calls."""
    caller = _caller(request)
    rights = tuple(sorted(caller.rights))
    return json_reply(Me(caller.account_id, caller.username, caller.role.value, tuple(sorted(caller.groups)), rights))


def change_password(pacs: Pacs, request: Request) -> Reply:
    """Changes the caller's own password."""
    form = parse(PasswordForm, request)
    users.change_own_password(pacs.accounts, _caller(request), form.current_password, form.password, origin_of(request))
    return Reply(204)


def _caller(request: Request) -> Principal:
    assert request.principal is not None
    return request.principal


OPERATIONS = (
    Operation("GET", "/users", list_users, "The users", "users", {200: UserList}, Right.ADMIN, parameters=PAGE),
    Operation("POST", "/users", create_user, "Add a user", "users", {201: UserView}, Right.ADMIN, form=UserForm, problems=(409,)),
    Operation("GET", "/users/me", get_me, "Who calls, and what they may do", "users", {200: Me}, Right.SELF),
    Operation(
        "POST",
        "/users/me/password",
        change_password,
        "Change one's own password",
        "users",
        {204: None},
        Right.SELF,
        form=PasswordForm,
        problems=(409, 429),
    ),
    Operation("GET", "/users/{user_id}", get_user, "One user", "users", {200: UserView}, Right.ADMIN, problems=(404,)),
    Operation(
        "PATCH",
        "/users/{user_id}",
        patch_user,
        "Change role, password, groups of a user, or whether it may log in",
        "users",
        {200: UserView},
        Right.ADMIN,
        form=UserPatch,
        problems=(404, 409),
    ),
    Operation(
        "DELETE",
        "/users/{user_id}",
        remove_user,
        "Forget a user, with all logins and tokens",
        "users",
        {204: None},
        Right.ADMIN,
        problems=(404, 409),
    ),
)
