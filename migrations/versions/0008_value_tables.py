"""On SQLite, tables of values lie in their keys: a tree and an insertion less for each value of an arrival."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TABLES = ("patient", "study", "series", "instance")
_COLUMNS = ("name", "item", "value", "value1", "value2", "number")


def upgrade() -> None:
    _make_anew(with_rowid=False)


def downgrade() -> None:
    _make_anew(with_rowid=True)


def _make_anew(*, with_rowid: bool) -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    for table in _TABLES:
        name, owner = f"{table}_value", f"{table}_pk"
        columns = ", ".join((owner, *_COLUMNS))
        _make(f"{name}_new", name, owner, table, with_rowid=with_rowid)
        op.execute(f"INSERT INTO {name}_new ({columns}) SELECT {columns} FROM {name} ORDER BY {owner}, name, item")
        op.drop_table(name)
        op.rename_table(f"{name}_new", name)
        op.create_index(f"ix_{name}_name_value_{owner}", name, ["name", "value", owner], unique=False)
        filled = sa.text("number IS NOT NULL")
        op.create_index(f"ix_{name}_number", name, ["name", "number", owner], unique=False, sqlite_where=filled)


def _make(made: str, name: str, owner: str, table: str, *, with_rowid: bool) -> None:
    op.create_table(
        made,
        sa.Column(owner, sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("item", sa.Integer(), nullable=False),
        sa.Column("value", sa.Text(), server_default="", nullable=False),
        sa.Column("value1", sa.Text(), server_default="", nullable=False),
        sa.Column("value2", sa.Text(), server_default="", nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint([owner], [f"{table}.pk"], name=f"fk_{name}_{owner}", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint(owner, "name", "item", name=f"pk_{name}"),
        sqlite_with_rowid=with_rowid,
    )
