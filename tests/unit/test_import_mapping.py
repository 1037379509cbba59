"""Mappings of foreign trees: which row counts for a file, and what is wrong with a mapping is said before anything is done."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacslite.core.file_types import MedicalFileType
from pacslite.core.import_mapping import FileMapping, Told, Who, read_mapping
from pacslite.errors import BadRequest


def mapping(*rows: dict[str, str]) -> FileMapping:
    return FileMapping(rows)


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("a/b.jpg", "a/b.jpg", True),
        ("root/a/b.jpg", "a/b.jpg", True),
        ("b.jpg", "deep/below/b.jpg", True),
        ("a/*.jpg", "a/b.jpg", True),
        ("a/*.jpg", "a/c/b.jpg", False),
        ("a/**", "a/c/b.jpg", True),
        ("a/", "a/c/b.jpg", True),
        ("a/", "ab/c.jpg", False),
        ("**/b.jpg", "b.jpg", True),
        ("**/b.jpg", "x/y/b.jpg", True),
        ("a/?.jpg", "a/b.jpg", True),
        ("a/[bc].jpg", "a/b.jpg", True),
        ("a/[!bc].jpg", "a/b.jpg", False),
        ("a/x[1].jpg", "a/x[1].jpg", True),
        ("a\\b.jpg", "a/b.jpg", True),
        ("a.jpg", "aXjpg", False),
    ],
)
def test_paths_and_patterns(pattern: str, path: str, fits: bool) -> None:
    assert (mapping({"path": pattern, "mrn": "M1"}).about(path, "root").who.mrn == "M1") is fits


def test_the_path_itself_comes_first_and_columns_count_by_themselves() -> None:
    found = mapping(
        {"path": "**", "mrn": "ALL", "issuer": "X", "file_type": "photo", "description": "all"},
        {"path": "a/*", "mrn": "LATER", "study_date": "2024-05-17"},
        {"path": "a/b.jpg", "mrn": "ONE"},
    ).about("a/b.jpg")
    assert found == Told(Who(mrn="ONE"), None, MedicalFileType.PHOTO, None, "2024-05-17", None, "all")


def test_numbers_of_the_tree_are_patients() -> None:
    known = mapping({"number": "007", "mrn": "M7", "name": "A^B"}, {"number": "8", "patient_id": "3"})
    assert known.patient("7") == Who(mrn="M7", name="A^B")
    assert known.patient("8") == Who(patient_id=3)
    assert known.patient("9") is None


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"path": "a", "file_type": "foto"}, "file_type"),
        ({"path": "a", "study_date": "17.5.2024"}, "study_date"),
        ({"path": "a", "study_date": "2024-02-30"}, "study_date"),
        ({"path": "a", "patient_id": "M1"}, "patient_id"),
        ({"path": "a", "medical_category": "x"}, "medical_category"),
        ({"path": "a", "study_instance_uid": "1..2"}, "study_instance_uid"),
        ({"mrn": "M1"}, "needs a path"),
        ({"number": "1"}, "needs a path"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(row: dict[str, str], words: str) -> None:
    with pytest.raises(BadRequest, match=rf"row 2: .*{words}"):
        mapping({"path": "ok"}, row)


def test_csv_with_commas_semicolons_and_a_mark_of_its_encoding(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_bytes('\ufeffPath;MRN;Description\n"a;b.jpg";M1;Röntgen\n'.encode())
    assert read_mapping(file).about("a;b.jpg") == Told(Who(mrn="M1"), description="Röntgen")
    file.write_text('path,mrn\n"a,b.jpg",M2\n')
    assert read_mapping(file).about("a,b.jpg").who.mrn == "M2"


def test_json_as_a_list_and_in_groups(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text(json.dumps([{"path": "a", "patient_id": 4, "skip": True}]))
    assert read_mapping(file).about("a") == Told(Who(patient_id=4), skip=True)
    file.write_text(json.dumps({"patients": [{"number": 1, "mrn": "M1"}], "files": [{"path": "b", "file_type": "pdf"}]}))
    assert read_mapping(file).patient("1") == Who(mrn="M1")


@pytest.mark.parametrize(
    "text", ["path,mrn\na\n", "path,mrn\na,b,c\n", "path,who\na,b\n", 'path,mrn\n"a', "\0", '{"a": 1}', "[1]", "[" * 5000, '[{"path": []}]']
)
def test_files_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    for name in ("m.csv", "m.json"):
        file = tmp_path / name
        file.write_text(text)
        if name == "m.json" or text[0] == "p":
            with pytest.raises(BadRequest):
                read_mapping(file)
    (tmp_path / "m.csv").write_bytes(b"path,mrn\n\xff,1\n")
    with pytest.raises(BadRequest, match="UTF-8"):
        read_mapping(tmp_path / "m.csv")
    with pytest.raises(BadRequest, match="cannot be read"):
        read_mapping(tmp_path / "absent.csv")


@given(pattern=st.text(alphabet="a/*?[]!^\\.-", min_size=1, max_size=20), path=st.text(alphabet="a/.b", min_size=1, max_size=20))
def test_no_pattern_breaks_the_matching(pattern: str, path: str) -> None:
    with contextlib.suppress(BadRequest):
        mapping({"path": pattern, "mrn": "M"}).about(path, "root")


def test_a_pattern_that_would_take_forever_is_refused() -> None:
    with pytest.raises(BadRequest, match="stars"):
        mapping({"path": "**/" * 20 + "a", "mrn": "M"})
