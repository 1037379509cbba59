"""Rendered instances (PS3.18 10.4.1.1.3, 10.4.1.1.4): what an instance can be shown as, and that.

The way of a frame is short on purpose: place and length from the index, one table for its values, one encoder. What has to be
decoded goes to a codec process. Nothing of an image is kept but what its metadata says of it.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from pacslite.catalog.database import Catalog
from pacslite.codec import render as codec
from pacslite.codec import render_icon, render_image
from pacslite.codec.render_options import GIF, IMAGE_TYPES, Options, Viewport
from pacslite.codec.render_pixels import Picture
from pacslite.core import bulk_data, rendering_report, retrieve
from pacslite.core import rendering_source as source
from pacslite.core.content import FileBody, StreamBody
from pacslite.core.rendering_image import ImageModule, image_module
from pacslite.core.rendering_text import annotation_lines
from pacslite.core.retrieve import Frames, Item, Resource
from pacslite.dicom.data_set import NATIVE
from pacslite.dicom.document import Document, values_of
from pacslite.dicom.frame_index import FrameIndex
from pacslite.dicom.limits import Limits
from pacslite.errors import Busy, FrameNotFound, NotAcceptable, TooLarge
from pacslite.storage.stores import Stores

HTML, PLAIN, XML = "text/html", "text/plain", "text/xml"
THUMBNAIL = Viewport(256, 256)

_DOCUMENT, _VALUE_TYPE = "00420011", "0040A040"
_MIME_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")
# A browser runs these; a sender's are given out as octets, XML with a policy that lets nothing run.
_ACTIVE_TYPE = re.compile(r"text/html|application/xhtml.*|.*javascript|.*ecmascript|image/svg.*")
_KEPT_MODULES, _KEPT_FRAMES = 512, 100_000
# Above this a picture takes so much room that a process makes one at a time.
_LARGE_PIXELS = 8_000_000
_LARGE_AT_ONCE, _LARGE_WAIT_S = 1, 30.0
_MOST_CODE_STREAM_BYTES = 256 * 1024 * 1024
_large = threading.BoundedSemaphore(_LARGE_AT_ONCE)


class Kind(StrEnum):
    """What an instance is, for showing it."""

    IMAGE = "image"
    VIDEO = "video"
    DOCUMENT = "document"
    REPORT = "report"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Means:
    """What rendering works with: `run` has a task done by a codec process (`CodecProcesses.run`)."""

    catalog: Catalog
    stores: Stores
    limits: Limits
    run: Callable[..., Any]
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Known:
    """What the metadata of an instance says: media types, the default first, and the module of an image; `problem` if there is none."""

    kind: Kind
    media_types: tuple[str, ...]
    module: ImageModule | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """An instance that is to be shown."""

    item: Item
    resource: Resource
    known: Known
    index: FrameIndex | None

    @property
    def media_types(self) -> tuple[str, ...]:
        """What it can be rendered as, the default first; empty when it cannot."""
        return self.known.media_types

    @property
    def number_of_frames(self) -> int:
        """Frames that can be rendered one by one."""
        return self.index.number_of_frames if self.index is not None and self.known.kind is Kind.IMAGE else 0

    @property
    def representative_frame(self) -> int:
        """The frame that stands for all: the one named by Representative Frame Number (0028,6010), else the first."""
        module = self.known.module
        wanted = module.representative if module is not None else None
        return wanted if wanted is not None and wanted <= self.number_of_frames else 1


@dataclass(frozen=True, slots=True)
class Rendered:
    """The result."""

    media_type: str
    body: bytes | FileBody | StreamBody


class _Modules:
    """What was known of the instances last shown. A storage key never means other bytes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Known] = OrderedDict()
        self._frames = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> Known | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def keep(self, key: str, known: Known) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = known
                self._frames += _frames_of(known)
            while len(self._kept) > _KEPT_MODULES or self._frames > _KEPT_FRAMES:
                self._frames -= _frames_of(self._kept.popitem(last=False)[1])


def _frames_of(known: Known) -> int:
    return len(known.module.frames) if known.module is not None else 0


_MODULES = _Modules()


def subject(means: Means, resource: Resource) -> Subject:
    """The instance of a resource; raises NotFound, Gone."""
    try:
        image = retrieve.plan_frames(means.catalog, resource)
        item, index = image.item, image.index
    except FrameNotFound:
        item, index = retrieve.plan(means.catalog, resource)[0], None
    known = _MODULES.get(item.storage_key)
    if known is None:
        known = _known(means, resource, item, index)
        _MODULES.keep(item.storage_key, known)
    return Subject(item, resource, known, index)


def _known(means: Means, resource: Resource, item: Item, index: FrameIndex | None) -> Known:
    if index is not None and index.video:
        return Known(Kind.VIDEO, (_video_type(means, item, index),))
    document = source.document(means.catalog, resource)
    if index is not None:
        return _image(means, item, document)
    if _DOCUMENT in document:
        name = next(iter(values_of(document.get("00420012"))), "").strip().lower()
        safe = _MIME_TYPE.fullmatch(name) and not _ACTIVE_TYPE.fullmatch(name)
        return Known(Kind.DOCUMENT, (name if safe else "application/octet-stream",))
    if _VALUE_TYPE in document:
        return Known(Kind.REPORT, (HTML, PLAIN, XML))
    return Known(Kind.OTHER, (), None, "The instance holds nothing that can be rendered.")


def _image(means: Means, item: Item, document: Document) -> Known:

    def bulk(path: str) -> bytes:
        return source.bulk_values(means.stores, item, [path], means.limits).get(path, b"")

    try:
        return Known(Kind.IMAGE, IMAGE_TYPES, image_module(document, bulk))
    except NotAcceptable as error:
        return Known(Kind.OTHER, (), None, str(error))


def _video_type(means: Means, item: Item, index: FrameIndex) -> str:
    """By its container where that shows, else by the transfer syntax (Table 8.7.3-5)."""
    offset, length = index.segments(1)[0]
    head = retrieve.read_extent(means.stores, item, offset, min(length, 12))
    if head[4:8] == b"ftyp":
        return "video/mp4"
    number = item.transfer_syntax_uid.removeprefix("1.2.840.10008.1.2.4.").split(".")[0]
    return "video/mpeg" if number in ("100", "101") else "video/h265" if number in ("107", "108") else "video/mp4"


def render(means: Means, wanted: Subject, options: Options, frames: Sequence[int] | None = None) -> Rendered:
    """The instance, or frames of it, in the media type of the options, which is one of the subject's.

    One frame gives one picture, several an animated GIF. Without frames: all as an animated GIF, else the representative one.
    Raises FrameNotFound, NotAcceptable, TooLarge, Busy.
    """
    kind = wanted.known.kind
    if options.media_type not in wanted.media_types:
        raise NotAcceptable(wanted.known.problem or f"The instance is rendered as {', '.join(wanted.media_types)}.")
    if kind is not Kind.IMAGE and frames is not None:
        raise FrameNotFound("The instance has no frames that are rendered one by one.")
    if kind is Kind.IMAGE:
        return Rendered(options.media_type, _pictures(means, wanted, options, frames))
    if kind is Kind.VIDEO:
        return Rendered(options.media_type, _video(means, wanted))
    if kind is Kind.DOCUMENT:
        return Rendered(options.media_type, _document(means, wanted))
    report = rendering_report.report_of(means, wanted.item, source.document(means.catalog, wanted.resource))
    return Rendered(options.media_type, rendering_report.render(report, options.media_type))


def thumbnail(means: Means, wanted: Subject, options: Options, frame_number: int | None = None) -> Rendered:
    """A small picture: of a frame, the middle one when none is named, else an icon of the kind of object. Raises FrameNotFound."""
    options = replace(options, viewport=options.viewport or THUMBNAIL, annotation=frozenset(), icc="no")
    if wanted.known.kind is Kind.IMAGE:
        chosen = frame_number or _standing_for(wanted)
        try:
            return render(means, wanted, options, (chosen,))
        except (NotAcceptable, TooLarge):
            pass  # such a picture cannot be shown: the icon says that there is one
    elif frame_number is not None and frame_number != 1:
        raise FrameNotFound("The instance has no such frame.")
    return Rendered(options.media_type, render_image.encode(render_icon.icon(label_of(wanted)), options))


def _standing_for(wanted: Subject) -> int:
    module = wanted.known.module
    if module is not None and module.representative is not None:
        return wanted.representative_frame
    return (wanted.number_of_frames + 1) // 2


_LABELS = {
    "application/pdf": "PDF",
    "text/xml": "CDA",
    "model/stl": "STL",
    "application/sla": "STL",
    "model/obj": "OBJ",
    "model/mtl": "MTL",
}
_CLASSES = (
    ("1.2.840.10008.5.1.4.1.1.88.59", "KO"),
    ("1.2.840.10008.5.1.4.1.1.88.", "SR"),
    ("1.2.840.10008.5.1.4.1.1.9.", "WAVE"),
    ("1.2.840.10008.5.1.4.1.1.11.", "PR"),
    ("1.2.840.10008.5.1.4.1.1.481.", "RT"),
    ("1.2.840.10008.5.1.4.1.1.66", "DATA"),
    ("1.2.840.10008.5.1.4.1.1.104.", "DOC"),
)


NO_PICTURES = tuple(prefix for prefix, _ in _CLASSES if not prefix.endswith((".481.", ".66")))
"""Begins of the SOP classes whose instances have no pixels."""


def label_of(wanted: Subject) -> str:
    """A short word for the kind of object."""
    if wanted.known.kind is Kind.VIDEO:
        return "VIDEO"
    if wanted.known.kind is Kind.DOCUMENT and wanted.media_types[0] in _LABELS:
        return _LABELS[wanted.media_types[0]]
    if wanted.index is not None:
        return "IMAGE"
    return next((label for prefix, label in _CLASSES if wanted.item.sop_class_uid.startswith(prefix)), "DICOM")


def _pictures(means: Means, wanted: Subject, options: Options, frames: Sequence[int] | None) -> bytes:
    index = wanted.index
    assert index is not None
    if frames is None:
        several = options.media_type == GIF and index.number_of_frames > 1
        frames = range(1, index.number_of_frames + 1) if several else (wanted.representative_frame,)
    for number in frames:
        index.segments(number)
    annotation: Sequence[str] = ()
    if options.annotation:
        annotation = annotation_lines(source.document(means.catalog, wanted.resource), options.annotation)
    with _bounded(means, wanted, options, len(frames)):
        if len(frames) == 1:
            return _one(means, wanted, options, frames[0], annotation)
        module = wanted.known.module
        assert module is not None
        return render_image.encode_animation(_each(means, wanted, options, frames), options, module.frame_ms, annotation)


@contextmanager
def _bounded(means: Means, wanted: Subject, options: Options, count: int) -> Iterator[None]:
    """Refuses pictures beyond the bound, and lets large ones be made one at a time."""
    module = wanted.known.module
    assert module is not None
    pixels = module.form.rows * module.form.columns
    if pixels > means.max_pixels:
        raise TooLarge(f"The picture has {pixels} pixels; no more than {means.max_pixels} are rendered (max_rendered_pixels).")
    shown = options.viewport.columns * options.viewport.rows if options.viewport is not None else pixels
    if shown * count > means.max_pixels:
        raise TooLarge(f"The result may have no more than {means.max_pixels} pixels (max_rendered_pixels); ask for a smaller viewport.")
    if max(pixels, shown * count) <= _LARGE_PIXELS:
        yield
        return
    if not _large.acquire(timeout=_LARGE_WAIT_S):
        raise Busy("Too many large pictures are being rendered.")
    try:
        yield
    finally:
        _large.release()


def _parts(means: Means, wanted: Subject, options: Options, number: int) -> tuple[bytes, Any, Any]:
    """Bytes, form and transform of a frame."""
    module, index = wanted.known.module, wanted.index
    assert module is not None
    assert index is not None
    transform = module.transform_of(number)
    if options.window is not None:
        transform = replace(transform, window=options.window, voi=None)
    most = _MOST_CODE_STREAM_BYTES if index.encapsulated else module.form.frame_bits // 8 + 64
    return source.frame(means.stores, Frames(wanted.item, index), number, means.limits, most), module.form, transform


def _one(means: Means, wanted: Subject, options: Options, number: int, annotation: Sequence[str]) -> bytes:
    data, form, transform = _parts(means, wanted, options, number)
    profile = _profile(means, wanted) if options.icc != "no" and form.samples == 3 else None
    syntax = wanted.item.transfer_syntax_uid
    if syntax in NATIVE and profile is None:
        shown = codec.native_picture(data, form, transform)
        del data  # of a large picture the most part
        return render_image.encode(shown, options, annotation)
    made: bytes = means.run("pacslite.codec.render:decoded_file", data, syntax, form, transform, options, tuple(annotation), profile)
    return made


def _each(means: Means, wanted: Subject, options: Options, frames: Sequence[int]) -> Iterator[Picture]:
    for number in frames:
        data, form, transform = _parts(means, wanted, options, number)
        syntax = wanted.item.transfer_syntax_uid
        if syntax in NATIVE:
            yield codec.native_picture(data, form, transform)
        else:
            shape, samples = means.run("pacslite.codec.render:decoded_in_viewport", data, syntax, form, transform, options)
            yield np.frombuffer(samples, np.uint8).reshape(shape)


def _profile(means: Means, wanted: Subject) -> bytes | None:
    """The ICC profile of the image, or of its first optical path (PS3.3 C.11.15, C.8.12.5)."""
    paths = ("00282000", "00480105/1/00282000")
    found = source.bulk_values(means.stores, wanted.item, paths, means.limits)
    return next((found[path] for path in paths if found.get(path)), None)


def _video(means: Means, wanted: Subject) -> FileBody | StreamBody:
    """The stream as it is stored; ranges of it can be given."""
    assert wanted.index is not None
    segments = wanted.index.segments(1)
    if len(segments) == 1:
        return retrieve.extent(means.stores, wanted.item, *segments[0])
    return joined(means.stores, wanted.item, segments)


def joined(stores: Stores, item: Item, segments: Sequence[tuple[int, int]]) -> StreamBody:
    """Pieces of the stored file as one run of bytes of which ranges can be given."""

    def part(offset: int, length: int) -> Iterator[bytes]:
        for start, size in segments:
            if length <= 0:
                return
            if offset < size:
                wanted = min(size - offset, length)
                for at in range(start + offset, start + offset + wanted, retrieve.PIECE_BYTES):
                    yield retrieve.read_extent(stores, item, at, min(retrieve.PIECE_BYTES, start + offset + wanted - at))
                length -= wanted
                offset = 0
            else:
                offset -= size

    total = sum(length for _, length in segments)
    return StreamBody(total, lambda: part(0, total), part)


def _document(means: Means, wanted: Subject) -> bytes | FileBody | StreamBody:
    """The encapsulated document without the byte that pads it (PS3.3 C.24.2)."""
    found = bulk_data.find(means.catalog, means.stores, wanted.resource, _DOCUMENT, means.limits)
    (body,) = found.pieces
    length = _whole_length(source.document(means.catalog, wanted.resource), body.length)
    if isinstance(body, FileBody) and length is not None:
        return replace(body, length=length)
    return retrieve.read_small(body) if isinstance(body, StreamBody) else body


def _whole_length(document: Document, stored: int | None) -> int | None:
    """The length without padding, where Encapsulated Document Length (0042,0015) says it plausibly."""
    for text in values_of(document.get("00420015"))[:1]:
        if stored is not None and text.isdigit() and stored - 1 <= int(text) <= stored:
            return int(text)
    return stored
