"""What one process of a role does, from its start to its end. The supervisor forks these processes.

A process tells its parent by lines on a pipe: `ready PID` when it serves, `gone PID` when a worker of its own has died. It
ends with its parent.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from pacslite.errors import ConfigurationError, PacsliteError, Unavailable
from pacslite.settings import Settings

ROLES = ("web", "dimse", "worker")
EXIT_OF_NO_USE = 78  # EX_CONFIG of sysexits: starting again cannot help

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_MOST_DESCRIPTORS = 65536
_SERVING_ALLOCATIONS = (700, 10, 10)  # Python's own
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
    from pacslite.core.dicom_logins import DicomLogins
    from pacslite.dimse.server import DimseServer

    stop = stop_event()
    pacs = app.build(assignment.settings, is_patient=False)
    pacs.catalog.check_revision()
    app.observe(assignment.settings, "dimse")
    server = DimseServer(assignment.settings, pacs, DicomLogins(pacs.accounts, pacs.limits), on_deaf=stop.set)
    server.start()
    status.ready()
    stop.wait()
    server.stop()
    pacs.close()


def run_worker(assignment: Assignment, status: Status) -> None:
    """The background work, until SIGTERM."""
    from pacslite import app, worker

    os.nice(worker.NICENESS)
    stop = stop_event()
    pacs = app.build(assignment.settings)
    pacs.catalog.check_revision()
    app.observe(assignment.settings, "worker")
    status.ready()
    worker.run(pacs, stop)
    pacs.close()


def run_web(assignment: Assignment, status: Status) -> None:
    """The web server, until SIGTERM."""
    from pacslite import app, web_server

    catalog = app.build_catalog(assignment.settings)
    catalog.check_revision()
    catalog.close()
    web_server.run(assignment.settings, status, assignment.listen_fd)


def _log_thread_end(ended: threading.ExceptHookArgs) -> None:
    error = ended.exc_value or ended.exc_type()
    _log.error("a thread ended by an error", exc_info=error, extra={"ended_thread": ended.thread.name if ended.thread else ""})


class Process:
    """A forked process; `exit_code` is negative when a signal ended it, None while it runs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exit_code: int | None = None

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        """The exit code, once it has ended."""
        return self._wait(0)

    def _wait(self, how: int) -> int | None:
        if self.exit_code is None:
            pid, status = os.waitpid(self.pid, how)
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code

    def terminate(self) -> None:
        """Asks it to end."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Ends it."""
        os.kill(self.pid, signal.SIGKILL)


def of_scope(scope: str) -> tuple[str, ...]:
    """The roles of `all`, or the one that is named."""
    return ROLES if scope == "all" else (scope,)


@contextmanager
def _unavailable(name: str) -> Iterator[None]:
    """Whoever can do without a package does without it while the block lasts."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def load(names: Sequence[str], database_url: str) -> None:
    """Imports the code of the roles and compiles its statements, so that the processes forked afterwards share both."""
    with _unavailable("requests"):  # pydicom loads it to download test data: 5 MB, and 0.1 s
        import pydicom  # noqa: F401
    from pacslite import app

    if "web" in names:
        from pacslite import web_server  # noqa: F401

        app.routes()
    if "dimse" in names:
        import pacslite.dimse.admission
        import pacslite.dimse.server
    if "worker" in names:
        import pacslite.worker
    import prometheus_client.multiprocess  # noqa: F401

    import pacslite.core.ingest  # noqa: F401
    from pacslite.catalog import engines, statements

    statements.compile_all(engines.dialect_of(database_url))
    # The collector does not touch, and so not copy, what is shared. The little garbage there is stays: its holes would be filled.
    gc.freeze()
    gc.set_threshold(*_SERVING_ALLOCATIONS)


def start(assignment: Assignment) -> Process:
    """A new process that does the assignment. To be called from the only thread of its parent."""
    pid = os.fork()
    if pid:
        return Process(pid)
    code = None
    try:
        code = _main(assignment)
    finally:
        if code is None:
            _log.error("%s ended by an error", assignment.role, exc_info=True)
        # The parent's frames are below this one: their clean-up is not ours to do.
        os._exit(1 if code is None else code)


def _leave_parent(assignment: Assignment) -> None:
    """Gives back what was forked along: signals, descriptors of the parent, its process group."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    kept = sorted({0, 1, 2, assignment.status_fd} | ({assignment.listen_fd} if assignment.listen_fd is not None else set()))
    for lower, upper in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(lower + 1, upper)
    # Ctrl-C in the terminal reaches the supervisor alone, which then stops the others in order.
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"pacslite-{assignment.role}".encode()[:15], 0, 0, 0)


def _allow_descriptors() -> None:
    """Raises the bound of open files, which shells and containers set low: each connection is one, each stored object a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _main(assignment: Assignment) -> int:
    """Does the assignment; the exit code."""
    end_with_parent(assignment.parent_pid)
    _leave_parent(assignment)
    _allow_descriptors()
    threading.excepthook = _log_thread_end
    run = {"web": run_web, "dimse": run_dimse, "worker": run_worker}[assignment.role]
    try:
        run(assignment, Status(assignment.status_fd))
    except SystemExit as ended:  # gunicorn's way to end
        return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except (ConfigurationError, Unavailable) as error:
        _log.error("%s cannot run: %s", assignment.role, error)
        return EXIT_OF_NO_USE
    except (PacsliteError, OSError) as error:
        _log.error("%s stopped: %s", assignment.role, error)
        return 2
    return 0
