"""How much each account keeps in files, and may keep; account 0 stands for who has none (no logins, the command line)."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, case, func, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite

from pacslite.catalog.file_models import quota as table
from pacslite.catalog.file_models import upload

NOBODY = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account keeps (`kept_bytes`), what its unfinished uploads announce, and its own limit: None leaves that to the settings."""

    kept_bytes: int
    announced_bytes: int
    quota_bytes: int | None = None

    @property
    def used_bytes(self) -> int:
        """What counts against the limit."""
        return self.kept_bytes + self.announced_bytes


def charge(conn: Connection, account_id: int | None, delta_bytes: int) -> int:
    """Note that an account keeps so many bytes more, or less; what it keeps now. Others who charge it wait for this transaction."""
    insert = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
    number = NOBODY if account_id is None else account_id
    added = table.c.used_bytes + delta_bytes
    row = insert(table).values(account_id=number, used_bytes=max(0, delta_bytes))
    changed = {"used_bytes": case((added < 0, literal(0)), else_=added)}
    statement = row.on_conflict_do_update(index_elements=["account_id"], set_=changed).returning(table.c.used_bytes)
    return int(conn.execute(statement).scalar_one())


def set_quota(conn: Connection, account_id: int, quota_bytes: int | None) -> None:
    """Give an account a limit of its own, or take it away."""
    charge(conn, account_id, 0)
    conn.execute(update(table).where(table.c.account_id == account_id).values(quota_bytes=quota_bytes))


def usage(conn: Connection, account_id: int | None) -> Usage:
    """What one account uses."""
    number = NOBODY if account_id is None else account_id
    row = conn.execute(select(table.c.used_bytes, table.c.quota_bytes).where(table.c.account_id == number)).one_or_none()
    mine = upload.c.owner_id.is_(None) if account_id is None else upload.c.owner_id == account_id
    return Usage(row.used_bytes if row else 0, _announced(conn, mine), row.quota_bytes if row else None)


def total(conn: Connection) -> Usage:
    """What all accounts use together."""
    kept = conn.execute(select(func.coalesce(func.sum(table.c.used_bytes), 0))).scalar_one()
    return Usage(int(kept), _announced(conn))


def quotas(conn: Connection) -> list[tuple[int, int, int | None]]:
    """Account, bytes it keeps, and its own limit, of all who keep something or have a limit."""
    rows = conn.execute(select(table.c.account_id, table.c.used_bytes, table.c.quota_bytes).order_by(table.c.account_id))
    return [(row.account_id, row.used_bytes, row.quota_bytes) for row in rows]


def _announced(conn: Connection, *whose: ColumnElement[bool]) -> int:
    """Bytes of uploads that are no files yet; of one without a length what has come of it. A final one is made of what is counted."""
    size = func.coalesce(upload.c.length, upload.c.offset)
    counted = upload.c.state == "open", upload.c.kind != "final"
    return int(conn.execute(select(func.coalesce(func.sum(size), 0)).where(*counted, *whose)).scalar_one())
