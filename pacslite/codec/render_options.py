"""How a picture is wanted: the values behind the query parameters of PS3.18 8.3.5."""

from __future__ import annotations

from dataclasses import dataclass

LINEAR, LINEAR_EXACT, SIGMOID = "LINEAR", "LINEAR_EXACT", "SIGMOID"
JPEG, PNG, GIF, WEBP, JP2 = "image/jpeg", "image/png", "image/gif", "image/webp", "image/jp2"
# What pictures are encoded as; the first one is the default (Table 8.7.4-1).
IMAGE_TYPES = (JPEG, PNG, GIF, WEBP, JP2)
# Types that can carry an ICC profile as we write them.
WITH_PROFILE = frozenset({JPEG, PNG, WEBP})
LOSSY = frozenset({JPEG, WEBP})
PROFILES = ("no", "yes", "srgb", "adobergb", "rommrgb")
DEFAULT_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Window:
    """A window of values and its function (PS3.3 C.11.2.1)."""

    center: float
    width: float
    function: str = LINEAR


@dataclass(frozen=True, slots=True)
class Viewport:
    """A box to fit the picture into, and the source region; its negative sizes flip (PS3.18 8.3.5.1.3).

    `width` and `height` of the region None: up to the edge of the picture.
    """

    columns: int
    rows: int
    x: float = 0.0
    y: float = 0.0
    width: float | None = None
    height: float | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """Everything a request may say about one picture."""

    media_type: str = JPEG
    quality: int = DEFAULT_QUALITY
    window: Window | None = None
    viewport: Viewport | None = None
    annotation: frozenset[str] = frozenset()
    icc: str = "no"
