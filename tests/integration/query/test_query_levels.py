"""The engine at the levels C-FIND has and QIDO-RS has not, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from pacslite.catalog.database import Catalog
from pacslite.core.query import Page, Query, find, item_values
from pacslite.core.query_keys import Dialect, build_keys, path_of
from pacslite.dicom.attributes import BY_KEYWORD, REQUEST_ATTRIBUTES_SEQUENCE, Level
from pacslite.errors import InvalidQuery
from tests.support.catalog_rows import Loader
from tests.support.databases import catalog, database_url, new_database, postgres

__all__ = ["catalog", "database_url", "new_database", "postgres"]


def _fill(connection: Any) -> None:
    loader = Loader(connection)
    for n, name in enumerate(("Roe^B", "Doe^A", "")):
        patient = loader.patient(PatientID=f"P{n}", PatientName=name)
        for m in range(n + 1):
            counts = {"NumberOfStudyRelatedSeries": 1, "NumberOfStudyRelatedInstances": 2}
            study = loader.study(patient, StudyInstanceUID=f"1.{n}.{m}", StudyDate=f"2024010{m + 1}", **counts)
            series = loader.series(study, [("A", ""), ("", "B")], SeriesInstanceUID=f"1.{n}.{m}.1", Modality=("CT", "MR", "US")[m])
            document = {"00102201": {"vr": "LO", "Value": [f"species {n}"]}}
            loader.instance(series, document, SOPClassUID="1.2", SOPInstanceUID=f"1.{n}.{m}.1.1")
    loader.flush()


def search(catalog: Catalog, level: Level, fields: tuple[str, ...], limit: int = 10, **keys: str) -> Page:
    built = build_keys([(path_of(name), text) for name, text in keys.items()], Dialect())
    return find(catalog, Query(level, built, tuple(BY_KEYWORD[f].tag for f in fields), limit, count_remaining=False))


def values(page: Page, keyword: str) -> list[tuple[str, ...]]:
    return [record[BY_KEYWORD[keyword].tag] for record in page.records()]


def test_patients_come_by_name_with_their_counts(catalog: Catalog) -> None:
    catalog.write(_fill)
    counts = tuple(f"NumberOfPatientRelated{what}" for what in ("Studies", "Series", "Instances"))
    page = search(catalog, Level.PATIENT, ("PatientID", *counts))
    assert values(page, "PatientID") == [("P2",), ("P1",), ("P0",)]
    assert [values(page, c) for c in counts] == [[("3",), ("2",), ("1",)], [("3",), ("2",), ("1",)], [("6",), ("4",), ("2",)]]
    assert values(search(catalog, Level.PATIENT, ("PatientID",), NumberOfPatientRelatedStudies="2"), "PatientID") == [("P1",)]


@pytest.mark.parametrize(
    ("keys", "patients"),
    [
        ({"StudyDate": "20240102-"}, ["P2", "P1"]),
        ({"Modality": "US"}, ["P2"]),
        ({"StudyDate": "20240101", "Modality": "MR"}, []),
        ({"SOPInstanceUID": "1.1.0.1.1"}, ["P1"]),
        ({"PatientSpeciesDescription": "species 2"}, ["P2"]),
    ],
)
def test_keys_of_lower_levels_have_to_fit_one_line_of_descent(catalog: Catalog, keys: dict[str, str], patients: list[str]) -> None:
    catalog.write(_fill)
    assert values(search(catalog, Level.PATIENT, ("PatientID",), **keys), "PatientID") == [(p,) for p in patients]


def test_more_rows_are_told_without_counting_them(catalog: Catalog) -> None:
    catalog.write(_fill)
    assert search(catalog, Level.STUDY, (), limit=2).remaining == 1
    assert search(catalog, Level.STUDY, (), limit=6).remaining == 0


def test_items_of_a_sequence_column_keep_their_order(catalog: Catalog) -> None:
    catalog.write(_fill)
    page = search(catalog, Level.SERIES, ("RequestAttributesSequence",), SeriesInstanceUID="1.0.0.1")
    position = [a.tag for a in page.columns].index(REQUEST_ATTRIBUTES_SEQUENCE)
    column = page.rows[0][position + 1]
    assert isinstance(column, str)
    items = item_values(BY_KEYWORD["RequestAttributesSequence"], column)
    assert items == ({0x00400009: "A", 0x00401001: ""}, {0x00400009: "", 0x00401001: "B"})


def test_what_only_instances_have_cannot_be_asked_of_studies(catalog: Catalog) -> None:
    with pytest.raises(InvalidQuery, match="SliceThickness"):
        search(catalog, Level.STUDY, (), SliceThickness="1")
