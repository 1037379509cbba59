"""The background work of the `worker` role: small tasks, each at its interval, one after another."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacslite.errors import PacsliteError

if TYPE_CHECKING:
    from pacslite.app import Pacs

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """Something done every `interval_s`; `run` may be interrupted by a kill at any point and is then done again."""

    name: str
    interval_s: float
    run: Callable[[Pacs], object]


def run(pacs: Pacs, stop: threading.Event, tasks: tuple[Task, ...] | None = None) -> None:
    """Does the tasks until `stop` is set; a task that fails is logged and tried again at its next time."""
    due = {task: time.monotonic() + task.interval_s for task in (tasks_of(pacs) if tasks is None else tasks)}
    while not stop.is_set():
        task = min(due, key=due.__getitem__)
        if stop.wait(max(0.0, due[task] - time.monotonic())):
            return
        _do(pacs, task)
        due[task] = time.monotonic() + task.interval_s


def _do(pacs: Pacs, task: Task) -> None:
    try:
        task.run(pacs)
    except (PacsliteError, OSError) as error:
        _log.error("%s failed: %s", task.name, error, extra={"action": task.name, "outcome": "failed"})


def tasks_of(pacs: Pacs) -> tuple[Task, ...]:
    """What this release does in the background."""
    return (Task("spool.sweep", pacs.settings.sweep_interval_s, lambda p: p.spool.sweep()),)
