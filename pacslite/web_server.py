"""How gunicorn serves the web role: one table of its settings, for the supervisor and for `conf/gunicorn.py`."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import gunicorn.glogging
from gunicorn.app.base import BaseApplication

from pacslite.errors import PacsliteError
from pacslite.private import UMASK
from pacslite.settings import Settings
from pacslite.web.observation import note

if TYPE_CHECKING:
    from pacslite.roles import Status

_log = logging.getLogger(__name__)
_GRACE_S = 10
_WORKER_SILENCE_S = 120
_KEEPALIVE_S = 30
_RETRY_S = 1.0
_SHARED_MEMORY = "/dev/shm"  # the heartbeat file of a worker must not wait for a disk


class Logger(gunicorn.glogging.Logger):  # type: ignore[misc]
    """Gunicorn's messages in the log of the process, as JSON lines like all others."""

    logs_access = False

    def setup(self, cfg: Any) -> None:
        """Replaces gunicorn's own handlers and formats."""
        super().setup(cfg)
        self.error_log.handlers[:] = []
        self.error_log.propagate = True
        # "Booting worker", "Listening at": the supervisor says these better. What is said of requests names their URLs.
        self.error_log.setLevel("ERROR" if cfg.loglevel == "error" else "WARNING")

    def exception(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Logs the error at hand; a client that was silent for too long is none of ours."""
        if not isinstance(sys.exception(), BlockingIOError | TimeoutError):
            super().exception(msg, *args, **kwargs)

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta) -> None:
        """Counts a request that is over, and logs it if the settings say so."""
        note(environ, resp, request_time.total_seconds(), logs=self.logs_access)


def options(settings: Settings) -> dict[str, Any]:
    """Gunicorn's settings for these settings."""
    from pacslite.web.gunicorn_worker import MOST_LINE_BYTES, worker_class
    from pacslite.web.threads import Patience

    patience = Patience(settings.web_waiting, settings.network_timeout_s, settings.web_min_bytes_per_s)
    return {
        "bind": [settings.http.text],
        "workers": settings.web_processes,
        "threads": settings.web_threads,
        "worker_class": worker_class(patience),
        # Threads, locks and connections do not survive a fork: each worker builds its own.
        "preload_app": False,
        "sendfile": True,
        "timeout": _WORKER_SILENCE_S,
        "graceful_timeout": _GRACE_S,
        "keepalive": _KEEPALIVE_S,
        "umask": UMASK,
        "limit_request_line": MOST_LINE_BYTES,
        "worker_tmp_dir": _SHARED_MEMORY if os.path.isdir(_SHARED_MEMORY) else None,
        "control_socket_disable": True,
        "forwarded_allow_ips": ",".join(settings.trusted_proxies),
        "accesslog": None,
        "loglevel": settings.log_level,
        "logger_class": type("Logger", (Logger,), {"logs_access": settings.access_log}),
        "proc_name": "pacslite-web",
    }


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, values: dict[str, Any], load: Callable[[], Any]) -> None:
        self._values = values
        self._load = load
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._values.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self._load()


def run(settings: Settings, status: Status, listen_fd: int | None) -> None:
    """Serves until SIGTERM; tells `status` of every worker that serves or has ended."""
    from pacslite import app, roles
    from pacslite.core import audit

    values = options(settings)
    if listen_fd is not None:
        values["bind"] = [f"fd://{listen_fd}"]
    master, replaces = os.getpid(), False

    def post_fork(server: Any, worker: Any) -> None:
        nonlocal replaces
        roles.end_with_parent(master)
        replaces = worker.age > settings.web_processes

    def load() -> Any:
        try:
            return app.web_application(settings)
        except PacsliteError as error:
            if not replaces:
                raise
            # Gunicorn would end all others with one that it cannot start; what the reason is, as a database that restarts, may pass.
            _log.error("a web process cannot start: %s", error)
            time.sleep(_RETRY_S)
            raise SystemExit(1) from None

    def post_worker_init(worker: Any) -> None:
        status.ready()

    def worker_exit(server: Any, worker: Any) -> None:
        audit.close_all()

    def child_exit(server: Any, worker: Any) -> None:
        status.gone(worker.pid)

    values |= {"post_fork": post_fork, "post_worker_init": post_worker_init, "child_exit": child_exit, "worker_exit": worker_exit}
    _Server(values, load).run()
