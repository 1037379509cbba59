"""Numbers of patients, none of which is given twice: storage keys, links and the audit log name patients by them.

PostgreSQL's sequences see to that. SQLite gives the highest number again once its row is gone; so the highest one that was taken
away is kept where it keeps those of tables that count by themselves.
"""

from __future__ import annotations

from sqlalchemy import ColumnClause, Connection, literal_column

NEXT_OF_SQLITE: ColumnClause[int] = literal_column(
    "(SELECT max(coalesce((SELECT max(pk) FROM patient), 0), coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'patient'), 0)) + 1)"
)
"""The number of a new patient."""


def retire(conn: Connection, pk: int) -> None:
    """Give the number of a patient who is taken away to nobody else."""
    if conn.dialect.name != "sqlite":
        return
    known = conn.exec_driver_sql("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'patient'", (pk,))
    if not known.rowcount:
        conn.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES ('patient', ?)", (pk,))
