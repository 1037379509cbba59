"""Every implementation of a blob store, for the contract suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacslite.storage.blob_store import BlobStore
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture(params=["filesystem"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return FilesystemStore(tmp_path / "storage")
