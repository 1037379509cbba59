"""Takes in trees of medical files that other services have kept (`pacslite import-files`), through the same door as every upload.

Each file is copied into the spool, taken in, and read back from the storage; only when its bytes there have the SHA-256 that was
read is it noted as finished, or with `move` erased where it was. Killed at any moment, it loses nothing: what it finds at the next
run with the same bytes at the same patient it does not take twice.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pacslite.core import import_sources
from pacslite.core.file_types import MedicalFileType
from pacslite.core.import_layouts import Layout, Place, place_of
from pacslite.core.import_mapping import FileMapping
from pacslite.core.import_patients import Patients
from pacslite.core.import_sources import Source, walk
from pacslite.core.import_taking import Outcome, Piece, Taking
from pacslite.core.importer import Finished
from pacslite.errors import BadRequest

if TYPE_CHECKING:
    from pacslite.core.files import Owner, Parts

_THREADS = 4
_IN_FLIGHT = 4 * _THREADS
_KEPT_REFUSALS = 1000
_MOST_OF_A_SERIES = 1000
_PICTURES = frozenset(("jpg", "jpeg", "jpe", "png", "heic", "heif", "avif", "webp", "tif", "tiff", "bmp", "gif"))

Progress = Callable[[int, int], None]
Note = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a tree is to be taken in. `numbers` says what numbers of patients in it are: `mrn`, or `id` for our own."""

    layout: Layout
    mapping: FileMapping = field(default_factory=FileMapping)
    mapping_digest: str = ""
    move: bool = False
    create_patients: bool = False
    numbers: str = "mrn"
    issuer: str | None = None
    patient_id: int | None = None
    dry_run: bool = False
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of it, in numbers of files; `refusals` holds the first 1,000."""

    stored: int = 0
    duplicate: int = 0
    resumed: int = 0
    skipped: int = 0
    refused: int = 0
    would_store: int = 0
    erased: int = 0
    bytes: int = 0
    patients_created: int = 0
    refusals: tuple[Outcome, ...] = ()

    @property
    def exit_code(self) -> int:
        """0: every file is in the server, or was none to be taken; 1: some were refused; 2: there was none."""
        if self.refused:
            return 1
        return 0 if self.stored + self.duplicate + self.resumed + self.would_store else 2


def _silent(*_: object) -> None:
    """The progress and the report of callers that want none."""


def import_tree(parts: Parts, root: Path, wishes: Wishes, owner: Owner, *, progress: Progress = _silent, note: Note = _silent) -> Summary:
    """Takes in what `root` holds, one outcome for each file to `note`.

    Raises BadRequest for a path that is not there, StorageError and Busy when the server fails; what is finished stays finished.
    """
    root = root.absolute()
    if not root.exists():
        raise BadRequest(f"{import_sources.printable(str(root))} does not exist")
    settings = parts.settings
    own = (settings.spool_directory, settings.cache_directory, *_own_roots(settings.resolved_storage_root, root))
    state = settings.data / f"import-files-{_mark(root, wishes)}.state"
    with Finished(state, resume=not (wishes.anew or wishes.move)) as finished:
        total = sum(1 for _ in walk(root, own))
        work = _Import(parts, wishes, owner, root, finished, progress, note, total)
        work.run(_units(walk(root, own), wishes, root.name))
        summary = work.summary()
        if wishes.dry_run or not summary.refused:
            finished.forget()
    return summary


def _own_roots(storage_root: Path, root: Path) -> tuple[Path, ...]:
    """The storage is not taken in from itself, wherever the tree begins."""
    if root == storage_root or storage_root in root.parents:
        raise BadRequest("this is the storage of the server itself")
    return (storage_root,)


def _mark(root: Path, wishes: Wishes) -> str:
    """Names the notes of an import: another mapping, or another meaning of numbers, is another one."""
    about = (
        str(root),
        wishes.layout,
        wishes.mapping_digest,
        wishes.numbers,
        wishes.issuer or "",
        str(wishes.patient_id),
        str(wishes.dry_run),
    )
    return hashlib.blake2b("\0".join(about).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _units(sources: Iterable[Source], wishes: Wishes, root: str) -> Iterator[list[Piece]]:
    """What is taken in at once: a file, or the files of one photo series."""
    series: list[Piece] = []
    for piece in (_piece(source, wishes, root) for source in sources):
        if piece.skipped or piece.source.problem:
            yield [piece]  # it may lie between two of a series
            continue
        is_inside = (
            series and not piece.place.series and piece.source.parts[: len(series[0].source.parts) - 1] == series[0].source.parts[:-1]
        )
        if series and not is_inside and piece.place.series != series[0].place.series:
            yield series
            series = []
        if piece.place.series:
            series.append(piece)
        else:
            yield [piece]
    if series:
        yield series


def _piece(source: Source, wishes: Wishes, root: str) -> Piece:
    told = wishes.mapping.about("/".join(source.parts), root)
    if source.problem:
        return Piece(source, Place(), told)
    # The folder that was given may be one that tells something: `patient_7`, or `patients` itself.
    parts = source.parts if source.parts == (root,) else (root, *source.parts)
    place = place_of(wishes.layout, parts)
    is_picture = source.parts[-1].rpartition(".")[2].lower() in _PICTURES
    if place.series and (not is_picture or told.file_type not in (None, MedicalFileType.PHOTO_SERIES)):
        place = replace(place, series=(), file_type=told.file_type)  # a note that lies among pictures
    return Piece(source, place, told)


class _Import:
    def __init__(
        self, parts: Parts, wishes: Wishes, owner: Owner, root: Path, finished: Finished, progress: Progress, note: Note, total: int
    ) -> None:
        self._wishes, self._finished, self._progress, self._tell, self._total = wishes, finished, progress, note, total
        self._patients = Patients(parts, wishes.mapping, wishes.numbers, wishes.issuer, create=wishes.create_patients, owner=owner)
        self._taking = Taking(parts, self._patients, owner, wishes.patient_id, move=wishes.move, dry_run=wishes.dry_run)
        self._done = 0
        self._counts: Counter[str] = Counter()
        self._refusals: list[Outcome] = []

    def run(self, units: Iterator[list[Piece]]) -> None:
        """Takes in everything; on any error, or Ctrl-C, finishes those that have begun and starts no other."""
        flying: deque[Future[list[Outcome]]] = deque()
        with ThreadPoolExecutor(_THREADS, "import") as pool:
            try:
                for unit in units:
                    flying.append(pool.submit(self._take, unit))
                    if len(flying) >= _IN_FLIGHT:
                        self._note(flying.popleft().result())  # in the order of the tree
                while flying:
                    self._note(flying.popleft().result())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                for future in flying:
                    if future.done() and not future.cancelled() and future.exception() is None:
                        self._note(future.result())

    def _take(self, unit: list[Piece]) -> list[Outcome]:
        keys = [] if self._wishes.move or self._wishes.dry_run else [_key(piece.source) for piece in unit]
        if keys and all(key and key in self._finished for key in keys):
            return [Outcome(piece.source.name, "resumed") for piece in unit]
        if len(unit) > _MOST_OF_A_SERIES:
            return [Outcome(piece.source.name, "refused", f"a series of more than {_MOST_OF_A_SERIES} files") for piece in unit]
        return self._taking.take(unit)

    def _note(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._counts[outcome.outcome] += 1
            self._counts["erased"] += outcome.erased
            if outcome.outcome in ("stored", "would_store"):
                self._counts["bytes"] += outcome.size_bytes or 0
            if outcome.key:
                self._finished.add(outcome.key)
            if outcome.outcome == "refused" and len(self._refusals) < _KEPT_REFUSALS:
                self._refusals.append(outcome)
            self._tell(outcome)
            self._done += 1
            self._progress(self._done, max(self._total, self._done))

    def summary(self) -> Summary:
        """The counts so far."""
        return Summary(**self._counts, patients_created=self._patients.created, refusals=tuple(self._refusals))


def _key(source: Source) -> str:
    try:
        return Finished.key(source.path, source.path.lstat())
    except OSError:
        return ""
