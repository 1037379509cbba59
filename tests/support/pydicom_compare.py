"""pydicom as the second opinion on data sets and frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom import config
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRBigEndian

from tests.support.data_sets import NATIVE


def differing(one: Dataset, other: Dataset) -> list[str]:
    """The elements that differ between two data sets in any native transfer syntax; group lengths and padding do not count."""
    known, config.replace_un_with_known_vr = config.replace_un_with_known_vr, False
    try:
        return _differing(one, other, "", (_is_big_endian(one), _is_big_endian(other)))
    finally:
        config.replace_un_with_known_vr = known


def _is_big_endian(ds: Dataset) -> bool:
    return getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID") == ExplicitVRBigEndian


def _differing(one: Dataset, other: Dataset, path: str, swap: tuple[bool, bool]) -> list[str]:
    found = []
    tags = {tag for ds in (one, other) for tag in ds.keys() if tag.element and tag != 0xFFFCFFFC}  # noqa: SIM118  get_item needs tags
    for tag in sorted(tags):
        a, b, where = _element(one, tag), _element(other, tag), f"{path}{tag}"
        if a is None or b is None:
            found.append(f"{where} is only in {'the second' if a is None else 'the first'}")
        elif "SQ" in (a.VR, b.VR) and a.VR == b.VR:
            if len(a.value) != len(b.value):
                found.append(f"{where}: {len(a.value)} and {len(b.value)} items")
            for index, items in enumerate(zip(a.value, b.value, strict=False), 1):
                found += _differing(*items, f"{where}/{index}/", swap)
        elif "UN" not in (a.VR, b.VR) and _value(a, swap[0]) != _value(b, swap[1]):
            found.append(f"{where}: {a.VR} {a.value!r:.60} and {b.VR} {b.value!r:.60}")
    return found


def _element(ds: Dataset, tag: BaseTag) -> DataElement | RawDataElement | None:
    """An element as pydicom understands it, or with its bytes when pydicom cannot."""
    try:
        return ds.get(tag)
    except (NotImplementedError, ValueError):
        return ds.get_item(tag)


def _value(element: Any, swap: bool) -> Any:
    """A value in little endian, comparable (a NaN is itself)."""
    value = element.value
    if isinstance(value, bytes):
        width = {"OW": "u2", "OF": "u4", "OL": "u4", "OD": "u8", "OV": "u8"}.get(str(element.VR))
        return np.frombuffer(value, f">{width}").astype(f"<{width}").tobytes() if swap and width else value
    return str(value)


def frame(ds: Dataset, syntax: str, number: int, count: int) -> bytes | None:
    """The bytes of one of `count` frames, in little endian; None when pydicom cannot tell them apart."""
    if syntax not in NATIVE:
        try:
            return _without_boxes(get_frame(ds.PixelData, number - 1, number_of_frames=count))
        except ValueError:
            return None
    pixels = _value(ds["PixelData"], syntax == ExplicitVRBigEndian)
    samples = ds.Rows * ds.Columns * ds.get("SamplesPerPixel", 1)
    if ds.get("PhotometricInterpretation") in ("YBR_FULL_422", "YBR_PARTIAL_422"):
        samples = samples // 3 * 2
    if ds.BitsAllocated == 1:
        bits = np.unpackbits(np.frombuffer(pixels, np.uint8), bitorder="little")[(number - 1) * samples : number * samples]
        return np.packbits(bits, bitorder="little").tobytes()
    length = samples * ds.BitsAllocated // 8
    return bytes(pixels[(number - 1) * length : number * length])


def _without_boxes(frame: bytes) -> bytes:
    """The code stream of a JP2 file (ISO/IEC 15444-1 I.5.4), which some writers encapsulate: it alone is the frame (Checklist 89)."""
    at = frame.find(b"jp2c") if frame[4:8] == b"jP  " else -1
    length = int.from_bytes(frame[at - 4 : at], "big") - 8
    return frame if at < 0 else frame[at + 4 : at + 4 + length] if length > 0 else frame[at + 4 :]
