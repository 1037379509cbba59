"""Prints clause -> test -> result: runs the tests that name a clause, `python -m tests.support.conformance_table [pytest options]`."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.checklist import REASONS, TITLES, lines_of, section_of

_ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = ("tests/protocol", "tests/e2e", "tests/integration")


class Recorder:
    """Keeps the tests that name clauses, drops the others, and notes what comes of them."""

    def __init__(self) -> None:
        self.clauses: dict[str, tuple[int, ...]] = {}
        self.results: dict[str, str] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Chooses the tests."""
        self.clauses = {item.nodeid: lines for item in items if (lines := lines_of(getattr(item, "function", None).__doc__))}
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in self.clauses])
        items[:] = [item for item in items if item.nodeid in self.clauses]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The worst of the three phases counts."""
        if report.failed:
            self.results[report.nodeid] = "failed"
        elif report.skipped:
            self.results.setdefault(report.nodeid, "skipped")
        elif report.when == "call":
            self.results.setdefault(report.nodeid, "passed")

    def by_clause(self) -> dict[int, dict[str, list[str]]]:
        """Results by clause and test; the cases of a parametrized test come together."""
        found: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for nodeid, lines in self.clauses.items():
            for line in lines:
                found[line][nodeid.partition("[")[0].removeprefix("tests/")].append(self.results.get(nodeid, "not run"))
        return found


def summary(results: list[str]) -> str:
    """One word for all cases of a test, and their number."""
    worst = next(word for word in ("failed", "not run", "passed", "skipped") if word in results)
    return worst if len(results) == 1 else f"{worst} ({results.count(worst)} of {len(results)})"


def table(found: dict[int, dict[str, list[str]]]) -> list[str]:
    """The lines of the table."""
    rows: list[str] = []
    heading = ""
    for line, title in TITLES.items():
        if section_of(line) != heading:
            heading = section_of(line)
            rows += ["", heading, "-" * len(heading)]
        rows.append(f"{line:>3}  {title}")
        if tests := found.get(line):
            rows += [f"       {summary(results):<20} {test}" for test, results in sorted(tests.items())]
        else:
            rows.append(f"       not implemented      {REASONS[line]}" if line in REASONS else "       no test was run")
    return rows


def main(options: list[str]) -> int:
    """Runs and prints; 0 when no clause failed and none is without a test or a reason."""
    recorder = Recorder()
    code = pytest.main(["-q", "--no-header", "--tb=short", *options, *(str(_ROOT / folder) for folder in _FOLDERS)], [recorder])
    found = recorder.by_clause()
    print("\n".join(table(found)))
    shown = [line for line in TITLES if line in found]
    missing = [line for line in TITLES if line not in found and line not in REASONS]
    failed = sorted({line for line in shown for results in found[line].values() if "failed" in results})
    print(f"\n{len(shown)} clauses shown by tests, {len(REASONS)} not implemented; failed: {failed}; without a test: {missing}")
    return int(code != pytest.ExitCode.OK or bool(missing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
