"""A web server of our own for tests: real gunicorn in its own process, on a port the system chose, over a new data directory."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_START_S = 30
_STOP_S = 20

_PROGRAM = """
import sys
from pacslite import app, web_server
from pacslite.settings import load
settings = load()
values = web_server.options(settings) | {"bind": ["fd://" + sys.argv[1]], "graceful_timeout": 2, "keepalive": 5}
web_server._Server(values, lambda: app.web_application(settings)).run()
"""


@dataclass(frozen=True)
class Answer:
    """Status, headers (names in lower case) and body."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class WebServer:
    """A running server; `request` opens a connection of its own."""

    data: Path
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    root: str = "/dicom-web"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The DICOMweb root."""
        return f"http://127.0.0.1:{self.port}{self.root}"

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 60,
    ) -> Answer:
        """One request below the DICOMweb root; an iterator as body goes out chunked."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            chunked = body is not None and not isinstance(body, bytes)
            connection.request(method, self.root + path, body, {**self.headers, **(headers or {})}, encode_chunked=chunked)
            reply = connection.getresponse()
            return Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def get(self, path: str, accept: str | None = None, **headers: str) -> Answer:
        """GET with an Accept header, or without any."""
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        return self.request("GET", path, headers={**named, **({"Accept": accept} if accept is not None else {})})


@contextmanager
def running(data: Path, **settings: str) -> Iterator[WebServer]:
    """A server over `data` (made when absent) with these settings, stopped at the end."""
    from pacslite import app
    from pacslite.settings import load

    defaults = {"data": str(data), "auth": "0", "log_level": "warning", "web_processes": "1"}
    environment = {f"PACSLITE_{k.upper()}": v for k, v in {**defaults, **settings}.items()}
    pacs = app.build(load(environment=environment))
    pacs.catalog.migrate()
    pacs.close()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        log = data / "web.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(listener.fileno())],
                pass_fds=[listener.fileno()],
                env={**os.environ, "PYTHONPATH": str(_ROOT), **environment},
                stdout=out,
                stderr=out,
                cwd=data,
            )
        port = listener.getsockname()[1]
    server = WebServer(data, port, process, log)
    try:
        # The listener exists already: the first request waits in its queue until a worker takes it.
        first = server.request("GET", "/nothing", timeout_s=_START_S)
        assert first.status == 404, log.read_text()
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
