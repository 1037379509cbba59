"""A disk of its own whose power fails: an ext4 file system in a file, which stops in the middle of everything.

The kernel's shutdown of a file system (EXT4_IOC_SHUTDOWN without a flush of its log) is what the tests of file systems use for it:
nothing is written any more, and what was neither synced nor logged by then is gone when it is mounted again.
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

    def __init__(self, image: Path, point: Path) -> None:
        self.image, self.point = image, point

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

    def come_back(self) -> None:
        """The power is there again; to be called once nobody has a file open."""
        until(self._unmount, 30, "the end of all who use the disk")
        mounted = self.mount()
        assert mounted.returncode == 0, mounted.stderr

    def _unmount(self) -> bool:
        return subprocess.run(["umount", str(self.point)], capture_output=True, check=False).returncode == 0


@contextmanager
def disk(scratch: Path) -> Iterator[Disk]:
    """An empty one below a directory; skips the test where a file cannot be mounted."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root and mkfs.ext4, to mount a disk of its own")
    image, point = scratch / "disk", scratch / "mounted"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(_SIZE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    made = Disk(image, point)
    mounted = made.mount()
    if mounted.returncode:
        pytest.skip(f"a file cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield made
    finally:
        subprocess.run(["umount", str(point)], check=False)
        image.unlink()
