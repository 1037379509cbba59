"""`/health`: what is wrong is told, and told in time, whatever hangs."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pacslite import app
from pacslite.catalog import changes
from pacslite.catalog.changes import Kind, Origin
from pacslite.core import certificates, health
from pacslite.errors import ConfigurationError
from pacslite.settings import load
from tests.support.http import WebServer, running
from tests.support.metrics import Metrics
from tests.support.processes import serving, until


def ready(server: WebServer) -> tuple[int, dict[str, Any]]:
    server.root = ""
    answer = server.request("GET", "/health/ready", timeout_s=20)
    return answer.status, json.loads(answer.body)


@contextmanager
def silent_service() -> Iterator[str]:
    """The URL of something that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_storage_that_hangs_does_not_hang_health(tmp_path: Path) -> None:
    with silent_service() as url:
        s3 = {"s3_endpoint": url, "s3_bucket": "b", "s3_access_key": "a", "s3_secret_key": "s", "s3_region": "r"}
        with running(tmp_path / "data", storage="s3", metrics_public="1", **s3) as server:
            with ThreadPoolExecutor(12) as callers:  # more than there are threads: none of them waits for the storage
                answers = list(callers.map(lambda _: ready(server), range(12)))
            for status, found in answers:
                assert (status, found["status"]) == (503, "not-ready")
                assert found["checks"]["storage"] == {"state": "failed", "detail": f"no answer within {health.ANSWER_WITHIN_S:g} s"}
                assert found["checks"]["catalog"]["state"] == "ok"
            assert server.get("/health/live").status == 200
            assert Metrics(server.get("/metrics").body.decode()).sum("pacslite_metrics_unanswered") == 0


def test_a_schema_of_another_release_says_what_to_do(tmp_path: Path) -> None:
    settings = load(environment={"PACSLITE_DATA": str(tmp_path / "data")})
    pacs = app.build(settings)
    try:
        pacs.catalog.migrate("0001")
        found = health.look(pacs)["catalog"]
    finally:
        pacs.close()
    assert found.state == "failed"
    assert "pacslite migrate" in str(found.detail)


def test_little_room_degrades_before_it_fails(tmp_path: Path) -> None:
    with running(tmp_path / "data", disk_warning_bytes=str(2**60)) as server:
        status, found = ready(server)
    assert (status, found["status"]) == (200, "degraded")
    assert found["checks"]["disk"]["state"] == "warning"
    assert "bytes left" in found["checks"]["disk"]["detail"]


@pytest.mark.parametrize(("days", "state"), [(400, "ok"), (10, "warning"), (0, "failed")])
def test_a_certificate_that_ends(tmp_path: Path, days: int, state: str) -> None:
    made, key = tmp_path / "made.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=server", "-days", str(max(days, 1))]
    subprocess.run([*make, "-keyout", str(key), "-out", str(made)], check=True, capture_output=True, timeout=60)
    told = subprocess.run(["openssl", "x509", "-in", str(made), "-noout", "-enddate"], check=True, capture_output=True, text=True).stdout
    ends = datetime.strptime(told.strip(), "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    assert certificates.ends_at(made) == ends
    if days == 0:  # nobody makes one that has ended: its end is written over
        ended = ssl.PEM_cert_to_DER_cert(made.read_text()).replace(ends.strftime("%y%m%d%H%M%SZ").encode(), b"210101000000Z")
        made.write_text(ssl.DER_cert_to_PEM_cert(ended))
        assert certificates.ends_at(made) == datetime(2021, 1, 1, tzinfo=UTC)
    with running(tmp_path / "data", dicom_tls_certificate=str(made)) as server:
        status, found = ready(server)
    assert (status, found["checks"]["certificate"]["state"]) == (200, state)
    assert found["status"] == ("ready" if state == "ok" else "degraded")


def test_what_is_no_certificate_is_said_to_be_none(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.pem"
    for content in (b"", b"-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n", b"\xff" * 100):
        nothing.write_bytes(content)
        with pytest.raises(ConfigurationError, match="is none"):
            certificates.ends_at(nothing)


def test_a_clock_that_was_set_back_is_noticed(tmp_path: Path) -> None:
    settings = load(environment={"PACSLITE_DATA": str(tmp_path / "data")})
    pacs = app.build(settings)
    try:
        pacs.catalog.migrate()
        assert health.look(pacs)["clock"].state == "ok"
        pacs.catalog.write(lambda conn: changes.add(conn, Kind.JOB_CHANGED, "2999-01-01T00:00:00.000000Z", Origin("job")))
        found = health.look(pacs)["clock"]
    finally:
        pacs.close()
    assert found.state == "warning"
    assert "set back" in str(found.detail)


def test_processes_that_are_down_degrade(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--web-processes", "1", "--dimse-processes", "1") as server:
        assert server.health()["status"] == "ready"

        def is_down() -> bool:
            """Killed again and again, so that the pauses before the next start grow."""
            pid = next(role["pid"] for role in server.roles if role["role"] == "worker")
            if pid is not None:
                with suppress(ProcessLookupError):  # it has died of the last one, and the next is not told of yet
                    os.kill(pid, signal.SIGKILL)
            found = server.health()
            return found["status"] == "degraded" and "SIGKILL" in (found["checks"]["worker"]["detail"] or "")

        until(is_down, what="a worker that is down")
        until(lambda: server.health()["status"] == "ready", what="the next worker")
