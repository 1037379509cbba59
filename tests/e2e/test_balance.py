"""Connections that come at once are spread over the web processes."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

from tests.support.processes import children_of, serving, until

COUNT, PROCESSES = 12, 3
HEAD = (
    b"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    b'Content-Type: multipart/related; type="application/dicom"; boundary=b\r\n\r\n'
)


def _held_by(pid: int, inodes: set[str]) -> int:
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(descriptor))
        except FileNotFoundError:
            continue
    return len(inodes.intersection(links))


def _connections(port: int) -> set[str]:
    """Names of the server's ends of established connections."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if int(row[1].rpartition(":")[2], 16) == port and row[3] == "01" and row[9] != "0"}


def test_requests_under_way_are_spread_over_the_web_processes(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--web-processes", str(PROCESSES), "--dimse-processes", "1") as server, ExitStack() as stack:
        host, _, port = server.ready["http"].rpartition(":")
        workers = [pid for role in server.roles if role["name"] == "web" for pid in children_of(role["pid"])]
        assert len(workers) == PROCESSES

        def held() -> list[int]:
            inodes = _connections(int(port))
            return [_held_by(pid, inodes) for pid in workers]

        for number in range(COUNT):
            sock = stack.enter_context(socket.create_connection((host, int(port))))
            sock.sendall(HEAD + b"--b\r\n")  # and no more: it is worked for until the rest comes
            until(lambda number=number: sum(held()) == number + 1, 20, "the connection to be taken")  # type: ignore[misc]
        assert min(held()) >= 2, held()
