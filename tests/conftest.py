"""What every test has: the corpus of real files, and the choice between short and full forms.

Warnings are errors (pyproject.toml); names of tests state the rule they hold.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def full() -> bool:
    """Whether the long forms run (`make test-all`)."""
    return os.environ.get("PACSLITE_TEST_FULL") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests marked `full` unless they are asked for."""
    if full():
        return
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="long form; `make test-all` runs it"))


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The directory of real files of many vendors; tests that need it are skipped in a checkout without it."""
    path = Path(os.environ.get("PACSLITE_CORPUS") or Path(__file__).resolve().parents[2] / "shared" / "corpus")
    if not path.is_dir():
        pytest.skip("the corpus of real files is not beside this checkout (PACSLITE_CORPUS)")
    return path
