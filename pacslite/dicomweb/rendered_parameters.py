"""Query parameters of rendering (PS3.18 8.3.5), strictly read; WADO-URI has its own names for some of them."""

from __future__ import annotations

import math
import re

from pacslite.codec.render_options import (
    DEFAULT_QUALITY,
    LINEAR,
    LINEAR_EXACT,
    PROFILES,
    SIGMOID,
    WITH_PROFILE,
    Options,
    Viewport,
    Window,
)
from pacslite.core.rendering_text import ANNOTATIONS
from pacslite.errors import BadRequest
from pacslite.web.messages import Request

_FUNCTIONS = {"linear": LINEAR, "linear-exact": LINEAR_EXACT, "sigmoid": SIGMOID}
_DECIMAL = re.compile(r"[+-]?(?:\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})(?:[eE][+-]?\d{1,3})?", re.ASCII)
_POSITIVE = re.compile(r"0{0,4}[1-9]\d{0,4}", re.ASCII)
_MOST_PIXELS_ASIDE = 65535


def options(request: Request, media_type: str, thumbnail: bool = False) -> tuple[Options, list[str]]:
    """What the request says of the picture, and warnings for what is ignored; raises BadRequest.

    A thumbnail knows only the viewport (Table 8.3.5-2).
    """
    viewport = _given(request, "viewport")
    view = None if viewport is None else parse_viewport(viewport)
    if thumbnail:
        return Options(media_type, viewport=view), []
    quality, window = _given(request, "quality"), _given(request, "window")
    wanted, warnings = parse_annotation(_given(request, "annotation"))
    made = Options(
        media_type,
        DEFAULT_QUALITY if quality is None else parse_quality(quality),
        None if window is None else parse_window(window),
        view,
        wanted,
        parse_icc(_given(request, "iccprofile"), media_type),
    )
    return made, warnings


def _given(request: Request, name: str) -> str | None:
    values = request.arguments(name)
    if len(values) > 1:
        raise BadRequest(f"{name} is given twice.")
    return values[0] if values else None


def _number(name: str, text: str) -> float:
    value = float(text) if _DECIMAL.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise BadRequest(f"{name}: a value is no decimal number.")
    return value


def parse_window(text: str) -> Window:
    """`center,width,function` (8.3.5.1.4); raises BadRequest."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3:
        raise BadRequest("window: center, width and function are all needed.")
    return window_of(parts[0], parts[1], parts[2])


def window_of(center: str, width: str, function: str = "linear") -> Window:
    """A window of texts; raises BadRequest."""
    if function not in _FUNCTIONS:
        raise BadRequest("window: the function is linear, linear-exact or sigmoid.")
    found = Window(_number("window", center), _number("window", width), _FUNCTIONS[function])
    # PS3.3 C.11.2.1.2.1 and C.11.2.1.3.
    if found.width <= 0 or (found.function == LINEAR and found.width < 1):
        raise BadRequest("window: the width is too small; linear needs at least 1, the others more than 0.")
    return found


def parse_viewport(text: str) -> Viewport:
    """`vw,vh[,sx,sy[,sw,sh]]` (8.3.5.1.3); what is left empty between commas has its default. Raises BadRequest."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) not in (2, 4, 6):
        raise BadRequest("viewport: two, four or six numbers are needed.")
    if not _POSITIVE.fullmatch(parts[0]) or not _POSITIVE.fullmatch(parts[1]):
        raise BadRequest("viewport: width and height are positive integers.")
    columns, rows = int(parts[0]), int(parts[1])
    if max(columns, rows) > _MOST_PIXELS_ASIDE:
        raise BadRequest(f"viewport: no more than {_MOST_PIXELS_ASIDE} rows and columns.")
    x, y, width, height = (_number("viewport", part) if part else None for part in (*parts[2:], *[""] * (6 - len(parts))))
    if (x or 0.0) < 0 or (y or 0.0) < 0:
        raise BadRequest("viewport: the source region begins inside the picture.")
    if width == 0 or height == 0:
        raise BadRequest("viewport: the source region is empty.")
    return Viewport(columns, rows, x or 0.0, y or 0.0, width, height)


def parse_quality(text: str) -> int:
    """1 to 100 (8.3.5.1.2); raises BadRequest."""
    if not re.fullmatch(r"\d{1,3}", text, re.ASCII) or not 1 <= int(text) <= 100:
        raise BadRequest("quality is a whole number from 1 to 100.")
    return int(text)


def parse_annotation(text: str | None) -> tuple[frozenset[str], list[str]]:
    """The annotations known, and a warning for others (8.3.5.1.1); raises BadRequest when there is none."""
    if text is None:
        return frozenset(), []
    given = [part.strip() for part in text.split(",")]
    if not all(given):
        raise BadRequest("annotation is empty.")
    unknown = [part for part in given if part not in ANNOTATIONS]
    warning = f"The following annotation values are not supported: {', '.join(_shown(part) for part in unknown)}"
    return frozenset(given) - set(unknown), [warning] if unknown else []


def _shown(text: str) -> str:
    """A caller's own text, fit for a header."""
    return re.sub(r"[^A-Za-z0-9._-]", "?", text[:32])


def parse_icc(text: str | None, media_type: str) -> str:
    """no, yes or a colour space (8.3.5.1.5); raises BadRequest, also for a media type that cannot carry a profile."""
    if text is None:
        return "no"
    if text not in PROFILES:
        raise BadRequest(f"iccprofile is one of {', '.join(PROFILES)}.")
    if text != "no" and media_type not in WITH_PROFILE:
        raise BadRequest(f"iccprofile: {media_type} as written here has no ICC profile.")
    return text
