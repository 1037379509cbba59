"""Whether something happens too often: rates a minute, by the sliding window counter of the `limits` library."""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from limits import RateLimitItemPerMinute
from limits.strategies import SlidingWindowCounterRateLimiter

from pacslite.rates.windows import WindowFile

_log = logging.getLogger(__name__)


class Counting:
    """Counts of one host. Where the file fails, nothing is limited, and the log says so."""

    def __init__(self, path: Path) -> None:
        self._file = WindowFile(path)
        self._limiter = SlidingWindowCounterRateLimiter(self._file)
        self._has_warned = False

    def wait_s(self, kind: str, who: str, per_minute: int, *, counts: bool = True) -> int:
        """Counts one more of this kind: 0, or the seconds to wait when there were too many and this one is not counted.

        Without `counts` it only looks whether there is room for one.
        """
        item, key = _item(per_minute), _key(kind, who)
        try:
            if (self._limiter.hit if counts else self._limiter.test)(item, key):
                return 0
            return max(1, math.ceil(self._limiter.get_window_stats(item, key).reset_time - time.time()))
        except (sqlite3.Error, OSError) as error:
            if not self._has_warned:
                self._has_warned = True
                _log.warning("rates cannot be counted, so none is limited", extra={"reason": str(error)})
            return 0

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


@lru_cache(maxsize=64)
def _item(per_minute: int) -> RateLimitItemPerMinute:
    return RateLimitItemPerMinute(per_minute)


@lru_cache(maxsize=4096)
def _key(kind: str, who: str) -> str:
    """Of one length whatever somebody sends as a name, and not that name."""
    return f"{kind}/{blake2b(who.encode(errors='surrogatepass'), digest_size=16).hexdigest()}"
