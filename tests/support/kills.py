"""Killing processes of a server while clients are at work, and waiting until it is whole again."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from tests.support.processes import Server, until

# Places in the way of what is sent, as its sender sees it.
IDLE, CONNECTING, SENDING, WAITING = "idle", "connecting", "sending", "waiting for the answer"
IN_FLIGHT = (SENDING, WAITING)


class Sender(Protocol):
    """Sends one thing after another until told to stop."""

    phase: str
    left: int | None
    """So many more, once the kill has happened."""

    @property
    def has_succeeded(self) -> bool: ...
    def run(self, stop: threading.Event) -> None: ...


@contextmanager
def sending(senders: Sequence[Sender]) -> Iterator[None]:
    """All of them at work, for the length of a block."""
    stop = threading.Event()
    threads = [threading.Thread(target=sender.run, args=(stop,)) for sender in senders]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)


def victim(server: Server, choice: random.Random, of: Sequence[str] = ()) -> tuple[str, int]:
    """A process to kill, by name and pid: every kind (or of these kinds) with the same chance."""
    kinds: dict[str, list[int]] = {"supervisor": [server.process.pid]}
    for role in server.roles:
        kinds.setdefault(role["role"], []).append(role["pid"])
        if role["role"] == "web":
            kinds["web worker"] = role["workers"]
    name = choice.choice(sorted(kind for kind in kinds if not of or kind in of))
    return name, choice.choice(kinds[name])


def is_back(server: Server, pid: int) -> bool:
    """Whether all roles are ready, and none of them is this process."""
    return all(role["state"] == "ready" and pid not in (role["pid"], *role["workers"]) for role in server.roles)


def kill_among(
    server: Server, senders: Sequence[Sender], choice: random.Random, start_again: Callable[[], Server], more: int, of: Sequence[str] = ()
) -> tuple[Server, str, list[str]]:
    """Kill a process while one of the senders waits in a transfer or for its answer, and let each send so many more.

    The server as it runs afterwards, what was killed, and in which phases senders were met.
    """
    wanted = choice.choice(IN_FLIGHT)
    with sending(senders):
        until(lambda: all(s.has_succeeded for s in senders), 30, "the first success of each sender")
        threading.Event().wait(choice.uniform(0, 0.05))
        name, pid = victim(server, choice, of)
        until(lambda: any(s.phase == wanted for s in senders), 10, wanted)
        os.kill(pid, signal.SIGKILL)
        hit = sorted({s.phase for s in senders if s.phase in IN_FLIGHT})
        for sender in senders:
            sender.left = more
        if name == "supervisor":
            server.process.wait(10)
        else:
            until(lambda: is_back(server, pid), 30, f"the restart of {name}")
    if name == "supervisor":
        assert server.process.stdout is not None
        server.process.stdout.close()
        server = start_again()
    return server, name, hit
