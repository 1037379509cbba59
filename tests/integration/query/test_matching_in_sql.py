"""SQL finds what `dicom.matching` says fits, on SQLite and PostgreSQL, for any values and keys."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from pacslite.catalog import search
from pacslite.catalog.database import Catalog
from pacslite.catalog.search import Search
from pacslite.catalog.search_conditions import is_multiple
from pacslite.core.query_keys import Dialect, build_keys, path_of
from pacslite.dicom.attributes import BY_KEYWORD, Level
from pacslite.dicom.matching import DateTimeRange, Options, in_date_time_range, matches, parse
from pacslite.errors import InvalidQuery
from tests.support.catalog_rows import Loader
from tests.support.databases import database_url, new_database, postgres

__all__ = ["database_url", "new_database", "postgres"]
SEED = 20261120
ROWS = 250

_LETTERS = "ab%_[]^-!\\'\" *?éÉßπ山"
_YAMADA = "Yamada^Tarou=山田^太郎=やまだ^たろう"
_NAMES = ("Doe^Jane", "doe^JOHN^^", "Müller^Jörg", "MULLER^JORG", _YAMADA, "=山田", "O'Neil^%_*", "Doe", "Döe^[x]", "")
_DATES = ("20240101", "20240131", "2024.01.15", "20231231", "20240201", "", "unknown", "19000101")
_TIMES = ("10", "1030", "103000", "103000.5", "10:30:15", "235959.999999", "00", "", "2500", "103015.25", "1031")


def _random_text(rng: random.Random, alphabet: str = _LETTERS, longest: int = 6) -> str:
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(0, longest)))


def _values(rng: random.Random, keyword: str) -> str:
    """A stored value as ingest hands it over: padding gone, several values joined."""
    if keyword in ("StudyDate", "PatientBirthDate"):
        return rng.choice(_DATES)
    if keyword == "StudyTime":
        return rng.choice(_TIMES)
    if keyword in ("PatientName", "NameOfPhysiciansReadingStudy"):
        one = rng.choice(_NAMES)
        return f"{one}\\{rng.choice(_NAMES)}" if keyword != "PatientName" and rng.random() < 0.5 else one
    if keyword == "StudyInstanceUID":
        return f"1.2.{rng.randint(1, 10**9)}"
    if keyword == "ModalitiesInStudy":
        return "\\".join(sorted({rng.choice(("CT", "MR", "US", "C", "T")) for _ in range(rng.randint(0, 3))}))
    if keyword == "PatientWeight":
        return rng.choice(("70", "70.0", "+70", "7e1", "0", "", "heavy", "70.5"))
    if keyword == "NumberOfStudyRelatedInstances":
        return str(rng.randint(0, 3))
    if keyword == "AdmittingDiagnosesDescription":
        return "\\".join(_random_text(rng, _LETTERS.replace("\\", "")).strip(" ") for _ in range(rng.randint(0, 3))).strip("\\")
    if keyword == "PatientComments":
        return _random_text(rng).rstrip(" ")
    return _random_text(rng, _LETTERS.replace("\\", "")).strip(" ")


KEYWORDS = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientComments", "StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy",
    "NameOfPhysiciansReadingStudy", "StudyInstanceUID", "PatientWeight", "NumberOfStudyRelatedInstances", "AdmittingDiagnosesDescription",
)  # fmt: skip


def _key(rng: random.Random, keyword: str, rows: list[dict[str, str]]) -> str:
    """A key that has a chance: a stored value, changed a little, or something random."""
    stored = rng.choice(rows)[keyword].split("\\")[0]
    if keyword in ("StudyDate", "PatientBirthDate", "StudyTime"):
        low, high = sorted((stored, rng.choice(rows)[keyword]))
        return rng.choice((stored, f"{low}-{high}", f"{low}-", f"-{high}"))
    if keyword.endswith(("Name", "Study")) and rng.random() < 0.4:
        other = rng.choice(rows)[keyword].split("\\")
        return rng.choice((" ".join(reversed(stored.split("^"))), stored[:3] + "^" + stored[5:8], "\\".join((stored, *other)), '""'))
    choices = [stored, stored[: len(stored) // 2] + "*", "*" + stored[len(stored) // 2 :], _random_text(rng), stored.swapcase()]
    if stored:
        at = rng.randrange(len(stored))
        choices += [stored[:at] + "?" + stored[at + 1 :], stored[:at] + "*" + stored[at + 1 :]]
    if keyword in ("ModalitiesInStudy", "StudyInstanceUID"):
        choices.append(",".join((stored, rng.choice(rows)[keyword].split("\\")[0])))
    return rng.choice(choices)


@pytest.fixture
def rows(database_url: str) -> Iterator[tuple[Catalog, list[dict[str, str]]]]:
    """A catalog of random studies and their values, in the order of their numbers."""
    rng = random.Random(SEED)
    values = [{keyword: _values(rng, keyword) for keyword in KEYWORDS} for _ in range(ROWS)]
    catalog = Catalog(database_url, pool_size=2)
    catalog.migrate()

    def work(connection: object) -> None:
        loader = Loader(connection)  # type: ignore[arg-type]
        for row in values:
            count, modalities = int(row["NumberOfStudyRelatedInstances"]), row["ModalitiesInStudy"] or None
            loader.study(loader.patient(**row), **(row | {"NumberOfStudyRelatedInstances": count, "ModalitiesInStudy": modalities}))
        loader.flush()

    catalog.write(work)
    yield catalog, values
    catalog.close()


def _split(keyword: str, text: str) -> tuple[str, ...]:
    return tuple(text.split("\\")) if is_multiple(BY_KEYWORD[keyword].tag) else (text,)


@pytest.mark.parametrize("options", [Options(), Options(ignore_case=True), Options(fuzzy=True), Options(empty=True, multiple=True)])
def test_sql_finds_what_the_reference_says_fits(rows: tuple[Catalog, list[dict[str, str]]], options: Options) -> None:
    catalog, values = rows
    rng, tried = random.Random(SEED + 1), dict.fromkeys(KEYWORDS, 0)
    with catalog.read() as connection:
        for _ in range(900):
            keyword = rng.choice(KEYWORDS)
            attribute = BY_KEYWORD[keyword]
            text = _key(rng, keyword, values)
            try:
                match = parse(attribute.vr, text, options=options)
            except InvalidQuery:
                continue
            if parse(attribute.vr, "") == match:
                continue
            expected = [n for n, row in enumerate(values, 1) if matches(match, _split(keyword, row[keyword]))]
            found = search.numbers(connection, Search(Level.STUDY, ((attribute, match),), (), ROWS + 1))
            assert sorted(found) == expected, f"{keyword}={text!r} {match}"
            tried[keyword] += bool(expected)
    assert all(n >= 3 for n in tried.values()), f"keys that found nothing prove little: {tried}"


def test_one_interval_of_date_and_time_means_the_same_in_sql(rows: tuple[Catalog, list[dict[str, str]]]) -> None:
    catalog, values = rows
    rng, combined = random.Random(SEED + 2), 0
    reference: Callable[[DateTimeRange, dict[str, str]], bool] = lambda m, row: in_date_time_range(m, row["StudyDate"], row["StudyTime"])  # noqa: E731
    with catalog.read() as connection:
        for _ in range(150):
            dates, times = _key(rng, "StudyDate", values), _key(rng, "StudyTime", values)
            try:
                keys = build_keys([(path_of("StudyDate"), dates), (path_of("StudyTime"), times)], Dialect())
            except InvalidQuery:
                continue
            if len(keys) != 1 or not isinstance(keys[0].match, DateTimeRange):
                continue
            combined += 1
            expected = [n for n, row in enumerate(values, 1) if reference(keys[0].match, row)]
            found = search.numbers(connection, Search(Level.STUDY, ((BY_KEYWORD["StudyDate"], keys[0].match),), (), ROWS + 1))
            assert sorted(found) == expected, f"{dates} {times}"
    assert combined > 20
