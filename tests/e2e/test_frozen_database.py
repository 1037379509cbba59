"""A server whose PostgreSQL is frozen says so in bounded time, promises nothing, and goes on when it thaws."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association

from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.databases import PostgresServer, postgres
from tests.support.processes import Server, environment, pacslite, serving, until

__all__ = ["postgres"]

DEADLINE_S = 60  # of the tests: without a bound it would be for ever
THREADS = 2


@pytest.fixture(scope="module")
def settings(postgres: PostgresServer) -> dict[str, str]:
    return {
        "PACSLITE_DATABASE_URL": postgres.new_database(),
        "PACSLITE_DATABASE_TIMEOUT_S": "6",
        "PACSLITE_BUSY_TIMEOUT_S": "2",
        "PACSLITE_WEB_PROCESSES": "1",
        "PACSLITE_WEB_THREADS": str(THREADS),
    }


@pytest.fixture(scope="module")
def server(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("frozen") / "data", **settings) as it:
        yield it


def ask(server: Server, path: str, content: bytes | None = None, content_type: str = "") -> tuple[int, Any]:
    """Status and JSON of an answer."""
    request = urllib.request.Request(server.url + path, content, {"Content-Type": content_type} if content else {})
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as answer:
        with answer:
            status, text = answer.code, answer.read()
    return status, json.loads(text) if text else None


def stow(server: Server, ds: Dataset) -> int:
    return ask(server, "/dicom-web/studies", body([part10(ds)]), CONTENT_TYPE)[0]


def associated(server: Server) -> Association:
    ae = ApplicationEntity("TEST")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = DEADLINE_S
    ae.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    host, port = server.dicom
    return ae.associate(host, int(port), ae_title="PACSLITE")


def test_a_frozen_database_ends_no_more_than_the_requests_of_its_time(
    server: Server, settings: dict[str, str], postgres: PostgresServer
) -> None:
    first, meanwhile, over_dicom, later = image(), image(), image(), image()
    assert stow(server, first) == 200
    assert ask(server, "/dicom-web/studies")[0] == 200
    over_dicom.file_meta = FileMetaDataset()
    over_dicom.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    association = associated(server)
    with ThreadPoolExecutor(8 * THREADS) as threads:
        with postgres.frozen():
            asked = [threads.submit(ask, server, "/dicom-web/studies") for _ in range(4 * THREADS)]
            stored, sent = threads.submit(stow, server, meanwhile), threads.submit(association.send_c_store, over_dicom)
            for path in ("/health/live", "/api/v1/health/live"):
                assert ask(server, path)[0] == 200
            assert not all(one.done() for one in asked)  # which still wait, with all threads that there are
            assert {one.result(DEADLINE_S)[0] for one in asked} == {503}
            assert stored.result(DEADLINE_S) == 503
            assert sent.result(DEADLINE_S).Status in (0xA700, 0x0110)
            assert associated(server).is_rejected
            status, found = ask(server, "/health/ready")
            assert (status, found["checks"]["catalog"]["state"]) == (503, "failed")
            assert ask(server, "/health/live")[0] == 200
        until(lambda: ask(server, "/health/ready")[0] == 200)
        until(lambda: ask(server, "/dicom-web/studies")[0] == 200)
    association.release()
    for ds in (meanwhile, over_dicom, later, first):
        assert stow(server, ds) == 200
    assert len(ask(server, "/dicom-web/studies")[1]) == 4
    verified = pacslite("verify", "--deep", "--data", str(server.data), env=environment(**settings))
    assert verified.returncode == 0, verified.stdout
