"""Files measured from outside: uploads by tus and by form beside nginx on the same disk, many small ones, memory, and long lists.

    python bench/files.py [--directory DIR] [--large MIB] [--small N] [--parallel MIB] [--listed N] [--only large,small,memory,lists]

Needs curl, ffmpeg, and nginx with its DAV module (Debian: curl, ffmpeg, nginx). Everything lies below DIR, on the disk that is measured,
and is removed at the end. Times are wall clock; nginx writes to the page cache and answers, pacslite answers after fsync.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.processes import Server, children_of, serving, until

MIB = 1024 * 1024
TUS = "Tus-Resumable: 1.0.0"
_CLIENTS = 4
_DAV = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log stderr crit;
events {{ worker_connections 64; }}
http {{
    access_log off; client_body_temp_path {directory}/temp; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
    uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
    server {{ listen 127.0.0.1:{port}; root {directory}/put; client_max_body_size 0; dav_methods PUT; }}
}}
"""


def video(path: Path, size: int, seed: int = 0) -> None:
    """An MP4 of about that size: a second of film, and a box of bytes that players skip (ISO/IEC 14496-12, 8.1.2)."""
    film = path.parent / "film.mp4"
    if not film.exists():
        source = ["-f", "lavfi", "-i", "testsrc=duration=1:size=64x64:rate=5", "-pix_fmt", "yuv420p"]
        subprocess.run(["ffmpeg", "-v", "error", "-y", *source, str(film)], check=True)
    head, block = film.read_bytes(), os.urandom(MIB)
    with path.open("wb") as file:
        file.write(head + struct.pack(">I4sQQ", 1, b"free", 24 + size // MIB * MIB, seed))
        for _ in range(size // MIB):
            file.write(block)


def post(url: str, value: object) -> dict[str, object]:
    """A JSON answer to a JSON body."""
    request = urllib.request.Request(url, json.dumps(value).encode(), {"Content-Type": "application/json"}, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.load(answer)
        return found


def curl(*arguments: str) -> float:
    """Seconds that curl needs; fails when the answer is no success."""
    began = time.perf_counter()
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Expect:", *arguments]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    if not told.stdout.startswith("2"):
        raise SystemExit(f"{' '.join(arguments)[:200]}: {told.stdout} {told.stderr}")
    return took


def begin(server: Server, patient: object, size: int) -> str:
    """The URL of a new upload."""
    said = {"patient_id": str(patient), "file_type": "video", "filename": "bench.mp4"}
    metadata = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in said.items())
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(size), "Upload-Metadata": metadata}
    request = urllib.request.Request(server.url + "/api/v1/files/uploads", b"", headers, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.headers["Location"])


def by_tus(server: Server, patient: object, path: Path) -> float:
    """Seconds for one file by tus."""
    url = begin(server, patient, path.stat().st_size)
    octets = "Content-Type: application/offset+octet-stream"
    return curl("-X", "PATCH", "-H", TUS, "-H", "Upload-Offset: 0", "-H", octets, "-T", str(path), url)


def by_form(server: Server, patient: object, path: Path) -> float:
    """Seconds for one file by form."""
    fields = ("-F", f"patient_id={patient}", "-F", "file_type=video", "-F", f"file=@{path};type=video/mp4")
    return curl(*fields, server.url + "/api/v1/files/upload")


@contextmanager
def nginx(directory: Path) -> Iterator[str]:
    """A plain nginx that takes PUT."""
    (directory / "put").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = directory / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(user + _DAV.format(directory=directory, port=port))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    process = subprocess.Popen([program, "-c", str(configuration), "-e", "stderr"])
    try:
        until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, what="nginx")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def large(server: Server, patient: object, directory: Path, size: int, rounds: int) -> None:
    """One large file by each way, in turn, the medians."""
    files = [directory / f"large-{n}.mp4" for n in range(rounds * 2)]
    for n, path in enumerate(files):
        video(path, size, n + 1)
    took: dict[str, list[float]] = {"nginx": [], "tus": [], "form": []}
    with nginx(directory / "nginx") as url:
        for n in range(rounds):
            for way, run in (
                ("nginx", lambda n=n: curl("-T", str(files[n]), f"{url}/large-{n}.mp4")),
                ("tus", lambda n=n: by_tus(server, patient, files[n])),
                ("form", lambda n=n: by_form(server, patient, files[rounds + n])),
            ):
                os.sync()  # what one way has left in memory is not written at the cost of the next
                took[way].append(run())
    plain = statistics.median(took["nginx"])
    for way, seconds in took.items():
        median = statistics.median(seconds)
        print(
            f"large {size // MIB} MiB by {way:5}: {median:7.2f} s {size / MIB / median:7.0f} MiB/s  ratio {plain / median:.2f}", flush=True
        )
    for path in files:
        path.unlink()


def small(server: Server, patient: object, count: int) -> None:
    """Many small files by four clients with a connection each, by form."""
    host, port = server.url.removeprefix("http://").split(":")
    seconds: list[float] = []

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        for n in range(number, count, _CLIENTS):
            body = b"".join(
                [
                    b'--b\r\nContent-Disposition: form-data; name="patient_id"\r\n\r\n%d\r\n' % patient,
                    b'--b\r\nContent-Disposition: form-data; name="file_type"\r\n\r\ndocument\r\n',
                    b'--b\r\nContent-Disposition: form-data; name="file"; filename="note.txt"\r\n\r\n',
                    b"Note %d of a bench.\n" % n * 500,
                    b"\r\n--b--\r\n",
                ]
            )
            began = time.perf_counter()
            connection.request("POST", "/api/v1/files/upload", body, {"Content-Type": "multipart/form-data; boundary=b"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 201:
                raise SystemExit(f"{answer.status} {said[:300]!r}")
            seconds.append(time.perf_counter() - began)
        connection.close()

    began = time.perf_counter()
    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(client, range(_CLIENTS)))
    took = time.perf_counter() - began
    spread = statistics.quantiles(seconds, n=20)
    print(f"small: {count} files by {_CLIENTS} clients {took:.1f} s, {count / took:.0f} a second, median {spread[9] * 1000:.1f} ms, 95 % {spread[18] * 1000:.1f} ms", flush=True)  # noqa: E501  # fmt: skip


def resident(server: Server) -> int:
    """Bytes of memory of the process tree, what is shared counted once (PSS)."""
    total, waiting = 0, [server.pid]
    while waiting:
        pid = waiting.pop()
        try:
            waiting += children_of(pid)
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
    return total


def memory(server: Server, patient: object, directory: Path, size: int) -> None:
    """The process tree while four large files arrive at once."""
    files = [directory / f"parallel-{n}.mp4" for n in range(4)]
    for n, path in enumerate(files):
        video(path, size, 100 + n)
    for way, run in (("tus", by_tus), ("form", by_form)):
        idle, seen, stop = resident(server), [0], threading.Event()

        def watch(seen: list[int] = seen, stop: threading.Event = stop) -> None:
            while not stop.wait(0.1):
                seen[0] = max(seen[0], resident(server))

        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda path, run=run: run(server, patient, path), files))  # type: ignore[misc]
        stop.set()
        watcher.join()
        more = (max(seen[0], idle) - idle) / MIB
        print(f"memory: idle {idle / MIB:.0f} MiB, {more:.0f} MiB more while 4 files of {size // MIB} MiB arrive by {way}", flush=True)
        for n, path in enumerate(files):  # the same bytes would be kept once
            video(path, size, 200 + n)
    for path in files:
        path.unlink()


def lists(server: Server, patient: object, count: int) -> None:
    """The first page of the files of a patient, and their sums."""
    for name, path in (
        ("files", f"/api/v1/files/patient/{patient}/files"),
        ("storage-info", f"/api/v1/files/patient/{patient}/storage-info"),
    ):
        seconds = []
        for _ in range(40):
            began = time.perf_counter()
            with urllib.request.urlopen(server.url + path, timeout=60) as answer:
                answer.read()
            seconds.append(time.perf_counter() - began)
        print(f"lists: {name} of a patient with {count} files: median {statistics.median(seconds) * 1000:.1f} ms", flush=True)


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=None, help="where everything lies; the system's temporary directory by default")
    parser.add_argument("--large", type=int, default=2048, metavar="MIB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", type=int, default=1000, metavar="N")
    parser.add_argument("--parallel", type=int, default=1024, metavar="MIB")
    parser.add_argument("--listed", type=int, default=10_000, metavar="N")
    parser.add_argument("--only", default="large,small,memory,lists")
    given = parser.parse_args()
    wanted = set(given.only.split(","))
    with tempfile.TemporaryDirectory(prefix="pacslite-bench-", dir=given.directory) as name:
        directory = Path(name)
        # The worker converts videos, which is not what is measured here.
        with serving(directory / "data", scope="web", PACSLITE_FILE_RATE_PER_MINUTE="1000000", PACSLITE_API_RATE_PER_MINUTE="0") as server:
            numbers = {part: post(server.url + "/api/v1/patients", {"mrn": part, "name": "Bench"})["id"] for part in sorted(wanted)}
            steps: dict[str, Callable[[], None]] = {
                "memory": lambda: memory(server, numbers["memory"], directory, given.parallel * MIB),
                "large": lambda: large(server, numbers["large"], directory, given.large * MIB, given.rounds),
                "small": lambda: small(server, numbers["small"], given.small),
                "lists": lambda: (small(server, numbers["lists"], given.listed), lists(server, numbers["lists"], given.listed))[1],
            }
            for part, step in steps.items():
                if part in wanted:
                    step()


if __name__ == "__main__":
    main()
