"""Accounts in the catalog. All processes read them from here, so a change counts at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from pacslite.catalog.account_models import access_generation, account_group, login_session
from pacslite.catalog.account_models import account as table
from pacslite.catalog.statements import Prepared, now_text

GENERATION = Prepared(select(access_generation.c.value))
"""The number that grows whenever a credential may have come to give less; see `Catalog.glance`."""


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may log in. `password_hash` is None for who logs in elsewhere, or by tokens alone."""

    id: int
    username: str
    role: str
    disabled: bool
    created_at: str
    password_hash: str | None = field(default=None, repr=False)
    external_id: str | None = None
    groups: frozenset[str] = frozenset()


_COLUMNS = (
    table.c.id,
    table.c.username,
    table.c.role,
    table.c.disabled,
    table.c.created_at,
    table.c.password_hash,
    table.c.external_id,
)
_BY_ID = select(*_COLUMNS).where(table.c.id == bindparam("id"))
_BY_NAME = select(*_COLUMNS).where(table.c.username_key == bindparam("key"))
_GROUPS = select(account_group.c.name).where(account_group.c.account_id == bindparam("id"))


def by_id(conn: Connection, account_id: int) -> Account | None:
    """The account of that number."""
    return _one(conn, conn.execute(_BY_ID, {"id": account_id}).one_or_none())


def by_name(conn: Connection, username_key: str) -> Account | None:
    """The account whose name compares as this."""
    return _one(conn, conn.execute(_BY_NAME, {"key": username_key}).one_or_none())


def by_external_id(conn: Connection, external_id: str) -> Account | None:
    """The account of a subject of another login service."""
    return _one(conn, conn.execute(select(*_COLUMNS).where(table.c.external_id == external_id)).one_or_none())


def listed(conn: Connection) -> list[Account]:
    """All accounts by name."""
    groups: dict[int, set[str]] = {}
    for account_id, name in conn.execute(select(account_group.c.account_id, account_group.c.name)):
        groups.setdefault(account_id, set()).add(name)
    rows = conn.execute(select(*_COLUMNS).order_by(table.c.username_key)).all()
    return [_made(row, frozenset(groups.get(row[0], ()))) for row in rows]


def count(conn: Connection) -> int:
    """How many accounts there are."""
    return int(conn.execute(select(func.count()).select_from(table)).scalar_one())


def count_enabled(conn: Connection, role: str) -> int:
    """How many may log in in this role."""
    wanted = select(func.count()).select_from(table).where(table.c.role == role, table.c.disabled.is_(False))
    return int(conn.execute(wanted).scalar_one())


def add(
    conn: Connection,
    username: str,
    username_key: str,
    role: str,
    password_hash: str | None,
    external_id: str | None = None,
    groups: Iterable[str] = (),
) -> Account:
    """A new account; its name is free, as `by_name` has told in this transaction."""
    now = now_text()
    made = insert(table).values(
        username=username,
        username_key=username_key,
        role=role,
        password_hash=password_hash,
        external_id=external_id,
        created_at=now,
        updated_at=now,
    )
    account_id = int(conn.execute(made.returning(table.c.id)).scalar_one())
    set_groups(conn, account_id, groups)
    found = by_id(conn, account_id)
    assert found is not None
    return found


def change(conn: Connection, account_id: int, **values: Any) -> None:
    """Sets columns of an account (role, disabled, password_hash, external_id)."""
    conn.execute(update(table).where(table.c.id == account_id).values(updated_at=now_text(), **values))
    advance(conn)


def upgrade_hash(conn: Connection, account_id: int, old: str, new: str) -> None:
    """Another hash of the same password; nothing when the password was changed meanwhile."""
    conn.execute(update(table).where(table.c.id == account_id, table.c.password_hash == old).values(password_hash=new))


def set_groups(conn: Connection, account_id: int, groups: Iterable[str]) -> None:
    """The groups of an account, in place of those it has."""
    conn.execute(delete(account_group).where(account_group.c.account_id == account_id))
    for name in sorted(set(groups)):
        conn.execute(insert(account_group).values(account_id=account_id, name=name))
    advance(conn)


def remove(conn: Connection, account_id: int) -> bool:
    """Forgets an account with its logins and tokens; whether there was one."""
    removed = conn.execute(delete(table).where(table.c.id == account_id)).rowcount > 0
    advance(conn)
    return removed


def end_sessions(conn: Connection, account_id: int, but: str = "") -> None:
    """Ends all logins of an account, except one."""
    open_ones = (login_session.c.account_id == account_id, login_session.c.ended_at.is_(None), login_session.c.id != but)
    conn.execute(update(login_session).where(*open_ones).values(ended_at=now_text()))
    advance(conn)


def advance(conn: Connection) -> None:
    """Makes every process look again at the credentials it has recognized."""
    if not conn.execute(update(access_generation).values(value=access_generation.c.value + 1)).rowcount:
        conn.execute(insert(access_generation).values(id=1, value=1))


def _one(conn: Connection, row: Any) -> Account | None:
    return None if row is None else _made(row, frozenset(conn.execute(_GROUPS, {"id": row[0]}).scalars()))


def _made(row: Any, groups: frozenset[str]) -> Account:
    account_id, username, role, disabled, created_at, password_hash, external_id = row
    return Account(account_id, username, role, bool(disabled), created_at, password_hash, external_id, groups)
