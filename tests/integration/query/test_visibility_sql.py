"""What SQL shows of patients, studies, series and files is what a plain evaluation of groups and labels says may be seen."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from sqlalchemy import Connection, insert, select

from pacslite.catalog import changes, deletions, restrictions, retrieval, search
from pacslite.catalog.changes import Origin
from pacslite.catalog.database import Catalog
from pacslite.catalog.deletions import Target
from pacslite.catalog.file_models import file as file_table
from pacslite.catalog.models import patient as patient_table
from pacslite.catalog.restrictions import Named, Restriction
from pacslite.catalog.search import Search
from pacslite.catalog.visibility import EVERYTHING, NOTHING, Visibility, file_clauses, sees
from pacslite.core.query_keys import Dialect, build_keys, path_of
from pacslite.dicom.attributes import BY_KEYWORD, Level
from pacslite.dicom.matching import Match
from tests.conftest import full
from tests.support.arrivals import arrival, store

SEED = 20261121
GROUPS = ("a", "b", "c")
LABELS = ("vip", "trial", "plain")
ROUNDS = 25 if full() else 8


@dataclass
class World:
    """What is in the catalog, and what limits it, told without SQL."""

    patients: dict[str, list[str]] = field(default_factory=dict)  # studies of each
    series: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # of each study: UID and modality
    instances: dict[str, list[str]] = field(default_factory=dict)  # of each series
    limits: dict[tuple[str, ...], Restriction] = field(default_factory=dict)
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    files: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # patient, study, and series of an instance, each may be ""

    def admits(self, name: tuple[str, ...], groups: frozenset[str]) -> bool:
        limit = self.limits.get(name, Restriction())
        if limit.groups is not None and not groups & set(limit.groups):
            return False
        return all(groups & set(self.labels[one]) for one in limit.labels if one in self.labels)

    def seen(self, visibility: Visibility) -> dict[str, dict[str, list[str]]]:
        """Studies by patient and series by study, as far as they are seen."""
        found: dict[str, dict[str, list[str]]] = {}
        for patient, studies in self.patients.items():
            for study in studies:
                if visibility.study is not None and study != visibility.study:
                    continue
                if visibility.everything:
                    parts = [uid for uid, _ in self.series[study]]
                elif self.admits(("patient", patient), visibility.groups) and self.admits(("study", study), visibility.groups):
                    parts = [uid for uid, _ in self.series[study] if self.admits(("series", study, uid), visibility.groups)]
                else:
                    parts = []
                if parts:
                    found.setdefault(patient, {})[study] = parts
        return found

    def seen_files(self, visibility: Visibility) -> set[str]:
        """The files that are seen."""
        seen = self.seen(Visibility(visibility.everything, visibility.groups))
        studies = {study: parts for own in seen.values() for study, parts in own.items()}
        found = set()
        for name, (patient, study, series) in self.files.items():
            named = name == visibility.file if visibility.file is not None else visibility.study in (None, study)
            admitted = self.admits(("file", name), visibility.groups) and self.admits(("patient", patient), visibility.groups)
            above = not study or (study in studies and (not series or series in studies[study]))
            if named and above and (visibility.everything or admitted):
                found.add(name)
        return found

    def seen_patients(self, visibility: Visibility) -> set[str]:
        """Who is seen: of whom something is seen, or who has no study and whom nothing limits; nobody by a link to a file."""
        if visibility.file is not None:
            return set()
        found = set(self.seen(visibility)) | {self.files[name][0] for name in self.seen_files(visibility)}
        for patient, studies in self.patients.items():
            alone = visibility.study is None and not studies
            if alone and (visibility.everything or self.admits(("patient", patient), visibility.groups)):
                found.add(patient)
        return found


def _fill(catalog: Catalog, rng: random.Random) -> World:
    world = World()
    for p in range(4):
        patient = f"P{p}"
        world.patients[patient] = []
        for s in range(rng.randint(1, 3)):
            study = f"1.{p + 1}.{s}"
            world.patients[patient].append(study)
            world.series[study] = []
            for n in range(rng.randint(1, 3)):
                # The same Series Instance UID may be in several studies.
                uid = f"1.{p + 1}.{s}.{n}" if rng.random() < 0.8 else "1.99.1"
                if uid in [known for known, _ in world.series[study]]:
                    continue
                modality = rng.choice(("CT", "MR", "US"))
                world.series[study].append((uid, modality))
                world.instances[f"{study}/{uid}"] = [
                    f"{uid}.{i}" if uid != "1.99.1" else f"{study}.99.{i}" for i in range(rng.randint(1, 2))
                ]
                for sop in world.instances[f"{study}/{uid}"]:
                    store(catalog, arrival(study, uid, sop, digest=sop, PatientID=patient, Modality=modality))
    _fill_files(catalog, world, rng)
    return world


def _fill_files(catalog: Catalog, world: World, rng: random.Random) -> None:
    """Files of patients: some alone, some tied to a study, some that are instances; and patients who have nothing else, or nothing."""
    for patient in [*world.patients, "F", "N"]:
        world.patients.setdefault(patient, [])
        for n in range(0 if patient == "N" else 3):
            study = rng.choice(["", *world.patients[patient]])
            series = rng.choice(["", *(uid for uid, _ in world.series[study])]) if study else ""
            world.files[str(UUID(int=len(world.files) + n))] = (patient, study, series)

    def work(conn: Connection) -> None:
        for name in ("F", "N"):
            row = {"identity_id": name, "identity_issuer": "", "identity_study": "", "patient_id": name}
            conn.execute(insert(patient_table).values(**row, created_at="", updated_at="", created_by="somebody"))
        pks = {name: pk for pk, name in conn.execute(select(patient_table.c.pk, patient_table.c.identity_id))}
        for name, (patient, study, series) in world.files.items():
            tied = {"dicom_study_uid": study, "dicom_series_uid": series} if series else {"study_instance_uid": study or None}
            row = {"uid": name, "patient_pk": pks[patient], "file_type": "photo", "version_number": 1, "created_by": "x"}
            conn.execute(insert(file_table).values(**row, created_at="", updated_at="", **tied))
            uids, kind = (study or None, series or None, None), changes.Kind.FILE_CREATED
            changes.add(conn, kind, "", Origin("api"), uids=uids, file_id=name, patient_id=pks[patient])
        for name in ("F", "N"):
            changes.add(conn, changes.Kind.PATIENT_CREATED, "", Origin("api"), detail={"of": name}, patient_id=pks[name])

    catalog.write(work)


def _limit(catalog: Catalog, world: World, rng: random.Random) -> None:
    """Something is limited, labelled or set free."""

    def some() -> Restriction:
        groups = None if rng.random() < 0.5 else tuple(sorted(rng.sample(GROUPS, rng.randint(0, 2))))
        return Restriction(groups, tuple(sorted(rng.sample(LABELS, rng.randint(0, 2)))))

    limit = Restriction() if rng.random() < 0.25 else some()
    patient = rng.choice(list(world.patients))
    study = rng.choice(list(world.series))
    series = rng.choice(world.series[study])[0]
    kind = rng.choice(("patient", "study", "series", "file", "label"))
    if kind == "label":
        label, allowed = rng.choice(LABELS[:2]), tuple(sorted(rng.sample(GROUPS, rng.randint(0, 3))))
        world.labels[label] = allowed
        catalog.write(lambda conn: restrictions.put_label(conn, label, allowed), restrictions.KEYS)
        return
    file = rng.choice(list(world.files))
    named = {
        "file": (("file", file), restrictions.file_named(file)),
        "patient": (("patient", patient), Named(Level.PATIENT, patient_id=patient)),
        "study": (("study", study), Named(Level.STUDY, study)),
        "series": (("series", study, series), Named(Level.SERIES, study, series)),
    }[kind]
    world.limits[named[0]] = limit
    catalog.write(lambda conn: restrictions.restrict(conn, named[1], limit), restrictions.KEYS)


@pytest.fixture
def world(catalog: Catalog) -> tuple[Catalog, World]:
    """A catalog of some patients."""
    return catalog, _fill(catalog, random.Random(SEED))


def _column(keyword: str) -> int:
    return [a.keyword for a in SHOWN[Level.STUDY]].index(keyword) + 1


STUDY_KEYS = ("StudyInstanceUID", "ModalitiesInStudy", "SOPClassesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
PATIENT_KEYS = ("PatientID", "NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances")
SHOWN = {
    Level.PATIENT: tuple(BY_KEYWORD[k] for k in PATIENT_KEYS),
    Level.STUDY: tuple(BY_KEYWORD[k] for k in STUDY_KEYS),
    Level.SERIES: tuple(BY_KEYWORD[k] for k in ("StudyInstanceUID", "SeriesInstanceUID")),
    Level.INSTANCE: tuple(BY_KEYWORD[k] for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")),
}


def _keys(**keys: str) -> tuple[tuple[object, Match], ...]:
    built = build_keys([(path_of(keyword), text) for keyword, text in keys.items()], Dialect())
    return tuple((BY_KEYWORD[keyword], key.match) for keyword, key in zip(keys, built, strict=True))


def _found(catalog: Catalog, visibility: Visibility, level: Level, **keys: str) -> list[tuple[object, ...]]:
    seen = catalog.seen_by(visibility)
    with seen.read() as conn:
        wanted = Search(level, _keys(**keys), SHOWN[level], 500, sight=seen.sight(conn))  # type: ignore[arg-type]
        found = search.find(conn, wanted)
        one = search.find(conn, Search(level, wanted.conditions, SHOWN[level], 1, sight=wanted.sight))
        assert one.remaining == max(0, len(found.rows) - 1), "the count reveals what is hidden"
        numbers = search.numbers(conn, wanted)
        assert numbers == [row[0] for row in found.rows]
        assert search.rows_of(conn, level, SHOWN[level], numbers, wanted.sight) == found.rows  # type: ignore[arg-type]
        with_studies = {row[0] for row in found.rows if level is not Level.PATIENT or row[2]}
        assert set(search.documents(conn, level, numbers, wanted.sight)) == with_studies  # type: ignore[arg-type]
        return [row[1:] for row in found.rows]


def _check_searches(catalog: Catalog, world: World, visibility: Visibility) -> None:
    seen = world.seen(visibility)
    studies = {study: parts for own in seen.values() for study, parts in own.items()}
    count = {study: [len(world.instances[f"{study}/{uid}"]) for uid in parts] for study, parts in studies.items()}
    modalities = {study: {dict(world.series[study])[uid] for uid in parts} for study, parts in studies.items()}
    expected = {
        patient: (len(own), sum(len(parts) for parts in own.values()), sum(sum(count[study]) for study in own))
        for patient, own in seen.items()
    }
    expected |= dict.fromkeys(world.seen_patients(visibility) - expected.keys(), (0, 0, 0))
    assert {row[0]: row[1:] for row in _found(catalog, visibility, Level.PATIENT)} == expected
    told = {row[0]: row[1:] for row in _found(catalog, visibility, Level.STUDY)}
    assert told == {
        study: ("\\".join(sorted(modalities[study])), told[study][1], len(count[study]), sum(count[study])) for study in studies
    }
    assert set(_found(catalog, visibility, Level.SERIES)) == {(study, uid) for study, parts in studies.items() for uid in parts}
    expected_instances = {
        (study, uid, sop) for study, parts in studies.items() for uid in parts for sop in world.instances[f"{study}/{uid}"]
    }
    assert set(_found(catalog, visibility, Level.INSTANCE)) == expected_instances
    # By what only one level below has, and by what columns of studies tell.
    for key in ("Modality", "ModalitiesInStudy"):
        by_modality = {row[0] for row in _found(catalog, visibility, Level.STUDY, **{key: "MR"})}
        assert by_modality == {study for study, found in modalities.items() if "MR" in found}, key
    by_count = {row[0] for row in _found(catalog, visibility, Level.STUDY, NumberOfStudyRelatedSeries="1")}
    assert by_count == {study for study in studies if len(count[study]) == 1}
    assert {row[0] for row in _found(catalog, visibility, Level.PATIENT, NumberOfPatientRelatedStudies="1")} == {
        patient for patient, own in seen.items() if len(own) == 1
    }
    assert {row[0] for row in _found(catalog, visibility, Level.PATIENT, Modality="MR")} == {
        patient for patient, own in seen.items() if any("MR" in modalities[study] for study in own)
    }


def _check_files(catalog: Catalog, world: World, visibility: Visibility) -> None:
    limited = catalog.seen_by(visibility)
    with limited.read() as conn:
        found = conn.execute(select(file_table.c.uid).where(*file_clauses(limited.sight(conn)))).scalars().all()
        told = changes.after(conn, 0, sight=limited.sight(conn))
        assert changes.count_after(conn, 0, limited.sight(conn)) == len(told)
        without = changes.after(conn, 0, sight=limited.sight(conn), files=False)
    assert set(found) == world.seen_files(visibility)
    assert {one.file_id for one in told if one.file_id} == world.seen_files(visibility)
    assert {one.detail["of"] for one in told if "of" in one.detail} == world.seen_patients(visibility) & {"F", "N"}
    assert not [one for one in without if one.file_id or one.patient_id]
    assert {row[0] for row in _found(catalog, visibility, Level.PATIENT)} == world.seen_patients(visibility)


def _check_retrieval(catalog: Catalog, world: World, visibility: Visibility) -> None:
    seen = {study: parts for own in world.seen(visibility).values() for study, parts in own.items()}
    limited = catalog.seen_by(visibility)
    with limited.read() as conn:
        sight = limited.sight(conn)
        for study, parts in world.series.items():
            visible = {sop for uid in seen.get(study, ()) for sop in world.instances[f"{study}/{uid}"]}
            assert {item.sop_instance_uid for item in retrieval.items(conn, study, sight=sight)} == visible
            assert {row.sop_instance_uid for row in retrieval.documents(conn, study, sight=sight)} == visible
            assert {item.sop_instance_uid for item in retrieval.selected(conn, {Level.STUDY: study}, sight=sight)} == visible
            assert (retrieval.change_number(conn, study, sight=sight) is not None) == (study in seen)
            assert deletions.is_there(conn, Target(study), sight) == (study in seen)
            for uid, _ in parts:
                sop = world.instances[f"{study}/{uid}"][0]
                is_seen = uid in seen.get(study, ())
                assert bool(retrieval.items(conn, study, uid, sight=sight)) == is_seen
                assert bool(retrieval.items(conn, study, uid, sop, 1, sight=sight)) == is_seen
                assert bool(retrieval.versions(conn, study, uid, sop, sight)) == is_seen
                assert (retrieval.change_number(conn, study, uid, sight) is not None) == is_seen
                assert sees(conn, sight, study, uid) == is_seen or (sees(conn, sight, study, uid) and study not in seen)
        told = {(one.study_instance_uid, one.series_instance_uid) for one in changes.after(conn, 0, sight=sight, files=False)}
        assert told == {(study, uid) for study, parts in seen.items() for uid in parts}
        assert changes.count_after(conn, 0, sight) == len(changes.after(conn, 0, sight=sight))


def test_sql_shows_what_a_plain_evaluation_shows(world: tuple[Catalog, World]) -> None:
    catalog, told = world
    rng = random.Random(SEED + 1)
    hidden = 0
    for _ in range(ROUNDS):
        for _ in range(3):
            _limit(catalog, told, rng)
        study = rng.choice(list(told.series))
        groups = frozenset(rng.sample(GROUPS, rng.randint(0, 3)))
        for visibility in (Visibility(groups=groups), Visibility(groups=groups, study=study), Visibility(everything=True, study=study)):
            _check_searches(catalog, told, visibility)
            _check_retrieval(catalog, told, visibility)
            _check_files(catalog, told, visibility)
        file = rng.choice(list(told.files))
        for visibility in (Visibility(groups=groups, study="", file=file), Visibility(everything=True, study="", file=file)):
            _check_files(catalog, told, visibility)
            assert not _found(catalog, visibility, Level.STUDY)
        hidden += sum(map(len, told.series.values())) - sum(
            len(p) for own in told.seen(Visibility(groups=groups)).values() for p in own.values()
        )
    assert hidden > ROUNDS  # it was worth the while
    _check_searches(catalog, told, EVERYTHING)
    assert not _found(catalog, NOTHING, Level.STUDY)


def test_nothing_is_asked_while_nothing_is_limited(world: tuple[Catalog, World]) -> None:
    catalog, _ = world
    limited = catalog.seen_by(Visibility())
    with limited.read() as conn:
        assert limited.sight(conn) is None
    named = Named(Level.STUDY, "1.1.0")
    catalog.write(lambda conn: restrictions.restrict(conn, named, Restriction(("a",))), restrictions.KEYS)
    with limited.read() as conn:
        assert limited.sight(conn) is not None, "a change counts at once"
    catalog.write(lambda conn: restrictions.restrict(conn, named, Restriction()), restrictions.KEYS)
    with limited.read() as conn:
        assert limited.sight(conn) is None


def test_a_restriction_outlives_a_deletion_and_hides_that_there_was_one(world: tuple[Catalog, World]) -> None:
    catalog, _ = world
    named = Named(Level.STUDY, "1.1.0")
    catalog.write(lambda conn: restrictions.restrict(conn, named, Restriction(("a",))), restrictions.KEYS)
    catalog.write(lambda conn: deletions.delete_target(conn, Target("1.1.0"), Origin("api")))
    limited = catalog.seen_by(Visibility(groups=frozenset("b")))
    with limited.read() as conn:
        sight = limited.sight(conn)
        assert retrieval.was_deleted(conn, "1.1.0")
        assert not retrieval.was_deleted(conn, "1.1.0", sight=sight)
        assert deletions.kept_of(conn, Target("1.1.0"), "", "radiology/1.1.0/")
        assert not deletions.kept_of(conn, Target("1.1.0"), "", "radiology/1.1.0/", sight)
    store(catalog, arrival("1.1.0", "1.1.0.0", "1.1.0.0.9", digest="anew", PatientID="P0"))
    with limited.read() as conn:
        assert not retrieval.items(conn, "1.1.0", sight=limited.sight(conn))


def test_who_sees_a_part_of_a_study_deletes_that_part(world: tuple[Catalog, World]) -> None:
    catalog, told = world
    study = next(uid for uid, parts in told.series.items() if len(parts) > 1)
    kept = told.series[study][0][0]
    catalog.write(lambda conn: restrictions.restrict(conn, Named(Level.SERIES, study, kept), Restriction(("a",))), restrictions.KEYS)
    limited = catalog.seen_by(Visibility(groups=frozenset("b")))
    limited.write(lambda conn: deletions.delete_target(conn, Target(study), Origin("api"), sight=limited.sight(conn)))
    with catalog.read() as conn:
        assert {item.series_instance_uid for item in retrieval.items(conn, study)} == {kept}


def test_what_is_made_for_some_has_another_name_than_what_is_made_for_others(catalog: Catalog) -> None:
    """Documents of a study are kept under its change number, which must not be that of who sees other series."""
    for number in (1, 2, 3):
        store(catalog, arrival("1.1", f"1.1.{number}", f"1.1.{number}.1", digest=str(number)))
    for number, group in ((1, "a"), (2, "b")):
        named = Named(Level.SERIES, "1.1", f"1.1.{number}")
        catalog.write(lambda conn, n=named, g=group: restrictions.restrict(conn, n, Restriction((g,))), restrictions.KEYS)  # type: ignore[misc]
    names = []
    for groups in ("a", "b", "", "ab"):
        limited = catalog.seen_by(Visibility(groups=frozenset(groups)))
        with limited.read() as conn:
            names.append(retrieval.change_number(conn, "1.1", sight=limited.sight(conn)))
    assert len(set(names)) == len(names)
