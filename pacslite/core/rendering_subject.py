"""What an instance can be shown as: an image, a video, a document or a report, by its metadata.

That is remembered of the instances last shown, and nothing else of them: a viewer asks for one frame after the other.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pacslite.catalog.database import Catalog
from pacslite.codec.render_options import IMAGE_TYPES
from pacslite.core import rendering_source as source
from pacslite.core import retrieve
from pacslite.core.rendering_image import ImageModule, image_module
from pacslite.core.retrieve import Item, Resource
from pacslite.dicom.document import Document, values_of
from pacslite.dicom.frame_index import FrameIndex
from pacslite.dicom.limits import Limits
from pacslite.errors import FrameNotFound, NotAcceptable
from pacslite.storage.stores import Stores

HTML, PLAIN, XML = "text/html", "text/plain", "text/xml"
DOCUMENT = "00420011"
"""Encapsulated Document."""

_VALUE_TYPE = "0040A040"
_MIME_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")
# A browser runs these; a sender's are given out as octets, XML with a policy that lets nothing run.
_ACTIVE_TYPE = re.compile(r"text/html|application/xhtml.*|.*javascript|.*ecmascript|image/svg.*")
_KEPT_MODULES, _KEPT_FRAMES = 512, 100_000


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
    if DOCUMENT in document:
        if len(document[DOCUMENT]) == 1:  # a VR and no value
            return Known(Kind.OTHER, (), None, "The document is empty.")
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
