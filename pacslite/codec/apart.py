"""Work on files that may have been made to do harm, each in a process of its own that ends with it.

For what takes longer and more memory than a frame (`processes`): photos, videos, documents, meshes. The process has no secrets in its
environment and bounds on memory, processor time, the size of what it writes, and time; what it starts (ffmpeg) has the same ones,
and all of it is killed when the time is over, when the job is stopped, or with the process that started it. A task is named
`module:function`; arguments and results are JSON.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pacslite import errors
from pacslite.errors import OutOfSpace, PacsliteError, Unavailable, UndecodablePixels

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")
_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.25
_MOST_ANSWER = 1024 * 1024
_NICE = 10
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_log = logging.getLogger(__name__)


class Stopped(Exception):
    """The caller's `is_stopping` said so."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a task may use."""

    seconds: float
    memory_bytes: int
    file_bytes: int


def run(task: str, *arguments: Any, bounds: Bounds, is_stopping: Callable[[], bool] = lambda: False) -> Any:
    """The result of the task; raises UndecodablePixels with the reason, Unavailable, what the task raised of our errors, Stopped."""
    reading, writing = os.pipe()
    with Connection(reading, writable=False) as answers:
        try:
            process = _start(task, arguments, bounds, writing)
        finally:
            os.close(writing)
        try:
            answer = _answer_of(answers, process, bounds.seconds, is_stopping)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if answer is None:
        raise UndecodablePixels(_end_of(process.returncode, bounds))
    kind, value = json.loads(answer)
    if kind == "done":
        return value
    raise _error(task, kind, value)


def _start(task: str, arguments: tuple[Any, ...], bounds: Bounds, writing: int) -> subprocess.Popen[bytes]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    order = json.dumps([task, arguments, bounds.seconds, bounds.memory_bytes, bounds.file_bytes, os.getpid()])
    command = [sys.executable, "-m", "pacslite.codec.apart", str(writing)]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, pass_fds=[writing], start_new_session=True
        )
    except OSError as error:
        raise Unavailable(f"No process can be started: {error.strerror}") from error
    with suppress(BrokenPipeError), process.stdin:  # type: ignore[union-attr]
        process.stdin.write(order.encode())  # type: ignore[union-attr]
    return process


def _answer_of(answers: Connection, process: subprocess.Popen[bytes], seconds: float, is_stopping: Callable[[], bool]) -> bytes | None:
    """What it says, or None when it has ended without a word."""
    deadline = time.monotonic() + seconds
    while not answers.poll(_LOOK_S):
        if is_stopping():
            raise Stopped
        if time.monotonic() > deadline:
            raise UndecodablePixels(f"It was not done within {seconds:g} s.")
    try:
        answer = answers.recv_bytes(_MOST_ANSWER)
    except (EOFError, OSError):
        process.wait()
        return None
    return answer


def _end_of(code: int, bounds: Bounds) -> str:
    if code == -signal.SIGXCPU:
        return f"It was not done within {bounds.seconds:g} s."
    _log.warning("a process died at its task", extra={"action": "codec", "outcome": "died", "exit_code": code})
    return "It cannot be read: the codec died of it."


def _error(task: str, name: str, text: str) -> PacsliteError:
    kind = getattr(errors, name, None) if name else None
    if isinstance(kind, type) and issubclass(kind, PacsliteError):
        return kind(text)
    _log.error("a codec task failed: %s", text, extra={"action": "codec", "outcome": "failed", "task": task})
    return UndecodablePixels("It cannot be read.")


# In the process


def die_with_parent() -> None:
    """Have the kernel end this process with the one that started it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> int:
    """Does the task that stands in the standard input; answers at the descriptor that is the argument."""
    answers = Connection(int(sys.argv[1]), readable=False)
    try:
        task, arguments, seconds, memory_bytes, file_bytes, parent = json.loads(sys.stdin.buffer.read())
    except ValueError:
        return 1  # whoever asked was killed before it had said for what
    die_with_parent()
    if os.getppid() != parent:
        return 1
    os.nice(_NICE)
    # Where the machine's memory ends before our bounds do, this goes first, and no server with it.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    # Several threads use up more than a second each second.
    cpu_s = int(seconds * (os.cpu_count() or 1)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5))
    answers.send_bytes(json.dumps(_done(task, arguments)).encode())
    return 0


def _done(task: str, arguments: list[Any]) -> tuple[str, Any]:
    module, _, name = task.partition(":")
    try:
        return "done", getattr(importlib.import_module(module), name)(*arguments)
    except PacsliteError as error:
        return type(error).__name__, str(error)
    except OSError as error:
        if error.errno in NO_ROOM:
            return OutOfSpace.__name__, "There is no room for what is being made."
        return "", f"{type(error).__name__} in {task}: {error}"[:500]
    except MemoryError:
        return UndecodablePixels.__name__, "It needs more memory than it may have."
    except Exception as error:  # noqa: BLE001 - whatever a codec says of hostile data, the caller hears it
        return "", f"{type(error).__name__} in {task}: {error}"[:500]


if __name__ == "__main__":
    # Without the clean-up of the interpreter: libraries of codecs have their own, at times broken ones.
    os._exit(main())
