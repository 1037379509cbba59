"""Smaller pictures of photos: upright, in sRGB, on white, without any metadata. Runs in a process of its own (`apart`)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from pacslite.codec.apart import NO_ROOM
from pacslite.errors import UndecodablePixels

MAX_PIXELS = 100_000_000
TASK = "pacslite.codec.pictures:make"

Wanted = tuple[str, int, int]
"""Where a picture is to be written, its largest dimension in pixels, and its JPEG quality."""

_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "AVIF", "HEIF")
_ORIENTATION = 0x0112
_PHOTOMETRIC, _SAMPLE_FORMAT = 0x0106, 0x0153  # TIFF 6.0; 0: white is zero, 1: unsigned
# Colour spaces of ICC profiles (ICC.1, Table 19), by the mode of the pixels that they can be for.
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
_PERCEPTUAL = ImageCms.Intent.PERCEPTUAL
_TWELVE_BITS = 0x0FFF


def make(path: str, wanted: Sequence[Wanted], max_pixels: int = MAX_PIXELS) -> dict[str, Any]:
    """Write the pictures of a photo; what was found out about it. Raises UndecodablePixels."""
    Image.MAX_IMAGE_PIXELS = None  # the bound here is our own, and no warning
    try:
        _open_heif()
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise UndecodablePixels(f"The picture has {image.width} x {image.height} pixels; no more than {max_pixels} are taken.")
            return _make(image, wanted)
    except UnidentifiedImageError as error:
        raise UndecodablePixels("The picture is damaged, or of a kind that is not read.") from error
    except (OSError, ValueError, SyntaxError, TypeError, IndexError, KeyError, EOFError, OverflowError, ArithmeticError) as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        raise UndecodablePixels(f"The picture is damaged: {error}"[:300]) from error


def _open_heif() -> None:
    import pi_heif

    pi_heif.register_heif_opener(thumbnails=False)


def _make(image: Image.Image, wanted: Sequence[Wanted]) -> dict[str, Any]:
    size, mode = image.size, image.mode
    largest = max(pixels for _, pixels, _ in wanted)
    # A JPEG is decoded at 1/2, 1/4 or 1/8 of its size when that will do.
    image.draft(None, (largest, largest))
    image.load()
    orientation = _orientation_of(image)  # what is left of it: Pillow turns TIFF and HEIC while it loads them
    profile = image.info.get("icc_profile")
    shown = upright(in_srgb(fitted(plain(image), largest), profile), orientation)
    write(shown, wanted)
    width, height = size if orientation < 5 else (size[1], size[0])
    return {"width": width, "height": height, "mode": mode}


def write(image: Image.Image, wanted: Sequence[Wanted]) -> None:
    """A picture in all the sizes wanted, never enlarged; each is made of the next larger one."""
    shown = on_white(image)
    for path, pixels, quality in sorted(wanted, key=lambda one: -one[1]):
        shown = fitted(shown, pixels)
        bare = shown.copy()
        bare.info = {}  # nothing of it is to be written again
        bare.save(path, "JPEG", quality=quality, optimize=True)


def write_png(data: bytes, wanted: Sequence[Wanted]) -> None:
    """The same of a picture that one of our own encoders has made."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        write(plain(image), wanted)


def fitted(image: Image.Image, pixels: int) -> Image.Image:
    """The picture with no dimension above `pixels`."""
    ratio = pixels / max(image.size)
    if ratio >= 1:
        return image
    size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def plain(image: Image.Image) -> Image.Image:
    """The same pixels with 8 bits in a sample and without a palette; what is transparent has an alpha channel."""
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image)
    if "transparency" in image.info or image.mode in ("PA", "LA", "La", "RGBa"):
        return image.convert("RGBA")
    if image.mode == "P":
        return image.convert("RGBA" if image.palette is not None and image.palette.mode == "RGBA" else "RGB")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB", "RGBA", "CMYK", "LAB") else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Deep greys. Values of up to 12 bits, as radiographs have them, use the whole range of theirs; others that of 16."""
    values = _deep_values(image)
    if image.mode == "F":
        return _stretched(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0))
    if int(values.min(initial=0)) < 0:
        return _stretched(values)
    highest = int(values.max(initial=0))
    bits = 12 if 255 < highest <= _TWELVE_BITS else max(8, 16 if highest <= 0xFFFF else highest.bit_length())
    return Image.fromarray((np.clip(values, 0, None) >> (bits - 8)).astype(np.uint8))


def _deep_values(image: Image.Image) -> np.ndarray[Any, Any]:
    """The numbers as a TIFF means them: Pillow takes unsigned ones of 32 bits for signed, and those of 16 with white as zero for black."""
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode == "I" and tags.get(_SAMPLE_FORMAT, (1,))[0] == 1 and tags:
        return values.view(np.uint32)
    if image.mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == 0:
        return (_TWELVE_BITS if int(values.max(initial=0)) <= _TWELVE_BITS else 0xFFFF) - values
    return values


def _stretched(values: np.ndarray[Any, Any]) -> Image.Image:
    """The lowest value is black, the highest white."""
    low, high = float(values.min()), float(values.max())
    return Image.fromarray(((values - low) * (255.0 / max(high - low, 1e-30))).astype(np.uint8))


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Grey or RGB (with alpha, if any), by the profile where there is one that fits."""
    if image.mode == "RGBA":
        alpha = image.getchannel("A")
        colours = in_srgb(image.convert("RGB"), profile)
        colours.putalpha(alpha)
        return colours
    if profile or image.mode == "LAB":
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile) if profile else ImageCms.createProfile("LAB"))
            if image.mode == "LAB" or str(source.profile.xcolor_space).strip() == _SPACES.get(image.mode):
                target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
                found = ImageCms.profileToProfile(image, source, target, _PERCEPTUAL, outputMode="RGB")
                if found is not None:
                    return found
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a damaged profile: the pixels are shown as they are
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def on_white(image: Image.Image) -> Image.Image:
    """Without transparency."""
    if image.mode != "RGBA":
        return image if image.mode in ("L", "RGB") else image.convert("RGB")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _orientation_of(image: Image.Image) -> int:
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged metadata are no reason to show nothing
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turned as the orientation of Exif says."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image
