"""Bulk values by the path of their BulkDataURI."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pacslite.dicom.bulk import BulkValue, find_each, is_path
from pacslite.dicom.instance import Limits, read_instance
from tests.support.dicom_files import EXPLICIT_BE, SEQUENCE_END, UNDEFINED, corpus_files, element, item, part10

LIMITS = Limits(bulk_threshold_bytes=64)


def find(file: Path, path: str) -> BulkValue:
    return find_each(file, {path}, LIMITS)[path]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    inner = element(0x00091010, "OB", b"x" * 100)
    icon = element(0x7FE00010, "OB", item(b"") + item(b"abcd") + item(b"ef") + SEQUENCE_END, length=UNDEFINED)
    path = tmp_path / "instance.dcm"
    path.write_bytes(
        part10(
            [
                element(0x00081140, "SQ", item(b"") + item(inner)),
                element(0x00880200, "SQ", item(icon, False)),
                element(0x00420011, "OB", b"%PDF" * 30),
            ]
        )
    )
    return path


def test_every_reference_of_the_metadata_leads_to_its_value(file: Path) -> None:
    links = re.findall(rb'"BulkDataURI":"\0/([^"]+)"', read_instance(file, LIMITS).metadata)
    assert links == [b"00081140/2/00091010", b"00420011", b"00880200/1/7FE00010"]
    raw = file.read_bytes()
    found = [find(file, link.decode()) for link in links]
    values = [b"".join(raw[offset : offset + length] for offset, length in value.segments) for value in found]
    assert values == [b"x" * 100, b"%PDF" * 30, b"abcdef"]
    assert [value.encapsulated for value in found] == [False, False, True]
    assert [value.length for value in found] == [100, 120, 6]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "00420012",
        "00081140",
        "00081140/1/00091010",
        "00081140/3/00091010",
        "../x",
        "0042001",
        "00081140/0/00091010",
        "00420011/1/00420011",
    ],
)
def test_other_paths_lead_nowhere(file: Path, path: str) -> None:
    assert find_each(file, {path, "00420011"}, LIMITS).keys() == {"00420011"}


def test_a_path_is_tags_with_the_numbers_of_items_between() -> None:
    assert [is_path(text) for text in ("00420011", "00081140/2/00091010", "7fe00010")] == [True] * 3
    assert not any(is_path(text) for text in ("", "../x", "0042001", "00081140/2", "00081140/00091010", "00420011/"))


def test_words_of_big_endian_files_are_to_be_turned(file: Path) -> None:
    file.write_bytes(part10([element(0x00281201, "OW", b"\1\2" * 50, EXPLICIT_BE)], EXPLICIT_BE))
    assert find(file, "00281201").swap_bytes == 2


def test_references_of_real_files_open(corpus: Path) -> None:
    for path in corpus_files(corpus):
        links = re.findall(rb'"BulkDataURI":"\0/([^"]+)"', read_instance(path, LIMITS).metadata)
        for link in links[-3:]:
            assert find(path, link.decode()).length > 0, (path.name, link)
