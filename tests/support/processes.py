"""Real processes of pacslite for end-to-end tests: started on free ports, told apart by pid, always ended."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
_PAUSE = threading.Event()


def until(condition: Callable[[], Any], deadline_s: float = 30.0, what: str = "the condition") -> Any:
    """What `condition` gives once that is true; fails after the deadline."""
    deadline = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true within {deadline_s} s"
        _PAUSE.wait(0.01)


def within_a_minute(seconds: float = 15) -> None:
    """Waits until this minute of the clock has so much left: rates count by such minutes, and what the one before has counted fades."""
    until(lambda: 60 - time.time() % 60 > seconds, what="the next minute")


def environment(**more: str) -> dict[str, str]:
    """The environment without settings of pacslite, which a developer may have."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PACSLITE_")}
    return kept | {"PYTHONPATH": str(ROOT)} | more


def pacslite(*arguments: str | Path, python: str = sys.executable, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs the command line to its end."""
    options.setdefault("env", environment())
    command = [python, "-m", "pacslite", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


@dataclass
class Server:
    """A running `pacslite serve`; `ready` is the line it printed."""

    process: subprocess.Popen[str]
    data: Path
    log: Path
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """The supervisor, which a tracer may stand before."""
        pid: int = self.ready.get("pid", self.process.pid)
        return pid

    @property
    def url(self) -> str:
        """Base URL of the web server."""
        return f"http://{self.ready['http']}"

    @property
    def dicom(self) -> tuple[str, str]:
        """Host and port of the DICOM listener."""
        host, _, port = self.ready["dicom"].rpartition(":")
        return host, port

    @property
    def roles(self) -> list[dict[str, Any]]:
        """The processes as they are now."""
        roles: list[dict[str, Any]] = json.loads((self.data / "run/serve.json").read_text())["roles"]
        return roles

    def health(self) -> dict[str, Any]:
        """`/health/ready`."""
        with urllib.request.urlopen(f"{self.url}/health/ready", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end; its exit code."""
        if self.process.poll() is None:
            os.kill(self.pid, number)
        return self.process.wait(timeout=40)

    def kill(self) -> None:
        """Kills the supervisor; what it runs dies with it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait(timeout=10)

    def logged(self) -> str:
        """All it wrote to stderr."""
        return self.log.read_text(errors="replace")


def start(
    data: Path, *options: str, prefix: Sequence[str] = (), scope: str = "all", cwd: Path | None = None, auth: bool = False, **env: str
) -> Server:
    """`pacslite serve` on free ports, ready to serve; its caller ends it. Nobody logs in unless `auth` says so."""
    data.mkdir(parents=True, exist_ok=True)
    log = data.parent / f"{data.name}.log"
    command = [*prefix, sys.executable, "-m", "pacslite", "serve", scope, "--json", *([] if auth else ["--no-auth"]), "--data", str(data)]
    for name in ("--http", "--dicom"):
        if name not in options:
            command += [name, "127.0.0.1:0"]
    with log.open("a") as stderr:
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment(**env), cwd=cwd)
    server = Server(process, data, log)
    try:
        server.ready = json.loads(_line(process, START_S))
    except (AssertionError, ValueError):
        process.kill()
        process.wait()
        raise AssertionError(f"pacslite did not start:\n{server.logged()[-4000:]}") from None
    return server


@contextlib.contextmanager
def serving(data: Path, *options: str, **more: Any) -> Iterator[Server]:
    """A server for the length of a block."""
    server = start(data, *options, **more)
    try:
        yield server
    finally:
        try:
            server.stop()
        finally:
            if server.process.poll() is None:
                server.kill()
            if server.process.stdout:
                server.process.stdout.close()


def _line(process: subprocess.Popen[str], deadline_s: float) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(deadline_s), "nothing was printed in time"
        return process.stdout.readline()


def children_of(pid: int) -> list[int]:
    """The processes that a process of one thread has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    """Whether a process of that pid is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def processor_s(pid: int) -> float:
    """Processor time of a process and what it runs: unlike the clock it says the same on a busy machine."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor_s(child) for child in children_of(pid))


def memory_of(pid: int) -> float:
    """Proportional set size of a process and its children, in MiB."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0
    for process in (pid, *children):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024
