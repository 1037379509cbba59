"""Directories of a file system store, held open, and which of them are known to be on stable storage."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from pacslite.storage.syncing import sync_file_system

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_KEPT_DIRECTORIES = 64


class Directory:
    """An open directory; closed when the last user lets go of it.

    Holding it open is what makes remembering safe: when another process prunes the directory, whatever is made
    under this descriptor fails with ENOENT, even if a directory of the same name is there again.
    """

    __slots__ = ("fd",)

    def __init__(self, path: str, parent: Directory | None = None) -> None:
        self.fd = -1
        self.fd = os.open(path, _DIRECTORY_FLAGS, dir_fd=parent.fd if parent else None)

    def sync(self) -> None:
        os.fsync(self.fd)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self.fd >= 0:
            close(self.fd)


@dataclass(frozen=True, slots=True)
class Chain:
    """A directory, and each one above it that may not be durable yet: its name, its parent, itself."""

    last: Directory
    unsynced: tuple[tuple[str, Directory, Directory], ...] = ()


class Directories:
    """The last used directories whose own entries, up to the root, are known to be on stable storage."""

    def __init__(self, root: str) -> None:
        self._root = Directory(root)
        self._root.sync()
        self._durable: OrderedDict[str, Directory] = OrderedDict()
        self._made: OrderedDict[str, Directory] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, relative: str) -> Chain:
        """The directory, made when missing together with those above it, and what has to be synced for it to stay."""
        if not relative:
            return Chain(self._root)
        with self._lock:
            found = self._durable.get(relative)
            if found is not None:
                self._durable.move_to_end(relative)
                return Chain(found)
        above, _, name = relative.rpartition("/")
        chain = self.open(above)
        make(name, chain.last)
        opened = Directory(name, chain.last)
        # Also when it was there: perhaps somebody made it a moment ago and has not synced it yet.
        return Chain(opened, (*chain.unsynced, (relative, chain.last, opened)))

    def make(self, relative: str) -> Directory:
        """The directory, made when missing; whether it stays is somebody else's care."""
        with self._lock:
            found = self._made.get(relative) or self._durable.get(relative)
        if found is None:
            found = self.open(relative).last
            with self._lock:
                _keep(self._made, relative, found)
        return found

    def sync_everything(self) -> None:
        """Make all that is in the file system of the root durable; raises OSError."""
        sync_file_system(self._root.fd)

    def sync(self, chain: Chain) -> None:
        """Make the entries of a chain durable."""
        for _, parent, _ in chain.unsynced:
            parent.sync()
        with self._lock:
            for relative, _, opened in chain.unsynced:
                _keep(self._durable, relative, opened)

    def forget(self, relative: str) -> None:
        """Drop the directory and those above it: one of them was pruned."""
        with self._lock:
            while relative:
                self._durable.pop(relative, None)
                self._made.pop(relative, None)
                relative = relative.rpartition("/")[0]


def _keep(known: OrderedDict[str, Directory], relative: str, opened: Directory) -> None:
    known[relative] = opened
    while len(known) > _KEPT_DIRECTORIES:
        known.popitem(last=False)


def make(name: str, parent: Directory) -> bool:
    """Make the directory; False when it is there already."""
    try:
        os.mkdir(name, 0o750, dir_fd=parent.fd)
    except FileExistsError:
        return False
    return True


def exists(path: str, parent: Directory) -> bool:
    """Whether there is something of that name below the directory."""
    try:
        os.stat(path, dir_fd=parent.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
