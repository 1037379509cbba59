"""What a codec process does: tasks from its parent, one after the other, until the parent closes the connection.

It decodes what may have been made to do harm. So it has no secrets in its environment, a bound on its memory, and an alarm that
ends it when a task takes too long, even inside a codec and even when the parent has gone meanwhile.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import resource
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from pacslite.errors import PacsliteError, UndecodablePixels

IDLE_S = 60
MAX_ADDRESS_SPACE = 6 * 1024**3
# One that had to hold a huge frame makes room for a fresh one.
_TIRED_KIB = 768 * 1024
OK, FAILED, LEAVING = "ok", "failed", "leaving"


class _Plain(pickle.Unpickler):
    """Builtin values only: what a codec process says must not make its parent run anything."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is no plain value")


def plain(data: bytes) -> Any:
    """The message of a codec process; raises pickle.UnpicklingError for anything but builtin values."""
    return _Plain(io.BytesIO(data)).load()


def peak_kib() -> int:
    """The most memory this program has had at once. What getrusage(2) tells counts that of the process which started it too."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("VmHWM:")), 0)
    except OSError:
        return 0


def main() -> int:
    """Serves the connection whose descriptor is the first argument; the second is the bound on a task in seconds."""
    connection, bound_s = Connection(int(sys.argv[1])), float(sys.argv[2])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        while connection.poll(IDLE_S):
            task, arguments = pickle.loads(connection.recv_bytes())
            signal.setitimer(signal.ITIMER_REAL, bound_s)
            answer = _answer(task, arguments)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send_bytes(answer)
            if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _TIRED_KIB and peak_kib() > _TIRED_KIB:
                break
        connection.send_bytes(pickle.dumps((LEAVING, None)))
    except (EOFError, OSError):
        pass
    return 0


def _answer(task: str, arguments: tuple[Any, ...]) -> bytes:
    module, _, name = task.partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(*arguments)
        return pickle.dumps((OK, result), protocol=5)
    except PacsliteError as error:
        return pickle.dumps((FAILED, (type(error).__name__, str(error))))
    except MemoryError:
        return pickle.dumps((FAILED, (UndecodablePixels.__name__, "The frame needs more memory than a codec may have.")))
    except Exception as error:  # noqa: BLE001 - whatever a codec says of hostile data, the parent hears it
        return pickle.dumps((FAILED, ("", f"{type(error).__name__} in {task}: {error}"[:500])))


if __name__ == "__main__":
    # Without the clean-up of the interpreter: libraries of codecs have their own, at times broken ones.
    os._exit(main())
