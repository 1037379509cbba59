"""The jobs that make things of files: `files.renditions` what is missing of one blob, `files.regenerate` the pictures of all anew.

Both may run more than once. What is made lies durable under a key of its own before the one transaction that names it; what that
transaction does not take, because the file is gone or somebody was faster, is erased again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacslite.catalog import renditions as rows
from pacslite.catalog.arrival import NewBlob
from pacslite.catalog.blobs import LIVE, StoredBlob
from pacslite.catalog.renditions import DICOM, PENDING, READY, Made
from pacslite.codec import apart, video
from pacslite.codec.apart import Bounds
from pacslite.core import jobs, renditions
from pacslite.core.file_types import PICTURE_SIZES, Variant
from pacslite.core.jobs import Handler, Job, Later, Run, Stopped
from pacslite.core.renditions import ATTEMPTS, MESHES, PDF, PICTURES, SERVED, UNIT
from pacslite.errors import BlobMissing, NotFound, OutcomeUnknown, PacsliteError, StorageError, UndecodablePixels
from pacslite.storage.keys import blob_uid, file_key, picture_key, result_key, version_time_ms

if TYPE_CHECKING:
    from pacslite.app import Pacs

_log = logging.getLogger(__name__)

REGENERATE_KIND = "files.regenerate"
_PAGE = 100
_TURN_S = 2.0
_one_video = threading.Semaphore(1)
_PIECE_BYTES = 1024 * 1024
_PICTURE_BYTES = 64 * 1024 * 1024
# Named, not imported: this process does not need what they need.
_PICTURES_OF_PHOTO = "pacslite.codec.pictures:make"
_PICTURES_OF_DOCUMENT = "pacslite.codec.documents:make"
_PICTURES_OF_MODEL = "pacslite.codec.meshes:make"
_MP4 = "video/mp4"
_JPEG = "image/jpeg"


@dataclass(slots=True)
class _Work:
    """What one run makes of one blob: where to, and what came of it."""

    pacs: Pacs
    run: Run
    source: StoredBlob
    targets: dict[str, Path]
    made: dict[str, Path | None] = field(default_factory=dict)  # None: the bytes themselves will do
    problems: dict[str, str] = field(default_factory=dict)
    info: Mapping[str, Any] | None = None

    @property
    def wanted(self) -> list[tuple[str, int, int]]:
        """The pictures, as the codecs take them."""
        sizes = {str(name): size for name, size in PICTURE_SIZES.items()}
        return [(os.fspath(path), sizes[name].pixels, sizes[name].quality) for name, path in self.targets.items() if name in sizes]

    def apart(self, task: str, *arguments: Any, bounds: Bounds) -> Any:
        """A task in a process of its own, ended with the job."""
        try:
            return apart.run(task, *arguments, bounds=bounds, is_stopping=lambda: self.run.is_stopping)
        except apart.Stopped:
            raise Stopped from None

    def all_made(self) -> None:
        """Every target is written."""
        self.made |= self.targets


def make_missing(pacs: Pacs, run: Run) -> Mapping[str, Any]:
    """The job `files.renditions`."""
    with pacs.catalog.read() as conn:
        source = rows.find_blob_by_uid(conn, run.payload["blob"])
    if source is None:
        return {"made": [], "failed": {}}
    try:
        made, problems = _make(pacs, run, source, anew=False)
    except PacsliteError as error:
        if run.job.attempts >= run.job.max_attempts:
            problem = dict.fromkeys(_pending(pacs, source), f"It could not be made: {error}")
            pacs.catalog.write(lambda conn: rows.settle(conn, source, (), problem, None))
        raise
    return {"made": made, "failed": problems}


def queue_regenerate(pacs: Pacs, file_id: str | None = None, actor: str = "") -> Job:
    """Make the pictures of all files anew, or of one, by a job; while one like it is under way, that is meant. Raises NotFound."""
    if file_id is not None:
        with pacs.catalog.read() as conn:
            if not rows.has_file(conn, file_id):
                raise NotFound("There is no such file.")
    return jobs.queue(pacs.catalog, REGENERATE_KIND, {"file": file_id}, REGENERATE, actor, f"{REGENERATE_KIND}:{file_id or ''}")


def regenerate(pacs: Pacs, run: Run) -> Mapping[str, Any]:
    """The job `files.regenerate`: the pictures of all files, or of one, made anew; an MP4 only where there is none yet."""
    wanted = run.payload.get("file")
    with pacs.catalog.read() as conn:
        total = rows.count_sources(conn, wanted)
    after, done = int(run.memo.get("after", 0)), int(run.memo.get("done", 0))
    failed = int(run.memo.get("failed", 0))
    run.progress(done, total)
    while True:
        with pacs.catalog.read() as conn:
            found = rows.sources_after(conn, after, _PAGE, wanted)
        if not found:
            return {"files": done, "failed": failed}
        for source in found:
            run.check()
            failed += not _made_anew(pacs, run, source)
            after, done = source.pk, done + 1
            run.progress(done, max(total, done))
        run.remember(after=after, done=done, failed=failed)


def _made_anew(pacs: Pacs, run: Run, source: StoredBlob) -> bool:
    """Whether nothing failed."""
    try:
        pacs.catalog.write(lambda conn: _ask_again(conn, source))
        return not _make(pacs, run, source, anew=True)[1]
    except (BlobMissing, NotFound) as error:
        _log.warning("the pictures of a file cannot be made anew: %s", error, extra={"blob_uid": source.uid})
        return False


def _ask_again(conn: Any, source: StoredBlob) -> None:
    rows.ensure(conn, source.pk, renditions.names_for(source.media_type))
    rows.begin_again(conn, source.pk)


HANDLER = Handler(make_missing, UNIT, ATTEMPTS)
REGENERATE = Handler(regenerate, "files")


def _pending(pacs: Pacs, source: StoredBlob, *, anew: bool = False) -> list[str]:
    """What is to be made of a blob: what is missing, or all pictures; an MP4 is made once, its hash is the file's."""
    names = renditions.names_for(source.media_type)
    with pacs.catalog.read() as conn:
        known = rows.rows_of(conn, source.pk)

    def is_wanted(name: str) -> bool:
        if name not in known or known[name].state == PENDING:
            return True
        return anew and not (name == SERVED and known[name].state == READY)

    return [name for name in names if is_wanted(name)]


def _make(pacs: Pacs, run: Run, source: StoredBlob, *, anew: bool) -> tuple[list[str], dict[str, str]]:
    """Make what is to be made of a blob, and write it down; what was made, and why the rest was not."""
    names = _pending(pacs, source, anew=anew)
    if not names or source.state != LIVE:
        return [], {}
    pacs.spool.check_space(_PICTURE_BYTES)
    with _scratch_files(pacs, names) as targets:
        work = _Work(pacs, run, source, targets)
        try:
            _maker(source)(work)
        except UndecodablePixels as error:
            work.problems |= {name: str(error) for name in names if name not in work.made}
        run.check()
        _keep(work)
    if work.problems:
        about = {"action": "files.renditions", "object_id": source.uid, "outcome": "failed"}
        _log.warning("not all could be made of a file: %s", "; ".join(sorted(set(work.problems.values()))), extra=about)
    if not anew:
        run.progress(len(work.made), len(names))
    return sorted(work.made), work.problems


@contextmanager
def _scratch_files(pacs: Pacs, names: Sequence[str]) -> Iterator[dict[str, Path]]:
    """Names of files in the spool; what is left there at the end is removed."""
    ends = {SERVED: ".mp4"}
    paths = {name: pacs.spool.directory / f"{os.urandom(12).hex()}{ends.get(name, '.jpg')}" for name in names}
    try:
        yield paths
    finally:
        for path in paths.values():
            path.unlink(missing_ok=True)


# By kind


def _maker(source: StoredBlob) -> Callable[[_Work], None]:
    kind = source.media_type.partition(";")[0].strip().lower()
    if kind == DICOM:
        return _of_dicom
    if kind.startswith("video/"):
        return _of_video
    if kind in PICTURES:
        return _of_picture
    return _of_document if kind == PDF else _of_mesh


@contextmanager
def _file(work: _Work) -> Iterator[str]:
    """The bytes as a file on this machine."""
    with work.pacs.stores.as_file(work.source, work.pacs.spool) as path:
        if not path.exists():
            raise BlobMissing("The stored bytes are missing.")
        yield os.fspath(path)


def _bounds(work: _Work) -> Bounds:
    settings = work.pacs.settings
    # What goes to scratch files on the way is about as large as the file.
    most = _PICTURE_BYTES + 8 * work.source.size_bytes
    return Bounds(settings.rendition_timeout_s, settings.rendition_memory_bytes, most)


def _of_picture(work: _Work) -> None:
    with _file(work) as path:
        work.info = work.apart(_PICTURES_OF_PHOTO, path, work.wanted, work.pacs.settings.max_picture_pixels, bounds=_bounds(work))
    work.all_made()


def _of_document(work: _Work) -> None:
    with _file(work) as path:
        work.info = work.apart(_PICTURES_OF_DOCUMENT, path, work.wanted, bounds=_bounds(work))
    work.all_made()


def _of_mesh(work: _Work) -> None:
    kind, scratch = MESHES[work.source.media_type], os.fspath(work.pacs.spool.directory)
    with _file(work) as path:
        result = work.apart(_PICTURES_OF_MODEL, path, kind, work.wanted, scratch, bounds=_bounds(work))
    work.info = result
    work.all_made()


@contextmanager
def _turn(run: Run) -> Iterator[None]:
    """One video at a time: ffmpeg has threads of its own, and hours of it must not hold up all other jobs."""
    while not _one_video.acquire(timeout=_TURN_S if run.job.kind == REGENERATE_KIND else 0):
        run.check()
        if run.job.kind != REGENERATE_KIND:
            raise Later(_TURN_S)
    try:
        yield
    finally:
        _one_video.release()


def _of_video(work: _Work) -> None:
    if not video.is_there():
        raise UndecodablePixels(video.MISSING)
    settings = work.pacs.settings
    bounds = Bounds(settings.video_timeout_s, settings.rendition_memory_bytes, _PICTURE_BYTES + 8 * work.source.size_bytes)
    target = work.targets.get(SERVED)
    if target is not None:
        work.pacs.spool.check_space(work.source.size_bytes)
    with _turn(work.run), _file(work) as path:
        result = work.apart(video.TASK, path, target and os.fspath(target), work.wanted, settings.video_threads, bounds=bounds)
    if target is not None:
        work.info = result["info"]
    for name in work.targets:
        problem = result["problem" if name == SERVED else "picture_problem"]
        if problem:
            work.problems[name] = problem
        else:
            work.made[name] = None if name == SERVED and result["same"] else work.targets[name]


def _of_dicom(work: _Work) -> None:
    """By the renderer that DICOMweb has; what has no picture gets an icon there."""
    from pacslite.codec import pictures
    from pacslite.codec.render_options import PNG, Options, Viewport
    from pacslite.core import rendering
    from pacslite.core.retrieve import Resource, limits_of

    pacs = work.pacs
    with pacs.catalog.read() as conn:
        place = rows.dicom_place(conn, work.source.pk)
    if place is None:
        raise NotFound("There is no such instance.")
    means = rendering.Means(
        pacs.catalog, pacs.stores, limits_of(pacs.settings, pacs.spool.directory), pacs.codecs.run, pacs.settings.max_rendered_pixels
    )
    resource = Resource(place.study_instance_uid, place.series_instance_uid, place.sop_instance_uid, place.version_number)
    subject = rendering.subject(means, resource)
    pixels = max(size.pixels for size in PICTURE_SIZES.values())
    module = subject.known.module
    box = None if module is None else Viewport(min(pixels, module.form.columns), min(pixels, module.form.rows))
    rendered = rendering.thumbnail(means, subject, Options(PNG, viewport=box))
    assert isinstance(rendered.body, bytes)
    pictures.write_png(rendered.body, work.wanted)
    work.all_made()


# Keeping what was made


def _keep(work: _Work) -> None:
    """Give the results their keys, durable, then the rows."""
    made: list[Made] = []
    try:
        for name, path in work.made.items():
            made.append(Made(name, None if path is None else _put(work, name, path)))
        is_kept = work.pacs.catalog.write(lambda conn: rows.settle(conn, work.source, made, work.problems, work.info))
    except OutcomeUnknown:
        raise  # the catalog may name them: the sweep finds out
    except PacsliteError:
        _drop(work.pacs, made)
        raise
    if not is_kept:
        _drop(work.pacs, made)


def _put(work: _Work, name: str, path: Path) -> NewBlob:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    key = _key(work, name)
    work.pacs.store.put(path, key)
    return NewBlob(blob_uid(key), key, work.pacs.store.name, size, digest.hexdigest(), _MP4 if name == SERVED else _JPEG)


def _key(work: _Work, name: str) -> str:
    """Beside the original and with its stem; with another one where that name has been used, because a key is never used again."""
    original = _original_key(work)
    if name == SERVED:
        return result_key(original, ".mp4")
    folder = PICTURE_SIZES[Variant(name)].folder
    key = picture_key(original, folder)
    return picture_key(result_key(original, ".jpg"), folder) if _is_used(work.pacs, key) else key


def _original_key(work: _Work) -> str:
    """Of an instance that of a file which it would be, for the patient of its study."""
    source = work.source
    if source.media_type != DICOM:
        return source.storage_key
    with work.pacs.catalog.read() as conn:
        place = rows.dicom_place(conn, source.pk)
    if place is None:
        raise NotFound("There is no such instance.")
    uid = blob_uid(source.storage_key)
    day = datetime.fromtimestamp(version_time_ms(uid) / 1000, UTC).strftime("%Y%m%d")
    return file_key(place.patient_pk, "dicoms", day, "dicom", uid, ".dcm")


def _is_used(pacs: Pacs, key: str) -> bool:
    with pacs.catalog.read() as conn:
        if rows.find_blob_by_uid(conn, blob_uid(key)) is not None:
            return True
    try:
        pacs.store.size(key)
    except (BlobMissing, FileNotFoundError):
        return False
    return True


def _drop(pacs: Pacs, made: Sequence[Made]) -> None:
    for one in made:
        if one.blob is not None:
            try:
                pacs.store.delete(one.blob.storage_key)
            except StorageError as error:
                _log.warning("bytes nobody refers to are left for the sweep: %s", error, extra={"blob_uid": one.blob.uid})
