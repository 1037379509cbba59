"""Pictures in a viewport, annotated and encoded (PS3.18 8.3.5.1, 8.7.4)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from PIL import GifImagePlugin, Image, ImageDraw, ImageFont, Jpeg2KImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from pacslite.codec.render_options import GIF, JP2, JPEG, LOSSY, PNG, WEBP, WITH_PROFILE, Options, Viewport
from pacslite.errors import BadRequest, TooLarge

if TYPE_CHECKING:
    from pacslite.codec.render_pixels import Picture

# Their modules are named so that Pillow does not load all that it has for the first picture.
_FORMATS = {
    JPEG: JpegImagePlugin.JpegImageFile.format,
    PNG: PngImagePlugin.PngImageFile.format,
    GIF: GifImagePlugin.GifImageFile.format,
    WEBP: WebPImagePlugin.WebPImageFile.format,
    JP2: Jpeg2KImagePlugin.Jpeg2KImageFile.format,
}
_MOST_COLUMNS = {JPEG: 65500, GIF: 65535, WEBP: 16383}
_SHORTEST_FRAME_MS, _LONGEST_FRAME_MS = 20, 10_000


def encode(picture: Picture, options: Options, annotation: Sequence[str] = (), profile: bytes | None = None) -> bytes:
    """One picture as a file of the media type wanted; `profile` is the ICC profile its colours are in."""
    image = _finished(Image.fromarray(picture), options, annotation)
    image, embedded = _in_colour_space(image, options, profile)
    return _saved(image, options, embedded)


def encode_animation(pictures: Iterator[Picture], options: Options, frame_ms: float, annotation: Sequence[str] = ()) -> bytes:
    """Several pictures as an animated GIF; `frame_ms` is how long each is shown. Holds only one unpacked picture at a time."""
    images = (_palette(_finished(Image.fromarray(picture), options, annotation)) for picture in pictures)
    first = next(images)
    out = io.BytesIO()
    # Browsers slow frames of less than 20 ms down to 100 ms.
    duration = round(min(max(frame_ms, _SHORTEST_FRAME_MS), _LONGEST_FRAME_MS))
    # Frames that repeat the one before must stay, for their time.
    first.save(out, "GIF", save_all=True, append_images=images, duration=duration, loop=0, optimize=False)
    return out.getvalue()


def _finished(image: Image.Image, options: Options, annotation: Sequence[str]) -> Image.Image:
    if options.viewport is not None:
        image = fit(image, options.viewport)
    most = _MOST_COLUMNS.get(options.media_type)
    if most is not None and max(image.size) > most:
        raise TooLarge(f"{options.media_type} holds no picture of more than {most} rows or columns; ask for a smaller viewport.")
    return annotated(image, annotation) if annotation else image


def fit(image: Image.Image, viewport: Viewport) -> Image.Image:
    """The source region scaled to fit the viewport, its aspect kept; raises BadRequest for a region beside the picture."""
    width = image.width - viewport.x if viewport.width is None else viewport.width
    height = image.height - viewport.y if viewport.height is None else viewport.height
    left, top = max(viewport.x, 0.0), max(viewport.y, 0.0)
    right, bottom = min(viewport.x + abs(width), float(image.width)), min(viewport.y + abs(height), float(image.height))
    if right - left < 1e-6 or bottom - top < 1e-6:
        raise BadRequest("viewport: the source region holds nothing of the picture.")
    scale = min(viewport.columns / (right - left), viewport.rows / (bottom - top))
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    if size != image.size or (left, top, right, bottom) != (0.0, 0.0, image.width, image.height):
        image = image.resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom), reducing_gap=2.0)
    if width < 0:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if height < 0:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return image


@lru_cache(maxsize=16)
def font(size: int) -> Any:
    """A font that needs nothing installed; where the usual one of many scripts is there, that."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def annotated(image: Image.Image, lines: Sequence[str]) -> Image.Image:
    """The picture with lines of text burnt into its upper left corner, light with a dark rim."""
    size = max(9, min(image.width, image.height) // 32)
    drawn = image.copy()
    ink, rim = (255, 0) if image.mode == "L" else ((255, 255, 255), (0, 0, 0))
    draw = ImageDraw.Draw(drawn)
    draw.multiline_text(
        (size // 2, size // 2), "\n".join(lines), font=font(size), fill=ink, stroke_width=max(1, size // 12), stroke_fill=rim
    )
    return drawn


def _in_colour_space(image: Image.Image, options: Options, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """The picture and the profile to embed (PS3.18 8.3.5.1.5): the data set's own, else sRGB, or the one asked for."""
    if options.icc == "no":
        return image, None
    from pacslite.codec import render_icc

    if image.mode == "L":
        # Grey is made for a monitor, not measured: as neutral colours it keeps its meaning in every space.
        image, profile = image.convert("RGB"), None
    return render_icc.converted(image, profile, options.icc)


def _palette(image: Image.Image) -> Image.Image:
    return image if image.mode == "L" else image.quantize(256, Image.Quantize.MEDIANCUT)


def _saved(image: Image.Image, options: Options, profile: bytes | None) -> bytes:
    out = io.BytesIO()
    more: dict[str, Any] = {"quality": options.quality} if options.media_type in LOSSY else {}
    if profile is not None and options.media_type in WITH_PROFILE:
        more["icc_profile"] = profile
    if options.media_type == PNG:
        # The fast end: at level 6 a slice takes four times as long and is 5 percent smaller.
        more["compress_level"] = 2
    elif options.media_type == GIF:
        image = _palette(image)
    elif options.media_type == JPEG and options.quality >= 95 and image.mode != "L":
        more["subsampling"] = 0
    elif options.media_type == WEBP:
        more["method"] = 2
    image.save(out, _FORMATS[options.media_type], **more)
    return out.getvalue()
