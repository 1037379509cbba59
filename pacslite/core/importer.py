"""Import: takes the DICOM instances under files and folders in, through the same door as every protocol.

The user's files are only read: each is copied into the spool. Several are taken in at once, so that their waits for the
disk overlap. What is finished is noted in `<data>/import.state`, for `resume` after an interruption.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from pacslite.core.ingest import Origin, read_limits
from pacslite.core.parts import WithIngest, WithSettings, WithSpool
from pacslite.dicom.instance import read_instance
from pacslite.dicom.part10 import encode_preamble_and_meta, parse_file_meta
from pacslite.errors import BadRequest, Busy, InstanceRefused, NotDicom, TooLarge, TruncatedDataSet
from pacslite.storage.spool import SpoolFile

_THREADS = 4
_IN_FLIGHT = 2 * _THREADS
_PIECE_BYTES = 1024 * 1024
_HEAD_BYTES = 4096
_KEPT_REFUSALS = 10_000
# Media Storage Directory Storage: a DICOMDIR lists instances and is none (PS3.4 B.5, PS3.10 8.6).
_DIRECTORY_SOP_CLASS_UID = "1.2.840.10008.1.3.10"

Progress = Callable[[int, int], None]


class Taker(WithSettings, WithSpool, WithIngest, Protocol):
    """What an import needs of a server."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that was not taken, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of an import, in numbers of files; `refusals` holds the first 10,000 of the refused."""

    stored: int = 0
    already_there: int = 0
    new_versions: int = 0
    repaired: int = 0
    kept_first: int = 0
    refused: int = 0
    not_dicom: int = 0
    dicomdirs: int = 0
    resumed: int = 0
    refusals: tuple[Refusal, ...] = ()

    @property
    def found(self) -> int:
        """How many files were DICOM instances, or claimed to be."""
        return self.stored + self.already_there + self.new_versions + self.repaired + self.kept_first + self.refused + self.resumed

    @property
    def exit_code(self) -> int:
        """0: every instance is in the server; 1: some were refused; 2: there was none."""
        if self.refused:
            return 1
        return 0 if self.found else 2


# The count of a Summary that an outcome of `Ingest.accept` goes to.
_COUNT_OF = {
    "stored": "stored",
    "duplicate": "already_there",
    "new_version": "new_versions",
    "repaired": "repaired",
    "kept_first": "kept_first",
}


def _silent(_done: int, _total: int) -> None:
    """The progress of callers that show none."""


def import_paths(taker: Taker, paths: Sequence[Path], *, resume: bool = False, progress: Progress = _silent) -> Summary:
    """Takes in every DICOM instance in `paths`, folders with all that is below them; files of other kinds are counted.

    `resume` passes over what an earlier, interrupted import has finished and what has not changed since. `progress` is
    told (files done, files in all). Raises BadRequest for a path that does not exist, StorageError when the storage fails;
    both leave what is finished so far taken in and noted.
    """
    for path in paths:
        if not path.exists():
            raise BadRequest(f"{path} does not exist")
    settings = taker.settings
    own = (settings.spool_directory, settings.resolved_storage_root, settings.cache_directory)
    with Finished(settings.data / "import.state", resume) as finished:
        work = _Import(taker, finished, progress, sum(1 for _ in walk(paths, own)))
        work.run(walk(paths, own))
        summary = work.summary()
        if not summary.refused:
            finished.forget()
    return summary


def walk(paths: Iterable[Path], avoid: Iterable[Path] = ()) -> Iterator[Path | Refusal]:
    """All regular files below the paths in the order of their names, folders that cannot be read as refusals.

    Links are followed, each folder is entered once however often it is linked; folders in `avoid` are not entered.
    """
    entered = {identity for identity in map(_identity, avoid) if identity is not None}
    pending = [Path(path).absolute() for path in reversed(list(paths))]
    while pending:
        path = pending.pop()
        try:
            found = path.stat()
            if stat.S_ISDIR(found.st_mode):
                if (found.st_dev, found.st_ino) not in entered:
                    entered.add((found.st_dev, found.st_ino))
                    pending.extend(sorted(path.iterdir(), reverse=True))
            elif stat.S_ISREG(found.st_mode):
                yield path
        except FileNotFoundError:
            continue  # a link to nowhere, or removed meanwhile: no file
        except OSError as error:
            yield Refusal(path, _unreadable(error))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


class Finished:
    """The files an import has finished, as one line each of a digest of path, size and time of change."""

    def __init__(self, path: Path, resume: bool) -> None:
        self._path = path
        self._known: set[str] = set()
        if resume and path.exists():
            self._known.update(path.read_text(encoding="ascii", errors="replace").split())
        self._file = path.open("a" if resume else "w", encoding="ascii")

    @classmethod
    def key(cls, path: Path, found: os.stat_result) -> str:
        """What names a file as it is now."""
        return cls.key_of(path, found.st_size, found.st_mtime_ns)

    @staticmethod
    def key_of(path: Path, size: int, modified_ns: int) -> str:
        """What names a file of this size and time."""
        text = f"{path}\0{size}\0{modified_ns}"
        return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def add(self, key: str) -> None:
        """Notes a file; handed to the system at once, so that a killed import has it noted too."""
        self._file.write(key + "\n")
        self._file.flush()

    def forget(self) -> None:
        """Drops the notes: nothing is left to resume."""
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True)
class _Taken:
    """What came of one file: the count it goes to, the key to note, or why it was refused."""

    count: str
    key: str = ""
    refusal: Refusal | None = None


class _Import:
    def __init__(self, taker: Taker, finished: Finished, progress: Progress, total: int) -> None:
        self._taker = taker
        self._finished = finished
        self._progress = progress
        self._total = total
        self._done = 0
        self._counts: Counter[str] = Counter()
        self._refusals: list[Refusal] = []

    def run(self, files: Iterator[Path | Refusal]) -> None:
        """Takes in all files; on any error, or Ctrl-C, finishes those that have begun and starts no other."""
        flying: set[Future[_Taken]] = set()
        with ThreadPoolExecutor(_THREADS, "import") as pool:
            try:
                for file in files:
                    flying.add(pool.submit(self._take, file))
                    if len(flying) >= _IN_FLIGHT:
                        flying = self._note_done(flying)
                while flying:
                    flying = self._note_done(flying)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                self._note_left(flying)

    def _note_done(self, flying: set[Future[_Taken]]) -> set[Future[_Taken]]:
        done, rest = wait(flying, return_when=FIRST_COMPLETED)
        for future in done:
            self._note(future.result())
        return rest

    def _note_left(self, flying: set[Future[_Taken]]) -> None:
        """After an error: what other threads have finished meanwhile is noted too."""
        for future in flying:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._note(future.result())

    def _note(self, taken: _Taken) -> None:
        self._counts[taken.count] += 1
        if taken.key:
            self._finished.add(taken.key)
        if taken.refusal is not None and len(self._refusals) < _KEPT_REFUSALS:
            self._refusals.append(taken.refusal)
        self._done += 1
        self._progress(self._done, max(self._total, self._done))

    def _take(self, file: Path | Refusal) -> _Taken:
        if isinstance(file, Refusal):
            return _Taken("refused", refusal=file)
        try:
            with file.open("rb", buffering=0) as source:
                return self._take_open(file, source)
        except OSError as error:
            return _Taken("refused", refusal=Refusal(file, _unreadable(error)))
        except (InstanceRefused, BadRequest, TooLarge, Busy) as error:
            return _Taken("refused", refusal=Refusal(file, str(error)))

    def _take_open(self, file: Path, source: BinaryIO) -> _Taken:
        key = Finished.key(file, os.fstat(source.fileno()))
        if key in self._finished:
            return _Taken("resumed")
        head = source.read(_HEAD_BYTES)
        if is_directory(head):
            return _Taken("dicomdirs")
        begin, skip = b"", 0
        if head[128:132] != b"DICM":
            if not _is_bare_data_set(head):
                return _Taken("not_dicom")
            begin, skip = self._completed(file)
        accepted = self._taker.ingest.accept(self._copy(source, begin, skip), Origin(protocol="import"))
        return _Taken(_COUNT_OF[accepted.outcome], key)

    def _completed(self, file: Path) -> tuple[bytes, int]:
        """The preamble and file meta a bare data set lacks, and where its data set begins."""
        read = read_instance(file, read_limits(self._taker.settings, self._taker.spool.directory), lenient=True)
        begin = encode_preamble_and_meta(read.sop_class_uid, read.sop_instance_uid, read.meta.transfer_syntax_uid, read.meta.source_aet)
        return begin, read.meta.data_set_offset

    def _copy(self, source: BinaryIO, begin: bytes, skip: int) -> SpoolFile:
        """A copy in the spool; never a link, for what is accepted must not change with the user's file."""
        with self._taker.spool.create(".dcm") as writer:
            source.seek(skip)
            if begin:
                writer.write(begin)
            while piece := source.read(_PIECE_BYTES):
                writer.write(piece)
            return writer.finish()

    def summary(self) -> Summary:
        """The counts so far."""
        return Summary(**self._counts, refusals=tuple(self._refusals))


def is_directory(head: bytes) -> bool:
    """Whether a file begins as a DICOMDIR."""
    try:
        meta = parse_file_meta(head)
    except (NotDicom, TruncatedDataSet):
        return False  # ingest says what is wrong with it
    return meta is not None and meta.sop_class_uid == _DIRECTORY_SOP_CLASS_UID


# The first element of a bare data set is one of these: Length to End, Specific Character Set, Image Type, the UIDs.
_FIRST_ELEMENTS = frozenset({0x0000, 0x0001, 0x0005, 0x0008, 0x0012, 0x0016, 0x0018})


def _is_bare_data_set(head: bytes) -> bool:
    """Whether a file begins as a data set, or as file meta, without a preamble (PS3.10 7.1 wants one)."""
    for order in ("little", "big") if len(head) >= 16 else ():
        group, element, length = (int.from_bytes(head[at : at + size], order) for at, size in ((0, 2), (2, 2), (4, 4)))
        explicit = head[4:6].isalpha() and head[4:6].isupper()
        known = (group == 0x0002 and element <= 0x0003) or (group == 0x0008 and element in _FIRST_ELEMENTS)
        if known and (explicit or (length <= 128 and length % 2 == 0)):
            return True
    return False
