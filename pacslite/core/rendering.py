"""Rendered instances (PS3.18 10.4.1.1.3, 10.4.1.1.4): pictures, films, documents and reports of what `rendering_subject` knows.

The way of a frame is short on purpose: place and length from the index, one table for its values, one encoder. What has to be
decoded goes to a codec process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pacslite.codec import render as codec
from pacslite.codec import render_icon, render_image
from pacslite.codec.render_options import GIF, Options, Viewport
from pacslite.codec.render_pixels import Picture
from pacslite.core import bulk_data, rendering_report, retrieve
from pacslite.core import rendering_source as source
from pacslite.core.content import FileBody, StreamBody, pieces_of
from pacslite.core.rendering_subject import DOCUMENT, HTML, NO_PICTURES, XML, Kind, Means, Subject, label_of, subject
from pacslite.core.rendering_text import annotation_lines
from pacslite.core.retrieve import Frames, Item
from pacslite.dicom.data_set import NATIVE
from pacslite.dicom.document import Document, values_of
from pacslite.dicom.syntaxes import DECODABLE
from pacslite.errors import Busy, FrameNotFound, NotAcceptable, TooLarge, UndecodablePixels
from pacslite.storage.stores import Stores

__all__ = ["HTML", "NO_PICTURES", "XML", "Kind", "Means", "Rendered", "Subject", "check", "render", "subject", "thumbnail"]

_THUMBNAIL = Viewport(256, 256)
# Above this a picture takes so much room that a process makes one at a time.
_LARGE_PIXELS = 8_000_000
_LARGE_AT_ONCE, _LARGE_WAIT_S = 1, 30.0
_MOST_CODE_STREAM_BYTES = 256 * 1024 * 1024
_large = threading.BoundedSemaphore(_LARGE_AT_ONCE)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The result."""

    media_type: str
    body: bytes | FileBody | StreamBody


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
    options = replace(options, viewport=options.viewport or _THUMBNAIL, annotation=frozenset(), icc="no")
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


def check(means: Means, wanted: Subject, options: Options) -> None:
    """Raises what rendering an image would, for all that can be told without its pixels: FrameNotFound, NotAcceptable, TooLarge."""
    if wanted.known.kind is Kind.IMAGE:
        frames = _shown(wanted, options, None)
        _refuse_large(means, wanted, options, len(frames))


def _shown(wanted: Subject, options: Options, frames: Sequence[int] | None) -> Sequence[int]:
    """The frames that are shown, all of which are there."""
    index = wanted.index
    assert index is not None
    if wanted.item.transfer_syntax_uid not in DECODABLE:
        raise UndecodablePixels(f"Frames of transfer syntax {wanted.item.transfer_syntax_uid} are not decoded here.")
    if frames is None:
        several = options.media_type == GIF and index.number_of_frames > 1
        frames = range(1, index.number_of_frames + 1) if several else (wanted.representative_frame,)
    for number in frames:
        index.segments(number)
    return frames


def _pictures(means: Means, wanted: Subject, options: Options, frames: Sequence[int] | None) -> bytes:
    frames = _shown(wanted, options, frames)
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
    if _refuse_large(means, wanted, options, count) <= _LARGE_PIXELS:
        yield
        return
    if not _large.acquire(timeout=_LARGE_WAIT_S):
        raise Busy("Too many large pictures are being rendered.")
    try:
        yield
    finally:
        _large.release()


def _refuse_large(means: Means, wanted: Subject, options: Options, count: int) -> int:
    """How many pixels have to be in memory at once; raises TooLarge."""
    module = wanted.known.module
    assert module is not None
    pixels = module.form.rows * module.form.columns
    if pixels > means.max_pixels:
        raise TooLarge(f"The picture has {pixels} pixels; no more than {means.max_pixels} are rendered (max_rendered_pixels).")
    shown = options.viewport.columns * options.viewport.rows if options.viewport is not None else pixels
    if shown * count > means.max_pixels:
        raise TooLarge(f"The result may have no more than {means.max_pixels} pixels (max_rendered_pixels); ask for a smaller viewport.")
    return max(pixels, shown * count)


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
    return _joined(means.stores, wanted.item, segments)


def _joined(stores: Stores, item: Item, segments: Sequence[tuple[int, int]]) -> StreamBody:
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
    found = bulk_data.find(means.catalog, means.stores, wanted.resource, DOCUMENT, means.limits)
    length = _whole_length(source.document(means.catalog, wanted.resource), found.length)
    match found.pieces:
        case (FileBody() as body,):
            return replace(body, length=length)
        case (StreamBody(part=part),) if part is not None:
            return StreamBody(length, lambda: part(0, length), part)
    # Inflated, or in fragments, which some write.
    return retrieve.read_small(StreamBody(length, lambda: _first(found.pieces, length)))


def _first(bodies: Sequence[FileBody | StreamBody], length: int) -> Iterator[bytes]:
    """So many bytes of one body after the other."""
    for body in bodies:
        for piece in pieces_of(body):
            yield piece[:length]
            length -= len(piece[:length])


def _whole_length(document: Document, stored: int) -> int:
    """The length without padding, where Encapsulated Document Length (0042,0015) says it plausibly."""
    for text in values_of(document.get("00420015"))[:1]:
        if text.isdigit() and stored - 1 <= int(text) <= stored:
            return int(text)
    return stored
