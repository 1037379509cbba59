"""ICC profiles of the colour spaces that PS3.18 8.3.5.1.5 names, and pictures turned into them.

The profiles are made here (ICC.1:2001-04, three-component matrix profiles): the usual files are not ours to hand on, and
what they say is a white point, three primaries and a curve.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageCms

# Beyond any camera's; what a sender wrote is parsed by littlecms.
_MOST_PROFILE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Space:
    """Colorants (X, Y, Z of red, green, blue, relative to the white D50), and the gamma of the curve; 0 for sRGB's."""

    name: str
    red: tuple[float, float, float]
    green: tuple[float, float, float]
    blue: tuple[float, float, float]
    gamma: float


# IEC 61966-2-1, Adobe RGB (1998) 4.3.4 and ISO 22028-2 (ROMM), adapted to D50 by Bradford where they are not of that white.
_SPACES = {
    "srgb": _Space("sRGB", (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141), 0.0),
    "adobergb": _Space(
        "Adobe RGB (1998) compatible", (0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446), 563 / 256
    ),
    "rommrgb": _Space("ROMM RGB", (0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249), 1.8),
}
_WHITE_D50 = (0.9642, 1.0, 0.8249)


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _curve(gamma: float) -> bytes:
    if gamma:
        return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    steps = [x / 1023 for x in range(1024)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in steps]
    return b"curv" + bytes(4) + struct.pack(">I1024H", 1024, *(round(v * 65535) for v in linear))


def _text(text: str) -> bytes:
    return b"text" + bytes(4) + text.encode("ascii") + b"\0"


def _description(text: str) -> bytes:
    ascii_text = text.encode("ascii") + b"\0"
    return b"desc" + bytes(4) + struct.pack(">I", len(ascii_text)) + ascii_text + bytes(4 + 4 + 2 + 1 + 67)


@lru_cache
def profile_of(name: str) -> bytes:
    """The profile of a colour space by its name in the `iccprofile` parameter."""
    space = _SPACES[name]
    curve = _curve(space.gamma)
    tags = [
        (b"desc", _description(space.name)),
        (b"cprt", _text("No copyright, use freely")),
        (b"wtpt", b"XYZ " + bytes(4) + _fixed(*_WHITE_D50)),
        (b"rXYZ", b"XYZ " + bytes(4) + _fixed(*space.red)),
        (b"gXYZ", b"XYZ " + bytes(4) + _fixed(*space.green)),
        (b"bXYZ", b"XYZ " + bytes(4) + _fixed(*space.blue)),
        (b"rTRC", curve),
        (b"gTRC", curve),
        (b"bTRC", curve),
    ]
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for signature, data in tags:
        table += signature + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(4 + 4 + 4 + 4 + 8) + struct.pack(">I", 0) + _fixed(*_WHITE_D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def converted(image: Image.Image, profile: bytes | None, wanted: str) -> tuple[Image.Image, bytes]:
    """The picture in the colour space wanted (`yes`: as it is) and the profile to embed. Without a usable profile it is taken as sRGB."""
    source = _parsed(profile)
    if wanted == "yes":
        return image, profile if source is not None and profile is not None else profile_of("srgb")
    target = profile_of(wanted)
    if source is None:
        if wanted == "srgb":
            return image, target
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile_of("srgb")))
    try:
        turned = ImageCms.profileToProfile(image, source, ImageCms.ImageCmsProfile(io.BytesIO(target)), outputMode="RGB")
    except ImageCms.PyCMSError:
        return image, target
    return turned or image, target


def _parsed(profile: bytes | None) -> ImageCms.ImageCmsProfile | None:
    """The data set's own profile, when it is one for RGB."""
    if not profile or len(profile) > _MOST_PROFILE_BYTES or profile[16:20] != b"RGB ":
        return None
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except (OSError, ImageCms.PyCMSError):
        return None
