"""Share links: whoever has one sees one study or one file, read only, until it ends; see docs/security.md.

The token in the URL is an id with a signature by a key of its own, so that guessing one is refused without a look into the
catalog. Opening a link counts a use and gives the browser a cookie, signed with yet another key, which lasts as long as the
link. What the cookie gives is looked up at each request: what its maker may see of the study or file, as of now.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from pacslite.catalog import accounts, audit, credentials
from pacslite.catalog import shares as rows
from pacslite.catalog.shares import Share
from pacslite.catalog.statements import now_text, time_text
from pacslite.core import retrieve
from pacslite.core.access import LOCAL_ADMIN, Principal, Right, Role, seen_by, visibility
from pacslite.core.accounts import principal_of as principal_of_account
from pacslite.core.file_records import live_row
from pacslite.core.parts import WithAccounts, WithCatalog, WithSettings
from pacslite.core.retrieve import Resource
from pacslite.dicom.uids import clean_uid
from pacslite.errors import Conflict, Forbidden, Gone, NotFound, Unauthenticated

if TYPE_CHECKING:
    from sqlalchemy import Connection


__all__ = ["Share", "Shared", "make", "open_link", "page", "principal_of", "prune", "recognize", "revoke"]

MAX_OPEN = 10_000
"""Links of one user that have not ended."""
_ID_BYTES, _SIGNATURE_BYTES = 16, 16
_LINK, _COOKIE = "share", "share cookie"


class Parts(WithSettings, WithCatalog, WithAccounts, Protocol):
    """What links need of a process."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What a link is to: a study, or a file."""

    study_instance_uid: str = ""
    file_id: str | None = None

    @property
    def right(self) -> Right:
        """What whoever makes the link needs, and whoever opens it gets."""
        return Right.DICOMWEB_READ if self.file_id is None else Right.FILES_READ


def make(parts: Parts, maker: Principal, what: Shared, expires_in: int, max_uses: int | None, origin: audit.Event) -> tuple[Share, str]:
    """A new link and its token; raises NotFound and Gone for what the maker does not see, Forbidden, Conflict."""
    _check_maker(maker, what.right)
    uid = clean_uid(what.study_instance_uid) if what.file_id is None else ""
    _check_seen(parts, Shared(uid, what.file_id))
    now = datetime.now(UTC)
    until = time_text(now + timedelta(seconds=expires_in))
    share_id = secrets.token_bytes(_ID_BYTES).hex()
    who = maker.account_id, maker.username, maker.kind, maker.credential_id
    share = Share(share_id, uid, *who, time_text(now), until, max_uses, file_id=what.file_id)

    def work(conn: Connection) -> None:
        if rows.count_open(conn, maker.username) >= MAX_OPEN:
            raise Conflict(f"There are {MAX_OPEN} open links of this user; revoke some.")
        rows.add(conn, share)
        audit.note(conn, _event(origin, "share.create", share))

    parts.catalog.write(work, (f"shares:{maker.username}",))
    return share, _signed(parts, _LINK, share_id)


def _check_maker(principal: Principal, right: Right | None = None) -> None:
    rights = {Right.DICOMWEB_READ, Right.FILES_READ} if right is None else {right}
    if principal.kind == "share" or rights.isdisjoint(principal.rights):
        raise Forbidden("Who cannot read something for themselves cannot share it.")


def _check_seen(parts: Parts, what: Shared) -> None:
    """Raises NotFound or Gone for what is not there, or not in sight."""
    if what.file_id is None:
        retrieve.plan(parts.catalog, Resource(what.study_instance_uid))
        return
    with parts.catalog.read() as conn:
        live_row(conn, what.file_id, parts.catalog.sight(conn))


def _event(origin: audit.Event, action: str, share: Share) -> audit.Event:
    detail = {"file_id": share.file_id} if share.file_id is not None else {}
    return replace(origin, action=action, object_id=share.id, study_instance_uid=share.study_instance_uid, detail=detail)


def page(parts: Parts, principal: Principal, before: tuple[str, str] | None, limit: int) -> tuple[list[Share], int]:
    """Links, newest first: those of the caller, for administrators all; raises Forbidden."""
    _check_maker(principal)
    with parts.catalog.read() as conn:
        return rows.page(conn, None if Right.ADMIN in principal.rights else principal.username, before, limit)


def revoke(parts: Parts, principal: Principal, share_id: str, origin: audit.Event) -> None:
    """End a link of the caller, an administrator any; raises NotFound, Forbidden."""
    _check_maker(principal)

    def work(conn: Connection) -> None:
        share = rows.find(conn, share_id)
        if share is None or (Right.ADMIN not in principal.rights and share.created_by != principal.username):
            raise NotFound("There is no such share link.")
        rows.revoke(conn, share_id)
        audit.note(conn, _event(origin, "share.revoke", share))

    parts.catalog.write(work)


def open_link(parts: Parts, token: str, origin: audit.Event) -> tuple[Share, str]:
    """Count a use of a link; the link, and the value of the cookie. Raises NotFound for what is no link, Gone for one that has ended."""
    share_id = _verified(parts, _LINK, token)
    if share_id is None:
        raise NotFound("There is no such share link.")
    with parts.catalog.read() as conn:
        share = rows.find(conn, share_id)
    if share is None or not _is_open(share) or principal_of(parts, share) is None:
        raise Gone("The share link has ended.")

    def work(conn: Connection) -> bool:
        used = rows.use(conn, share_id)
        if used:
            audit.note(conn, _event(origin, "share.use", share))
        return used

    if not parts.catalog.write(work, (f"share:{share_id}",)):
        raise Gone("The share link has ended.")
    return share, _signed(parts, _COOKIE, share_id)


def recognize(parts: Parts, cookie: str) -> Principal:
    """Whom the cookie of an opened link stands for, as of now; raises Unauthenticated."""
    share_id = _verified(parts, _COOKIE, cookie)
    share = None
    if share_id is not None:
        with parts.catalog.read() as conn:
            share = rows.find(conn, share_id)
    found = principal_of(parts, share) if share is not None and _is_open(share) else None
    if found is None:
        raise Unauthenticated("The share link has ended.", invalid=True)
    return found


def principal_of(parts: Parts, share: Share) -> Principal | None:
    """Who uses a link: reads one study or file, as far as its maker may still read it; None when not at all."""
    if not parts.settings.auth:
        maker: Principal | None = LOCAL_ADMIN
    elif share.account_id is None:
        return None  # made by the administrator of a server without logins, which has them now
    else:
        maker = _maker(parts, share)
    what = Shared(share.study_instance_uid, share.file_id)
    if maker is None or what.right not in maker.rights:
        return None
    limited = Principal(
        None,
        f"share:{share.id}",
        Role.VIEWER,
        frozenset({what.right}),
        maker.groups,
        "share",
        share.id,
        only_study=share.study_instance_uid if share.file_id is None else None,
        only_file=share.file_id,
        sees_everything=maker.role is Role.ADMIN,
    )
    theirs = seen_by(parts, visibility(limited))
    try:
        _check_seen(theirs, what)
    except (NotFound, Gone):
        return None
    return limited


def _maker(parts: Parts, share: Share) -> Principal | None:
    """Who made a link, as of now. That a login ended since does not end its links; that a token was revoked or ended does."""
    assert share.account_id is not None
    with parts.catalog.read() as conn:
        account = accounts.by_id(conn, share.account_id)
        token = credentials.token_by_id(conn, share.credential_id) if share.credential_kind == "token" else None
    if account is None or account.disabled:
        return None
    if share.credential_kind != "token":
        return principal_of_account(account, "user", share.credential_id)
    if token is None or token.expires_at <= now_text():
        return None
    return principal_of_account(account, "token", token.id, frozenset(Right(scope) for scope in token.scopes.split()))


def prune(parts: Parts, days: float) -> int:
    """Forget links that ended more than so many days ago; how many."""
    until = time_text(datetime.now(UTC) - timedelta(days=days))
    return parts.catalog.write(lambda conn: rows.prune(conn, until))


def _is_open(share: Share) -> bool:
    return share.revoked_at is None and share.expires_at > now_text()


def _signed(parts: Parts, label: str, share_id: str) -> str:
    raw = bytes.fromhex(share_id)
    signature = hmac.digest(parts.accounts.keys.derive(label), raw, "sha256")[:_SIGNATURE_BYTES]
    return base64.urlsafe_b64encode(raw + signature).decode().rstrip("=")


def _verified(parts: Parts, label: str, token: str) -> str | None:
    """The id in a token, None when it was not signed here."""
    if len(token) > 100:
        return None
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    share_id, signature = raw[:_ID_BYTES], raw[_ID_BYTES:]
    for key in parts.accounts.keys.derive_all(label):
        if hmac.compare_digest(hmac.digest(key, share_id, "sha256")[:_SIGNATURE_BYTES], signature):
            return share_id.hex()
    return None
