"""What the metadata of an image says about showing it: pixels, modality, VOI, palette, of each frame (PS3.3 C.7.6.3, C.11, C.7.6.16)."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from pacslite.codec.render_options import LINEAR, LINEAR_EXACT, SIGMOID, Window
from pacslite.codec.render_pixels import PixelFormat, segmented
from pacslite.codec.render_values import Bits, Lut, Transform
from pacslite.dicom.document import Document, items_of, values_of
from pacslite.errors import NotAcceptable

Bulk = Callable[[str], bytes]
"""The value at the path of a BulkDataURI."""

_MODALITY_LUT, _VOI_LUT = "00283000", "00283010"
_SHARED, _PER_FRAME = "52009229", "52009230"
_FRAME_VOI, _PIXEL_VALUES = "00289132", "00289145"
_PALETTES = (("00281101", "00281201", "00281221"), ("00281102", "00281202", "00281222"), ("00281103", "00281203", "00281223"))
_MOST_LUT_BYTES = 1 << 18
# PS3.3 C.7.6.16: beyond this, frames without an item of their own are shown by what all share.
_MOST_ITEMS = 1 << 20


@dataclass(frozen=True, slots=True)
class ImageModule:
    """How an image is shown; `frames` holds the transform of each frame where they differ."""

    form: PixelFormat
    transform: Transform
    frames: tuple[Transform, ...] = ()
    frame_ms: float = 100.0
    representative: int | None = None

    def transform_of(self, frame_number: int) -> Transform:
        """What turns the stored values of a frame into what is shown."""
        return self.frames[frame_number - 1] if frame_number <= len(self.frames) else self.transform


def number(document: Document, key: str, default: float | None = None) -> float | None:
    """The first value of an element as a finite number."""
    for value in values_of(document.get(key))[:1]:
        try:
            found = float(value)
        except ValueError:
            return default
        return found if math.isfinite(found) and abs(found) < 1e300 else default
    return default


def _whole(document: Document, key: str, default: int = 0) -> int:
    found = number(document, key)
    return default if found is None else int(found)


def _text(document: Document, key: str) -> str:
    return next(iter(values_of(document.get(key))), "").strip().upper()


def image_module(document: Document, bulk: Bulk) -> ImageModule:
    """The module of an image from its metadata; raises NotAcceptable when no picture can be made of it."""
    form = _form(document, bulk)
    photometric = form.photometric
    if form.samples > 1 or photometric == "PALETTE COLOR":
        return ImageModule(form, Transform(), (), _frame_ms(document), _representative(document))
    # A reversed monochrome image and the shape that reverses it are two names of one thing (PS3.3 C.11.6.1.2).
    invert = photometric == "MONOCHROME1" or _text(document, "20500020") == "INVERSE"
    top = _voi(_modality(Transform(invert=invert), document, bulk), document, form, bulk)
    shared = next(iter(items_of(document.get(_SHARED))), {})
    whole = _grouped(top, shared)
    groups = items_of(document.get(_PER_FRAME))[:_MOST_ITEMS]
    frames: tuple[Transform, ...] = ()
    if any(_FRAME_VOI in group or _PIXEL_VALUES in group for group in groups):
        known: dict[Transform, Transform] = {}
        made = (_grouped(whole, group) for group in groups)
        frames = tuple(known.setdefault(transform, transform) for transform in made)
    return ImageModule(form, whole, frames, _frame_ms(document), _representative(document))


def _form(document: Document, bulk: Bulk) -> PixelFormat:
    rows, columns = _whole(document, "00280010"), _whole(document, "00280011")
    real = "7FE00008" in document or "7FE00009" in document
    allocated = 64 if "7FE00009" in document else 32 if real else _whole(document, "00280100")
    if rows < 1 or columns < 1 or allocated < 1:
        raise NotAcceptable("The instance names no rows, columns or bits of its pixels.")
    stored = _whole(document, "00280101", allocated)
    stored = stored if 1 <= stored <= allocated else allocated
    high = _whole(document, "00280102", stored - 1)
    bits = Bits(allocated, stored, high if stored - 1 <= high < allocated else stored - 1, _whole(document, "00280103") == 1)
    samples = _whole(document, "00280002", 1)
    photometric = _text(document, "00280004") or ("MONOCHROME2" if samples == 1 else "RGB")
    palette = _palette(document, bulk) if photometric == "PALETTE COLOR" else None
    padding = _whole(document, "00280120", -(1 << 40))
    return PixelFormat(
        rows,
        columns,
        samples,
        photometric,
        bits,
        planar=_whole(document, "00280006") == 1,
        real=real,
        palette=palette,
        padding=padding if padding > -(1 << 40) else None,
    )


def _frame_ms(document: Document) -> float:
    """How long a frame of a cine loop is shown (PS3.3 C.7.6.5); a tenth of a second when nobody says."""
    for found in (number(document, "00181063"), next(iter(_vector(document)), None)):
        if found is not None and found > 0:
            return found
    rate = number(document, "00180040") or number(document, "00082144")
    return 1000.0 / rate if rate is not None and rate > 0 else 100.0


def _vector(document: Document) -> list[float]:
    """The second value of Frame Time Vector: the first is always zero."""
    texts = values_of(document.get("00181065"))[1:2]
    try:
        return [float(text) for text in texts if math.isfinite(float(text))]
    except ValueError:
        return []


def _representative(document: Document) -> int | None:
    found = _whole(document, "00286010")
    return found if found > 0 else None


def _modality(transform: Transform, document: Document, bulk: Bulk) -> Transform:
    table = next(iter(items_of(document.get(_MODALITY_LUT))), None)
    if table is not None:
        lut = _lut(table, "00283002", "00283006", f"{_MODALITY_LUT}/1/", bulk, _text(document, "00280103") == "1")
        if lut is not None:
            return replace(transform, modality=lut)
    return _rescaled(transform, document)


def _rescaled(transform: Transform, document: Document) -> Transform:
    slope, intercept = number(document, "00281053"), number(document, "00281052")
    if slope is None and intercept is None:
        return transform
    # A slope of zero would leave nothing to see; it is somebody's mistake.
    return replace(transform, slope=slope or 1.0, intercept=intercept or 0.0)


def _voi(transform: Transform, document: Document, form: PixelFormat, bulk: Bulk) -> Transform:
    table = next(iter(items_of(document.get(_VOI_LUT))), None)
    if table is not None:
        signed = transform.modality is None and (form.bits.signed or transform.intercept < 0)
        lut = _lut(table, "00283002", "00283006", f"{_VOI_LUT}/1/", bulk, signed)
        if lut is not None:
            return replace(transform, voi=lut)
    return replace(transform, window=_window(document))


def _window(document: Document) -> Window | None:
    """The first window; one of no width is none (PS3.3 C.11.2.1.2)."""
    center, width = number(document, "00281050"), number(document, "00281051")
    function = _text(document, "00281056")
    function = function if function in (LINEAR_EXACT, SIGMOID) else LINEAR
    if center is None or width is None or width <= 0 or (function == LINEAR and width < 1):
        return None
    return Window(center, width, function)


def _grouped(transform: Transform, group: Document) -> Transform:
    """With what a functional group says of a frame, or of all (PS3.3 C.7.6.16.2.9, C.7.6.16.2.10)."""
    for values in items_of(group.get(_PIXEL_VALUES))[:1]:
        transform = _rescaled(replace(transform, modality=None), values)
    for voi in items_of(group.get(_FRAME_VOI))[:1]:
        window = _window(voi)
        transform = replace(transform, window=window, voi=None) if window is not None else transform
    return transform


def _palette(document: Document, bulk: Bulk) -> tuple[Lut, Lut, Lut]:
    luts = [_colour(document, *keys, bulk) for keys in _PALETTES]
    return luts[0], luts[1], luts[2]


def _colour(document: Document, descriptor: str, data: str, segments: str, bulk: Bulk) -> Lut:
    lut = _lut(document, descriptor, data, "", bulk, False)
    if lut is None and segments in document:
        described = _descriptor(document, descriptor, False)
        raw = _bytes(document, segments, "", bulk)
        if described is not None and raw:
            lut = Lut(described[1], 16, segmented(raw))
    if lut is None or not lut.words:
        raise NotAcceptable("The palette of the image is missing or malformed.")
    return lut


def _descriptor(holder: Document, key: str, signed: bool) -> tuple[int, int, int] | None:
    """Number of entries, first value mapped, bits of an entry."""
    try:
        count, first, bits = (int(float(text)) for text in values_of(holder.get(key))[:3])
    except (ValueError, OverflowError):
        return None
    # Three numbers share a VR: as unsigned ones a negative first value is large, as signed ones many entries are negative.
    count = (count & 0xFFFF) or 1 << 16
    if signed and first >= 1 << 15:
        first -= 1 << 16
    return (count, first, bits) if 1 <= bits <= 16 else None


def _lut(holder: Document, descriptor: str, data: str, path: str, bulk: Bulk, signed: bool) -> Lut | None:
    described = _descriptor(holder, descriptor, signed)
    if described is None or data not in holder:
        return None
    count, first, bits = described
    raw = _bytes(holder, data, path, bulk)[:_MOST_LUT_BYTES]
    if bits <= 8 and count <= len(raw) < 2 * count:
        # Entries of 8 bits, two to a word (PS3.3 C.7.6.3.1.6).
        raw = b"".join(bytes((entry, 0)) for entry in raw[:count])
    raw = raw[: min(2 * count, len(raw) // 2 * 2)]
    return Lut(first, bits, raw) if raw else None


def _bytes(holder: Document, key: str, path: str, bulk: Bulk) -> bytes:
    """The value of an element of words, wherever it is."""
    element = holder[key]
    if "BulkDataURI" in element:
        return bulk(path + key)
    if "InlineBinary" in element:
        return base64.b64decode(element["InlineBinary"])
    try:
        return b"".join((int(value) & 0xFFFF).to_bytes(2, "little") for value in element.get("Value", ()))
    except (TypeError, ValueError):
        return b""
