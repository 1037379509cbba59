"""A real nginx in front of a server, under a path prefix, on a port of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import until

_CONFIGURATION = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        proxy_request_buffering off;
        proxy_buffering off;
        location {prefix}/ {{
            proxy_pass http://127.0.0.1:{upstream}/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            {headers}
        }}
    }}
}}
"""


def found() -> bool:
    """Whether there is an nginx on this machine."""
    return _program() is not None


def _program() -> str | None:
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


@contextmanager
def proxying(directory: Path, upstream: int, prefix: str, headers: tuple[str, ...]) -> Iterator[int]:
    """The port of an nginx that passes what is below `prefix` to a port of this machine, with these request headers."""
    program = _program()
    assert program is not None
    directory.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    lines = "\n".join(f"proxy_set_header {header};" for header in headers)
    configuration = directory / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(directory=directory, port=port, upstream=upstream, prefix=prefix, headers=lines))
    log = directory / "nginx.log"
    with log.open("wb") as out:
        process = subprocess.Popen([program, "-p", str(directory), "-c", str(configuration)], stdout=out, stderr=out)
    try:
        until(lambda: process.poll() is not None or _listens(port), 20, "nginx listened")
        assert process.poll() is None, log.read_text()
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
