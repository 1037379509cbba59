"""Share links in the catalog; see `access_models.share`. All processes count and end them here."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, or_, select, update

from pacslite.catalog.access_models import share as table
from pacslite.catalog.statements import Prepared, now_text


@dataclass(frozen=True, slots=True)
class Share:
    """A link to one study or one file, and who made it with which credential."""

    id: str
    study_instance_uid: str
    account_id: int | None
    created_by: str
    credential_kind: str
    credential_id: str
    created_at: str
    expires_at: str
    max_uses: int | None = None
    uses: int = 0
    last_used_at: str | None = None
    revoked_at: str | None = None
    file_id: str | None = None


_COLUMNS = tuple(table.c[name] for name in Share.__dataclass_fields__)
_FIND = Prepared(select(*_COLUMNS).where(table.c.id == bindparam("share")))
_OPEN = and_(table.c.revoked_at.is_(None), table.c.expires_at > bindparam("now"))
_USE = Prepared(
    update(table)
    .where(table.c.id == bindparam("share"), _OPEN, or_(table.c.max_uses.is_(None), table.c.uses < table.c.max_uses))
    .values(uses=table.c.uses + 1, last_used_at=bindparam("now"))
)


def add(conn: Connection, share: Share) -> None:
    """A new link."""
    conn.execute(insert(table).values({name: getattr(share, name) for name in Share.__dataclass_fields__}))


def find(conn: Connection, share_id: str) -> Share | None:
    """The link of that id."""
    row = _FIND.first(conn, {"share": share_id})
    return None if row is None else Share(*row)


def use(conn: Connection, share_id: str) -> bool:
    """Count a use; False when there is none left, or the link has ended. Of several at once none is counted twice."""
    return _USE.do(conn, {"share": share_id, "now": now_text()}) == 1


def page(conn: Connection, created_by: str | None, before: tuple[str, str] | None, limit: int) -> tuple[list[Share], int]:
    """Links, newest first, from below a time and id on, of one user or all; and how many there are."""
    mine = [table.c.created_by == created_by] if created_by is not None else []
    statement = select(*_COLUMNS).where(*mine).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit)
    if before is not None:
        at, share_id = before
        statement = statement.where(or_(table.c.created_at < at, and_(table.c.created_at == at, table.c.id < share_id)))
    total = conn.execute(select(func.count()).select_from(table).where(*mine)).scalar_one()
    return [Share(*row) for row in conn.execute(statement)], int(total)


def count_open(conn: Connection, created_by: str) -> int:
    """How many links of a user have not ended."""
    wanted = select(func.count()).select_from(table).where(table.c.created_by == created_by, _OPEN)
    return int(conn.execute(wanted, {"now": now_text()}).scalar_one())


def revoke(conn: Connection, share_id: str) -> bool:
    """End a link; whether it had not ended so before."""
    ended = update(table).where(table.c.id == share_id, table.c.revoked_at.is_(None)).values(revoked_at=now_text())
    return conn.execute(ended).rowcount > 0


def prune(conn: Connection, until: str) -> int:
    """Forget links that ended before; how many."""
    return conn.execute(delete(table).where(table.c.expires_at < until)).rowcount
