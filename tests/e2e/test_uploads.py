"""Resumable uploads by the clients people have: tus-js-client, Uppy's dashboard in Chromium, and `pacslite upload`."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import full
from tests.support.accounts import guarded
from tests.support.browser import chromium
from tests.support.cutting_proxy import cutting
from tests.support.http import running
from tests.support.processes import Server, environment, pacslite, start
from tests.support.tus import UPLOADS, Tus, client, local, stl

_HERE = Path(__file__).resolve().parents[1] / "support/tus_clients"
_KEPT = Path(__file__).resolve().parents[2] / ".cache/tus_clients"
UPPY = "uppy@6.0.1"
UPPY_SHA512 = "2OONMUNUHGBNkfSjNpWDhleeCeqm2oP+8NJRSxkkFVLmm3BbE7S+XCm45+jp36z7PCRuogtm1FgYPKa0iKbYAQ=="
SIZE = 12_000_000


def npm(*arguments: str) -> None:
    """Runs npm in the directory that is kept between runs; skips the test when it cannot."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm on PATH")
    _KEPT.mkdir(parents=True, exist_ok=True)
    told = subprocess.run(["npm", *arguments], cwd=_KEPT, capture_output=True, text=True, timeout=300, check=False)
    if told.returncode:
        pytest.skip(f"npm could not fetch what this test is of: {told.stderr[-300:]}")


@pytest.fixture(scope="module")
def program() -> Path:
    """The program that uploads by tus-js-client, with its packages from the lock."""
    lock, done = (_HERE / "package-lock.json").read_bytes(), _KEPT / "installed.json"
    if not done.exists() or done.read_bytes() != lock:
        _KEPT.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_HERE / name, _KEPT / name)
        npm("ci", "--ignore-scripts", "--no-audit", "--no-fund")
        done.write_bytes(lock)
    shutil.copy(_HERE / "upload.mjs", _KEPT / "upload.mjs")
    return _KEPT / "upload.mjs"


@pytest.fixture(scope="module")
def uppy() -> Path:
    """A directory with Uppy's own bundle."""
    target, tarball = _KEPT / "uppy", _KEPT / (UPPY.replace("@", "-") + ".tgz")
    if not tarball.exists():
        npm("pack", UPPY, "--ignore-scripts")
    digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    assert digest == UPPY_SHA512
    target.mkdir(exist_ok=True)
    with tarfile.open(tarball) as packed:
        for name in ("uppy.min.mjs", "uppy.min.css"):
            found = packed.extractfile(f"package/dist/{name}")
            assert found is not None
            (target / name).write_bytes(found.read())
    return target


@pytest.fixture(scope="module")
def tus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tus]:
    with running(tmp_path_factory.mktemp("clients"), web_processes="2") as server:
        yield client(server)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "jaw.stl"
    path.write_bytes(stl(SIZE, seed=3))
    return path


class Node:
    """tus-js-client at work; `told` is what it has printed so far."""

    def __init__(self, program: Path, file: Path, endpoint: str, tus: Tus, **options: Any) -> None:
        said = {"file": str(file), "endpoint": endpoint + UPLOADS, "metadata": tus.metadata, **options}
        self.told: list[dict[str, Any]] = []
        self.process = subprocess.Popen(["node", str(program), json.dumps(said)], stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.append(json.loads(line))

    def end(self) -> dict[str, Any]:
        """The last it says."""
        try:
            self.process.wait(120)
        finally:
            self.process.kill()
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert self.told[-1].keys() & {"done", "ended", "failed"}, self.told[-5:]
        return self.told[-1]


def check(tus: Tus, place: str, file: Path) -> None:
    """The file of that URL is the one that was sent."""
    with urllib.request.urlopen(f"http://127.0.0.1:{tus.server.port}{local(place)}/content", timeout=60) as answer:
        digest = hashlib.file_digest(answer, "sha256").hexdigest()
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "options",
    [
        {"chunkSize": 5_000_000},
        {"chunkSize": 3_000_000, "withCreation": True},
        {"chunkSize": 4_000_000, "deferred": True},
        {"chunkSize": 4_000_000, "override": True},
    ],
    ids=lambda options: " ".join(options),
)
def test_tus_js_client_in_its_ways_of_sending(program: Path, tus: Tus, model: Path, options: dict[str, Any]) -> None:
    done = Node(program, model, f"http://127.0.0.1:{tus.server.port}", tus, **options).end()
    assert "done" in done, done
    check(tus, done["done"], model)


@pytest.mark.parametrize("seed", range(12 if full() else 3))
def test_tus_js_client_over_connections_that_are_cut_anywhere(program: Path, tus: Tus, model: Path, seed: int) -> None:
    chance = random.Random(seed)
    cuts = [chance.choice((chance.randrange(1, 2000), chance.randrange(2000, SIZE // 2))) for _ in range(6)]
    with cutting(tus.server.port, cuts=cuts) as proxy:
        done = Node(program, model, proxy.url, tus, chunkSize=SIZE).end()
        assert proxy.cut >= 3, (proxy, done)
        assert "done" in done, done
    check(tus, done["done"], model)


def test_tus_js_client_sends_parts_side_by_side_and_joins_them(program: Path, tus: Tus, model: Path) -> None:
    with cutting(tus.server.port, cuts=[100_000, 2_000_000]) as proxy:
        done = Node(program, model, proxy.url, tus, parallel=3, chunkSize=SIZE).end()
    assert "done" in done, done
    check(tus, done["done"], model)


def test_tus_js_client_ends_an_upload(program: Path, tus: Tus, model: Path) -> None:
    ended = Node(program, model, f"http://127.0.0.1:{tus.server.port}", tus, chunkSize=1_000_000, endAfter=3_000_000).end()
    assert tus.head(local(ended["ended"])).status == 410


def test_tus_js_client_is_told_why_a_file_is_refused(program: Path, tus: Tus, tmp_path: Path) -> None:
    wrong = tmp_path / "jaw.stl"
    wrong.write_bytes(b"MZ" + bytes(5000))
    told = Node(program, wrong, f"http://127.0.0.1:{tus.server.port}", tus, retries=2).end()
    assert told["status"] == 415


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_an_upload_goes_on_after_the_server_was_killed_in_the_middle(program: Path, model: Path, tmp_path: Path, share: float) -> None:
    """The processes are killed while bytes are on their way; the client goes on by itself when the server is back."""
    server = start(tmp_path / "data")
    killed = threading.Event()
    try:
        made = urllib.request.Request(
            server.url + "/api/v1/patients", b'{"mrn": "K1", "name": "Kill^Test"}', {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(made, timeout=30) as answer:
            patient = json.load(answer)["id"]
        port = int(server.url.rpartition(":")[2])
        with cutting(port) as proxy:

            def kill(passed: int) -> None:
                if passed > SIZE * share and not killed.is_set():
                    killed.set()
                    server.kill()

            proxy.on_bytes = kill
            someone = Tus.__new__(Tus)
            someone.patient_id, someone.headers = patient, {}
            node = Node(program, model, proxy.url, someone, chunkSize=SIZE, retries=400)
            assert killed.wait(60)
            server = restarted(server)
            proxy.target = int(server.url.rpartition(":")[2])
            done = node.end()
        assert "done" in done, node.told[-5:]
        with urllib.request.urlopen(f"{server.url}{local(done['done'])}/content", timeout=60) as answer:
            assert answer.read() == model.read_bytes()
        assert not list((tmp_path / "data/spool/uploads").iterdir())
    finally:
        server.stop()
        server.process.stdout.close()  # type: ignore[union-attr]


def restarted(server: Server) -> Server:
    """Another one over the same data."""
    server.process.wait(30)
    server.process.stdout.close()  # type: ignore[union-attr]
    return start(server.data)


_PAGE = """<!doctype html><meta charset="utf-8"><title>upload</title><link rel="stylesheet" href="uppy.min.css"><div id="here"></div>
<script type="module">
import {Uppy, Dashboard, Tus} from "./uppy.min.mjs";
const said = JSON.parse(document.location.hash ? decodeURIComponent(document.location.hash.slice(1)) : "{}");
window.told = [];
window.uppy = new Uppy({meta: said.meta})
  .use(Dashboard, {inline: true, target: "#here"})
  .use(Tus, {endpoint: said.endpoint, headers: said.headers, chunkSize: 5000000, retryDelays: [100, 100, 100]})
  .on("upload-success", (file, answer) => window.told.push({name: file.name, url: answer.uploadURL}))
  .on("upload-error", (file, error) => window.told.push({name: file.name, error: String(error)}));
</script>"""


@contextmanager
def page_server(directory: Path) -> Iterator[str]:
    """The page of somebody else's application, on an origin of its own."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

        def log_message(self, *_: Any) -> None:
            pass

    (directory / "page.html").write_text(_PAGE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=directory)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_uppys_dashboard_uploads_from_a_page_of_another_origin(uppy: Path, model: Path, tmp_path: Path) -> None:
    """A person picks two files in Uppy's dashboard and presses its button; one connection breaks on the way."""
    other = tmp_path / "Kiefer größer.stl"
    other.write_bytes(stl(3_000_000, seed=4))
    with page_server(uppy) as origin, guarded(tmp_path / "data", cors_origins=origin) as site:
        headers = {"Authorization": f"Bearer {site.bearer('clinician')}"}
        maker = client(site.server, Authorization=f"Bearer {site.bearer('admin')}")
        with cutting(site.server.port, cuts=[200_000]) as proxy, chromium(tmp_path) as browser:
            said = {
                "endpoint": proxy.url + UPLOADS,
                "headers": headers,
                "meta": {"patient_id": str(maker.patient_id), "file_type": "stl_model"},
            }
            browser.open(f"{origin}/page.html#{json.dumps(said)}")
            browser.wait("window.uppy && document.querySelector('.uppy-Dashboard-input')")
            browser.elements(".uppy-Dashboard-input")[0].send_keys(f"{model}\n{other}")
            browser.wait("document.querySelector('.uppy-StatusBar-actionBtn--upload')")
            browser.elements(".uppy-StatusBar-actionBtn--upload")[0].click()
            browser.wait("window.told.length === 2")
            told = browser.script("return window.told")
            assert proxy.cut == 1
        for one in told:
            assert "url" in one, told
            someone = Tus(site.server, maker.patient_id, headers)
            head = someone.head(local(one["url"]))
            record = json.loads(site.server.request("GET", local(head.headers["content-location"]), None, headers).body)
            sent = model if one["name"] == model.name else other
            assert record["file_hash"] == hashlib.sha256(sent.read_bytes()).hexdigest()
            assert record["original_filename"] == sent.name


# pacslite upload


def command(tus: Tus | None, state: Path, *arguments: str | Path, url: str = "") -> subprocess.CompletedProcess[str]:
    server = url or f"http://127.0.0.1:{tus.server.port}"  # type: ignore[union-attr]
    return pacslite("upload", *arguments, "--server", server, env=environment(XDG_STATE_HOME=str(state)))


def test_the_command_sends_files_and_folders(tus: Tus, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "patient"
    (folder / "notes").mkdir(parents=True)
    shutil.copy(model, folder / "jaw.stl")
    (folder / "notes" / "letter.txt").write_text("All is well.\n")
    (folder / "notes" / "broken.stl").write_bytes(b"MZ" + bytes(500))
    (folder / ".hidden").write_text("x")
    (folder / "what.xyz").write_text("x")
    told = command(tus, tmp_path, folder, "--patient", str(tus.patient_id), "--body-part", "jaw", "--json")
    assert told.returncode == 1, told.stderr
    found = {Path(one["path"]).name: one for one in json.loads(told.stdout)["items"]}
    assert {name: one["outcome"] for name, one in found.items()} == {
        "jaw.stl": "stored",
        "letter.txt": "stored",
        "broken.stl": "refused",
        "what.xyz": "refused",
    }
    assert "--file-type" in found["what.xyz"]["problem"]
    assert found["broken.stl"]["problem"]
    record = json.loads(tus.server.request("GET", f"/api/v1/files/{found['jaw.stl']['file_id']}").body)
    assert (record["file_hash"], record["body_part"]) == (hashlib.sha256(model.read_bytes()).hexdigest(), "jaw")
    assert not list((tmp_path / "pacslite/uploads").iterdir())


def test_the_command_run_again_goes_on_where_it_was_killed(tus: Tus, model: Path, tmp_path: Path) -> None:
    killed = threading.Event()
    with cutting(tus.server.port) as proxy:
        arguments = ["upload", str(model), "--patient", str(tus.patient_id), "--server", proxy.url, "--json"]
        running_one = subprocess.Popen(
            [sys.executable, "-m", "pacslite", *arguments], env=environment(XDG_STATE_HOME=str(tmp_path)), stdout=subprocess.PIPE
        )

        def kill(passed: int) -> None:
            if passed > SIZE // 2 and not killed.is_set():
                killed.set()
                os.kill(running_one.pid, signal.SIGKILL)

        proxy.on_bytes = kill
        running_one.communicate(timeout=60)
        assert killed.is_set()
        proxy.on_bytes = None
        told = command(tus, tmp_path, model, "--patient", str(tus.patient_id), "--json", url=proxy.url)
    assert told.returncode == 0, told.stderr
    (one,) = json.loads(told.stdout)["items"]
    assert one["resumed_from"] > SIZE // 4
    record = json.loads(tus.server.request("GET", f"/api/v1/files/{one['file_id']}").body)
    assert record["file_hash"] == hashlib.sha256(model.read_bytes()).hexdigest()


def test_the_command_bears_with_connections_that_break(tus: Tus, model: Path, tmp_path: Path) -> None:
    with cutting(tus.server.port, cuts=[2_000_000, 700_000, 30, 4_000_000]) as proxy:
        told = command(tus, tmp_path, model, "--patient", str(tus.patient_id), url=proxy.url)
    assert told.returncode == 0, told.stderr
    assert "1 of 1 files stored" in told.stdout


def test_the_command_draws_a_bar_on_a_terminal_only(tus: Tus, model: Path, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    arguments = ["upload", str(model), "--patient", str(tus.patient_id), "--server", f"http://127.0.0.1:{tus.server.port}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pacslite", *arguments],
        env=environment(XDG_STATE_HOME=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=follower,
    )
    os.close(follower)
    drawn = b""
    try:
        while piece := os.read(leader, 65536):
            drawn += piece
    except OSError:
        pass  # a terminal without a writer
    os.close(leader)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"jaw.stl [" in drawn
    assert b"11.4 MiB/11.4 MiB" in drawn


def test_the_command_says_what_stands_in_its_way(tus: Tus, model: Path, tmp_path: Path, free_port: int) -> None:
    patient = str(tus.patient_id)
    assert command(tus, tmp_path, tmp_path / "nothing.stl", "--patient", patient).returncode == 2
    assert command(tus, tmp_path, model, "--patient", patient, url="ftp://x").returncode == 2
    unknown = command(tus, tmp_path, model, "--patient", "999999")
    assert (unknown.returncode, "no such patient" in unknown.stdout) == (1, True)
    somewhere = command(None, tmp_path, model, "--patient", patient, url=f"http://127.0.0.1:{tus.server.port}/elsewhere")
    assert (somewhere.returncode, "--server" in somewhere.stderr) == (2, True), somewhere.stderr
    undated = command(tus, tmp_path, model, "--patient", patient, "--study-date", "20260102")
    assert (undated.returncode, "YYYY-MM-DD" in undated.stderr) == (2, True)
    lost = command(None, tmp_path, model, "--patient", patient, "--file-type", "stl_model", url=f"http://127.0.0.1:{free_port}")
    assert (lost.returncode, "run the same command again" in lost.stdout) == (3, True), lost.stdout
    with guarded(tmp_path / "data") as site:
        refused = command(None, tmp_path, model, "--patient", "1", url=f"http://127.0.0.1:{site.server.port}")
        (tmp_path / "token").write_text("made-up\n")
        unknown = command(
            None, tmp_path, model, "--patient", "1", "--token-file", tmp_path / "token", url=f"http://127.0.0.1:{site.server.port}"
        )
    assert (refused.returncode, "wants a login: give an API token with --token-file or PACSLITE_TOKEN" in refused.stderr) == (2, True)
    assert (unknown.returncode, "does not know this token" in unknown.stderr) == (2, True)


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port where nobody answers as long as the test runs."""
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
