"""`/metrics` of a server of many processes: everything that happened is there, once, whoever did it and whatever became of them."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pacslite import metrics as table
from pacslite.settings import Address
from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.dimse import Peer, associate_rq
from tests.support.files import any_photo, form
from tests.support.http import running
from tests.support.metrics import Metrics, scrape
from tests.support.processes import ROOT, Server, serving, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("metrics") / "data") as it:
        yield it


def send(server: Server, method: str, path: str, content: bytes | None = None, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(http.client.HTTPConnection(server.ready["http"], timeout=60)) as connection:
        connection.request(method, path, content, named)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def bring_a_file(server: Server) -> None:
    """A photo of a new patient, brought and read."""

    def told(method: str, path: str, content: bytes | None = None, **headers: str) -> bytes:
        with closing(http.client.HTTPConnection(server.ready["http"], timeout=60)) as connection:
            connection.request(method, f"/api/v1{path}", content, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            found = answer.read()
            assert answer.status in (200, 201), found
            return found

    named = json.dumps({"mrn": "M-1", "name": "One^Patient"}).encode()
    patient = json.loads(told("POST", "/patients", named, Content_Type="application/json"))
    content, headers = form({"patient_id": patient["id"], "file_type": "photo"}, [("a.jpg", any_photo())])
    made = json.loads(told("POST", "/files/upload", content, **headers))
    told("GET", f"/files/{made['id']}/content")


def stow(server: Server, *files: bytes) -> int:
    return send(server, "POST", "/dicom-web/studies", body(files), Content_Type=CONTENT_TYPE)


def store(server: Server, directory: Path, *files: bytes) -> None:
    """C-STORE by dcmtk."""
    paths = [directory / f"{number}.dcm" for number in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file)
    command = ["storescu", "-aec", server.ready["aet"], *server.dicom, *map(str, paths)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def pids(server: Server, role: str) -> list[int]:
    return [pid for one in server.roles if one["role"] == role for pid in (one["workers"] or [one["pid"]])]


def test_what_several_processes_take_in_is_counted_once(server: Server, tmp_path: Path) -> None:
    before = scrape(server.url)
    files = [part10(image()) for _ in range(8)]
    for file in files:
        assert stow(server, file) == 200  # a connection each: both web processes get some
    assert stow(server, files[0]) == 200  # again
    assert stow(server, b"no instance") == 409
    sent = [part10(image()) for _ in range(3)]
    store(server, tmp_path, *sent)
    now = scrape(server.url)

    def more(name: str, **labels: str) -> float:
        return now.sum(name, **labels) - before.sum(name, **labels)

    assert more("pacslite_ingest_total", source="stow", outcome="stored") == 8
    assert more("pacslite_ingest_total", source="stow", outcome="duplicate") == 1
    assert more("pacslite_ingest_total", source="stow", outcome="refused") == 1
    assert more("pacslite_ingest_total", source="dimse", outcome="stored") == 3
    assert more("pacslite_ingest_bytes_total", source="stow", outcome="stored") == sum(map(len, files))
    assert more("pacslite_ingest_seconds_count", source="dimse") == 3
    assert more("pacslite_http_request_seconds_count", route="stow", method="POST", status="2xx") == 9
    assert more("pacslite_http_request_seconds_count", route="stow", method="POST", status="4xx") == 1
    assert more("pacslite_dimse_operation_seconds_count", operation="C-STORE", status="success") == 3
    assert more("pacslite_dimse_responses_total", operation="C-STORE", status="0000") == 3
    assert more("pacslite_associations_total", outcome="accepted") == 1
    assert more("pacslite_catalog_lock_wait_seconds_count") > 0
    assert more("pacslite_catalog_write_seconds_count", outcome="success") >= 11
    assert now.sum("pacslite_processes", role="web") == 2


def test_totals_are_those_of_the_catalog(server: Server) -> None:
    ds = image()
    assert stow(server, part10(ds)) == 200
    ds.InstanceNumber = 77
    assert stow(server, part10(ds)) == 200  # a second version of the same instance
    files = list((server.data / "storage/radiology").rglob("*.dcm"))
    size = sum(path.stat().st_size for path in files)
    until(lambda: scrape(server.url).sum("pacslite_storage_bytes", backend="filesystem") == size, what="the sum of all bytes")
    now = scrape(server.url)
    assert now.sum("pacslite_storage_blobs", backend="filesystem", state="live") == len(files)
    assert now.sum("pacslite_instances") < len(files)  # versions of one are one
    assert now.sum("pacslite_ingest_total", outcome="new_version") >= 1
    assert now.sum("pacslite_studies") >= 1
    assert now.sum("pacslite_catalog_wal_bytes") > 0
    assert {one["state"] for one in now.labels("pacslite_jobs")} == {"queued", "running", "succeeded", "failed", "cancelled"}


def test_associations_that_are_open_and_those_that_are_refused(server: Server) -> None:
    address = Address.parse(server.ready["dicom"])
    before = scrape(server.url)
    with Peer(address) as peer:
        peer.associate(called=server.ready["aet"])
        assert scrape(server.url).sum("pacslite_associations_open") == before.sum("pacslite_associations_open") + 1
        peer.release()
    with Peer(address) as peer:
        peer.send(associate_rq(called="SOMEBODY"))
        peer.pdu()
    until(lambda: scrape(server.url).sum("pacslite_associations_open") == before.sum("pacslite_associations_open"))
    now = scrape(server.url)
    assert now.sum("pacslite_associations_total", outcome="rejected") == before.sum("pacslite_associations_total", outcome="rejected") + 1


def test_callers_cannot_make_series(server: Server) -> None:
    send(server, "GET", "/dicom-web/studies")
    before = scrape(server.url)
    for number in range(30):
        send(server, "GET", f"/nothing/{number}")
        send(server, f"WORD{number}", "/dicom-web/studies")
        send(server, "GET", f"/dicom-web/studies?PatientName=Sickman{number}", X_Request_ID=f"id-{number}")
    now = scrape(server.url)
    assert "Sickman" not in now.text
    kinds = {(one["route"], one["method"]) for one in now.labels("pacslite_http_request_seconds_count")}
    assert kinds - {(one["route"], one["method"]) for one in before.labels("pacslite_http_request_seconds_count")} <= {
        ("none", "GET"),
        ("none", "other"),
        ("qido", "GET"),
    }
    assert len(now.samples) < len(before.samples) + 60


def test_a_process_that_is_killed_leaves_its_counts_and_takes_its_gauges_along(server: Server, tmp_path: Path) -> None:
    store(server, tmp_path, part10(image()))
    with Peer(Address.parse(server.ready["dicom"])) as peer:
        peer.associate(called=server.ready["aet"])
        before = scrape(server.url)
        assert before.sum("pacslite_associations_open") == 1
        gone = set(pids(server, "dimse") + pids(server, "web"))
        for pid in gone:
            os.kill(pid, signal.SIGKILL)
        until(lambda: not gone & set(pids(server, "dimse") + pids(server, "web")) and _is_ready(server), what="new processes")
    until(lambda: scrape(server.url).sum("pacslite_associations_open") == 0)
    now = scrape(server.url)
    for name in ("pacslite_ingest_total", "pacslite_ingest_seconds_count", "pacslite_ingest_seconds_sum", "pacslite_associations_total"):
        assert now.sum(name) == pytest.approx(before.sum(name))
    assert now.sum("pacslite_ingest_seconds_bucket", le="+Inf") == now.sum("pacslite_ingest_seconds_count")
    assert now.sum("pacslite_restarts_total") > before.sum("pacslite_restarts_total")
    # Whoever was killed has no files of its own any more.
    counting = table.directory(server.data)
    assert not [path.name for path in counting.iterdir() if re.search(rf"-({'|'.join(map(str, gone))})-", path.name)]


def _is_ready(server: Server) -> bool:
    return all(role["state"] == "ready" for role in server.roles)


def test_codecs_and_caches_are_counted(server: Server) -> None:
    until(lambda: server.health()["status"] == "ready", what="a server with all its processes")
    ds = image()
    assert stow(server, part10(ds)) == 200
    path = f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    jpeg_ls = 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.80'
    for _ in range(2):
        assert send(server, "GET", path, Accept=jpeg_ls) == 200
    now = scrape(server.url)
    asked = {result: now.sum("pacslite_cache_requests_total", cache="transcoded", result=result) for result in ("miss", "hit", "joined")}
    assert asked["miss"] == 1, asked
    assert asked["hit"] + asked["joined"] >= 1, asked
    assert now.sum("pacslite_codec_seconds_count", outcome="success") >= 1


def names_in(expression: str) -> set[str]:
    """The names of metrics in a PromQL expression."""
    return set(re.findall(r"\bpacslite_\w+", expression))


def dashboard_expressions() -> list[str]:
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            found.extend([value["expr"]] if "expr" in value else [])
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(json.loads((ROOT / "conf/grafana-dashboard.json").read_text()))
    return found


def alert_expressions() -> list[str]:
    return re.findall(r"^ +expr: (.+)$", (ROOT / "conf/alerts.yml").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def used(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Metrics:
    """What a server gives out that has done a little of everything."""
    stow(server, part10(image()))
    store(server, tmp_path_factory.mktemp("used"), part10(image()))
    bring_a_file(server)
    until(lambda: "pacslite_task_success_timestamp_seconds" in scrape(server.url).names)
    until(lambda: "pacslite_files" in scrape(server.url).names)
    until(lambda: "pacslite_storage_bytes" in scrape(server.url).names)
    return scrape(server.url)


# What a server counts only once it has had cause to.
RARE = {
    "pacslite_http_malformed_total",
    "pacslite_job_seconds",
    "pacslite_codec_seconds",
    "pacslite_certificate_expiry_timestamp_seconds",
    "pacslite_damaged_blobs_total",
}


def test_every_metric_of_the_table_is_given_out_by_a_used_server(used: Metrics) -> None:
    given = used.names | {re.sub(r"_(bucket|count|sum)$", "", name) for name in used.names}
    assert set(table.TABLE) - given <= RARE | {"pacslite_catalog_queued_writes", "pacslite_cache_requests_total"}
    assert {name for name in given if name.startswith("pacslite_")} <= set(table.TABLE) | used.names
    families = {re.sub(r"_(bucket|count|sum)$", "", name) if name not in table.TABLE else name for name in used.names}
    assert families <= set(table.TABLE)


@pytest.mark.parametrize("expressions", [dashboard_expressions, alert_expressions], ids=["dashboard", "alerts"])
def test_dashboard_and_alerts_use_names_and_labels_that_there_are(used: Metrics, expressions: Any) -> None:
    known = used.names | {name + end for name in RARE for end in ("", "_bucket", "_count", "_sum")}
    assert len(expressions()) > 10
    for expression in expressions():
        names = names_in(expression)
        assert names, expression
        assert names <= known, expression
        for name, selectors in re.findall(r"(pacslite_\w+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors))
            assert labels <= set(table.TABLE[re.sub(r"_(bucket|count|sum)$", "", name)].labels) | {"le"}, expression


def test_metrics_want_an_administrator_unless_a_setting_says_otherwise(tmp_path: Path) -> None:
    """With accounts: 401 without a login, at both addresses; open by `PACSLITE_METRICS_PUBLIC=1`."""
    for public, status in (("0", 401), ("1", 200)):
        with running(tmp_path / public, auth="1", metrics_public=public) as server:
            server.root = ""
            assert [server.get(path).status for path in ("/metrics", "/api/v1/metrics")] == [status, status]
            assert server.get("/health/live").status == 200
