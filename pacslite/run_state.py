"""What runs on the data of this machine: the files `<data>/run/serve*.json`, one of each supervisor.

The supervisor writes, `/health/ready` and the command line read. A file counts only while its supervisor lives.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STARTING, READY, BACKOFF, FAILED, STOPPED = "starting", "ready", "back-off", "failed", "stopped"


@dataclass(frozen=True, slots=True)
class RoleState:
    """One process of a role; `state` is starting, ready, back-off, failed or stopped, `since` the time it took that state (RFC 3339)."""

    name: str
    role: str
    pid: int | None
    state: str
    restarts: int
    since: str
    last_exit: str | None = None
    workers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RunState:
    """What one supervisor runs, and under which addresses."""

    pid: int
    version: str
    started_at: str
    aet: str
    http: str | None
    dicom: str | None
    roles: tuple[RoleState, ...]
    dicom_tls: str | None = None

    @property
    def is_ready(self) -> bool:
        """Whether every process serves."""
        return all(role.state == READY for role in self.roles)


def directory(data: Path) -> Path:
    """Where the files of the supervisors lie."""
    return data / "run"


def path_of(data: Path, scope: str) -> Path:
    """The file of the supervisor that runs `scope` (all, web, dimse or worker)."""
    return directory(data) / ("serve.json" if scope == "all" else f"serve-{scope}.json")


def write(path: Path, state: RunState) -> None:
    """Replaces the file in one step."""
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_text(json.dumps(asdict(state), indent=1) + "\n")
    partial.replace(path)


def read(path: Path) -> RunState | None:
    """The state in the file; None when there is none or its supervisor has gone."""
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    roles = tuple(RoleState(**{**role, "workers": tuple(role["workers"])}) for role in values.pop("roles"))
    state = RunState(**values, roles=roles)
    return state if _is_alive(state.pid) else None


def read_all(data: Path) -> list[RunState]:
    """The states of all living supervisors on this data and this machine."""
    found = (read(path) for path in sorted(directory(data).glob("serve*.json")))
    return [state for state in found if state is not None]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
