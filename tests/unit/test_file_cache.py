"""Made files: made once, kept within the bound, never half."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from pacslite.core.file_cache import FileCache


def content(cache: FileCache, name: str, data: bytes) -> bytes:
    def make(file: BinaryIO) -> None:
        file.write(data)

    file, size = cache.open(name, make)
    with file:
        file.seek(0)
        read = file.read()
    assert len(read) == size
    return read


def test_a_file_is_made_once(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "c", 1000)
    assert content(cache, "a", b"first") == b"first"
    assert content(cache, "a", b"second") == b"first"
    assert content(FileCache(tmp_path / "c", 1000), "a", b"third") == b"first"  # another process


def test_the_bound_holds_and_the_one_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "c", 1000)
    for number in range(30):
        content(cache, f"n{number}", bytes(100))
        for path in (tmp_path / "c").iterdir():
            if path.name.endswith(f"n{number}"):
                os.utime(path, (number, number))
    kept = sorted(int(path.name.rpartition("n")[2]) for path in (tmp_path / "c").iterdir())
    assert len(kept) <= 12  # one eighth above the bound at most, before it is looked through again
    assert kept[-1] == 29
    assert kept == list(range(kept[0], 30))


def test_a_file_that_is_removed_at_once_is_given_all_the_same(tmp_path: Path) -> None:
    assert content(FileCache(tmp_path / "c", 0), "a", b"data") == b"data"
    assert list((tmp_path / "c").iterdir()) == []


def test_a_file_whose_making_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "c", 1000)

    def broken(file: BinaryIO) -> None:
        file.write(b"half")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        cache.open("a", broken)
    assert list((tmp_path / "c").iterdir()) == []
    assert content(cache, "a", b"whole") == b"whole"


def test_many_who_want_it_at_once_have_it_made_once(tmp_path: Path) -> None:
    cache, made, waiting = FileCache(tmp_path / "c", 1000), [], threading.Barrier(6)
    found: list[bytes] = []

    def make(file: BinaryIO) -> None:
        made.append(1)
        file.write(b"data")

    def want() -> None:
        waiting.wait()
        file, _ = cache.open("a", make)
        with file:
            file.seek(0)
            found.append(file.read())

    threads = [threading.Thread(target=want) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), found) == (1, [b"data"] * 6)


def test_making_a_file_may_open_others_whatever_their_names(tmp_path: Path) -> None:
    """The compressed form of a document is made from its plain one; with locks shared by names, one in 32 waited for itself."""
    cache = FileCache(tmp_path / "c", 100_000)

    def compressed(name: str) -> bytes:
        def make(file: BinaryIO) -> None:
            file.write(b"<" + content(cache, name, name.encode()) + b">")

        opened, _ = cache.open(f"{name}.gz", make)
        with opened:
            opened.seek(0)
            return opened.read()

    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.extend(compressed(f"n{number}") for number in range(500)), daemon=True)
    thread.start()
    thread.join(30)
    assert found == [f"<n{number}>".encode() for number in range(500)]


def test_the_maker_of_one_file_does_not_hold_up_another(tmp_path: Path) -> None:
    cache, inside, go_on = FileCache(tmp_path / "c", 100_000), threading.Event(), threading.Event()

    def slow(file: BinaryIO) -> None:
        inside.set()
        assert go_on.wait(30)
        file.write(b"slow")

    maker = threading.Thread(target=lambda: cache.open("slow", slow)[0].close(), daemon=True)
    maker.start()
    assert inside.wait(30)
    found: list[bytes] = []
    other = threading.Thread(target=lambda: found.extend(content(cache, f"n{number}", b"x") for number in range(200)), daemon=True)
    other.start()
    other.join(30)
    go_on.set()
    maker.join(30)
    assert found == [b"x"] * 200
    assert content(cache, "slow", b"again") == b"slow"
    assert cache._turns == {}  # bounded: nobody wants anything
