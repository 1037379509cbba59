"""How much each account keeps in files, and may keep; account 0 stands for who has none (no logins, the command line)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, case, func, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite

from pacslite.catalog.file_models import quota as table
from pacslite.catalog.file_models import upload
from pacslite.catalog.statements import Prepared

NOBODY = 0


def _charge(dialect: Any) -> Prepared:
    added = table.c.used_bytes + bindparam("delta")
    row = dialect.insert(table).values(account_id=bindparam("account"), used_bytes=bindparam("first"))
    changed = {"used_bytes": case((added < literal_column("0"), literal_column("0")), else_=added)}
    return Prepared(row.on_conflict_do_update(index_elements=["account_id"], set_=changed).returning(table.c.used_bytes))


_CHARGE = {"sqlite": _charge(sqlite), "postgresql": _charge(postgresql)}
_KEPT = Prepared(select(table.c.used_bytes, table.c.quota_bytes).where(table.c.account_id == bindparam("account")))
# Bytes of uploads that are no files yet; of one without a length what has come of it. A final one is made of what is counted.
_ANNOUNCED = select(func.coalesce(func.sum(func.coalesce(upload.c.length, upload.c.offset)), literal_column("0"))).where(
    upload.c.state == "open", upload.c.kind != "final"
)
_ANNOUNCED_BY = Prepared(_ANNOUNCED.where(upload.c.owner_id == bindparam("account")))
_ANNOUNCED_BY_NOBODY = Prepared(_ANNOUNCED.where(upload.c.owner_id.is_(None)))


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
    number = NOBODY if account_id is None else account_id
    return int(_CHARGE[conn.dialect.name].only(conn, {"account": number, "first": max(0, delta_bytes), "delta": delta_bytes}))


def set_quota(conn: Connection, account_id: int, quota_bytes: int | None) -> None:
    """Give an account a limit of its own, or take it away."""
    charge(conn, account_id, 0)
    conn.execute(update(table).where(table.c.account_id == account_id).values(quota_bytes=quota_bytes))


def usage(conn: Connection, account_id: int | None) -> Usage:
    """What one account uses."""
    kept, quota = _KEPT.first(conn, {"account": NOBODY if account_id is None else account_id}) or (0, None)
    announced = _ANNOUNCED_BY_NOBODY.only(conn, {}) if account_id is None else _ANNOUNCED_BY.only(conn, {"account": account_id})
    return Usage(kept, int(announced), quota)


def total(conn: Connection) -> Usage:
    """What all accounts use together."""
    kept = conn.execute(select(func.coalesce(func.sum(table.c.used_bytes), 0))).scalar_one()
    return Usage(int(kept), int(conn.execute(_ANNOUNCED).scalar_one()))


def quotas(conn: Connection) -> list[tuple[int, int, int | None]]:
    """Account, bytes it keeps, and its own limit, of all who keep something or have a limit."""
    rows = conn.execute(select(table.c.account_id, table.c.used_bytes, table.c.quota_bytes).order_by(table.c.account_id))
    return [(row.account_id, row.used_bytes, row.quota_bytes) for row in rows]
