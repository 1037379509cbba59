"""A progress bar on stderr: redrawn in place on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

_WIDTH = 30
_REDRAW_S = 0.1


class Bar:
    """Draws `label [####----] 12/300`; `update` and `step` may be called as often as wished."""

    def __init__(self, label: str = "", amount: Callable[[int], str] = str) -> None:
        self._label, self._amount = label, amount
        self._shown = sys.stderr.isatty()
        self._drawn_at = 0.0
        self._drawn = ""

    def update(self, done: int, total: int) -> None:
        """So much of the total is done; a total of 0 is not known yet."""
        now = time.monotonic()
        if not self._shown or (now - self._drawn_at < _REDRAW_S and done < total):
            return
        filled = _WIDTH * min(done, total) // total if total else 0
        count = f"{self._amount(done)}/{self._amount(total)}" if total else self._amount(done)
        self._draw(f"{self._label} [{'#' * filled}{'-' * (_WIDTH - filled)}] {count}")
        self._drawn_at = now

    def step(self, label: str, done: int, total: int) -> None:
        """The same, with the name of what is being done."""
        self._label = label
        self.update(done, total)

    def _draw(self, text: str) -> None:
        sys.stderr.write("\r" + text.ljust(len(self._drawn)))
        sys.stderr.flush()
        self._drawn = text

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._drawn:
            sys.stderr.write("\n")
            sys.stderr.flush()
