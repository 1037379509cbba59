"""How much memory a task has needed; imports nothing, so that nothing else is counted."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any


def measured(task: str, *arguments: Any) -> tuple[Any, int]:
    """The result of a task, and the most memory this process has had, in KiB; itself a task for `codec.apart`."""
    module, _, name = task.partition(":")
    result = getattr(importlib.import_module(module), name)(*arguments)
    status = Path("/proc/self/status").read_text()
    return result, next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def allocate(count: int) -> int:
    """A task that needs so many bytes."""
    return len(bytearray(count))
