"""Many things done by a few threads while somebody takes the results one after the other: hides the waits of disks and object stores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_THREADS = 4


def ahead(items: Iterable[T], function: Callable[[T], R]) -> Iterator[R]:
    """The results in order, some of the next ones in the making; raises what the function raises."""
    remaining, waiting = iter(items), deque[Future[R]]()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="ahead") as pool:
        try:
            while True:
                waiting.extend(pool.submit(function, item) for item in islice(remaining, 4 * _THREADS - len(waiting)))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items, so many at a time."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
