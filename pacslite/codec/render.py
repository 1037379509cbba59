"""One frame from its stored bytes to a file of the media type wanted, in one call of plain values.

A native frame is rendered where it is asked for; what has to be decoded is handed to a codec process, whole: what comes
back is the small result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pacslite.codec import render_image
from pacslite.codec.render_options import Options
from pacslite.codec.render_pixels import Picture, PixelFormat, native, picture
from pacslite.codec.render_values import Bits, Transform


def native_picture(data: bytes, form: PixelFormat, transform: Transform) -> Picture:
    """The picture of a native frame; raises NotAcceptable."""
    return picture(native(data, form), form, transform)


def decoded_picture(code_stream: bytes, syntax: str, form: PixelFormat, transform: Transform) -> Picture:
    """The picture of a compressed frame; raises NotAcceptable."""
    from pacslite.codec.pixels import PixelDescription, decode_frame

    bits = form.bits
    description = PixelDescription(
        form.rows,
        form.columns,
        bits.allocated,
        bits.stored,
        form.samples,
        form.photometric,
        bits.signed,
        form.planar,
        bits.high,
        form.real,
    )
    decoded = decode_frame(code_stream, description, syntax)
    samples = decoded.array
    if samples.dtype.kind == "i":
        samples = samples.view(samples.dtype.str.replace("i", "u"))
    allocated = samples.dtype.itemsize * 8
    # The decoder has put the value into the lowest bits and undone what compression does to colours.
    stored = min(bits.stored, allocated)
    form = replace(form, bits=Bits(allocated, stored, stored - 1, bits.signed), photometric=decoded.photometric_interpretation)
    return picture(samples, form, transform)


def decoded_file(
    code_stream: bytes,
    syntax: str,
    form: PixelFormat,
    transform: Transform,
    options: Options,
    annotation: Sequence[str],
    profile: bytes | None,
) -> bytes:
    """A compressed frame as a file; for a codec process."""
    return render_image.encode(decoded_picture(code_stream, syntax, form, transform), options, annotation, profile)


def decoded_in_viewport(
    code_stream: bytes, syntax: str, form: PixelFormat, transform: Transform, options: Options
) -> tuple[tuple[int, ...], bytes]:
    """Shape and samples of the picture of a compressed frame, fitted into the viewport; for a codec process."""
    found = decoded_picture(code_stream, syntax, form, transform)
    if options.viewport is not None:
        from PIL import Image

        found = np.asarray(render_image.fit(Image.fromarray(found), options.viewport))
    return found.shape, found.tobytes()
