"""A directory of backups: every content once, told by its SHA-256, and for each backup what belongs to it.

    pacslite-backup.json                      that this is such a directory, and of which form
    contents/ab/ab12...                       bytes, under their SHA-256
    backups/{id}/catalog.jsonl.gz             the snapshot of the catalog
    backups/{id}/manifest.jsonl.gz            one line for each file: what it is, SHA-256, size
    backups/{id}/backup.json                  the digests of both and its own; written last, so without it there is no backup

Whatever has its name is whole and durable. Nothing is ever changed; a backup that was cut off leaves contents that the next one
finds, and a directory without `backup.json` that the next one takes away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pacslite.durability import sync_directory, write_durably
from pacslite.errors import BackupDamaged, BadRequest, Busy, NotFound
from pacslite.storage.spool import storage_error

FORM = 1
_MARK, _LOCK, _CONTENTS, _BACKUPS = "pacslite-backup.json", ".lock", "contents", "backups"
CATALOG, MANIFEST, _DESCRIPTION = "catalog.jsonl.gz", "manifest.jsonl.gz", "backup.json"
_ID = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9]{6}")
_PIECE_BYTES = 1024 * 1024
_DIGESTS_AT_ONCE = 500_000  # of all contents that stay, in memory


@dataclass(frozen=True, slots=True)
class File:
    """A file of a backup. `kind` is blob (`name` is its storage key) or data (`name` is its path in the data directory).

    `problem` says why the bytes are not in the backup: they were `missing` or had another hash (`hash`) when it was made.
    """

    kind: str
    name: str
    sha256: str
    size_bytes: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Description:
    """What a backup is; `sha256` of it stands beside it in its file."""

    id: str
    created_at: str
    release: str
    revision: str
    is_full: bool
    blobs: int
    size_bytes: int
    copied: int
    copied_bytes: int
    missing: int
    catalog_sha256: str
    manifest_sha256: str
    previous: str  # the digest of the description of the backup before, "" for the first


class Repository:
    """A directory of backups; `locked` by whoever adds to it or takes from it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def create(self) -> None:
        """Make the directory, or see that it is one of backups; raises BadRequest when it is something else."""
        mark = self.directory / _MARK
        with reported("the backup cannot be written"):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not mark.exists():
                if [name for name in os.listdir(self.directory) if not name.startswith(".")]:
                    raise BadRequest(f"{self.directory} is neither empty nor a directory of backups")
                write_durably(mark, json.dumps({"form": FORM}).encode())
        self.check()
        for name in (_CONTENTS, _BACKUPS):
            with reported("the backup cannot be written"):
                (self.directory / name).mkdir(mode=0o700, exist_ok=True)
                sync_directory(self.directory)

    def check(self) -> None:
        """Raises BadRequest unless this is a directory of backups of a form that is known."""
        try:
            form = json.loads((self.directory / _MARK).read_bytes())["form"]
        except FileNotFoundError:
            raise BadRequest(f"{self.directory} is no directory of backups") from None
        except (OSError, ValueError, KeyError, TypeError):
            raise BackupDamaged(f"{_MARK} is damaged") from None
        if form != FORM:
            raise BadRequest(f"{self.directory} has form {form}, which this release does not read")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone, while the block lasts; raises Busy when somebody else writes."""
        with reported("the backup cannot be written"):
            descriptor = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                    raise Busy(f"another process writes to {self.directory}") from None
                raise storage_error("the backup cannot be locked", error) from error
            yield
        finally:
            os.close(descriptor)

    # -- backups

    def place_of(self, backup_id: str) -> Path:
        """The directory of one backup."""
        return self.directory / _BACKUPS / backup_id

    def descriptions(self) -> tuple[list[Description], list[str]]:
        """The backups, oldest first, and the names of those whose description is damaged."""
        found: list[Description] = []
        damaged: list[str] = []
        for backup_id in self._ids():
            try:
                found.append(self.description(backup_id))
            except BackupDamaged:
                damaged.append(backup_id)
            except NotFound:
                continue  # cut off while it was made
        return found, damaged

    def _ids(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.directory / _BACKUPS) if _ID.fullmatch(name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error("the backups cannot be listed", error) from error

    def description(self, backup_id: str = "") -> Description:
        """One backup, the newest without an id; raises NotFound, BackupDamaged."""
        if not backup_id:
            found, damaged = self.descriptions()
            newest = found[-1].id if found else ""
            if damaged and damaged[-1] > newest:
                raise BackupDamaged(f"{_BACKUPS}/{damaged[-1]}/{_DESCRIPTION} is damaged")
            if not found:
                raise NotFound(f"there is no backup in {self.directory}")
            return found[-1]
        name = f"{_BACKUPS}/{backup_id}/{_DESCRIPTION}"
        if not _ID.fullmatch(backup_id):
            raise NotFound(f"there is no backup {backup_id} in {self.directory}")
        try:
            told = json.loads((self.directory / name).read_bytes())
            digest = told.pop("sha256")
            if digest != _digest(told):
                raise BackupDamaged(f"{name} is damaged")
            return Description(**told)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"there is no backup {backup_id} in {self.directory}") from None
        except OSError as error:
            raise storage_error(f"{name} cannot be read", error) from error
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BackupDamaged(f"{name} is damaged") from None

    def new_id(self) -> str:
        """The id of a new backup: the time in UTC."""
        return datetime.now(UTC).strftime("%Y%m%dT%H%M%S-%f")

    def begin(self, backup_id: str) -> Path:
        """An empty directory for the files of a new backup; what was cut off before is taken away. To be locked."""
        with reported("the backup cannot be written"):
            for known in self._ids():
                if not (self.place_of(known) / _DESCRIPTION).exists():
                    shutil.rmtree(self.place_of(known))
            self.place_of(backup_id).mkdir(mode=0o700)
        return self.place_of(backup_id)

    def finish(self, description: Description) -> None:
        """Make everything durable, then say that the backup is there."""
        place, told = self.place_of(description.id), asdict(description)
        with reported("the backup cannot be written"):
            for directory in (self.directory / _CONTENTS, place, place.parent):
                sync_directory(directory)
            write_durably(place / _DESCRIPTION, json.dumps({**told, "sha256": _digest(told)}, indent=1).encode() + b"\n")

    def files(self, description: Description) -> Iterator[File]:
        """What belongs to a backup; raises BackupDamaged when the manifest is not the one that was written."""
        for told in read_lines(self.place_of(description.id) / MANIFEST, description.manifest_sha256):
            yield File(**told)

    def snapshot(self, backup_id: str, sha256: str) -> Iterator[Any]:
        """The lines of the snapshot of the catalog; raises BackupDamaged when it is not the one that was written."""
        return read_lines(self.place_of(backup_id) / CATALOG, sha256)

    def check_lists(self, description: Description) -> None:
        """Raises BackupDamaged when snapshot or manifest are not those that were written."""
        for name, digest in ((CATALOG, description.catalog_sha256), (MANIFEST, description.manifest_sha256)):
            _check_digest(self.place_of(description.id) / name, digest)

    # -- contents

    def path_of(self, sha256: str) -> Path:
        """Where a content lies."""
        return self.directory / _CONTENTS / sha256[:2] / sha256

    def holds(self, sha256: str, size_bytes: int) -> bool:
        """Whether a content is there, by its size."""
        try:
            return os.stat(self.path_of(sha256)).st_size == size_bytes
        except OSError:
            return False

    def is_whole(self, sha256: str, size_bytes: int) -> bool:
        """Whether a content is there, by all its bytes."""
        return self.problem_of(sha256, size_bytes) == ""

    def problem_of(self, sha256: str, size_bytes: int) -> str:
        """What is wrong with a content: `missing`, `size`, `hash` or nothing."""
        try:
            with self.path_of(sha256).open("rb") as file:
                if os.fstat(file.fileno()).st_size != size_bytes:
                    return "size"
                return "" if hashlib.file_digest(file, "sha256").hexdigest() == sha256 else "hash"
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            raise storage_error("the backup cannot be read", error) from error

    def put(self, stream: BinaryIO, sha256: str, size_bytes: int) -> bool:
        """Copy what the stream gives, durably; False, and nothing is kept, when it is not what it should be."""
        path = self.path_of(sha256)
        draft = path.with_name(f".{sha256}.{os.urandom(4).hex()}")
        with reported("the backup cannot be written"):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                    digest, size = hashlib.sha256(), 0
                    while piece := stream.read(_PIECE_BYTES):
                        digest.update(piece)
                        size += len(piece)
                        file.write(piece)
                    if (digest.hexdigest(), size) != (sha256, size_bytes):
                        return False
                    file.flush()
                    os.fsync(file.fileno())
                draft.rename(path)
            finally:
                draft.unlink(missing_ok=True)
        return True

    def sync_contents(self) -> None:
        """Make the names of all contents durable."""
        with reported("the backup cannot be written"), os.scandir(self.directory / _CONTENTS) as entries:
            for entry in entries:
                sync_directory(Path(entry.path))

    def prune(self, keep: int) -> tuple[list[str], int]:
        """Take away all backups but the newest ones, and contents that none of those has: ids, and bytes. To be locked."""
        found, damaged = self.descriptions()
        if damaged:
            raise BackupDamaged(f"{_BACKUPS}/{damaged[0]}/{_DESCRIPTION} is damaged: which contents it needs is not known")
        staying, going = found[-keep:], found[:-keep]
        for one in staying:
            self.check_lists(one)
        for one in going:
            with reported("the backup cannot be removed"):
                (self.place_of(one.id) / _DESCRIPTION).unlink()
                sync_directory(self.place_of(one.id))
                shutil.rmtree(self.place_of(one.id))
        return [one.id for one in going], self._sweep(staying)

    def _sweep(self, staying: list[Description]) -> int:
        freed, count = 0, sum(one.blobs for one in staying)
        width = 0 if count <= _DIGESTS_AT_ONCE else 1 if count <= 16 * _DIGESTS_AT_ONCE else 2
        for prefix in (f"{number:0{width}x}" if width else "" for number in range(16**width)):
            needed = {bytes.fromhex(one.sha256) for of in staying for one in self.files(of) if one.sha256.startswith(prefix)}
            freed += sum(self._remove_unneeded(prefix, needed))
        return freed

    def _remove_unneeded(self, prefix: str, needed: set[bytes]) -> Iterator[int]:
        with reported("the backup cannot be removed"):
            for folder in sorted(os.listdir(self.directory / _CONTENTS)):
                if not folder.startswith(prefix):
                    continue
                with os.scandir(self.directory / _CONTENTS / folder) as entries:
                    for entry in entries:
                        if entry.name.startswith(".") or bytes.fromhex(entry.name) not in needed:
                            yield entry.stat().st_size
                            os.unlink(entry.path)


@contextlib.contextmanager
def reported(what: str) -> Iterator[None]:
    """Errors of the system become ours."""
    try:
        yield
    except OSError as error:
        raise storage_error(what, error) from error


def write_lines(path: Path, lines: Iterable[Any]) -> str:
    """Write values as lines of JSON, packed and durable; the SHA-256 of the file."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with reported("the backup cannot be written"), open(os.open(path, flags, 0o600), "w+b") as file:
        with gzip.GzipFile("", "wb", compresslevel=4, fileobj=file, mtime=0) as packed:
            for line in lines:
                packed.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_lines(path: Path, sha256: str) -> Iterator[Any]:
    """The values in a file that `write_lines` wrote; raises BackupDamaged when it is another one."""
    _check_digest(path, sha256)
    try:
        with gzip.open(path) as unpacked:
            for line in unpacked:
                yield json.loads(line)
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError) as error:
        raise BackupDamaged(f"{path.parent.name}/{path.name} is damaged") from error
    except OSError as error:
        raise storage_error("the backup cannot be read", error) from error


def _check_digest(path: Path, sha256: str) -> None:
    name = f"{_BACKUPS}/{path.parent.name}/{path.name}"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise BackupDamaged(f"{name} is missing") from None
    except OSError as error:
        raise storage_error(f"{name} cannot be read", error) from error
    if found != sha256:
        raise BackupDamaged(f"{name} is damaged")


def _digest(told: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest_of(description: Description) -> str:
    """By which the next backup names this one."""
    return _digest(asdict(description))
