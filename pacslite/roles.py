"""What one process of a role does, from its start to its end. The supervisor starts these processes.

`python -m pacslite.roles` reads its assignment (a pickle from its parent) on standard input. It tells the parent by
lines on a pipe: `ready PID` when it serves, `gone PID` when a worker of its own has died. It ends with its parent.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import pickle
import signal
import sys
import threading
from dataclasses import dataclass
from types import FrameType

from pacslite import logs
from pacslite.errors import ConfigurationError, PacsliteError, Unavailable
from pacslite.settings import Settings

ROLES = ("web", "dimse", "worker")
EXIT_OF_NO_USE = 78  # EX_CONFIG of sysexits: starting again cannot help

_PR_SET_PDEATHSIG = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the supervisor tells a new process; `listen_fd` is the open listening socket of the web role."""

    role: str
    settings: Settings
    parent_pid: int
    status_fd: int
    listen_fd: int | None = None


class Status:
    """The pipe to the supervisor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_inheritable(fd, False)

    def ready(self) -> None:
        """This process serves."""
        self._tell(f"ready {os.getpid()}")

    def gone(self, pid: int) -> None:
        """A worker of this process has ended."""
        self._tell(f"gone {pid}")

    def _tell(self, line: str) -> None:
        os.write(self._fd, (line + "\n").encode())


def end_with_parent(parent_pid: int) -> None:
    """Has the kernel kill this process when its parent dies, however that happens (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def stop_event() -> threading.Event:
    """Set by SIGTERM and SIGINT."""
    event = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        event.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return event


def run_dimse(assignment: Assignment, status: Status) -> None:
    """The DICOM listener, until SIGTERM."""
    from pacslite import app
    from pacslite.dimse.server import DimseServer

    stop = stop_event()
    pacs = app.build(assignment.settings)
    pacs.catalog.check_revision()
    server = DimseServer(assignment.settings, pacs)
    server.start()
    status.ready()
    stop.wait()
    server.stop()
    pacs.close()


def run_worker(assignment: Assignment, status: Status) -> None:
    """The background work, until SIGTERM."""
    from pacslite import app, worker

    stop = stop_event()
    pacs = app.build(assignment.settings)
    pacs.catalog.check_revision()
    status.ready()
    worker.run(pacs, stop)
    pacs.close()


def run_web(assignment: Assignment, status: Status) -> None:
    """The web server, until SIGTERM."""
    from pacslite import app, web_server

    catalog = app.build_catalog(assignment.settings)
    catalog.check_revision()
    catalog.close()
    # Loaded before the workers are forked, so that they share the memory of the code; what it builds is theirs.
    app.routes()
    gc.collect()
    gc.freeze()
    web_server.run(assignment.settings, status, assignment.listen_fd)


def _log_thread_end(ended: threading.ExceptHookArgs) -> None:
    error = ended.exc_value or ended.exc_type()
    _log.error("a thread ended by an error", exc_info=error, extra={"thread": ended.thread.name if ended.thread else ""})


def main() -> int:
    """Runs the role of the assignment on standard input."""
    assignment: Assignment = pickle.load(sys.stdin.buffer)
    end_with_parent(assignment.parent_pid)
    logs.configure(assignment.settings.log_level)
    threading.excepthook = _log_thread_end
    run = {"web": run_web, "dimse": run_dimse, "worker": run_worker}[assignment.role]
    try:
        run(assignment, Status(assignment.status_fd))
    except (ConfigurationError, Unavailable) as error:
        _log.error("%s cannot run: %s", assignment.role, error)
        return EXIT_OF_NO_USE
    except (PacsliteError, OSError) as error:
        _log.error("%s stopped: %s", assignment.role, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
