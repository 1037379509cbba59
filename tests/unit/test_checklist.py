"""Every clause has a test over the wire, or a reason why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import checklist
from tests.support.conformance_table import summary, table

TESTS = Path(__file__).resolve().parents[1]
SHOWN = {line for folder in ("protocol", "e2e") for _, _, lines in checklist.tests_in(TESTS / folder) for line in lines}


@pytest.mark.parametrize("line", checklist.TITLES)
def test_a_clause_has_a_test_or_a_reason(line: int) -> None:
    assert (line in SHOWN) != (line in checklist.REASONS), checklist.TITLES[line]


def test_the_clauses_are_numbered_without_gaps() -> None:
    assert list(checklist.TITLES) == list(range(1, 136))
    assert len(set(checklist.TITLES.values())) == 135
    assert set(checklist.REASONS) < set(checklist.TITLES)
    assert set(checklist.TITLES) >= SHOWN


@pytest.mark.parametrize(
    ("docstring", "lines"),
    [(None, ()), ("Checklist 24: x", (24,)), ("Says so. Checklist 24, B3, 34: x", (24, 34)), ("checklist 24 x", ()), ("Checklist 24.", ())],
)
def test_a_docstring_names_clauses(docstring: str | None, lines: tuple[int, ...]) -> None:
    assert checklist.lines_of(docstring) == lines


def test_the_table_tells_results_and_reasons() -> None:
    rows = table({1: {"protocol/test_a.py::test_b": ["passed", "failed"]}})
    assert rows[3:5] == [f"  1  {checklist.TITLES[1]}", "       failed (1 of 2)      protocol/test_a.py::test_b"]
    assert f"       not implemented      {checklist.REASONS[116]}" in rows
    assert "       no test was run" in rows
    assert summary(["passed"]) == "passed"
