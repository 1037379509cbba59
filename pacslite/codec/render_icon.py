"""Drawn icons for what has no picture: a sheet with the kind of object on it, and nothing of the patient."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from pacslite.codec.render_image import font
from pacslite.codec.render_pixels import Picture

_SIDE = 256
_GROUND, _SHEET, _INK, _LINE = (32, 36, 44), (236, 240, 244), (40, 60, 96), (176, 188, 204)
_VIDEO = "VIDEO"


def icon(label: str) -> Picture:
    """A square picture with a short label."""
    image = Image.new("RGB", (_SIDE, _SIDE), _GROUND)
    draw = ImageDraw.Draw(image)
    (_film if label == _VIDEO else _sheet)(draw)
    text = font(44 if len(label) < 5 else 30)
    draw.text((_SIDE / 2, 174 if label == _VIDEO else 186), label, font=text, fill=_INK, anchor="mm")
    return np.asarray(image)


def _sheet(draw: ImageDraw.ImageDraw) -> None:
    """A page with its corner turned and some lines."""
    left, top, right, bottom, fold = 52, 24, 204, 232, 40
    draw.polygon([(left, top), (right - fold, top), (right, top + fold), (right, bottom), (left, bottom)], fill=_SHEET)
    draw.polygon([(right - fold, top), (right - fold, top + fold), (right, top + fold)], fill=_LINE)
    for number in range(4):
        y = 76 + 22 * number
        draw.rectangle((left + 20, y, right - (56 if number in (0, 3) else 20), y + 7), fill=_LINE)


def _film(draw: ImageDraw.ImageDraw) -> None:
    """A triangle in a frame with perforation."""
    draw.rectangle((24, 40, 232, 216), fill=_SHEET)
    for x in range(34, 232, 24):
        draw.rectangle((x, 48, x + 11, 59), fill=_GROUND)
        draw.rectangle((x, 208 - 11, x + 11, 208), fill=_GROUND)
    draw.polygon([(104, 68), (104, 148), (172, 108)], fill=_INK)
