"""What the transaction that records an instance does to patient, study, series, instance and version."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table, func, select

from pacslite.catalog import changes, instances, models
from pacslite.catalog.database import Catalog
from pacslite.catalog.instances import Intent
from tests.support.arrivals import CT, MR, arrival, blob_of, store


def rows(catalog: Catalog, table: Table, *names: str) -> list[Any]:
    with catalog.read() as conn:
        found = conn.execute(select(*(table.c[name] for name in names)).order_by(*table.primary_key.columns)).all()
        return [row[0] if len(names) == 1 else tuple(row) for row in found]


def count(catalog: Catalog, table: Table) -> int:
    with catalog.read() as conn:
        return int(conn.execute(select(func.count()).select_from(table)).scalar_one())


COUNTS = ("number_of_study_related_series", "number_of_study_related_instances", "modalities_in_study", "sop_classes_in_study")


def test_a_new_instance_is_found_again(catalog: Catalog) -> None:
    one = arrival(InstanceNumber="7")
    assert store(catalog, one) == instances.Recorded("stored", 1)
    with catalog.read() as conn:
        existing = instances.find_version(conn, *one.uids)
        other_place = (
            instances.find_version(conn, "1.1", "1.1.2", one.sop_instance_uid),
            instances.find_version(conn, "1.2", "1.1.1", "1"),
        )
    assert existing is not None
    assert (existing.number, existing.data_set_digest, existing.state, existing.size_bytes) == (1, "d1", "live", 10)
    assert other_place == (None, None)
    assert rows(catalog, models.instance, "instance_number", "instance_number_value") == [("7", 7)]


def test_counts_and_lists_of_the_study_follow_its_instances(catalog: Catalog) -> None:
    store(catalog, arrival(sop="1"))
    store(catalog, arrival(sop="2"))
    store(catalog, arrival(series="1.1.2", sop="3", sop_class=MR, Modality="MR"))
    store(catalog, arrival(series="1.1.3", sop="4", sop_class=MR, Modality="MR"))
    assert rows(catalog, models.study, *COUNTS) == [(3, 4, "CT\\MR", f"{CT}\\{MR}")]
    assert rows(catalog, models.series, "number_of_series_related_instances") == [2, 1, 1]


def test_a_new_version_counts_once_and_is_the_one_that_is_seen(catalog: Catalog) -> None:
    store(catalog, arrival(InstanceNumber="1"))
    assert store(catalog, arrival(digest="d2", sop_class=MR, InstanceNumber="2")) == instances.Recorded("new_version", 2)
    assert rows(catalog, models.study, *COUNTS) == [(1, 1, "CT", MR)]
    assert rows(catalog, models.instance, "version_number", "instance_number", "sop_class_uid") == [(2, "2", MR)]
    assert rows(catalog, models.version, "number", "data_set_digest") == [(1, "d1"), (2, "d2")]
    assert count(catalog, models.metadata) == 2


def test_an_arrival_that_was_overtaken_changes_nothing(catalog: Catalog) -> None:
    one = arrival()
    store(catalog, one)
    before = rows(catalog, models.change, "seq")
    result = catalog.write(lambda conn: instances.record(conn, one, blob_of(one), None))
    assert result == instances.OVERTAKEN
    assert catalog.write(lambda conn: instances.record(conn, arrival(study="9"), blob_of(one), 77)) == instances.OVERTAKEN
    assert rows(catalog, models.change, "seq") == before
    assert count(catalog, models.blob) == 1


def test_attributes_are_those_of_the_version_last_stored(catalog: Catalog) -> None:
    store(catalog, arrival(sop="1", StudyDescription="old", SeriesDescription="old", ProtocolName="p"))
    store(catalog, arrival(sop="2", StudyDescription="new", SeriesDescription="new"))
    assert rows(catalog, models.study, "study_description") == ["new"]
    assert rows(catalog, models.series, "series_description", "protocol_name") == [("new", None)]


def test_the_series_modality_that_changes_is_replaced_in_the_study(catalog: Catalog) -> None:
    store(catalog, arrival(sop="1", Modality="CT"))
    store(catalog, arrival(sop="2", Modality="PT"))
    assert rows(catalog, models.study, "modalities_in_study") == ["PT"]


def test_text_is_kept_as_sent_and_matched_in_normal_form(catalog: Catalog) -> None:
    texts = {"StudyDate": "2026.01.02", "StudyTime": "030405", "PatientName": "Müller^Jörg=山田^太郎", "SeriesNumber": "+03"}
    store(catalog, arrival(AcquisitionDateTime="20260102+0100", ImageType="A\\B", PatientBirthDate="unknown", **texts))
    assert rows(catalog, models.study, "study_date", "study_date_normal") == [("2026.01.02", "20260102")]
    names = ("patient_name", "patient_name_alphabetic", "patient_name_ideographic", "patient_name_phonetic")
    assert rows(catalog, models.patient, *names) == [("Müller^Jörg=山田^太郎", "muller^jorg", "山田^太郎", "")]
    assert rows(catalog, models.patient, "patient_birth_date", "patient_birth_date_normal") == [("unknown", "")]
    assert rows(catalog, models.series, "series_number", "series_number_value") == [("+03", 3)]
    ends = ("acquisition_date_time_first", "acquisition_date_time_last")
    assert rows(catalog, models.instance, "image_type", *ends) == [("A\\B", "20260101230000.000000", "20260102225959.999999")]


def test_what_no_database_can_index_is_cut_or_cleaned(catalog: Catalog) -> None:
    store(
        catalog,
        arrival(PatientID="P\x001", AccessionNumber="\u00e9" * 5000, SeriesNumber="nan", StudyID="a\ud800b", OperatorsName="N" * 20000),
    )
    assert rows(catalog, models.patient, "patient_id", "identity_id") == [("P1", "P1")]
    assert rows(catalog, models.study, "accession_number", "study_id") == [("\u00e9" * 512, "a?b")]
    assert rows(catalog, models.series, "series_number", "series_number_value") == [("nan", None)]


def test_request_attributes_are_rows_of_their_series_and_are_replaced(catalog: Catalog) -> None:
    store(catalog, arrival(sop="1", requests=(("SPS1", "RP1"), ("SPS2", "RP1"))))
    store(catalog, arrival(sop="2", requests=(("SPS3", ""),)))
    columns = ("item", "scheduled_procedure_step_id", "requested_procedure_id")
    assert rows(catalog, models.request_attribute, *columns) == [(0, "SPS3", None)]


def test_one_patient_has_many_studies(catalog: Catalog) -> None:
    store(catalog, arrival(study="1", PatientID="P1 "))
    store(catalog, arrival(study="2", PatientID=" P1"))
    assert count(catalog, models.patient) == 1


def test_issuers_tell_patients_of_one_id_apart(catalog: Catalog) -> None:
    store(catalog, arrival(study="1", IssuerOfPatientID="A"))
    store(catalog, arrival(study="2", IssuerOfPatientID="B"))
    store(catalog, arrival(study="3", issuer="B"))
    assert rows(catalog, models.patient, "identity_issuer") == ["A", "B"]
    assert rows(catalog, models.study, "patient_pk") == [1, 2, 2]


def test_an_empty_patient_id_joins_nobody(catalog: Catalog) -> None:
    for study, sop in (("1", "1"), ("2", "2"), ("1", "3")):
        store(catalog, arrival(study=study, sop=sop, PatientID=""))
    assert rows(catalog, models.patient, "identity_study") == ["1", "2"]
    assert count(catalog, models.conflict) == 0


def test_another_patient_in_a_study_is_stored_listed_and_moves_nothing(catalog: Catalog) -> None:
    store(catalog, arrival(sop="1", PatientName="Doe^Jane"))
    store(catalog, arrival(sop="2", PatientID="P2", PatientName="Roe^Richard"))
    assert rows(catalog, models.patient, "patient_id", "patient_name") == [("P1", "Doe^Jane")]
    assert rows(catalog, models.study, "number_of_study_related_instances") == [2]
    assert rows(catalog, models.conflict, "kind", "sop_instance_uid") == [("patient_id", "2")]


def test_a_missing_issuer_does_not_contradict(catalog: Catalog) -> None:
    store(catalog, arrival(sop="1", IssuerOfPatientID="A"))
    store(catalog, arrival(sop="2"))
    assert count(catalog, models.conflict) == 0
    store(catalog, arrival(sop="3", IssuerOfPatientID="B"))
    assert rows(catalog, models.conflict, "kind") == ["patient_id"]


def test_the_same_sop_uid_elsewhere_is_another_instance_and_a_conflict(catalog: Catalog) -> None:
    store(catalog, arrival(study="1", series="1.1", sop="5"))
    store(catalog, arrival(study="1", series="1.2", sop="5"))
    store(catalog, arrival(study="2", series="1.1", sop="5"))
    assert count(catalog, models.instance) == 3
    assert count(catalog, models.series) == 3
    kinds = rows(catalog, models.conflict, "kind", "study_instance_uid", "series_instance_uid")
    assert kinds == [("sop_instance_uid", "1", "1.2"), ("sop_instance_uid", "2", "1.1")]


def test_a_renamed_patient_follows_the_newest_instance_and_the_old_name_stays_in_the_changes(catalog: Catalog) -> None:
    store(catalog, arrival(sop="1", PatientName="Doe^Jane"))
    store(catalog, arrival(sop="2", PatientName="Roe^Jane"))
    assert rows(catalog, models.patient, "patient_name", "patient_name_alphabetic") == [("Roe^Jane", "roe^jane")]
    with catalog.read() as conn:
        updates = [c for c in changes.after(conn, 0) if c.kind == "patient_updated"]
    assert [c.detail["before"]["patient_name"] for c in updates] == ["Doe^Jane"]


def test_a_repair_gives_the_version_new_bytes_and_dooms_the_old(catalog: Catalog) -> None:
    one = arrival()
    store(catalog, one)
    assert store(catalog, one, Intent.REPAIR) == instances.Recorded("repaired", 1)
    assert rows(catalog, models.version, "number", "blob_pk") == [(1, 2)]
    assert rows(catalog, models.blob, "state", "reference_count") == [("doomed", 0), ("live", 1)]
    assert rows(catalog, models.study, "number_of_study_related_instances") == [1]


def test_every_change_is_in_the_feed_and_numbers_the_series_and_study(catalog: Catalog) -> None:
    store(catalog, arrival(sop="1"))
    store(catalog, arrival(sop="1", digest="d2"))
    with catalog.read() as conn:
        feed = changes.after(conn, 0)
        assert changes.last(conn) == feed[-1].seq
        assert changes.after(conn, feed[0].seq, limit=1) == feed[1:2]
    assert [(c.kind, c.sop_instance_uid, c.version_number) for c in feed] == [("instance_stored", "1", 1), ("version_added", "1", 2)]
    assert (feed[0].calling_aet, feed[0].protocol, feed[0].request_id) == ("CT", "dimse", "a1")
    assert rows(catalog, models.series, "change_seq") == rows(catalog, models.study, "change_seq") == [feed[-1].seq]
