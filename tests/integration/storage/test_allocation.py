"""Directories made apart from their neighbours: made once, whatever the file system thinks of the hint."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacslite import app
from pacslite.settings import load
from pacslite.storage import allocation
from pacslite.storage.allocation import make_apart


def flags(directory: Path) -> int:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        return int(struct.unpack("I", fcntl.ioctl(descriptor, allocation._GET_FLAGS, bytes(4)))[0])
    finally:
        os.close(descriptor)


def test_it_is_made_private_and_leaves_nothing_else(tmp_path: Path) -> None:
    make_apart(tmp_path / "spool")
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) & 0o027 == 0


def test_one_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "file").touch()
    before = (tmp_path / "spool").stat().st_ino
    make_apart(tmp_path / "spool")
    assert (tmp_path / "spool").stat().st_ino == before
    assert (tmp_path / "spool" / "file").exists()


def test_of_many_that_start_at_once_all_have_the_same(tmp_path: Path) -> None:
    def made(_: int) -> int:
        make_apart(tmp_path / "spool")
        return (tmp_path / "spool").stat().st_ino

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(made, range(40)))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]


def test_the_hint_is_given_and_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        before = flags(tmp_path)
    except OSError:
        pytest.skip("this file system has no attributes")
    seen, real = [], Path.mkdir

    def mkdir(path: Path, mode: int) -> None:
        seen.append(flags(path.parent))
        real(path, mode)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    make_apart(tmp_path / "spool")
    assert [now & allocation._TOP_OF_HIERARCHIES for now in seen] == [allocation._TOP_OF_HIERARCHIES]
    assert flags(tmp_path) == before


def test_without_the_hint_it_is_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(25, "Inappropriate ioctl for device")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    make_apart(tmp_path / "spool")
    assert (tmp_path / "spool").is_dir()


def test_only_directories_below_those_of_the_data_are_made_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beside a data directory belongs to others."""
    made: list[Path] = []

    def note(path: Path) -> None:
        made.append(path)
        path.mkdir()

    monkeypatch.setattr(allocation, "make_apart", note)
    app.prepare_directories(load(environment={"PACSLITE_STORAGE_ROOT": str(tmp_path / "elsewhere")}, data=tmp_path / "data"))
    assert sorted(path.name for path in made) == ["cache", "spool"]
    assert (tmp_path / "elsewhere").is_dir()
