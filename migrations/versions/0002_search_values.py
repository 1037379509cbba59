"""Words of person names, searched by an index, and tables for the attributes that are indexed by configuration."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from pacslite.dicom.person_name import sound_of, words_of

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
# Person names that have columns, by table: tag and column.
_NAMES = {
    "patient": (("00100010", "patient_name"),),
    "study": (("00080090", "referring_physician_name"), ("00081060", "name_of_physicians_reading_study")),
    "series": (("00081050", "performing_physician_name"), ("00081070", "operators_name")),
    "instance": (),
}
_ROWS_AT_ONCE = 1000


def upgrade() -> None:
    for table, names in _NAMES.items():
        _make(table)
        if names:
            _fill(table, names)
    op.create_table(
        "search_index",
        sa.Column("tag", _TEXT, nullable=False),
        sa.Column("level", _TEXT, nullable=False),
        sa.Column("state", _TEXT, server_default="building", nullable=False),
        sa.Column("last_pk", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("tag", name="pk_search_index"),
    )


def _make(table: str) -> None:
    owner, name = f"{table}_pk", f"{table}_value"
    op.create_table(
        name,
        sa.Column(owner, _ID, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("item", sa.Integer(), nullable=False),
        sa.Column("value", _TEXT, server_default="", nullable=False),
        sa.Column("value1", _TEXT, server_default="", nullable=False),
        sa.Column("value2", _TEXT, server_default="", nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint([owner], [f"{table}.pk"], name=f"fk_{name}_{owner}", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint(owner, "name", "item", name=f"pk_{name}"),
    )
    op.create_index(f"ix_{name}_name_value_{owner}", name, ["name", "value", owner], unique=False)
    filled = sa.text("number IS NOT NULL")
    op.create_index(f"ix_{name}_number", name, ["name", "number", owner], unique=False, sqlite_where=filled, postgresql_where=filled)


def _fill(table: str, names: tuple[tuple[str, str], ...]) -> None:
    """Words of the names that are there already, some rows at a time."""
    connection, last = op.get_bind(), 0
    columns = ", ".join(column for _, column in names)
    page = sa.text(f"SELECT pk, {columns} FROM {table} WHERE pk > :last ORDER BY pk LIMIT {_ROWS_AT_ONCE}")
    put = sa.text(f"INSERT INTO {table}_value ({table}_pk, name, item, value) VALUES (:pk, :name, :item, :value)")
    while rows := connection.execute(page, {"last": last}).all():
        last = rows[-1][0]
        found = []
        for pk, *texts in rows:
            for (tag, _), text in zip(names, texts, strict=True):
                words = words_of(text or "")
                sounds = dict.fromkeys("~" + sound for word in words if (sound := sound_of(word)))
                found += [{"pk": pk, "name": tag + "~", "item": i, "value": v} for i, v in enumerate((*words, *sounds))]
        if found:
            connection.execute(put, found)


def downgrade() -> None:
    op.drop_table("search_index")
    for table in _NAMES:
        op.drop_table(f"{table}_value")
