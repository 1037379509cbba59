"""Statements are compiled before processes are forked: the same text as with a connection."""

from __future__ import annotations

from typing import Any

import pytest

import pacslite.core.ingest
import pacslite.dimse.server
import pacslite.worker  # noqa: F401  with the statements of all roles
from pacslite.catalog import engines, statements
from pacslite.catalog.database import Catalog
from pacslite.catalog.statements import Prepared


def test_what_is_compiled_beforehand_is_what_a_connection_gives(catalog: Catalog) -> None:
    dialect = engines.dialect_of(catalog.url.render_as_string(hide_password=False))
    mine = [statement for statement in list(Prepared.known) if statement.is_for(dialect)]
    assert 40 < len(mine) < len(Prepared.known)
    with catalog.read() as conn:
        for statement in mine:
            assert _named(statement.compile(dialect)) == _named(statement.compile(conn.dialect))


def _named(compiled: tuple[str, Any, dict[str, Any]]) -> tuple[str, Any, dict[str, Any]]:
    sql, order, constants = compiled
    return sql, order, {name: value for name, value in constants.items() if not name.startswith("%")}  # without anonymous ones


def test_nothing_is_compiled_twice(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    dialect = engines.dialect_of(catalog.url.render_as_string(hide_password=False))
    statements.compile_all(dialect)

    def fail(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(Prepared, "compile", fail)
    with catalog.read() as conn:
        from pacslite.catalog import written_ahead

        assert written_ahead.span(conn) == 0
