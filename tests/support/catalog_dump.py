"""Everything a catalog says, told without the numbers that its rows happen to have."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Table, select

from pacslite.catalog.database import Catalog
from pacslite.catalog.models import Base, job, written_ahead

# A row is told by these; a column `x_pk` is replaced by what tells row x.
_TOLD_BY = {
    "patient": ("identity_id", "identity_issuer", "identity_study"),
    "study": ("study_instance_uid",),
    "series": ("study_pk", "series_instance_uid"),
    "instance": ("series_pk", "sop_instance_uid"),
    "version": ("instance_pk", "number"),
    "blob": ("uid",),
}
_DROPPED = {"pk", "id", "transaction_id"}


def dump(catalog: Catalog) -> dict[str, list[dict[str, Any]]]:
    """Tables and their rows; the rows sorted."""
    told: dict[str, dict[int, Any]] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    with catalog.read() as conn:
        for table in Base.metadata.sorted_tables:
            if table in (job, written_ahead) or table.name.startswith("audit_"):  # the log is not made anew, it goes on
                continue
            rows = [dict(row._mapping) for row in conn.execute(select(table))]
            for row in rows:
                _name_references(row, told)
            if table.name in _TOLD_BY:
                told[table.name] = {row["pk"]: tuple(row[name] for name in _TOLD_BY[table.name]) for row in rows}
            tables[table.name] = sorted((_plain(table, row) for row in rows), key=repr)
    return tables


def _name_references(row: dict[str, Any], told: dict[str, dict[int, Any]]) -> None:
    for name in row:
        if name.endswith("_pk"):
            row[name] = told[name.removesuffix("_pk")][row[name]]


def _plain(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in row.items() if name not in _DROPPED}
    if plain.get("detail"):
        plain["detail"] = {name: value for name, value in json.loads(plain["detail"]).items() if name != "patient"}
    return plain
