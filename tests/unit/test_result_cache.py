"""Results made once: for threads and processes that ask at the same time, after deaths, within the bound."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacslite.core.result_cache import ResultCache
from pacslite.errors import UndecodablePixels

ROOT = Path(__file__).resolve().parents[2]
PIECES = [bytes([n]) * 1000 for n in range(50)]
_OTHER = """
import sys
from pathlib import Path
from pacslite.core.result_cache import ResultCache
def pieces():
    yield b"A" * 1000
    print("begun", flush=True)
    sys.stdin.readline()
    yield b"B" * 1000
for piece in ResultCache(Path(sys.argv[1]), 1 << 30).follow("name", pieces):
    pass
"""


@pytest.fixture
def cache(tmp_path: Path) -> ResultCache:
    return ResultCache(tmp_path / "results", 1 << 20)


class Maker:
    """Counts how often it was asked; goes on when it is let."""

    def __init__(self, wait: bool = False) -> None:
        self.made = 0
        self.let = threading.Event()
        if not wait:
            self.let.set()

    def __call__(self) -> Iterator[bytes]:
        self.made += 1
        yield PIECES[0]
        assert self.let.wait(20)
        yield from PIECES[1:]


def read(cache: ResultCache, name: str, make: Callable[[], Iterator[bytes]]) -> bytes:
    file, size = cache.open(name, make)
    with file:
        file.seek(0)
        data = file.read(size + 1)
    assert len(data) == size
    return data


def test_a_result_is_made_once(cache: ResultCache) -> None:
    make = Maker()
    assert read(cache, "name", make) == read(cache, "name", make) == b"".join(cache.follow("name", make)) == b"".join(PIECES)
    assert make.made == 1
    assert read(cache, "other", make) == b"".join(PIECES)
    assert make.made == 2


def test_those_who_come_while_it_is_made_share_it(cache: ResultCache) -> None:
    make, found = Maker(wait=True), []
    first = cache.follow("name", make)
    assert next(first) == PIECES[0]
    ways: list[Callable[[], bytes]] = [lambda: b"".join(cache.follow("name", make)), lambda: read(cache, "name", make)] * 3
    threads = [threading.Thread(target=lambda way=way: found.append(way())) for way in ways]
    for thread in threads:
        thread.start()
    make.let.set()
    for thread in threads:
        thread.join(20)
    assert PIECES[0] + b"".join(first) == b"".join(PIECES)
    assert found == [b"".join(PIECES)] * 6
    assert make.made == 1


def test_who_goes_away_does_not_stop_it(cache: ResultCache) -> None:
    make = Maker(wait=True)
    gone = cache.follow("name", make)
    next(gone)
    gone.close()  # type: ignore[attr-defined]
    make.let.set()
    assert read(cache, "name", Maker()) == b"".join(PIECES)
    assert make.made == 1


def test_a_failure_is_told_to_each_and_leaves_nothing(cache: ResultCache) -> None:
    def fails() -> Iterator[bytes]:
        yield b"x"
        raise UndecodablePixels("no pixels")

    with pytest.raises(UndecodablePixels, match="no pixels"):
        list(cache.follow("name", fails))
    with pytest.raises(UndecodablePixels, match="no pixels"):
        cache.open("name", fails)
    assert not list(cache.directory.iterdir())
    assert read(cache, "name", Maker()) == b"".join(PIECES)


def _other(cache: ResultCache) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _OTHER, str(cache.directory)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert other.stdout is not None
    assert other.stdout.readline() == b"begun\n"
    return other


def test_other_processes_share_it(cache: ResultCache) -> None:
    with _other(cache) as other:
        make = Maker()
        following = cache.follow("name", make)
        assert next(following) == b"A" * 1000
        assert other.stdin is not None
        other.stdin.write(b"\n")
        other.stdin.flush()
        assert b"".join(following) == b"B" * 1000
        assert make.made == 0


def test_when_its_maker_is_killed_another_goes_on(cache: ResultCache) -> None:
    """The same input gives the same bytes: who has read some already goes on behind them."""

    def again() -> Iterator[bytes]:
        yield b"A" * 1000
        yield b"B" * 1000

    with _other(cache) as other:
        following = cache.follow("name", again)
        assert next(following) == b"A" * 1000
        other.send_signal(signal.SIGKILL)
        assert b"".join(following) == b"B" * 1000
    assert read(cache, "name", Maker()) == b"A" * 1000 + b"B" * 1000


def test_the_bound_is_kept_and_what_was_used_last_stays(cache: ResultCache) -> None:
    for number in range(60):
        read(cache, f"n{number}", Maker())
        if number:
            os.utime(next(cache.directory.glob("*n0")))
    kept = list(cache.directory.iterdir())
    assert sum(path.stat().st_size for path in kept) <= (1 << 20) + (1 << 20) // 8 + len(b"".join(PIECES))
    assert list(cache.directory.glob("*n0"))
