"""Connections go to the web process that has the least to do.

The processes wait at one socket, and whichever is awake takes what comes: of sixteen connections at once one process may take all, and
half of the machine stays idle. So each tells the others how many connections it works for, in memory they share, and one that
has more than another leaves a new connection to that one for a moment.
"""

from __future__ import annotations

import mmap
import time

STEP_BACK_S = 0.005
"""How long a process leaves a new connection to others; then it takes it all the same, since the others may be stuck."""
# Whoever has not told its number for so long is gone, or stuck. The main thread of a worker comes round every second.
_SILENCE_S = 3.0
# Of two workers that outlive sixty-three restarts one would be taken for the other: connections are spread less evenly then.
_PLACES = 64


class Board:
    """How many connections each process works for: made before the processes, which inherit it."""

    def __init__(self) -> None:
        # For each place the number, and when it was told (time.monotonic, one clock for all processes).
        self._cells = memoryview(mmap.mmap(-1, 16 * _PLACES)).cast("d")

    def tell(self, place: int, busy: int) -> None:
        """Note how many connections a process works for now."""
        at = place % _PLACES * 2
        self._cells[at], self._cells[at + 1] = busy, time.monotonic()

    def leave(self, place: int) -> None:
        """A process takes no more connections."""
        self._cells[place % _PLACES * 2 + 1] = 0.0

    def has_idler(self, place: int, busy: int) -> bool:
        """Whether another process works for fewer connections than this one."""
        since, own = time.monotonic() - _SILENCE_S, place % _PLACES * 2
        cells = self._cells.tolist()
        return any(cells[at + 1] > since and cells[at] < busy for at in range(0, len(cells), 2) if at != own)
