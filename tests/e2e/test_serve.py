"""The server as a whole: real processes, foreign clients."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from pydicom import dcmread

from tests.support import data_sets
from tests.support.databases import PostgresServer, postgres
from tests.support.processes import Server, is_running, pacslite, serving, start, until

__all__ = ["postgres"]

needs_dcmtk = pytest.mark.skipif(not shutil.which("storescu"), reason="dcmtk is not installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("serve") / "data") as running:
        yield running


def dcmtk(tool: str, server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [tool, "-aec", "PACSLITE", *arguments]
    host, port = server.dicom
    return subprocess.run([*command, host, port], capture_output=True, text=True, timeout=60, check=False)


def instance_file(folder: Path, **values: str) -> tuple[Path, data_sets.Dataset]:
    ds = data_sets.image()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    path.write_bytes(data_sets.part10(ds))
    return path, ds


@needs_dcmtk
def test_what_storescu_sends_is_found_at_once_and_fetched_whole(server: Server, tmp_path: Path) -> None:
    path, ds = instance_file(tmp_path, PatientName="Main^Job", PatientID="E2E-1")
    host, port = server.dicom
    sent = subprocess.run(["storescu", "-aec", "PACSLITE", host, port, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert sent.returncode == 0, sent.stderr

    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=main*", "-k", "StudyInstanceUID"]
    found = subprocess.run(
        ["findscu", "-aec", "PACSLITE", "-S", *keys, host, port], capture_output=True, text=True, timeout=60, check=False
    )
    assert ds.StudyInstanceUID in found.stdout + found.stderr

    studies = requests.get(f"{server.url}/dicom-web/studies", params={"PatientID": "E2E-1"}, timeout=10).json()
    assert [s["0020000D"]["Value"] for s in studies] == [[ds.StudyInstanceUID]]

    url = f"{server.url}/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    fetched = requests.get(url, headers={"Accept": "application/dicom"}, timeout=10)
    assert data_sets.read(fetched.content) == ds
    assert requests.get(f"{url}/metadata", timeout=10).json()[0]["00100020"]["Value"] == ["E2E-1"]


@needs_dcmtk
def test_a_wrong_called_title_is_rejected(server: Server) -> None:
    host, port = server.dicom
    answer = subprocess.run(["echoscu", "-aec", "SOMEBODY", host, port], capture_output=True, text=True, timeout=30, check=False)
    assert answer.returncode != 0
    assert "Called AE Title Not Recognized" in answer.stderr + answer.stdout


def test_ready_shows_every_process(server: Server) -> None:
    health = server.health()
    assert health["status"] == "ready"
    assert {name: check["state"] for name, check in health["checks"].items()} == {
        **dict.fromkeys(("catalog", "storage", "spool", "disk", "video", "clock", "worker", "dimse"), "ok"),
        **dict.fromkeys(("certificate", "quota"), "unknown"),
    }
    assert [role["name"] for role in health["roles"]] == ["web", "dimse-1", "dimse-2", "dimse-3", "worker"]


def test_health_answers_at_both_places(server: Server) -> None:
    assert (
        requests.get(f"{server.url}/health/live", timeout=10).json() == requests.get(f"{server.url}/api/v1/health/live", timeout=10).json()
    )


def test_a_request_id_is_kept_when_it_is_well_formed(server: Server) -> None:
    def sent(text: str) -> str:
        return requests.get(f"{server.url}/health/live", headers={"X-Request-ID": text}, timeout=10).headers["X-Request-ID"]

    assert sent("abc.DEF_1-2") == "abc.DEF_1-2"
    assert sent("x" * 129) != "x" * 129


def test_peers_are_added_called_and_removed_over_rest(server: Server) -> None:
    peers = f"{server.url}/api/v1/peers"
    host, port = server.dicom
    added = requests.post(peers, json={"ae_title": "PACSLITE", "host": host, "port": int(port)}, timeout=10)
    assert added.status_code == 201
    assert added.json()["allow"] == ["store", "find", "move", "get"]
    again = requests.post(peers, json={"ae_title": "PACSLITE", "host": host, "port": int(port), "allow": ["find"]}, timeout=10)
    assert again.json()["allow"] == ["find"]
    listed = requests.get(peers, timeout=10).json()
    assert [peer["ae_title"] for peer in listed["items"]] == ["PACSLITE"]
    assert listed["items"][0]["allow"] == ["find"]
    assert (listed["total"], listed["next"]) == (1, None)
    assert requests.post(f"{peers}/PACSLITE/echo", timeout=10).json()["outcome"] == "success"
    assert requests.delete(f"{peers}/PACSLITE", timeout=10).status_code == 204
    assert requests.delete(f"{peers}/PACSLITE", timeout=10).status_code == 404


def test_all_faults_of_a_form_are_told_at_once(server: Server) -> None:
    shapeless = {"ae_title": 1, "port": "104", "allow": ["fly"], "colour": 1}
    for body, fields in ((shapeless, {"ae_title", "port", "allow", "colour"}), ({"ae_title": "A" * 17}, {"ae_title", "host", "port"})):
        answer = requests.post(f"{server.url}/api/v1/peers", json=body, timeout=10)
        assert answer.status_code == 400
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert {e["field"] for e in answer.json()["errors"]} == fields


@pytest.mark.parametrize(
    ("content_type", "body", "status"), [("text/plain", "{}", 415), ("application/json", "{", 400), ("application/json", "[]", 400)]
)
def test_a_body_that_is_no_json_object_is_refused(server: Server, content_type: str, body: str, status: int) -> None:
    answer = requests.post(f"{server.url}/api/v1/peers", data=body, headers={"Content-Type": content_type}, timeout=10)
    assert answer.status_code == status


def test_lists_go_on_where_the_page_before_ended(server: Server) -> None:
    peers = f"{server.url}/api/v1/peers"
    titles = [f"PAGE{n}" for n in range(5)]
    for title in titles:
        assert requests.post(peers, json={"ae_title": title, "host": "127.0.0.1", "port": 104}, timeout=10).status_code == 201
    seen, url = [], f"{peers}?limit=2"
    while url:
        page = requests.get(url, timeout=10).json()
        seen += [p["ae_title"] for p in page["items"]]
        url = page["next"]
    assert seen == titles
    for wrong in ("limit=0", "limit=1001", "limit=x", "cursor=!", "colour=1", "limit=1&limit=2"):
        assert requests.get(f"{peers}?{wrong}", timeout=10).status_code == 400
    for title in titles:
        assert requests.delete(f"{peers}/{title}", timeout=10).status_code == 204


def test_the_description_names_every_operation_and_resolves(server: Server) -> None:
    described = requests.get(f"{server.url}/api/v1/openapi.json", timeout=10).json()
    assert set(described["paths"]) >= {
        "/auth/login",
        "/health/ready",
        "/jobs/{job_id}",
        "/peers/{ae_title}/echo",
        "/studies/{study}/series/{series}/instances/{instance}/undelete",
        "/openapi.json",
        "/docs",
    }
    references = {part.partition('"')[0] for part in json.dumps(described).split("#/components/schemas/")[1:]}
    assert references <= set(described["components"]["schemas"])
    assert described["components"]["schemas"]["PeerPatch"]["properties"]["port"]["maximum"] == 65535


def test_the_page_of_the_description_needs_no_other_host(server: Server) -> None:
    page = requests.get(f"{server.url}/api/v1/docs", timeout=10)
    assert page.status_code == 200
    assert "/peers/{ae_title}/echo" in page.text
    assert "Body, as <code>multipart/form-data</code>" in page.text
    assert '<a href="#of-files">' in page.text
    assert '<h2 id="of-files">' in page.text
    assert "//" not in page.text.replace("</", "").partition("<body>")[2]
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_a_second_server_on_the_same_data_is_refused(server: Server) -> None:
    second = pacslite("serve", "--data", server.data, "--http", "127.0.0.1:0", "--dicom", "127.0.0.1:0", "--no-auth")
    assert second.returncode == 3
    assert f"process {server.process.pid} already serves" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("option", ["--http", "--dicom"])
def test_a_taken_address_is_said_so(server: Server, tmp_path: Path, option: str) -> None:
    taken = server.ready["http" if option == "--http" else "dicom"]
    other = {"--http": "--dicom", "--dicom": "--http"}[option]
    second = pacslite("serve", "--data", tmp_path / "data", option, taken, other, "127.0.0.1:0", "--no-auth")
    assert second.returncode == 3
    assert f"cannot listen on {taken}" in second.stderr


def test_a_web_address_that_others_reach_is_refused_without_a_login(tmp_path: Path) -> None:
    refused = pacslite("serve", "--data", tmp_path / "data", "--http", "0.0.0.0:0", "--no-auth")
    assert refused.returncode == 2
    assert "0.0.0.0:0" in refused.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["dimse-1", "web", "worker"])
def test_a_killed_process_is_started_again_and_seen(tmp_path: Path, name: str) -> None:
    with serving(tmp_path / "data", "--dimse-processes", "1", "--web-processes", "1") as running:
        before = next(r for r in running.roles if r["name"] == name)
        os.kill(before["pid"], signal.SIGKILL)
        after = until(lambda: next((r for r in running.roles if r["name"] == name and r["restarts"] == 1 and r["state"] == "ready"), None))
        assert after["pid"] != before["pid"]
        assert after["last_exit"] == "killed by SIGKILL"
        assert running.health()["status"] == "ready"


def test_a_killed_web_worker_is_replaced_and_seen(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--dimse-processes", "1", "--web-processes", "1") as running:
        web = next(r for r in running.roles if r["name"] == "web")
        os.kill(web["workers"][0], signal.SIGKILL)
        after = until(lambda: next((r for r in running.roles if r["name"] == "web" and r["restarts"] == 1 and r["state"] == "ready"), None))
        assert after["pid"] == web["pid"]
        assert after["workers"] != web["workers"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_cleanly(tmp_path: Path, number: int) -> None:
    running = start(tmp_path / "data", "--dimse-processes", "1", "--web-processes", "1")
    pids = [r["pid"] for r in running.roles] + [w for r in running.roles for w in r["workers"]]
    assert running.stop(number) == 0
    assert not [pid for pid in pids if is_running(pid)]
    assert not (tmp_path / "data/run/serve.json").exists()
    assert "Traceback" not in running.logged()
    assert running.process.stdout is not None
    running.process.stdout.close()


def test_what_a_killed_supervisor_ran_dies_with_it_and_the_ports_are_free(tmp_path: Path) -> None:
    running = start(tmp_path / "data", "--dimse-processes", "1", "--web-processes", "1")
    pids = [r["pid"] for r in running.roles] + [w for r in running.roles for w in r["workers"]]
    running.kill()
    until(lambda: not [pid for pid in pids if is_running(pid)], 10, "the end of its processes")
    assert running.process.stdout is not None
    running.process.stdout.close()
    with serving(tmp_path / "data", "--http", running.ready["http"], "--dicom", running.ready["dicom"]) as again:
        assert again.ready["http"] == running.ready["http"]


def test_one_role_runs_by_itself(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--dimse-processes", "1", scope="dimse") as running:
        assert running.ready["http"] is None
        with socket.create_connection(running.dicom, 5):
            pass
        roles = json.loads((tmp_path / "data/run/serve-dimse.json").read_text())["roles"]
        assert [r["name"] for r in roles] == ["dimse-1"]


def test_gunicorn_alone_serves_everything_that_is_http(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    assert pacslite("migrate", "--data", tmp_path / "data").returncode == 0
    env = {
        **os.environ,
        "PACSLITE_DATA": str(tmp_path / "data"),
        "PACSLITE_HTTP": address,
        "PACSLITE_AUTH": "off",
        "PACSLITE_WEB_PROCESSES": "1",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "conf/gunicorn.py", "wsgi:app"]
    process = subprocess.Popen(command, cwd=root, env=env, stderr=subprocess.DEVNULL)
    try:

        def answer() -> requests.Response | None:
            try:
                return requests.get(f"http://{address}/health/ready", timeout=30)
            except requests.ConnectionError:
                return None

        assert until(answer).json()["status"] == "ready"
        assert requests.get(f"http://{address}/dicom-web/studies", timeout=30).status_code == 204
        assert requests.get(f"http://{address}/api/v1/openapi.json", timeout=30).status_code == 200
        assert requests.get(f"http://{address}/viewer/", timeout=30).status_code in (200, 503)
    finally:
        process.terminate()
        process.wait(20)


def test_a_catalog_of_another_revision_ends_the_whole_with_a_message(tmp_path: Path) -> None:
    assert pacslite("migrate", "--data", tmp_path / "data").returncode == 0
    with closing(sqlite3.connect(tmp_path / "data/catalog.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    ended = pacslite("serve", "--data", tmp_path / "data", "--http", "127.0.0.1:0", "--dicom", "127.0.0.1:0", "--no-auth")
    assert ended.returncode == 3
    assert "9999" in ended.stderr
    assert "Traceback" not in ended.stderr


@needs_dcmtk
@pytest.mark.parametrize("name", ["dimse-1", "worker", "web"])
def test_a_process_that_dies_while_the_catalog_takes_no_connections_is_started_until_it_does(
    tmp_path: Path, postgres: PostgresServer, name: str
) -> None:
    """What others hold goes on meanwhile; a database that restarts, or has no connection left, ends no server."""
    url = postgres.new_database()
    with serving(tmp_path / "data", "--dimse-processes", "2", "--web-processes", "2", PACSLITE_DATABASE_URL=url) as running:

        def role() -> dict[str, Any]:
            return next(role for role in running.roles if role["name"] == name)

        _take_connections(postgres, url, "false")
        pid = role()["pid"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: role()["restarts"] >= 3, what="a third attempt")
        assert {one["state"] for one in running.roles if one["name"] != name} == {"ready"}
        _take_connections(postgres, url, "true")
        until(lambda: role()["state"] == "ready")
        assert running.health()["status"] == "ready"
        assert dcmtk("echoscu", running).returncode == 0


def test_web_processes_go_on_while_another_cannot_be_replaced(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.new_database()
    with serving(tmp_path / "data", "--dimse-processes", "1", "--web-processes", "2", PACSLITE_DATABASE_URL=url) as running:

        def web() -> dict[str, Any]:
            return next(role for role in running.roles if role["name"] == "web")

        before = web()
        _take_connections(postgres, url, "false")
        os.kill(before["workers"][0], signal.SIGKILL)
        until(lambda: running.logged().count("a web process cannot start") >= 2, what="a second attempt")
        assert requests.get(f"{running.url}/health/live", timeout=10).status_code == 200
        _take_connections(postgres, url, "true")
        after = until(lambda: web() if web()["state"] == "ready" else None)
        assert (after["pid"], after["restarts"]) == (before["pid"], 1)
        assert before["workers"][1] in after["workers"]
        assert "Traceback" not in running.logged()


def _take_connections(postgres: PostgresServer, url: str, whether: str) -> None:
    name = url.partition("@/")[2].partition("?")[0]
    with psycopg.connect(host=str(postgres.socket_directory), user=postgres.user, dbname="postgres", autocommit=True) as conn:
        conn.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {whether}")  # type: ignore[arg-type]


def test_stored_bytes_are_those_that_were_sent(server: Server, tmp_path: Path) -> None:
    path, ds = instance_file(tmp_path)
    body = data_sets.body([path.read_bytes()])
    stored = requests.post(f"{server.url}/dicom-web/studies", data=body, headers={"Content-Type": data_sets.CONTENT_TYPE}, timeout=10)
    assert stored.status_code == 200
    (kept,) = server.data.glob(f"storage/radiology/{ds.StudyInstanceUID}/{ds.SeriesInstanceUID}/{ds.SOPInstanceUID}/*.dcm")
    assert dcmread(kept) == ds
