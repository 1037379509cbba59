"""Everything a catalog says, told without the numbers that its rows happen to have."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Table, select

from pacslite.catalog.database import Catalog
from pacslite.catalog.models import SCHEMA, job, patient, written_ahead

# A row is told by these; what refers to a row is replaced by what tells it.
_TOLD_BY = {
    "patient": ("identity_id", "identity_issuer", "identity_study"),
    "study": ("study_instance_uid",),
    "series": ("study_pk", "series_instance_uid"),
    "instance": ("series_pk", "sop_instance_uid"),
    "version": ("instance_pk", "number"),
    "blob": ("uid",),
    "file": ("uid",),
    "file_version": ("file_pk", "number"),
}
_DROPPED = {"pk", "id", "transaction_id"}


def dump(catalog: Catalog, *, numbers: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Tables and their rows; the rows sorted. With the `numbers` of patients, which keys and the audit log have too."""
    told: dict[str, dict[int, Any]] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    with catalog.read() as conn:
        for table in SCHEMA.sorted_tables:
            # The audit log is not made anew, it goes on; bytes are written ahead only until the storage has synced.
            if table in (job, written_ahead) or table.name.startswith("audit_"):
                continue
            rows = [dict(row._mapping) for row in conn.execute(select(table))]
            for row in rows:
                _name_references(table, row, told)
            if table.name in _TOLD_BY:
                told[table.name] = {row["pk"]: tuple(row[name] for name in _TOLD_BY[table.name]) for row in rows}
            tables[table.name] = sorted((_plain(table, row, numbers) for row in rows), key=repr)
    return tables


def _name_references(table: Table, row: dict[str, Any], told: dict[str, dict[int, Any]]) -> None:
    for column in table.columns:
        for key in column.foreign_keys:
            if key.column.name == "pk" and row[column.name] is not None:
                row[column.name] = told[key.column.table.name][row[column.name]]


def _plain(table: Table, row: dict[str, Any], numbers: bool) -> dict[str, Any]:
    plain = {name: value for name, value in row.items() if name not in _DROPPED or (numbers and table is patient and name == "pk")}
    if plain.get("detail"):
        plain["detail"] = {name: value for name, value in json.loads(plain["detail"]).items() if numbers or name != "patient"}
    return plain
