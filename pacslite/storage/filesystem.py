"""Blobs as files under one root, on the device of the spool, so that keeping one is a rename.

Order of `put`, for the whole order of durability see docs/architecture.md, "The way of an instance":
mkdir, rename, sync of the file, sync of its directory, sync of the directories above whose new entries are not known
to be durable. Where a name follows the file that is synced (decision 46) the sync of its directory needs no call of its own. A small
file may be left unsettled, for one sync of everything a moment later (decision 40). A crash in between leaves a file that nothing
refers to, perhaps one without its bytes; nothing is answered and no row is committed before the last sync.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

from pacslite.errors import BlobMissing, StorageError
from pacslite.storage.blob_store import BlobInfo
from pacslite.storage.directories import Chain, Directories, Directory, exists, make
from pacslite.storage.keys import check_key
from pacslite.storage.spool import storage_error
from pacslite.storage.syncing import Sync, begin_writing, names_follow_files
from pacslite.storage.window import FileWindow

# From this size on, writing the bytes out takes longer than reading the header: it begins before the key is known.
_WRITTEN_EARLY_BYTES = 256 * 1024
_ATTEMPTS = 50  # a directory vanishes under a put only when a delete prunes it in that very moment


class _Unsettled:
    """A file on its way to its key whose bytes are kept elsewhere until `settle_all`: nothing is synced here."""

    __slots__ = ("_directories", "_source")

    def __init__(self, directories: Directories, source: str) -> None:
        self._directories, self._source = directories, source

    def place(self, key: str) -> None:
        """Rename the file."""
        check_key(key)
        try:
            _rename(self._directories, self._source, key, passing=True)
        except OSError as error:
            raise storage_error("the bytes cannot be kept", error) from error

    def settle(self) -> None:
        """Nothing to wait for."""


class _Placing:
    """A file on its way from the spool to its key; nothing names the key before `settle` has returned.

    The kernel begins to write the bytes of a large file at once, so that they are on their way while the header is read; nobody
    waits for that. The one sync of the file comes when it has its name, and carries that where names follow files.
    """

    __slots__ = ("_directories", "_file", "_named", "_names_follow", "_source", "_sync")

    def __init__(self, directories: Directories, source: str, *, names_follow: bool) -> None:
        self._directories, self._source, self._names_follow = directories, source, names_follow
        self._named: _Named | None = None
        self._sync = Sync(self._sync_all)
        try:
            self._file = _File(source)
        except OSError as error:
            raise storage_error("the spool file cannot be read", error) from error
        if self._file.size >= _WRITTEN_EARLY_BYTES:
            begin_writing(self._file.fd)

    def place(self, key: str) -> None:
        """Rename the file."""
        check_key(key)
        try:
            self._named = _rename(self._directories, self._source, key)
        except OSError as error:
            raise storage_error("the bytes cannot be kept", error) from error

    def _sync_all(self) -> None:
        named = self._named
        assert named is not None, "placed before"
        self._file.stamp_and_sync()
        if not self._names_follow:
            named.own().sync()
        if not (self._names_follow and named.fresh):
            named.chain.last.sync()  # also when somebody else made the directory and has perhaps not synced it yet
        self._directories.sync(named.chain)

    def settle(self) -> None:
        """Sync the file and what else its name needs. A sync that failed is not tried again."""
        try:
            self._sync.run()
        except OSError as error:
            raise storage_error("the bytes cannot be kept", error) from error


@dataclass(frozen=True, slots=True)
class _Named:
    """Where a file got its name: the directory of its own, whether that is new, and the directories above."""

    last: str
    fresh: bool
    chain: Chain

    def own(self) -> Directory:
        return Directory(self.last, self.chain.last)


def _rename(directories: Directories, source: str, key: str, *, passing: bool = False) -> _Named:
    """Give a file of the spool its key, with the directories it needs; raises OSError, and StorageError for a key that is there.

    `passing`: whether the directories stay is somebody else's care.
    """
    directory, _, name = key.rpartition("/")
    above, _, last = directory.rpartition("/")
    for _ in range(_ATTEMPTS):
        try:
            chain = Chain(directories.make(above)) if passing else directories.open(above)
            fresh = make(last, chain.last)
            if not fresh and exists(f"{last}/{name}", chain.last):
                raise StorageError(f"{key} is stored already; a key is written once")
            os.rename(source, f"{last}/{name}", dst_dir_fd=chain.last.fd)
            return _Named(last, fresh, chain)
        except FileNotFoundError:
            if not os.path.lexists(source):
                raise
            directories.forget(above)
    raise StorageError(f"the directory of {key} vanishes each time it is made")


class _File:
    """An open file of the spool; closed when it is no longer referred to."""

    __slots__ = ("fd", "size")

    def __init__(self, path: str) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self.fd).st_size

    def stamp_and_sync(self) -> None:
        os.utime(self.fd)  # the sweep tells young from old by this
        os.fsync(self.fd)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self.fd >= 0:
            close(self.fd)


class FilesystemStore:
    """A BlobStore on a local or mounted file system."""

    kind = "filesystem"
    settles_at_once = True

    def __init__(self, root: Path, name: str = "filesystem") -> None:
        self.name = name
        self.root = root
        self._prefix = os.fspath(root) + "/"
        try:
            root.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._directories = Directories(os.fspath(root))
            self._names_follow = names_follow_files(os.fspath(root))
        except OSError as error:
            raise storage_error(f"the storage root {root} cannot be used", error) from error

    def _path(self, key: str) -> str:
        return self._prefix + check_key(key)

    def put(self, spool_file: Path, key: str) -> None:
        """Sync the file and rename it to its place; see BlobStore.put."""
        check_key(key)
        placing = self.begin(spool_file)
        placing.place(key)
        placing.settle()

    def begin(self, spool_file: Path, *, unsettled: bool = False) -> _Placing | _Unsettled:
        """The bytes of a large file begin to be written out here."""
        if unsettled:
            return _Unsettled(self._directories, os.fspath(spool_file))
        return _Placing(self._directories, os.fspath(spool_file), names_follow=self._names_follow)

    def settle_all(self, keys: Sequence[str]) -> None:
        """One sync of the whole file system: what else is written to it has to be sooner or later as well."""
        try:
            self._directories.sync_everything()
        except OSError as error:
            raise storage_error("the bytes cannot be kept", error) from error

    def open(self, key: str, offset: int = 0, length: int | None = None) -> BinaryIO:
        """The file, or a window of it; both can seek."""
        path = self._path(key)
        try:
            if offset == 0 and length is None:
                return open(path, "rb")
            return cast(BinaryIO, FileWindow(path, offset, length))
        except OSError as error:
            raise _read_error(key, error) from error

    def size(self, key: str) -> int:
        """Size in bytes."""
        try:
            return os.stat(self._path(key)).st_size
        except OSError as error:
            raise _read_error(key, error) from error

    def local_path(self, key: str) -> Path:
        """The file of the key."""
        return Path(self._path(key))

    def presign(self, key: str, expires_s: int) -> str | None:
        """A file system has no URLs."""
        return None

    def delete(self, key: str) -> None:
        """Erase the file and the directories that it leaves empty."""
        path = self._path(key)
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            pass  # gone already: what remains is to prune
        except OSError as error:
            raise storage_error(f"{key} cannot be erased", error) from error
        self._prune(key)

    def _prune(self, key: str) -> None:
        directory = key.rpartition("/")[0]
        while directory:
            try:
                os.rmdir(self._prefix + directory)
            except OSError:
                return  # not empty, or gone: nothing to prune here
            directory = directory.rpartition("/")[0]

    def move(self, key: str, new_key: str) -> None:
        """Rename, with the durability of `put`."""
        source = self._path(key)
        if not os.path.lexists(source):
            raise BlobMissing(f"the bytes of {key} are missing from the storage")
        self.put(Path(source), new_key)
        self._prune(key)

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        """Walks the tree in the order of keys; memory is bounded by the largest directories on one path."""
        start = prefix.rpartition("/")[0]
        yield from self._walk(start + "/" if start else "", prefix)

    def _walk(self, directory: str, prefix: str) -> Iterator[BlobInfo]:
        try:
            with os.scandir(self._prefix + directory) as entries:
                # A directory sorts as "name/": the order of the keys below it, as S3 lists them.
                names = sorted((e.name + "/" if e.is_dir(follow_symlinks=False) else e.name) for e in entries if e.name[0] != ".")
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise storage_error("the storage cannot be listed", error) from error
        for name in names:
            key = directory + name
            if name[-1] == "/":
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix) and (info := self._info(key)):
                yield info

    def _info(self, key: str) -> BlobInfo | None:
        try:
            stat = os.stat(self._prefix + key, follow_symlinks=False)
        except FileNotFoundError:
            return None  # erased while the listing went on
        except OSError as error:
            raise storage_error("the storage cannot be listed", error) from error
        return BlobInfo(key, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))

    def check(self) -> None:
        """Whether the root is there and can be written."""
        if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK) or not self.root.is_dir():
            raise StorageError(f"the storage root {self.root} is not there or cannot be written")


def _read_error(key: str, error: OSError) -> StorageError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
        return BlobMissing(f"the bytes of {key} are missing from the storage")
    return storage_error(f"{key} cannot be read", error)
