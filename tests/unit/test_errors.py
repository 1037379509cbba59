"""Every error has one row in the table of protocols, and the text at the top of errors.py is the tree that is there."""

from __future__ import annotations

import re

import pytest

from pacslite import error_map, errors
from pacslite.errors import PacsliteError


def subclasses(cls: type[PacsliteError]) -> list[type[PacsliteError]]:
    return [cls, *(inner for child in cls.__subclasses__() if child.__module__ == "pacslite.errors" for inner in subclasses(child))]


ALL = subclasses(PacsliteError)


@pytest.mark.parametrize("cls", ALL, ids=lambda c: c.__name__)
def test_every_error_has_a_row_of_its_own(cls: type[PacsliteError]) -> None:
    assert cls in error_map.rows()


@pytest.mark.parametrize("cls", ALL, ids=lambda c: c.__name__)
def test_the_row_is_the_one_of_the_class(cls: type[PacsliteError]) -> None:
    assert error_map.mapping_of(cls("text")) == error_map.rows()[cls]


def test_a_foreign_error_is_an_internal_error() -> None:
    assert error_map.mapping_of(ValueError("x")).http == 500


def test_a_class_without_a_row_has_that_of_its_base() -> None:
    class Special(errors.NotDicom):
        pass

    assert error_map.mapping_of(Special("x")) is error_map.rows()[errors.NotDicom]


def test_problem_types_are_told_apart() -> None:
    slugs = [row.slug for row in error_map.rows().values()]
    assert len(slugs) == len(set(slugs))


@pytest.mark.parametrize("row", error_map.rows().values(), ids=lambda r: r.slug)
def test_rows_are_within_what_the_standards_allow(row: error_map.Mapping) -> None:
    assert 400 <= row.http <= 599
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", row.slug)
    # PS3.7 C: failure statuses; B000H and FF00H would say that it worked. 00xxH: 0105H-0124H, 0210H-0213H.
    for status in (row.dimse, row.stow):
        assert 0x0105 <= status <= 0x0124 or 0x0210 <= status <= 0x0213 or 0xA000 <= status <= 0xAFFF or 0xC000 <= status <= 0xCFFF


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"^ {4}[│ ]*[├└]── (\w+)", errors.__doc__, re.MULTILINE)
    assert drawn == [cls.__name__ for cls in ALL[1:]]
