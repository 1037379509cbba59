"""Deleting takes rows at once, dooms the bytes, remembers what was there, and mends what stays."""

from __future__ import annotations

import pytest
from sqlalchemy import event, func, select, update

from pacslite.catalog import changes, models, retrieval
from pacslite.catalog.database import Catalog
from pacslite.core.removal import Deleted, Target, remove
from pacslite.errors import Gone, NotFound
from tests.integration.catalog.test_record import COUNTS, count, rows
from tests.support.arrivals import CT, MR, ORIGIN, arrival, store

CONTENT = (models.patient, models.study, models.series, models.instance, models.version, models.metadata, models.request_attribute)


def test_a_deleted_study_leaves_nothing_but_doomed_bytes(catalog: Catalog) -> None:
    store(catalog, arrival(sop="1", requests=(("S", "R"),)))
    store(catalog, arrival(sop="1", digest="d2", requests=(("S", "R"),)))
    store(catalog, arrival(series="1.1.2", sop="2", PatientID="other"))
    assert remove(catalog, Target("1.1"), ORIGIN) == Deleted(instances=2, versions=3)
    assert [count(catalog, table) for table in (*CONTENT, models.conflict)] == [0] * 8
    assert rows(catalog, models.blob, "state", "reference_count") == [("doomed", 0)] * 3
    assert all(rows(catalog, models.blob, "doomed_at"))
    with catalog.read() as conn:
        last = changes.after(conn, 0)[-1]
    assert (last.kind, last.study_instance_uid, last.series_instance_uid, last.detail["instances"]) == ("study_deleted", "1.1", "", 2)


def test_deleting_twice_is_gone_and_what_never_was_is_not_found(catalog: Catalog) -> None:
    store(catalog, arrival())
    remove(catalog, Target("1.1"), ORIGIN)
    for target in (Target("1.1"), Target("1.1", "1.1.1"), Target("1.1", "1.1.1", "1.1.1.1")):
        with pytest.raises(Gone):
            remove(catalog, target, ORIGIN)
    with pytest.raises(NotFound):
        remove(catalog, Target("7.7"), ORIGIN)


def test_the_rest_of_a_study_is_counted_anew(catalog: Catalog) -> None:
    store(catalog, arrival(sop="1"))
    store(catalog, arrival(sop="2"))
    store(catalog, arrival(series="1.1.2", sop="3", Modality="MR", sop_class=MR))
    assert remove(catalog, Target("1.1", "1.1.1", "1"), ORIGIN) == Deleted(1, 1)
    assert rows(catalog, models.study, *COUNTS) == [(2, 2, "CT\\MR", f"{CT}\\{MR}")]
    assert rows(catalog, models.series, "number_of_series_related_instances") == [1, 1]
    remove(catalog, Target("1.1", "1.1.2"), ORIGIN)
    assert rows(catalog, models.study, *COUNTS) == [(1, 1, "CT", CT)]
    with catalog.read() as conn:
        assert rows(catalog, models.study, "change_seq") == [changes.last(conn)]
        assert retrieval.was_deleted(conn, "1.1", "1.1.2")
        assert retrieval.was_deleted(conn, "1.1", "1.1.2", "any")
        assert retrieval.was_deleted(conn, "1.1", "1.1.1", "1")
        assert not retrieval.was_deleted(conn, "1.1", "1.1.1", "2")
        assert not retrieval.was_deleted(conn, "1.1", "1.1.3")
        assert not retrieval.was_deleted(conn, "1.2")


def test_the_last_instance_takes_series_study_and_patient_along(catalog: Catalog) -> None:
    store(catalog, arrival())
    remove(catalog, Target("1.1", "1.1.1", "1.1.1.1"), ORIGIN)
    assert [count(catalog, table) for table in CONTENT] == [0] * 7
    for target in (Target("1.1"), Target("1.1", "1.1.1")):
        with pytest.raises(Gone):
            remove(catalog, target, ORIGIN)
    with pytest.raises(NotFound):
        remove(catalog, Target("1.1", "1.1.2"), ORIGIN)


def test_a_patient_with_another_study_stays(catalog: Catalog) -> None:
    store(catalog, arrival(study="1"))
    store(catalog, arrival(study="2"))
    remove(catalog, Target("1"), ORIGIN)
    assert rows(catalog, models.patient, "patient_id") == ["P1"]


def test_attributes_become_those_of_the_version_last_stored_among_the_rest(catalog: Catalog) -> None:
    texts = {"StudyTime": "0304", "ReferringPhysicianName": "Ref^A"}
    store(catalog, arrival(sop="1", StudyDescription="first", SeriesNumber="3", requests=(("S1", "R1"),), **texts))
    store(catalog, arrival(sop="2", StudyDescription="second", SeriesNumber="4", requests=(("S2", "R2"),)))
    remove(catalog, Target("1.1", "1.1.1", "2"), ORIGIN)
    columns = ("study_description", "study_time_normal", "referring_physician_name_alphabetic")
    assert rows(catalog, models.study, *columns) == [("first", "0304", "ref^a")]
    assert rows(catalog, models.series, "series_number", "series_number_value") == [("3", 3)]
    assert rows(catalog, models.request_attribute, "scheduled_procedure_step_id", "requested_procedure_id") == [("S1", "R1")]


def test_what_was_deleted_can_arrive_again(catalog: Catalog) -> None:
    one = arrival()
    store(catalog, one)
    remove(catalog, Target("1.1"), ORIGIN)
    assert store(catalog, one).outcome == "stored"
    assert rows(catalog, models.study, *COUNTS) == [(1, 1, "CT", CT)]
    assert rows(catalog, models.blob, "state") == ["doomed", "live"]


def test_bytes_that_another_version_refers_to_stay(catalog: Catalog) -> None:
    store(catalog, arrival(sop="1"))
    store(catalog, arrival(study="2", series="2.1", sop="2"))
    shared = {"blob_pk": 1}
    catalog.write(lambda conn: conn.execute(update(models.version).values(shared)))
    catalog.write(lambda conn: conn.execute(update(models.blob).where(models.blob.c.pk == 1).values(reference_count=2)))
    remove(catalog, Target("2"), ORIGIN)
    assert rows(catalog, models.blob, "state", "reference_count")[0] == ("live", 1)
    remove(catalog, Target("1.1"), ORIGIN)
    assert rows(catalog, models.blob, "state", "reference_count")[0] == ("doomed", 0)


def test_a_study_of_many_instances_goes_in_few_statements(catalog: Catalog) -> None:
    for i in range(60):
        store(catalog, arrival(sop=f"3.{i}"))
    statements = 0

    def counted(*_arguments: object) -> None:
        nonlocal statements
        statements += 1

    event.listen(catalog._writes, "before_cursor_execute", counted)
    assert remove(catalog, Target("1.1"), ORIGIN).instances == 60
    assert statements < 25
    with catalog.read() as conn:
        assert conn.execute(select(func.count()).select_from(models.blob).where(models.blob.c.state == "live")).scalar_one() == 0
