"""PNG and GIF to native pixels without loss (PS3.18 Table 10.5.2-1), one frame in memory at a time."""

from __future__ import annotations

import io
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacslite.dicom.code_stream import Picture, Read
from pacslite.dicom.data_set import EXPLICIT
from pacslite.errors import DataSetTooLarge, InvalidMetadata

if TYPE_CHECKING:
    from PIL.Image import Image

# Of one frame; what is above has to be sent as pixels or compressed.
_MOST_PIXELS = 40_000_000
_IMAGE_MODES = {"1": "L", "L": "L", "LA": "L", "I;16": "I;16", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB"}
# What the library raises for damage, as the case may be.
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, struct.error)
_WRITE_BYTES = 1024 * 1024
# Bounds the memory of a process, whatever the number of its threads.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the picture is made of, the milliseconds of a frame (0 when it does not tell), and its little endian pixels."""

    picture: Picture
    frame_time_ms: float
    pixels: Iterator[bytes]


def decode(read: Read, size: int, max_bytes: int) -> Decoded:
    """A PNG or GIF; raises InvalidMetadata when it is broken or cannot be kept without loss, DataSetTooLarge."""
    from PIL import Image, UnidentifiedImageError

    head = read(0, 26)
    if head.startswith(b"\x89PNG") and len(head) == 26 and head[24] == 16 and head[25]:
        raise InvalidMetadata("a PNG of 16 bits in colour or with transparency is not taken; send its pixels as octets")
    try:
        image = Image.open(io.BufferedReader(_Region(read, size)), formats=("PNG", "GIF"))
    except (UnidentifiedImageError, Image.DecompressionBombError, *_BROKEN):
        raise InvalidMetadata("the bulk data is no PNG or GIF") from None
    mode = "RGB" if image.format == "GIF" else _IMAGE_MODES.get(image.mode, "")
    if not mode:
        raise InvalidMetadata(f"a picture of mode {image.mode} is not taken")
    try:
        frames = int(getattr(image, "n_frames", 1))
    except _BROKEN:
        raise InvalidMetadata("the picture is broken") from None
    samples, bits = (3 if mode == "RGB" else 1), (16 if mode == "I;16" else 8)
    if image.width * image.height > _MOST_PIXELS or image.width * image.height * samples * bits // 8 * frames > max_bytes:
        raise DataSetTooLarge(f"a frame of more than {_MOST_PIXELS} pixels, or more than {max_bytes} bytes of them")
    photometric = "RGB" if samples == 3 else "MONOCHROME2"
    picture = Picture(EXPLICIT, image.height, image.width, samples, bits, False, photometric, frames)
    return Decoded(picture, float(image.info.get("duration", 0)) if frames > 1 else 0.0, _pixels(image, mode, frames))


def _pixels(image: Image, mode: str, frames: int) -> Iterator[bytes]:
    with _one_at_a_time:
        for number in range(frames):
            try:
                image.seek(number)
                raw = memoryview(_opaque(image, mode).tobytes())
            except _BROKEN:
                raise InvalidMetadata("the picture is broken") from None
            for at in range(0, len(raw), _WRITE_BYTES):
                yield bytes(raw[at : at + _WRITE_BYTES])


def _opaque(image: Image, mode: str) -> Image:
    """The frame in the mode that holds all of it; DICOM pixels have no transparency."""
    may_be = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    if may_be and (mode == "I;16" or image.convert("RGBA").getchannel("A").getextrema()[0] != 255):
        raise InvalidMetadata("a picture with transparent pixels cannot be kept without loss")
    return image if image.mode == mode else image.convert(mode)


class _Region(io.RawIOBase):
    """Some bytes of a file as a file."""

    def __init__(self, read: Read, size: int) -> None:
        self._read, self._size, self._at = read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence], 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._read(self._at, min(len(buffer), max(self._size - self._at, 0)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
