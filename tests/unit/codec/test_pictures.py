"""Pictures of photos, whatever the format: upright, in their colours, on white, without metadata, and nothing hostile gets through."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from pacslite.codec import pictures
from pacslite.errors import UndecodablePixels
from tests.support import media

SIZES = ((1200, 85), (800, 80), (200, 75))


def made(data: bytes, directory: Path, **options: int) -> list[Image.Image]:
    """The three pictures."""
    source = directory / "source"
    source.write_bytes(data)
    wanted = [(str(directory / f"{pixels}.jpg"), pixels, quality) for pixels, quality in SIZES]
    pictures.make(str(source), wanted, **options)
    return [Image.open(io.BytesIO(Path(path).read_bytes()), formats=["JPEG"]) for path, _, _ in wanted]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
def test_every_format(tmp_path: Path, form: str) -> None:
    large, medium, thumbnail = made(media.encoded(media.photo(), form), tmp_path)
    assert [one.size for one in (large, medium, thumbnail)] == [(1200, 750), (800, 500), (200, 125)]
    assert all(media.is_the_photo(one) for one in (large, medium, thumbnail))


def test_heic(tmp_path: Path) -> None:
    large, _, _ = made(media.heic(media.photo(), tmp_path), tmp_path)
    assert large.size == (1200, 750)
    assert media.is_the_photo(large)


# How pixels of each orientation have to be stored so that the scene is upright (Exif 2.32, 4.6.4, tag 0112).
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(tmp_path: Path, orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    scene = media.photo(600, 400)
    stored = scene.transpose(STORED[orientation]) if orientation in STORED else scene
    large, _, thumbnail = made(media.encoded(stored, form, exif=exif, **({} if form in ("PNG", "TIFF") else {"quality": 92})), tmp_path)
    assert large.size == (600, 400)
    assert media.is_the_photo(thumbnail)


def test_a_place_in_the_metadata_is_left_out(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[29] = "2024:SECRET"
    xmp = b"<x:xmpmeta>SECRET</x:xmpmeta>"
    source = media.encoded(media.photo(300, 200), "JPEG", exif=exif, xmp=xmp, comment=b"SECRET")
    assert source.count(b"SECRET") == 3
    for picture in made(source, tmp_path):
        assert not picture.getexif()
        assert not {"xmp", "comment", "icc_profile", "exif"} & set(picture.info)
    assert all(b"SECRET" not in (tmp_path / f"{pixels}.jpg").read_bytes() for pixels, _ in SIZES)


def test_colours_by_the_profile(tmp_path: Path) -> None:
    lab = ImageCms.createProfile("LAB")
    data = io.BytesIO()
    # The same scene in another colour space, told by its profile: CIE L*a*b*.
    scene = media.photo(300, 200)
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    ImageCms.applyTransform(scene, transform).save(data, "TIFF")  # type: ignore[union-attr]
    assert media.is_the_photo(made(data.getvalue(), tmp_path)[0])


def test_a_profile_moves_colours_to_srgb(tmp_path: Path) -> None:
    swapped = _matrix_profile()
    plain = made(media.encoded(media.photo(300, 200), "PNG"), tmp_path)[0].getpixel((20, 20))
    shown = made(media.encoded(media.photo(300, 200), "PNG", icc_profile=swapped), tmp_path)[0].getpixel((20, 20))
    assert isinstance(plain, tuple)
    assert isinstance(shown, tuple)
    assert plain[0] > 230 > 40 > plain[1]
    # The primaries of red and green have changed places.
    assert shown[1] > 180 > 90 > shown[0]


def _matrix_profile() -> bytes:
    """The profile of sRGB with the columns of red and green exchanged (ICC.1, 8.3.3: the tags rXYZ and gXYZ)."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data = data.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    return bytes(data)


def test_a_damaged_profile_is_passed_over(tmp_path: Path) -> None:
    assert media.is_the_photo(made(media.encoded(media.photo(300, 200), "PNG", icc_profile=b"no profile"), tmp_path)[0])


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    scene = media.photo(300, 200).convert("RGBA")
    scene.paste((0, 0, 0, 0), (150, 0, 300, 100))
    for form in ("PNG", "WEBP"):
        assert made(media.encoded(scene, form), tmp_path)[0].getpixel((250, 50)) == pytest.approx((255, 255, 255), abs=3)
    palette = media.photo(300, 200).quantize(16)
    palette.info["transparency"] = palette.getpixel((10, 10))
    assert made(media.encoded(palette, "GIF"), tmp_path)[0].getpixel((10, 10)) == pytest.approx((255, 255, 255), abs=3)


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk(tmp_path: Path, form: str) -> None:
    assert media.is_the_photo(made(media.encoded(media.photo(300, 200).convert("CMYK"), form, quality=92), tmp_path)[0])


@pytest.mark.parametrize(("factor", "expected"), [(16, 200), (257, 200)])
def test_deep_greys_keep_their_brightness(tmp_path: Path, factor: int, expected: int) -> None:
    values = np.full((40, 60), 200 * factor, np.uint16)
    values[0] = 255 * factor
    for form in ("PNG", "TIFF"):
        assert made(media.encoded(Image.fromarray(values), form), tmp_path)[0].getpixel((30, 30)) == pytest.approx(expected, abs=2)


def _tiff(values: np.ndarray[Any, Any], photometric: int, sample_format: int) -> bytes:
    """One strip of grey numbers (TIFF 6.0, 2 and 8)."""
    height, width = values.shape
    fields = {
        256: width,
        257: height,
        258: values.itemsize * 8,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: height,
        279: values.nbytes,
        339: sample_format,
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    return b"II*\0" + struct.pack("<I", 8 + values.nbytes) + values.tobytes() + struct.pack("<H", len(fields)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("kind", "factor", "offset", "photometric", "sample_format"),
    [
        ("<u2", 257, 0, 1, 1),
        ("<u2", -257, 0xFFFF, 0, 1),
        ("<u2", -16, 0x0FFF, 0, 1),
        ("<i2", 257, -0x8000, 1, 2),
        ("<i4", 0x1000000, -0x80000000, 1, 2),
        ("<u4", 0x1010101, 0, 1, 1),
        ("|u1", -1, 0xFF, 0, 1),
    ],
)
def test_numbers_of_a_tiff_are_what_they_mean(
    tmp_path: Path, kind: str, factor: int, offset: int, photometric: int, sample_format: int
) -> None:
    """Scanned radiographs come with white as zero; signed and wide numbers from measuring programs."""
    ramp = np.tile(np.arange(256, dtype=np.int64), (40, 1)) * factor + offset
    picture = made(_tiff(ramp.astype(kind), photometric, sample_format), tmp_path)[0]
    assert [picture.getpixel((x, 20)) for x in (20, 128, 235)] == [pytest.approx(x, abs=3) for x in (20, 128, 235)]


def test_floats_bitmaps_and_grey_with_alpha(tmp_path: Path) -> None:
    values = np.linspace(-5, 5, 60 * 40, dtype=np.float32).reshape(40, 60)
    values[0, 0] = np.nan
    picture = made(media.encoded(Image.fromarray(values), "TIFF"), tmp_path)[0]
    assert picture.getpixel((30, 1)) < 30 < 220 < picture.getpixel((30, 38))  # type: ignore[operator]
    for mode in ("1", "L", "LA"):
        assert made(media.encoded(media.photo(300, 200).convert(mode), "PNG"), tmp_path)[0].size == (300, 200)


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    data = io.BytesIO()
    media.photo(300, 200).save(data, "GIF", save_all=True, append_images=[Image.new("RGB", (300, 200), "black")])
    assert media.is_the_photo(made(data.getvalue(), tmp_path)[0])


def test_narrow_pictures_keep_a_pixel(tmp_path: Path) -> None:
    assert [one.size for one in made(media.encoded(Image.new("RGB", (5000, 2), "red"), "PNG"), tmp_path)] == [(1200, 1), (800, 1), (200, 1)]


def test_more_pixels_than_may_be(tmp_path: Path) -> None:
    with pytest.raises(UndecodablePixels, match="no more than 1000 are taken"):
        made(media.encoded(media.photo(300, 200), "PNG"), tmp_path, max_pixels=1000)
    # A hundred megabytes of nothing in a few bytes.
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    )
    with pytest.raises(UndecodablePixels, match="20000 x 20000"):
        made(b"\x89PNG\r\n\x1a\n" + chunks, tmp_path)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
def test_a_cut_file_fails_with_a_reason(tmp_path: Path, form: str) -> None:
    whole = media.encoded(media.photo(500, 300), form)
    for length in (0, 10, len(whole) // 3):
        with pytest.raises(UndecodablePixels, match="damaged"):
            made(whole[:length], tmp_path)


@pytest.mark.parametrize("data", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"P6 2 2 255 " + bytes(12), b"8BPS" + bytes(40)])
def test_other_formats_of_the_library_are_not_read(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UndecodablePixels):
        made(data, tmp_path)
