"""Attributes indexed by configuration: built for what is stored, kept up by what arrives, and the same as a search in documents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import func, select, text

from pacslite.catalog import search_values
from pacslite.catalog.database import Catalog
from pacslite.catalog.deletions import Target, delete_target
from pacslite.catalog.models import TABLE_OF_LEVEL, VALUES_OF_LEVEL
from pacslite.catalog.search_order import OrderBy, terms_of
from pacslite.core.query import BEGIN, Page, Query, find
from pacslite.core.query_keys import Dialect, build_keys, path_of, tag_of
from pacslite.core.search_index import build_index
from pacslite.dicom.attributes import UNIQUE_KEYS, Level
from pacslite.dicom.indexed_attributes import NONE, IndexedAttributes, indexed_attributes
from pacslite.dicom.matching import PLAIN, Options
from pacslite.errors import ConfigurationError, InvalidQuery, TooLarge
from pacslite.storage.filesystem import FilesystemStore
from tests.support.archive import Archive, archive, slice_of
from tests.support.catalog_rows import Loader
from tests.support.databases import catalog, database_url, new_database, postgres

__all__ = ["catalog", "database_url", "new_database", "postgres"]
NAMES = (
    "SliceThickness",
    "DeviceSerialNumber",
    "PhysiciansOfRecord",
    "PatientState:study",
    "AcquisitionMatrix",
    "FrameReferenceDateTime",
    "DateOfLastCalibration",
)
INDEXED = indexed_attributes(NAMES)
STUDIES = 230  # more than two steps of the job


def _document(n: int) -> dict[str, Any]:
    document: dict[str, Any] = {
        "00180050": {"vr": "DS", "Value": [n % 7 + 0.5]},
        "00181000": {"vr": "LO", "Value": [f"Dev_{n % 5}"]},
        "00081048": {"vr": "PN", "Value": [{"Alphabetic": f"Roe^R{n % 3}"}, {"Alphabetic": "Müller^Jörg", "Ideographic": "山田"}]},
        "00380500": {"vr": "LO", "Value": ["*?%" if n == 4 else "stable"]},
        "00181310": {"vr": "US", "Value": [0, n % 4, 256, 0]},
        "00189151": {"vr": "DT", "Value": [f"202401{n % 28 + 1:02d}120000"]},
        "00181200": {"vr": "DA", "Value": ["20240101", f"202402{n % 28 + 1:02d}"]},
    }
    return {} if n % 10 == 9 else document


def _fill(connection: Any) -> None:
    loader = Loader(connection)
    for n in range(STUDIES):
        study = loader.study(loader.patient(PatientID=f"P{n}"), StudyInstanceUID=f"1.{n}", StudyDate=f"202401{n % 28 + 1:02d}")
        series = loader.series(study, SeriesInstanceUID=f"1.{n}.1", Modality="CT", SeriesNumber=str(n % 3) if n % 3 else "")
        loader.instance(series, _document(n), SOPClassUID="1.2", SOPInstanceUID=f"1.{n}.1.1", InstanceNumber=str(n % 4))
    loader.flush()


def _search(
    catalog: Catalog,
    level: Level,
    indexed: IndexedAttributes,
    most: int,
    order: str = "",
    options: Options = PLAIN,
    **keys: str,
) -> Page:
    built = build_keys([(path_of(name), text) for name, text in keys.items()], Dialect(options=options))
    by = tuple((tag_of(name.removeprefix("-")), name.startswith("-")) for name in order.split(",") if name)
    return find(catalog, Query(level, built, (), 1000, order=by, indexed=indexed, max_documents=most))


def _numbers(page: Page) -> list[object]:
    return [row[0] for row in page.rows]


KEYS: tuple[tuple[Level, dict[str, str]], ...] = (
    (Level.INSTANCE, {"SliceThickness": "2.50"}),
    (Level.INSTANCE, {"AcquisitionMatrix": "3"}),
    (Level.INSTANCE, {"FrameReferenceDateTime": "20240103-20240105"}),
    (Level.INSTANCE, {"FrameReferenceDateTime": "-2024010312"}),
    (Level.SERIES, {"DeviceSerialNumber": "Dev_3"}),
    (Level.SERIES, {"DeviceSerialNumber": "Dev*"}),
    (Level.SERIES, {"DateOfLastCalibration": "20240201-20240203"}),
    (Level.INSTANCE, {"DeviceSerialNumber": "?ev_2", "SliceThickness": "3.5"}),
    (Level.STUDY, {"PhysiciansOfRecord": "roe^r1"}),
    (Level.STUDY, {"PhysiciansOfRecord": "=山田"}),
    (Level.STUDY, {"PatientState": "[*]?%"}),
    (Level.STUDY, {"PatientState": "sta*", "StudyDate": "20240105"}),
)


@pytest.mark.parametrize("options", [Options(), Options(fuzzy=True, empty=True, multiple=True)])
def test_the_index_finds_what_the_documents_tell(catalog: Catalog, options: Options) -> None:
    catalog.write(_fill)
    more = [(Level.STUDY, {"PhysiciansOfRecord": "jorg mueller"}), (Level.SERIES, {"DeviceSerialNumber": '""'})]
    more += [(Level.STUDY, {"PhysiciansOfRecord": r"Roe^R1\Müller^Jörg"})]
    keys = [*KEYS, *more] if options.fuzzy else KEYS
    levels = {Level.STUDY: NONE, Level.SERIES: NONE, Level.INSTANCE: NONE}
    expected = [_numbers(_search(catalog, level, levels[level], STUDIES, options=options, **key)) for level, key in keys]
    assert sum(map(bool, expected)) >= len(keys) - 1
    assert _numbers(_search(catalog, Level.STUDY, INDEXED, STUDIES, PatientState="stable")), "before the index is complete"
    assert build_index(catalog, INDEXED) == len(NAMES) * STUDIES
    for (level, key), numbers in zip(keys, expected, strict=True):
        assert _numbers(_search(catalog, level, INDEXED, 0, options=options, **key)) == numbers, key
    assert build_index(catalog, INDEXED) == 0
    with pytest.raises(TooLarge, match="DeviceSerialNumber"):
        _search(catalog, Level.SERIES, NONE, 3, DeviceSerialNumber="Dev_3")


def test_an_interrupted_job_goes_on_where_it_was_and_an_attribute_no_longer_named_is_forgotten(catalog: Catalog) -> None:
    catalog.write(_fill)
    one = indexed_attributes(("DeviceSerialNumber",))
    catalog.write(lambda conn: search_values.configure(conn, one))
    catalog.write(lambda conn: search_values.mark_done(conn, next(iter(one.values())), [100]))
    whole = _numbers(_search(catalog, Level.SERIES, NONE, STUDIES, DeviceSerialNumber="Dev_3"))
    assert _numbers(_search(catalog, Level.SERIES, one, STUDIES, DeviceSerialNumber="Dev_3")) == whole, "an index in the making is not used"
    assert whole
    assert build_index(catalog, one) == STUDIES - 100
    build_index(catalog, NONE)
    with catalog.read() as connection:
        table = VALUES_OF_LEVEL[Level.SERIES]
        assert connection.execute(select(func.count()).select_from(table).where(table.c.name == "00181000")).scalar() == 0
        assert search_values.indexes(connection) == {}


def test_rows_come_in_the_order_of_any_indexed_attribute(catalog: Catalog) -> None:
    catalog.write(_fill)
    with pytest.raises(InvalidQuery, match="SliceThickness is not indexed"):
        _search(catalog, Level.INSTANCE, NONE, 0, "SliceThickness")
    build_index(catalog, INDEXED)
    thickness = {n + 1: _document(n).get("00180050", {"Value": [-1]})["Value"][0] for n in range(STUDIES)}
    rising = _numbers(_search(catalog, Level.INSTANCE, INDEXED, 0, "SliceThickness"))
    falling = _numbers(_search(catalog, Level.INSTANCE, INDEXED, 0, "-SliceThickness,-InstanceNumber"))
    assert [thickness[n] for n in rising if isinstance(n, int)] == sorted(thickness.values())
    assert [(thickness[n], (n - 1) % 4) for n in falling if isinstance(n, int)] == sorted(
        ((t, (n - 1) % 4) for n, t in thickness.items()), reverse=True
    )


@pytest.mark.parametrize("new_database", ["sqlite"], indirect=True)
def test_the_value_to_order_by_is_looked_up_by_its_row(catalog: Catalog) -> None:
    """Not sought in the index of all values, from the least on: an order would take the square of the rows."""
    with catalog.read() as connection:
        for attribute in INDEXED.values():
            table, term = TABLE_OF_LEVEL[attribute.level].name, terms_of(attribute.level, (OrderBy(attribute),))[0]
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN SELECT {term.expression} FROM {table}")
            plan = "\n".join(str(row[-1]) for row in rows)
            assert f"SEARCH x USING PRIMARY KEY ({table}_pk=? AND name=?)" in plan, f"{attribute.keyword}: {plan}"


def test_pages_by_cursor_are_the_whole(catalog: Catalog) -> None:
    """Checklist 36: pages neither overlap nor skip, unknown values among what orders them or not."""
    catalog.write(_fill)
    for level in Level:
        _check_pages(catalog, level, "")
    for order in ("-StudyDate", "PatientName,-SeriesNumber", "-InstanceNumber", "SeriesNumber,StudyDate"):
        _check_pages(catalog, Level.INSTANCE, order)
    build_index(catalog, INDEXED)
    for order in ("PatientState,-DateOfLastCalibration", "-SliceThickness"):
        _check_pages(catalog, Level.INSTANCE, order, INDEXED)


def _check_pages(catalog: Catalog, level: Level, order: str, indexed: IndexedAttributes = NONE) -> None:
    whole = _numbers(_search(catalog, level, indexed, 0, order))
    by = tuple((tag_of(name.removeprefix("-")), name.startswith("-")) for name in order.split(",") if name)
    asked, pages = Query(level, (), (UNIQUE_KEYS[level].tag,), 31, order=by, count_remaining=False, cursor=BEGIN, indexed=indexed), []
    while asked.cursor is not None:
        page = find(catalog, asked)
        assert all(len(row) == len(page.columns) + 1 for row in page.rows)
        pages += _numbers(page)
        asked = replace(asked, cursor=page.cursor)
    assert pages == whole


def test_pages_of_what_documents_tell_look_into_them_once(catalog: Catalog) -> None:
    catalog.write(_fill)
    keys = build_keys([(path_of("DeviceSerialNumber"), "Dev_1")], Dialect())
    asked = Query(Level.SERIES, keys, (), 10, count_remaining=False, cursor=BEGIN)
    first = find(catalog, asked)
    assert first.cursor is not None
    second = find(catalog, replace(asked, cursor=first.cursor, max_documents=0))
    assert len(_numbers(first) + _numbers(second)) == 20
    assert not set(_numbers(first)) & set(_numbers(second))


def _slice(n: int, thickness: str, serial: str) -> Dataset:
    ds = slice_of("1.2", "1.2.1", f"1.2.1.{n}")
    ds.SliceThickness, ds.DeviceSerialNumber = thickness, serial
    return ds


def _archive(tmp_path: Any, catalog: Catalog) -> Archive:
    made = archive(tmp_path, catalog, FilesystemStore(tmp_path / "storage"))
    settings = replace(made.settings, index_attributes=NAMES)
    return replace(made, settings=settings, ingest=type(made.ingest)(settings, catalog, made.store, made.spool))


def test_what_arrives_is_indexed_and_what_is_deleted_is_not(catalog: Catalog, tmp_path: Any) -> None:
    build_index(catalog, INDEXED)
    parts = _archive(tmp_path, catalog)
    for n, serial in enumerate(("A", "B")):
        parts.accept(_slice(n, f"{n}.25", serial))
    assert len(_search(catalog, Level.INSTANCE, INDEXED, 0, SliceThickness="1.25").rows) == 1
    assert len(_search(catalog, Level.SERIES, INDEXED, 0, DeviceSerialNumber="B").rows) == 1
    assert not _search(catalog, Level.SERIES, INDEXED, 0, DeviceSerialNumber="A").rows, "the version last stored tells"
    catalog.write(lambda conn: delete_target(conn, Target("1.2", "1.2.1", "1.2.1.1"), parts_origin()))
    assert len(_search(catalog, Level.SERIES, INDEXED, 0, DeviceSerialNumber="A").rows) == 1
    parts.accept(_slice(0, "9", "C"))
    assert not _search(catalog, Level.INSTANCE, INDEXED, 0, SliceThickness="0.25").rows
    catalog.write(lambda conn: delete_target(conn, Target("1.2"), parts_origin()))
    with catalog.read() as connection:
        assert [connection.execute(select(func.count()).select_from(table)).scalar() for table in VALUES_OF_LEVEL.values()] == [0] * 4


def parts_origin() -> Any:
    from pacslite.catalog.changes import Origin

    return Origin("api")


@pytest.mark.parametrize(
    "name", ["Nonsense", "PatientName", "PixelData", "SliceThickness:frame", "StudyComments", "ReferencedImageSequence"]
)
def test_what_cannot_be_indexed_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name.partition(":")[2] or name):
        indexed_attributes((name,))


def test_names_that_are_there_are_indexed_by_the_migration(database_url: str) -> None:
    catalog = Catalog(database_url)
    catalog.migrate("0001")
    columns = "pk, identity_id, identity_issuer, identity_study, patient_name, created_at, updated_at"
    rows = [f"({n}, '{n}', '', '', '{name}', '', '')" for n, name in enumerate(("Doe^Jane", "Müller^Jörg", ""), 1)]
    many = [f"({n}, '{n}', '', '', 'Roe^R{n}', '', '')" for n in range(10, 1100)]
    catalog.write(lambda conn: conn.execute(text(f"INSERT INTO patient ({columns}) VALUES {', '.join(rows + many)}")))
    catalog.migrate()
    for key, numbers in (("jane", [1]), ("mueler", [2]), ("rohe r1099", [1099]), ("nobody", [])):
        assert _numbers(_search(catalog, Level.PATIENT, NONE, 0, options=Options(fuzzy=True), PatientName=key)) == numbers
    catalog.close()
