"""Archives whose catalog is lost and made anew: where their bytes lie, and the empty catalog beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacslite.catalog.database import Catalog
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.s3 import S3Options, S3Store
from tests.support.archive import Archive, archive
from tests.support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY

Empty = Callable[[Archive], Archive]


@pytest.fixture
def local(tmp_path: Path, catalog: Catalog) -> Archive:
    return archive(tmp_path / "data", catalog, FilesystemStore(tmp_path / "storage"))


@pytest.fixture(params=["filesystem", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, catalog: Catalog) -> Iterator[Archive]:
    if request.param == "filesystem":
        yield archive(tmp_path / "data", catalog, FilesystemStore(tmp_path / "storage"))
        return
    options = S3Options(BUCKET, request.getfixturevalue("s3_endpoint"), None, ACCESS_KEY, SECRET_KEY, None, tmp_path.name)
    store = S3Store(options)
    yield archive(tmp_path / "data", catalog, store)
    store.close()


@pytest.fixture
def empty(new_database: Callable[[], str], tmp_path: Path) -> Iterator[Empty]:
    """Another, empty catalog over the same store."""
    made: list[Catalog] = []

    def make(old: Archive) -> Archive:
        made.append(Catalog(new_database(), pool_size=4))
        made[-1].migrate()
        return archive(tmp_path / f"new{len(made)}", made[-1], old.store)

    yield make
    for catalog in made:
        catalog.close()
