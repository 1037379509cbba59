"""DICOMweb servers as peers: QIDO-RS, WADO-RS and STOW-RS as client; and peers over REST, with their secrets kept to ourselves."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless

from pacslite import app, cli
from pacslite.core import jobs, peers, remote
from pacslite.core.retrieve import Resource, plan
from pacslite.errors import BadRequest, Conflict, PeerError
from pacslite.settings import load
from tests.protocol.test_peers_remote import STUDY, held, outcomes, retrieve, run, store
from tests.support.data_sets import image, part10
from tests.support.http import WebServer, running
from tests.support.retrieval import keep, keep_images


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """Another pacslite."""
    with running(tmp_path_factory.mktemp("web")) as one:
        yield one


@pytest.fixture
def there(web: WebServer) -> Iterator[Any]:
    """The parts behind it."""
    pacs = app.build(load(environment={"PACSLITE_DATA": str(web.data)}))
    yield pacs
    pacs.close()


@pytest.fixture
def here(tmp_path: Path, web: WebServer) -> Iterator[Any]:
    """We, who know it as `web`."""
    pacs = app.build(load(environment={"PACSLITE_DATA": str(tmp_path / "here")}))
    pacs.catalog.migrate()
    know(pacs, web.url)
    yield pacs
    pacs.close()


def know(pacs: Any, url: str, **headers: str) -> None:
    peers.put(pacs.catalog, peers.Peer("web", "", 0, (), kind="dicomweb", url=url, headers=headers))


def test_a_server_is_queried_sent_to_and_retrieved_from(here: Any, there: Any) -> None:
    sent = set(keep_images(here, 5, STUDY))
    ds = image(compressed=[b"\xff\x4f\xff\x51" + bytes(61)], study=STUDY, series=f"{STUDY}.2")
    keep(here, ds, JPEG2000Lossless)
    assert peers.echo(here.catalog, "web", here.send_echo).outcome == "success"
    job = store(here, "web")
    assert (job.state, job.error, (job.result or {})["sent"]) == ("succeeded", "", 6)
    assert held(there) == {*sent, ds.SOPInstanceUID}
    (study,) = remote.query(here, "web", "study", {"StudyInstanceUID": STUDY, "PatientName": "Test*"}, ["StudyID"], 5).records
    assert (study["StudyInstanceUID"], study["PatientName"], study["NumberOfStudyRelatedInstances"]) == (STUDY, "Test^Patient", "6")
    page = remote.query(here, "web", "instance", {"StudyInstanceUID": STUDY, "SeriesInstanceUID": f"{STUDY}.1"}, [], 2)
    assert (len(page.records), page.truncated) == (2, True)
    with pytest.raises(BadRequest, match="no search for patients"):
        remote.query(here, "web", "patient", {}, [], 2)

    from pacslite.core.removal import Origin, remove, target_of

    before = {item.sop_instance_uid: (item.sha256, item.transfer_syntax_uid) for item in plan(here.catalog, Resource(STUDY))}
    remove(here.catalog, target_of(STUDY), Origin("api"))
    job = retrieve(here, "web")
    assert (job.state, job.error) == ("succeeded", "")
    assert job.result == {"peer": "web", "method": "wado", "present": 0, "total": 6, "received": 6, "failed": 0}
    assert {item.sop_instance_uid: (item.sha256, item.transfer_syntax_uid) for item in plan(here.catalog, Resource(STUDY))} == before
    assert retrieve(here, "web").result == {"peer": "web", "method": "auto", "present": 6, "total": 6, "received": 0, "failed": 0}
    here.peer_counts.write()
    counted = peers.statistics(here.catalog, "web")
    assert (counted.instances_sent, counted.instances_received, counted.failures) == (6, 6, 0)
    assert counted.bytes_received == counted.bytes_sent > 0


def test_the_transfer_syntax_that_a_server_prefers_is_sent(here: Any, there: Any, web: WebServer) -> None:
    keep_images(here, 1, "1.2.32")
    peers.put(
        here.catalog,
        peers.Peer("web", "", 0, (), kind="dicomweb", url=web.url, transfer_syntaxes=(JPEG2000Lossless, ImplicitVRLittleEndian)),
    )
    assert store(here, "web", Resource("1.2.32")).state == "succeeded"
    assert [item.transfer_syntax_uid for item in plan(there.catalog, Resource("1.2.32"))] == [ImplicitVRLittleEndian]


def test_c_move_is_not_asked_of_a_web_server(here: Any) -> None:
    with pytest.raises(Conflict, match="asked by wado"):
        retrieve(here, "web", method="move")


class Stranger(BaseHTTPRequestHandler):
    """A server that answers as the test wants; keeps what it was asked."""

    asked: list[tuple[str, str, dict[str, str], bytes]]
    answers: dict[str, tuple[int, dict[str, str], bytes]]

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append((self.command, self.path, dict(self.headers), body))
        path = self.path.partition("?")[0]
        status, headers, data = next((answer for end, answer in self.answers.items() if path.endswith(end)), (404, {}, b""))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def stranger(here: Any, answers: dict[str, tuple[int, dict[str, str], bytes]], **headers: str) -> Iterator[type[Stranger]]:
    handler = type("Handler", (Stranger,), {"asked": [], "answers": answers})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        know(here, f"http://127.0.0.1:{server.server_port}/dicom-web/", **headers)
        yield handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


JSON = {"Content-Type": "application/dicom+json"}


def listing(*uids: str) -> dict[str, tuple[int, dict[str, str], bytes]]:
    """The answers about one series of the study with these instances."""
    series = [{"0020000D": {"vr": "UI", "Value": [STUDY]}, "0020000E": {"vr": "UI", "Value": [f"{STUDY}.1"]}}]
    instances = [series[0] | {"00080018": {"vr": "UI", "Value": [uid]}} for uid in uids]
    return {f"/studies/{STUDY}/series": (200, JSON, json.dumps(series).encode()), "/instances": (200, JSON, json.dumps(instances).encode())}


def multipart(*files: bytes) -> tuple[int, dict[str, str], bytes]:
    body = b"".join(b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n" + file for file in files) + b"\r\n--b--\r\nepilogue"
    return 200, {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}, b"preamble" + body


def test_secrets_go_with_requests_and_are_not_followed_elsewhere(here: Any) -> None:
    answers = {"/studies": (302, {"Location": "http://127.0.0.1:9/"}, b"")}
    with stranger(here, answers, Authorization="Bearer s3cret", **{"X-Key": "k3y"}) as server:
        with pytest.raises(PeerError, match=r"127\.0\.0\.1:\d+: HTTP status 302$"):
            remote.query(here, "web", "study", {}, [], 1)
        ((_, path, headers, _),) = server.asked
    assert path.startswith("/dicom-web/studies?")
    assert (headers["Authorization"], headers["X-Key"]) == ("Bearer s3cret", "k3y")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, JSON, b"{"), "not JSON"),
        ((200, JSON, b'{"a": 1}'), "not an array"),
        ((500, {"Content-Type": "application/json"}, b'{"detail": "no disk"}'), "HTTP status 500: no disk"),
        ((200, {"Content-Length": "100"}, b"[]"), "the connection was lost"),
    ],
)
def test_what_is_no_answer_to_a_search_is_told(here: Any, answer: tuple[int, dict[str, str], bytes], reason: str) -> None:
    with stranger(here, {"/studies": answer}), pytest.raises(PeerError, match=reason):
        remote.query(here, "web", "study", {}, [], 1)


def test_instances_that_cannot_be_taken_are_listed_with_the_reason(here: Any) -> None:
    uids = [f"{STUDY}.1.{number}" for number in range(1, 8)]
    files = [part10(image(study=STUDY, series=f"{STUDY}.1", instance=uid)) for uid in uids]
    status, headers, body = multipart(files[5])
    answers = {
        **{f"/instances/{uid}": multipart(file) for uid, file in zip(uids, files, strict=True)},
        f"/instances/{uids[1]}": multipart(files[0]),
        f"/instances/{uids[2]}": multipart(files[2], files[2]),
        f"/instances/{uids[3]}": (200, {"Content-Type": "application/dicom"}, files[3]),
        f"/instances/{uids[4]}": (200, {"Content-Type": "text/html"}, b"<html>"),
        f"/instances/{uids[5]}": (status, headers, body[:-30]),
        f"/instances/{uids[6]}": multipart(b"x" * 200),
        **listing(*uids),
    }
    with stranger(here, answers):
        job = retrieve(here, "web")
    found = {one.item[-1]: one.detail for one in jobs.items(here.catalog, job.uid, outcome="failed", after="", limit=100)[0]}
    assert {item for item, outcome in outcomes(here, job).items() if outcome == "received"} == {uids[0], uids[3]} == held(here)
    assert "another SOP instance" in found["2"]
    assert "exactly one" in found["3"]
    assert "text/html" in found["5"]
    assert "cut off" in found["6"]
    assert "DICM" in found["7"]
    assert job.state == "queued"  # some of it may pass


def test_what_a_server_refuses_or_warns_of_is_told(here: Any) -> None:
    uids = list(keep_images(here, 1, STUDY))
    failed = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0xA900]}}]}}
    with stranger(here, {f"/studies/{STUDY}": (409, JSON, json.dumps(failed).encode())}) as server:
        job = store(here, "web")
        assert (job.state, job.error.partition("127")[0]) == ("failed", "1 of 1 instances were not sent: ")
        assert "Failure Reason A900H" in job.error
        assert b"DICM" in server.asked[0][3]
    warned = {"00081199": {"vr": "SQ", "Value": [{"00081196": {"vr": "US", "Value": [0xB000]}}]}}
    with stranger(here, {f"/studies/{STUDY}": (202, JSON, json.dumps(warned).encode())}):
        job = run(here, jobs.retry(here.catalog, job.uid))
    assert (job.state, outcomes(here, job)) == ("succeeded", {uids[0]: "sent"})
    assert jobs.items(here.catalog, job.uid, outcome="", after="", limit=9)[0][0].detail == "warning B000H"


# REST


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with running(tmp_path_factory.mktemp("rest")) as one:
        one.root = "/api/v1"
        yield one


def call(rest: WebServer, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    data = None if body is None else json.dumps(body).encode()
    answer = rest.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    assert answer.status == status, answer.body
    return json.loads(answer.body) if answer.body else None


def test_a_dicomweb_peer_is_kept_and_its_secrets_are_shown_nowhere(rest: WebServer, capsys: pytest.CaptureFixture[str]) -> None:
    form = {"kind": "dicomweb", "url": "https://pacs.example/dicom-web", "token": "s3cret", "headers": {"X-Key": "k3y"}}
    peer = call(rest, "POST", "/peers", form, 201)
    assert (peer["ae_title"], peer["kind"], peer["url"]) == ("pacs.example", "dicomweb", "https://pacs.example/dicom-web")
    assert peer["header_names"] == ["X-Key", "Authorization"]
    assert call(rest, "GET", "/peers/pacs.example") == peer
    changed = call(rest, "PATCH", "/peers/pacs.example", {"username": "ann", "password": "s3cret"})
    assert changed["header_names"] == ["Authorization"]
    shown = json.dumps([peer, changed, call(rest, "GET", "/peers")])
    assert cli.run(["peer", "show", "pacs.example", "--data", str(rest.data), "--json"]) == 0
    shown += capsys.readouterr().out + rest.log.read_text()
    assert "s3cret" not in shown
    assert "k3y" not in shown
    call(rest, "DELETE", "/peers/pacs.example", status=204)
    call(rest, "GET", "/peers/pacs.example", status=404)


def test_a_dicom_peer_is_changed_in_parts(rest: WebServer) -> None:
    peer = call(rest, "POST", "/peers", {"ae_title": "CT 1", "host": "ct", "port": 104}, 201)
    assert peer["allow"] == ["store", "find", "move", "get"]
    changed = call(rest, "PATCH", "/peers/CT%201", {"port": 105, "allow": ["store"], "transfer_syntaxes": [ImplicitVRLittleEndian]})
    assert changed == peer | {"port": 105, "allow": ["store"], "transfer_syntaxes": [ImplicitVRLittleEndian]}
    assert changed["statistics"]["instances_received"] == 0
    for wrong in ({"port": 0}, {"url": "http://x"}, {"nonsense": 1}, {"transfer_syntaxes": ["x"]}, {"allow": ["all"]}):
        assert call(rest, "PATCH", "/peers/CT%201", wrong, 400)["type"] == "invalid-form"
    for wrong in (
        {"ae_title": "X"},
        {"kind": "dicomweb", "name": "x y", "url": "http://x"},
        {"kind": "dicomweb", "name": "x", "url": "http://user:pass@x/"},
        {"kind": "dicomweb", "name": "x", "url": "file:///etc/passwd"},
        {"kind": "dicomweb", "name": "x", "url": "http://x", "headers": {"A": "b\r\nC: d"}},
        {"kind": "dicomweb", "name": "x", "url": "http://x", "token": "t", "username": "u"},
    ):
        assert call(rest, "POST", "/peers", wrong, 400)["type"] == "invalid-form"


def test_work_with_a_peer_is_a_job(rest: WebServer, web: WebServer) -> None:
    pacs = app.build(load(environment={"PACSLITE_DATA": str(rest.data)}))
    try:
        keep_images(pacs, 2, "1.2.33")
        call(rest, "POST", "/peers", {"kind": "dicomweb", "name": "other", "url": web.url}, 201)
        call(rest, "POST", "/peers", {"ae_title": "AWAY", "host": "127.0.0.1", "port": 9}, 201)
        job = call(rest, "POST", "/peers/other/store", {"study_instance_uid": "1.2.33"}, 202)
        assert (job["kind"], job["state"]) == ("peer.store", "queued")
        assert run(pacs, jobs.get(pacs.catalog, job["id"])).state == "succeeded"
        assert call(rest, "GET", f"/jobs/{job['id']}")["result"]["sent"] == 2
        found = call(rest, "POST", "/peers/other/query", {"level": "study", "keys": {"StudyInstanceUID": "1.2.33"}})
        assert (found["total"], found["truncated"], found["items"][0]["NumberOfStudyRelatedInstances"]) == (1, False, "2")
        named = {"resources": [{"study_instance_uid": "1.2.33", "series_instance_uid": "1.2.33.1"}]}
        assert call(rest, "POST", "/peers/other/retrieve", named, 202)["kind"] == "peer.retrieve"
        assert call(rest, "POST", "/peers/AWAY/commit", {"study_instance_uid": "1.2.33", "remove": True}, 202)["kind"] == "peer.commit"
        assert call(rest, "POST", "/peers/AWAY/query", {"level": "study"}, 502)["type"] == "peer-failed"
        call(rest, "POST", "/peers/other/commit", {"study_instance_uid": "1.2.33"}, 409)
        call(rest, "POST", "/peers/other/retrieve", {"study_instance_uid": "1.2.33", "method": "move"}, 409)
        for path in ("store", "retrieve", "commit"):
            call(rest, "POST", f"/peers/NOBODY/{path}", {"study_instance_uid": "1.2.33"}, 404)
            call(rest, "POST", f"/peers/AWAY/{path}", {"study_instance_uid": "x"}, 400)
            call(rest, "POST", f"/peers/AWAY/{path}", {}, 400)
            call(rest, "POST", f"/peers/AWAY/{path}", {"resources": [{"series_instance_uid": "1.2"}]}, 400)
        call(rest, "POST", "/peers/AWAY/store", {"study_instance_uid": "1.2.99"}, 404)
        call(rest, "POST", "/peers/AWAY/query", {"level": "study", "keys": {"Nonsense": "1"}}, 400)
    finally:
        pacs.close()
