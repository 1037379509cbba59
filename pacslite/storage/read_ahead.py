"""Streams of many blobs one after the other, the next ones asked for while one is being sent.

An object store answers after some milliseconds whatever the size; a series is hundreds of objects. What is opened in
advance waits in socket buffers, so memory is bounded by `ahead` of those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Protocol, TypeVar

AHEAD = 4

Place = TypeVar("Place", contravariant=True)


class Opens(Protocol[Place]):
    """A store that opens ranges of keys, or stores that open those of rows."""

    def open(self, place: Place, offset: int, length: int | None, /) -> BinaryIO:
        """The bytes as a stream."""


def open_each(store: Opens[Place], ranges: Iterable[tuple[Place, int, int | None]], ahead: int = AHEAD) -> Iterator[BinaryIO]:
    """The streams in the order asked for; each is closed when the next one is taken, all when the iterator is closed.

    Raises what `open` raises, when its turn comes. With `ahead` 0, as for local files, all are opened when their turn comes.
    """
    if ahead < 1:
        for wanted in ranges:
            with store.open(*wanted) as stream:
                yield stream
        return
    remaining, waiting = iter(ranges), deque[Future[BinaryIO]]()
    with ThreadPoolExecutor(ahead, thread_name_prefix="read-ahead") as pool:
        try:
            while True:
                while len(waiting) <= ahead and (wanted := next(remaining, None)) is not None:  # type: ignore[assignment]
                    waiting.append(pool.submit(store.open, *wanted))
                if not waiting:
                    return
                with waiting.popleft().result() as stream:
                    yield stream
        finally:
            for future in waiting:
                if not future.cancel():
                    future.add_done_callback(_close)


def _close(future: Future[BinaryIO]) -> None:
    if future.exception() is None:
        future.result().close()
