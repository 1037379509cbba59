"""The migrations make the tables of the models, once, under a lock, and keep the data."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, delete, insert, inspect, select, text

from pacslite.catalog import models, schema
from pacslite.catalog.database import Catalog
from pacslite.dicom.attributes import Level
from pacslite.errors import ConfigurationError, Unavailable

_VALUES = models.VALUES_OF_LEVEL[Level.PATIENT]


def shape(conn: Connection) -> dict[str, object]:
    """Everything the database says about its tables."""
    inspector, found = inspect(conn), {}
    for table in sorted(set(inspector.get_table_names()) - {"alembic_version"}):
        columns = [
            (c["name"], str(c["type"]), getattr(c["type"], "collation", None), c["nullable"], c["default"])
            for c in inspector.get_columns(table)
        ]
        keys = [
            inspector.get_pk_constraint(table),
            *(sorted(map(repr, each)) for each in (inspector.get_foreign_keys(table), inspector.get_unique_constraints(table))),
        ]
        indexes = [
            (i["name"], i["column_names"], i["unique"], {k: str(v) for k, v in i["dialect_options"].items()})
            for i in inspector.get_indexes(table)
        ]
        found[table] = (columns, repr(keys), sorted(indexes, key=repr))
    return found


def test_migrations_make_exactly_the_tables_of_the_models(new_database: Callable[[], str]) -> None:
    migrated, made = Catalog(new_database()), Catalog(new_database())
    migrated.migrate()
    made.write(models.SCHEMA.create_all)
    with migrated.read() as one, made.read() as other:
        tables = shape(one)
        assert {"study", "version", "change"} <= set(tables)
        assert tables == shape(other)
    migrated.close()
    made.close()


def test_the_programs_revision_is_the_newest_migration(catalog: Catalog) -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.migrations_directory()))
    assert ScriptDirectory.from_config(config).get_current_head() == models.REVISION == catalog.revision()
    catalog.check_revision()


def test_a_catalog_without_a_schema_is_refused(database_url: str) -> None:
    catalog = Catalog(database_url)
    assert catalog.revision() is None
    with pytest.raises(Unavailable, match="pacslite migrate"):
        catalog.check_revision()
    catalog.close()


def test_another_revision_is_refused(catalog: Catalog) -> None:
    catalog.write(lambda conn: conn.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(Unavailable, match="9999"):
        catalog.check_revision()


def test_migrating_again_changes_nothing_and_keeps_the_rows(catalog: Catalog) -> None:
    def add(conn: Connection) -> None:
        row = {"ae_title": "CT", "host": "ct", "port": 104, "created_at": "x", "updated_at": "x"}
        conn.execute(insert(models.peer).values(row))

    catalog.write(add)
    catalog.migrate()
    with catalog.read() as conn:
        assert conn.execute(select(models.peer.c.host)).all() == [("ct",)]


def test_two_migrations_at_once_wait_for_each_other(database_url: str) -> None:
    catalogs = [Catalog(database_url) for _ in range(2)]
    threads = [threading.Thread(target=one.migrate) for one in catalogs]
    failures: list[object] = []
    hook, threading.excepthook = threading.excepthook, failures.append
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    threading.excepthook = hook
    assert failures == []
    for one in catalogs:
        one.check_revision()
        one.close()


def test_a_failing_migration_leaves_nothing_behind(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, upgrade = Catalog(database_url), schema.upgrade

    def fail(conn: Connection, target: str = "head") -> None:
        upgrade(conn, target)
        raise Unavailable("power cut")

    monkeypatch.setattr(schema, "upgrade", fail)
    with pytest.raises(Unavailable, match="power cut"):
        catalog.migrate()
    assert catalog.revision() is None
    monkeypatch.undo()
    catalog.migrate()
    catalog.check_revision()
    catalog.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/db", "nonsense"])
def test_urls_of_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="database_url"):
        Catalog(url)


def test_the_directory_of_the_catalog_is_made(tmp_path: Path) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path / 'a' / 'b' / 'catalog.db'}")
    catalog.migrate()
    catalog.check_revision()
    catalog.close()


def test_values_that_are_searched_by_an_index_of_their_own_are_kept_when_their_tables_change(database_url: str) -> None:
    catalog = Catalog(database_url)
    catalog.migrate("0007")
    told = {"identity_id": "1", "identity_issuer": "", "identity_study": "", "created_at": "x", "updated_at": "x"}
    found = [("00100010~", 1, "mueller", None), ("00100010~", 0, "anna", None), ("00101020", 0, "", 1.72)]

    def add(conn: Connection) -> None:
        for pk in (1, 2):
            conn.execute(insert(models.patient).values(**(told | {"pk": pk, "identity_id": str(pk)})))
            for name, item, value, number in found:
                row = {"patient_pk": pk, "name": name, "item": item, "value": value, "number": number}
                conn.execute(insert(_VALUES).values(row))

    catalog.write(add)
    catalog.migrate()
    catalog.write(lambda conn: conn.execute(delete(models.patient).where(models.patient.c.pk == 1)))  # its values go with it
    columns = [_VALUES.c[name] for name in ("patient_pk", "name", "item", "value", "number")]
    with catalog.read() as conn:
        assert [tuple(row) for row in conn.execute(select(*columns).order_by(*columns[:3]))] == [(2, *row) for row in sorted(found)]
        if catalog.is_sqlite:
            made = conn.execute(text("SELECT sql FROM sqlite_master WHERE name = 'patient_value'")).scalar_one()
            assert str(made).strip().endswith("WITHOUT ROWID")
    catalog.close()
