"""Blobs come in order, the next ones are opened in advance, and nothing stays open."""

from __future__ import annotations

import io
import threading
from typing import Any, BinaryIO, cast

import pytest

from pacslite.errors import BlobMissing
from pacslite.storage.blob_store import BlobStore
from pacslite.storage.keys import instance_key, new_version_id
from pacslite.storage.read_ahead import open_each
from pacslite.storage.spool import Spool


class SlowStore:
    """A store whose first answer comes only when so many have been asked for."""

    kind = "s3"

    def __init__(self, together: int) -> None:
        self.together = threading.Barrier(together)
        self.lock = threading.Lock()
        self.asked: list[str] = []
        self.opened: list[io.BytesIO] = []

    def open(self, key: str, offset: int = 0, length: int | None = None) -> BinaryIO:
        with self.lock:
            self.asked.append(key)
            number = len(self.asked)
        if number <= self.together.parties:
            self.together.wait(30)
        if key == "missing/x":
            raise BlobMissing(key)
        stream = io.BytesIO(key.encode())
        with self.lock:
            self.opened.append(stream)
        return stream


def _as_store(store: Any) -> BlobStore:
    return cast(BlobStore, store)


def test_blobs_of_every_store_come_in_the_order_asked_for(store: BlobStore, spool: Spool) -> None:
    wanted = []
    for number in range(12):
        key = instance_key("1.1", "1.2", f"1.3.{number}", new_version_id())
        with spool.create() as writer:
            writer.write(b"%05d" % number)
            store.put(writer.finish().path, key)
        wanted.append((key, number % 3, None if number % 2 else 2))
    read = [stream.read() for stream in open_each(store, wanted)]
    assert read == [(b"%05d" % n)[n % 3 :][: None if n % 2 else 2] for n in range(12)]


def test_the_next_ones_are_asked_for_together() -> None:
    store = SlowStore(together=4)
    assert [s.read() for s in open_each(_as_store(store), [(f"k/{n}", 0, None) for n in range(9)], ahead=4)] == [
        b"k/%d" % n for n in range(9)
    ]
    assert all(stream.closed for stream in store.opened)


def test_no_more_are_open_than_the_bound() -> None:
    store = SlowStore(together=1)
    streams = open_each(_as_store(store), ((f"k/{n}", 0, None) for n in range(1000)), ahead=3)
    next(streams)
    streams.close()  # type: ignore[attr-defined]
    assert len(store.asked) <= 4
    assert all(stream.closed for stream in store.opened)


def test_missing_bytes_are_told_when_their_turn_comes() -> None:
    store = SlowStore(together=1)
    streams = open_each(_as_store(store), [("k/1", 0, None), ("missing/x", 0, None), ("k/2", 0, None)])
    assert next(streams).read() == b"k/1"
    with pytest.raises(BlobMissing):
        next(streams)
    assert all(stream.closed for stream in store.opened)
