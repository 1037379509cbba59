"""A disk of its own whose power fails: an ext4 file system in a file, which stops in the middle of everything.

The kernel's shutdown of a file system (EXT4_IOC_SHUTDOWN without a flush of its log) is what the tests of file systems use for it:
nothing is written any more, and what was neither synced nor logged by then is gone when it is mounted again. Without a log
what the file system holds in memory is still written later; so the disk is what it is in that moment, copied.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import until

_SHUTDOWN = 0x8004587D
_WITHOUT_LOG = 2
_SIZE_BYTES = 4 * 1024**3  # with holes: twenty rounds fill one of 1 GiB to its reserve


class Disk:
    """A mounted disk."""

    def __init__(self, image: Path, point: Path, *, logs: bool) -> None:
        self.image, self.point, self.logs = image, point, logs

    def mount(self) -> subprocess.CompletedProcess[str]:
        """Connect it; what its log holds is applied."""
        return subprocess.run(["mount", "-o", "loop", str(self.image), str(self.point)], capture_output=True, text=True, check=False)

    def fail(self) -> None:
        """The power goes."""
        descriptor = os.open(self.point, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG))
        finally:
            os.close(descriptor)
        if not self.logs:
            subprocess.run(["cp", "--sparse=always", str(self.image), f"{self.image}.failed"], check=True)

    def come_back(self) -> None:
        """The power is there again; to be called once nobody has a file open."""
        until(self._unmount, 30, "the end of all who use the disk")
        if not self.logs:
            Path(f"{self.image}.failed").rename(self.image)
            checked = subprocess.run(["e2fsck", "-f", "-y", str(self.image)], capture_output=True, text=True, check=False)
            assert checked.returncode in (0, 1), checked.stdout  # 1: repaired, as at the start of a machine
        mounted = self.mount()
        assert mounted.returncode == 0, mounted.stderr

    def _unmount(self) -> bool:
        return subprocess.run(["umount", str(self.point)], capture_output=True, check=False).returncode == 0


@contextmanager
def disk(scratch: Path, *, logs: bool) -> Iterator[Disk]:
    """An empty one below a directory, that logs its changes or does not; skips the test where a file cannot be mounted."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root and mkfs.ext4, to mount a disk of its own")
    image, point = scratch / "disk", scratch / "mounted"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(_SIZE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", *(() if logs else ("-O", "^has_journal")), str(image)], check=True)
    made = Disk(image, point, logs=logs)
    mounted = made.mount()
    if mounted.returncode:
        pytest.skip(f"a file cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield made
    finally:
        subprocess.run(["umount", str(point)], check=False)
        image.unlink()
