"""Who calls and what they may do: roles, rights, principals. Every adapter asks `require`; none decides by itself."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeVar

from pacslite.catalog.visibility import EVERYTHING, NOTHING, Visibility
from pacslite.errors import Forbidden, Unauthenticated

Parts = TypeVar("Parts")


class Role(StrEnum):
    """What an account is for."""

    ADMIN = "admin"
    CLINICIAN = "clinician"
    VIEWER = "viewer"
    SERVICE = "service"


class Right(StrEnum):
    """What a call needs. `PUBLIC` asks for no login, `SELF` for any; the others are the scopes of API tokens too."""

    PUBLIC = "public"
    SELF = "self"
    DICOMWEB_READ = "dicomweb:read"
    DICOMWEB_WRITE = "dicomweb:write"
    FILES_READ = "files:read"
    FILES_WRITE = "files:write"
    JOBS = "jobs"
    ADMIN = "admin"


SCOPES = frozenset(Right) - {Right.PUBLIC, Right.SELF}
_READ = frozenset({Right.DICOMWEB_READ, Right.FILES_READ})
_WRITE = _READ | {Right.DICOMWEB_WRITE, Right.FILES_WRITE, Right.JOBS}

# The most that a token of such an account can give.
RIGHTS_OF_ROLE: dict[Role, frozenset[Right]] = {
    Role.ADMIN: SCOPES,
    Role.CLINICIAN: _WRITE,
    Role.VIEWER: _READ,
    Role.SERVICE: _WRITE,
}

# The right that each DICOM service needs (names of `catalog.peers.SERVICES`); C-ECHO needs none.
RIGHT_OF_SERVICE = {
    "find": Right.DICOMWEB_READ,
    "get": Right.DICOMWEB_READ,
    "move": Right.DICOMWEB_READ,
    "store": Right.DICOMWEB_WRITE,
    "commitment": Right.DICOMWEB_WRITE,
}


def rights_of_login(role: Role) -> frozenset[Right]:
    """What a password gives; a service acts by the scopes of its tokens alone."""
    return frozenset() if role is Role.SERVICE else RIGHTS_OF_ROLE[role]


Kind = Literal["user", "token", "share", "local", "peer"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who was recognized, as of this request.

    `rights` are what this credential gives now: for a token its scopes, as far as its owner's role has them.
    `credential_id` names the login or token that was shown, for the record and for ending it. A share link gives `only_study` or
    `only_file`; `sees_everything` of it when an administrator made it.
    """

    account_id: int | None
    username: str
    role: Role
    rights: frozenset[Right]
    groups: frozenset[str] = frozenset()
    kind: Kind = "user"
    credential_id: str = ""
    only_study: str | None = None
    only_file: str | None = None
    sees_everything: bool = False

    @property
    def services(self) -> frozenset[str]:
        """The DICOM services these rights cover."""
        return frozenset(service for service, right in RIGHT_OF_SERVICE.items() if right in self.rights)


LOCAL_ADMIN = Principal(None, "local", Role.ADMIN, SCOPES, kind="local")
"""Everybody, where nobody logs in (`--no-auth`)."""


def visibility(principal: Principal | None) -> Visibility:
    """What may be seen: administrators see everything, others what admits one of their groups, nobody known nothing."""
    if principal is None:
        return NOTHING
    everything = principal.role is Role.ADMIN or principal.sees_everything
    study = "" if principal.only_file is not None else principal.only_study
    if everything and study is None:
        return EVERYTHING
    return Visibility(everything, frozenset() if everything else principal.groups, study, principal.username, principal.only_file)


def seen_by(parts: Parts, seen: Visibility) -> Parts:
    """The parts of a process for somebody who may not see everything: their catalog hides the rest. Ingest takes from all alike."""
    catalog = getattr(parts, "catalog", None)
    if catalog is None or catalog.visibility == seen:
        return parts
    theirs = copy(parts)
    object.__setattr__(theirs, "catalog", catalog.seen_by(seen))
    return theirs


def require(principal: Principal | None, right: Right) -> None:
    """Raises Unauthenticated when a login is needed, Forbidden when the one there is does not suffice."""
    if right is Right.PUBLIC:
        return
    if principal is None:
        raise Unauthenticated("This needs a login.")
    # A share link is nobody who could look after an account.
    if right not in principal.rights and (right is not Right.SELF or principal.kind == "share"):
        raise Forbidden(f"{right.value} is not among the rights of this login.")
