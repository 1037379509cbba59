"""On which file systems the sync of a file keeps its name too, and how bytes are told to be on their way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pacslite.storage import syncing
from pacslite.storage.syncing import Sync, begin_writing, is_unlogged, names_follow_files

MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:25 / /mnt/net rw - nfs4 server:/x rw
31 27 0:26 / /mnt/net/local rw shared:1 master:2 - xfs /dev/vdb rw
32 27 0:27 / /mnt/a\\040b\u00e9 rw - overlay overlay rw
33 27 0:27 / /mnt/twice rw - ext4 /dev/vdc rw
34 27 0:28 / /mnt/twice rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("directory", "follow"),
    [
        ("/data", True),
        ("/mnt/net/data", False),
        ("/mnt/network", True),
        ("/mnt/net/local", True),
        ("/mnt/a b\u00e9/data", False),
        ("/mnt/twice/data", False),
    ],
)
def test_the_file_system_of_a_directory_is_the_one_mounted_nearest(
    directory: str, follow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS, encoding="utf-8")
    monkeypatch.setattr(syncing, "_MOUNTS", mounts)
    assert names_follow_files(directory) is follow


def test_without_a_list_of_mounts_nothing_is_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncing, "_MOUNTS", tmp_path / "none")
    assert not names_follow_files("/")


def test_a_sync_that_failed_fails_for_all_who_wait_and_is_not_tried_again() -> None:
    tries = []

    def fail() -> None:
        tries.append(1)
        raise OSError(5, "Input/output error")

    sync = Sync(fail)
    for _ in range(2):  # a second fsync(2) says that all is well
        with pytest.raises(OSError, match="Input/output"):
            sync.run()
    assert tries == [1]


def test_writing_begins_where_the_system_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.write(bytes(1 << 20))
        file.flush()
        begin_writing(file.fileno())
        monkeypatch.setattr(syncing, "_LIBC", object())
        begin_writing(file.fileno())
        os.fsync(file.fileno())
    assert (tmp_path / "file").stat().st_size == 1 << 20


@pytest.mark.parametrize(
    ("kind", "task", "unlogged"),
    [("ext4", "<none>", True), ("ext4", "214", False), ("ext3", "<none>", True), ("xfs", None, False), ("ext4", None, True)],
)
def test_an_ext4_without_a_journal_is_known(
    kind: str, task: str | None, unlogged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = os.stat(tmp_path).st_dev
    (tmp_path / "mountinfo").write_text(f"27 1 254:0 / / rw - {kind} /dev/vda rw\n", encoding="ascii")
    (tmp_path / "block" / "vdq").mkdir(parents=True)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / f"{os.major(device)}:{os.minor(device)}").symlink_to(tmp_path / "block" / "vdq")
    if task is not None:
        (tmp_path / "ext4" / "vdq").mkdir(parents=True)
        (tmp_path / "ext4" / "vdq" / "journal_task").write_text(f"{task}\n", encoding="ascii")
    for name, value in (("_MOUNTS", "mountinfo"), ("_DEVICES", "dev"), ("_EXT4", "ext4")):
        monkeypatch.setattr(syncing, name, tmp_path / value)
    assert is_unlogged(str(tmp_path)) is unlogged
