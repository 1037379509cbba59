"""Every implementation of a blob store, for the contract suite."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacslite.storage.blob_store import BlobStore
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.s3 import S3Options, S3Store
from pacslite.storage.spool import Spool
from tests.support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server, serve_s3


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serve_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_options(s3_server: S3Server) -> S3Options:
    prefix = f"tests/{uuid.uuid4()}"
    return S3Options(BUCKET, s3_server.endpoint, None, ACCESS_KEY, SECRET_KEY, None, prefix)


@pytest.fixture(params=["filesystem", "s3", "s3 in parts"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "filesystem":
        return FilesystemStore(tmp_path / "storage")
    options = request.getfixturevalue("s3_options")
    return S3Store(options, part_bytes=64 * 1024) if request.param == "s3 in parts" else S3Store(options)
