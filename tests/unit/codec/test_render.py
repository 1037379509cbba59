"""Pictures of frames: against pydicom's own pipeline, by the formulas of PS3.3 C.11.2, and hostile ones."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageCms
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, convert_color_space

from pacslite.codec import render_icc, render_image
from pacslite.codec.render_icon import icon
from pacslite.codec.render_image import encode, encode_animation, fit
from pacslite.codec.render_options import (
    GIF,
    IMAGE_TYPES,
    JP2,
    JPEG,
    LINEAR,
    LINEAR_EXACT,
    PNG,
    SIGMOID,
    WEBP,
    WITH_PROFILE,
    Options,
    Viewport,
    Window,
)
from pacslite.codec.render_pixels import PixelFormat, native, picture, segmented
from pacslite.codec.render_values import Bits, Lut, Transform, grey_of, table
from pacslite.errors import BadRequest, NotAcceptable, TooLarge

RNG = np.random.default_rng(7)


def grey(bits: Bits, photometric: str = "MONOCHROME2", rows: int = 16, columns: int = 24) -> PixelFormat:
    return PixelFormat(rows, columns, 1, photometric, bits)


def values_in(bits: Bits, rows: int = 16, columns: int = 24) -> np.ndarray:
    values = RNG.integers(bits.lowest, bits.highest, (rows, columns), endpoint=True)
    values.ravel()[:2] = bits.lowest, bits.highest
    return values


def packed(values: np.ndarray, bits: Bits) -> bytes:
    """Stored as the bits say, with all other bits set at random: they mean nothing (PS3.5 8.1.1)."""
    shift = bits.high + 1 - bits.stored
    mask = (1 << bits.stored) - 1
    noise = RNG.integers(0, 1 << bits.allocated, values.shape) & ~(mask << shift)
    return ((values & mask) << shift | noise).astype(f"<u{bits.allocated // 8}").tobytes()


def data_set(bits: Bits, **attributes: object) -> Dataset:
    ds = Dataset()
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits.allocated, bits.stored, bits.stored - 1
    ds.PixelRepresentation, ds.PhotometricInterpretation = int(bits.signed), "MONOCHROME2"
    for name, value in attributes.items():
        setattr(ds, name, value)
    return ds


ALL_BITS = [
    Bits(allocated, stored, high, signed)
    for allocated, stored, high in ((8, 8, 7), (8, 6, 5), (16, 16, 15), (16, 12, 11), (16, 12, 14), (16, 10, 9), (32, 20, 19))
    for signed in (False, True)
]


@pytest.mark.parametrize("bits", ALL_BITS, ids=str)
@pytest.mark.parametrize("function", [LINEAR, LINEAR_EXACT, SIGMOID])
def test_grey_values_are_shown_as_pydicom_windows_them(bits: Bits, function: str) -> None:
    values = values_in(bits)
    slope, intercept = 1.75, -100.5
    span = (bits.highest - bits.lowest) * slope
    window = Window(round(intercept + (bits.lowest + bits.highest) / 2 * slope + span / 8, 3), round(max(span / 2, 2), 3), function)
    ds = data_set(bits, RescaleSlope=slope, RescaleIntercept=intercept, WindowCenter=window.center, WindowWidth=window.width)
    ds.VOILUTFunction = function
    modality = apply_modality_lut(values, ds)
    expected = apply_voi_lut(modality, ds)
    # pydicom spreads over all that can be stored.
    low, high = (apply_modality_lut(np.array([end]), ds)[0] for end in (bits.lowest, bits.highest))
    expected = (expected - low) / (high - low) * 255
    got = picture(native(packed(values, bits), grey(bits)), grey(bits), Transform(slope, intercept, window=window))
    assert got.dtype == np.uint8
    assert np.abs(got - expected).max() <= 1


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("entry_bits", [12, 16])
def test_modality_and_voi_tables_are_applied_as_pydicom_does(signed: bool, entry_bits: int) -> None:
    bits = Bits(16, 12, 11, signed)
    values = values_in(bits)
    first = bits.lowest + 500
    words = np.sort(RNG.integers(0, 1 << entry_bits, 2000)).astype(np.uint16)
    words[-1] = (1 << entry_bits) - 1
    item = Dataset()
    item.add_new(0x00283002, "SS" if signed else "US", [2000, first, entry_bits])
    item.add_new(0x00283006, "US", words.tolist())
    lut = Lut(first, entry_bits, words.astype("<u2").tobytes())
    top = (1 << entry_bits) - 1
    by_voi = apply_voi_lut(values, data_set(bits, VOILUTSequence=[item])) / top * 255
    got = picture(native(packed(values, bits), grey(bits)), grey(bits), Transform(voi=lut))
    assert np.abs(got - by_voi).max() <= 1
    # pydicom makes no table of 12 bits.
    item.LUTDescriptor = [2000, first, 16]
    modality = apply_modality_lut(values, data_set(bits, ModalityLUTSequence=[item]))
    got = picture(native(packed(values, bits), grey(bits)), grey(bits), Transform(modality=lut, window=Window(top / 2, top, LINEAR_EXACT)))
    assert np.abs(got - modality / top * 255).max() <= 1


def test_entries_of_eight_bits_are_shown_as_they_are() -> None:
    bits = Bits(8, 8, 7, False)
    values = values_in(bits)
    entries = RNG.integers(0, 256, 100).astype("<u2")
    entries[0] = 255
    got = picture(native(packed(values, bits), grey(bits)), grey(bits), Transform(voi=Lut(50, 8, entries.tobytes())))
    assert np.array_equal(got, entries[np.clip(values - 50, 0, 99)])


def test_a_reversed_image_is_the_other_one_upside_down() -> None:
    bits = Bits(16, 12, 11, False)
    values, window = values_in(bits), Window(2000, 1000)
    plain, reversed_ = (grey_of(values.astype(np.uint16), bits, Transform(window=window, invert=invert)) for invert in (False, True))
    assert np.array_equal(plain, 255 - reversed_)


@pytest.mark.parametrize("bits", ALL_BITS, ids=str)
def test_without_a_window_what_is_there_spans_from_black_to_white(bits: Bits) -> None:
    values = values_in(bits)
    values[values == bits.lowest + 1] = bits.lowest
    got = picture(native(packed(values, bits), grey(bits)), grey(bits), Transform(2.0, 5.0))
    expected = (values - bits.lowest) / (bits.highest - bits.lowest) * 255
    assert np.abs(got - expected).max() <= 1
    assert (got.min(), got.max()) == (0, 255)


def test_padding_does_not_stretch_the_range() -> None:
    bits = Bits(16, 16, 15, True)
    values = np.array([[-2000, 0, 50, 100]], np.int16).view(np.uint16)
    assert grey_of(values, bits, Transform(), padding=-2000).tolist() == [[0, 0, 128, 255]]


def test_a_constant_picture_and_one_of_nothing_finite_are_pictures() -> None:
    assert grey_of(np.full((2, 2), 7, np.uint16), Bits(16, 16, 15, False), Transform()).shape == (2, 2)
    nothing = np.array([[np.nan, np.inf]], np.float32)
    assert grey_of(nothing, Bits(32, 32, 31, False), Transform()).shape == (1, 2)


@pytest.mark.parametrize("allocated", [32, 64])
def test_floating_point_pixels_are_windowed(allocated: int) -> None:
    values = np.linspace(-1, 1, 24).astype(f"<f{allocated // 8}")
    form = PixelFormat(4, 6, 1, "MONOCHROME2", Bits(allocated, allocated, allocated - 1, False), real=True)
    got = picture(native(values.tobytes(), form), form, Transform(window=Window(0, 2, LINEAR_EXACT)))
    assert np.abs(got.ravel() - (values + 1) / 2 * 255).max() <= 1


def test_single_bits_are_black_and_white() -> None:
    values = RNG.integers(0, 2, (5, 7), dtype=np.uint8)
    form = grey(Bits(1, 1, 0, False), rows=5, columns=7)
    raw = np.packbits(values.ravel(), bitorder="little").tobytes()
    assert np.array_equal(picture(native(raw, form), form, Transform()), values * 255)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [Bits(8, 8, 7, False), Bits(16, 16, 15, False), Bits(16, 12, 11, False)], ids=str)
def test_rgb_is_scaled_to_eight_bits(bits: Bits, planar: bool) -> None:
    values = RNG.integers(0, bits.highest, (6, 4, 3), endpoint=True)
    form = PixelFormat(6, 4, 3, "RGB", bits, planar=planar)
    raw = packed(np.moveaxis(values, 2, 0) if planar else values, bits)
    assert np.abs(picture(native(raw, form), form, Transform()) - values / bits.highest * 255).max() <= 0.5


@pytest.mark.parametrize("planar", [False, True])
def test_ybr_full_is_turned_into_rgb_as_pydicom_does(planar: bool) -> None:
    values = RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8)
    form = PixelFormat(6, 4, 3, "YBR_FULL", Bits(8, 8, 7, False), planar=planar)
    raw = (np.moveaxis(values, 2, 0) if planar else values).tobytes()
    expected = convert_color_space(values, "YBR_FULL", "RGB").astype(int)
    assert np.abs(picture(native(raw, form), form, Transform()) - expected).max() <= 1


def test_shared_chrominance_is_for_both_pixels() -> None:
    pairs = RNG.integers(0, 256, (6, 4, 4), dtype=np.uint8)
    form = PixelFormat(6, 8, 3, "YBR_FULL_422", Bits(8, 8, 7, False))
    full = np.stack([pairs[:, :, :2].reshape(6, 8), pairs[:, :, 2].repeat(2, 1), pairs[:, :, 3].repeat(2, 1)], axis=2)
    expected = convert_color_space(full, "YBR_FULL", "RGB").astype(int)
    assert np.abs(picture(native(pairs.tobytes(), form), form, Transform()) - expected).max() <= 1


@pytest.mark.parametrize(("entry_bits", "first"), [(8, 0), (16, 0), (16, 40)])
def test_palettes_are_applied_as_pydicom_does(entry_bits: int, first: int) -> None:
    bits = Bits(8, 8, 7, False)
    values = RNG.integers(0, 256, (5, 6), dtype=np.uint8)
    columns = [RNG.integers(0, 1 << entry_bits, 200).astype("<u2") for _ in range(3)]
    ds = Dataset()
    for number, column in enumerate(columns):
        ds.add_new(0x00281101 + number, "US", [200, first, entry_bits])
        ds.add_new(0x00281201 + number, "OW", column.astype(np.uint8).tobytes() if entry_bits == 8 else column.tobytes())
    expected = apply_color_lut(values, ds) >> (entry_bits - 8)
    palette = tuple(Lut(first, entry_bits, column.tobytes()) for column in columns)
    form = PixelFormat(5, 6, 1, "PALETTE COLOR", bits, palette=palette)  # type: ignore[arg-type]
    assert np.array_equal(picture(native(values.tobytes(), form), form, Transform()), expected)


def test_segmented_palettes_are_unfolded() -> None:
    # Discrete 0 10; linear to 30 in 4 steps; both again (PS3.3 C.7.9.2).
    words = [0, 2, 0, 10, 1, 4, 30, 2, 2, 0, 0]
    raw = np.array(words, "<u2").tobytes()
    assert np.frombuffer(segmented(raw), "<u2").tolist() == [0, 10, 15, 20, 25, 30] * 2
    for hostile in ([1, 4, 30], [0, 9, 1], [2, 1, 0, 0], [7, 1, 1], [0, 1, 0, *[1, 65535, 9] * 3]):
        with pytest.raises(NotAcceptable):
            segmented(np.array(hostile, "<u2").tobytes())


@pytest.mark.parametrize(
    ("form", "size"),
    [
        (PixelFormat(4, 4, 1, "MONOCHROME2", Bits(16, 16, 15, False)), 31),
        (PixelFormat(65535, 65535, 3, "RGB", Bits(16, 16, 15, False)), 100),
        (PixelFormat(4, 4, 1, "MONOCHROME2", Bits(24, 24, 23, False)), 48),
        (PixelFormat(4, 4, 4, "ARGB", Bits(8, 8, 7, False)), 64),
        (PixelFormat(4, 4, 1, "PALETTE COLOR", Bits(8, 8, 7, False)), 16),
        (PixelFormat(4, 3, 3, "YBR_FULL_422", Bits(8, 8, 7, False)), 36),
        (PixelFormat(4, 4, 3, "RGB", Bits(32, 32, 31, False)), 192),
        (PixelFormat(4, 4, 1, "<script>", Bits(8, 8, 7, False)), 16),
    ],
    ids=str,
)
def test_what_is_no_picture_is_refused(form: PixelFormat, size: int) -> None:
    with pytest.raises(NotAcceptable):
        picture(native(bytes(size), form), form, Transform())


def test_tables_are_shared_by_equal_transforms() -> None:
    bits = Bits(16, 12, 11, True)
    first = table(bits, Transform(1.0, -1024.0, window=Window(40, 400)))
    assert table(bits, Transform(1.0, -1024.0, window=Window(40, 400))) is first


# Encoding

COLOURS = np.zeros((32, 48, 3), np.uint8)
COLOURS[:16, :24], COLOURS[16:, 24:] = (200, 30, 60), (20, 90, 220)


@pytest.mark.parametrize(("media_type", "content"), list(itertools.product(IMAGE_TYPES, (COLOURS, COLOURS[:, :, 0]))))
def test_every_media_type_shows_the_picture(media_type: str, content: np.ndarray) -> None:
    image = Image.open(io.BytesIO(encode(content, Options(media_type))))
    assert image.get_format_mimetype() == media_type
    got = np.asarray(image.convert("RGB" if content.ndim == 3 else "L")).astype(int)
    assert got.shape == content.shape
    # Between the edges, where JPEG and WebP are close.
    assert np.abs(got - content)[2:12, 2:20].max() <= (12 if media_type in (JPEG, WEBP) else 0)


def test_quality_changes_the_size() -> None:
    noise = RNG.integers(0, 256, (64, 64), dtype=np.uint8)
    for media_type in (JPEG, WEBP):
        sizes = [len(encode(noise, Options(media_type, quality=quality))) for quality in (1, 50, 100)]
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[2] / 2


@pytest.mark.parametrize(
    ("viewport", "size"),
    [
        (Viewport(24, 24), (24, 16)),
        (Viewport(480, 32), (48, 32)),
        (Viewport(96, 640), (96, 64)),
        (Viewport(1, 1), (1, 1)),
        (Viewport(24, 32, 24, 16), (24, 16)),
        (Viewport(24, 24, 0, 0, -24, -16), (24, 16)),
        (Viewport(100, 100, 40, 0, 100, 100), (25, 100)),
    ],
)
def test_a_viewport_keeps_the_aspect_of_its_region(viewport: Viewport, size: tuple[int, int]) -> None:
    assert fit(Image.fromarray(COLOURS), viewport).size == size


def test_a_region_is_cut_out_and_flipped() -> None:
    ramp = np.arange(32 * 48, dtype=np.uint16).reshape(32, 48).astype(np.uint8)
    cut = np.asarray(fit(Image.fromarray(ramp), Viewport(8, 4, 8, 4, 8, 4)))
    assert np.array_equal(cut, ramp[4:8, 8:16])
    assert np.array_equal(np.asarray(fit(Image.fromarray(ramp), Viewport(8, 4, 8, 4, -8, 4))), cut[:, ::-1])
    assert np.array_equal(np.asarray(fit(Image.fromarray(ramp), Viewport(8, 4, 8, 4, 8, -4))), cut[::-1])
    with pytest.raises(BadRequest):
        fit(Image.fromarray(ramp), Viewport(8, 8, 48, 0))


def test_text_is_burnt_in_only_when_there_is_some() -> None:
    black = np.zeros((128, 256), np.uint8)
    assert np.asarray(Image.open(io.BytesIO(encode(black, Options(PNG))))).max() == 0
    marked = np.asarray(Image.open(io.BytesIO(encode(black, Options(PNG), ["Test, Patient", "T-1"]))))
    assert marked.max() == 255
    assert marked[100:].max() == 0


def test_animations_hold_every_frame_for_its_time() -> None:
    frames = [np.full((8, 8), 40 * n, np.uint8) for n in range(5)]
    image = Image.open(io.BytesIO(encode_animation(iter(frames), Options(GIF), 80)))
    assert (image.n_frames, image.info["duration"]) == (5, 80)
    for number, frame in enumerate(frames):
        image.seek(number)
        assert np.abs(np.asarray(image.convert("L")).astype(int) - frame).max() <= 1


def test_colour_frames_are_animated_too() -> None:
    image = Image.open(io.BytesIO(encode_animation(iter([COLOURS, COLOURS[::-1].copy()]), Options(GIF), 1)))
    assert image.n_frames == 2
    image.seek(1)
    assert np.abs(np.asarray(image.convert("RGB")).astype(int) - COLOURS[::-1]).max() <= 2


def test_no_encoder_is_given_more_than_it_can_hold() -> None:
    wide = np.zeros((1, 65501), np.uint8)
    for media_type in (JPEG, WEBP):
        with pytest.raises(TooLarge):
            encode(wide, Options(media_type))


@pytest.mark.parametrize("name", ["srgb", "adobergb", "rommrgb"])
def test_profiles_are_what_they_are_called(name: str) -> None:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(render_icc.profile_of(name)))
    assert profile.profile.xcolor_space.strip() == "RGB"
    lab = ImageCms.createProfile("LAB")
    white = Image.new("RGB", (1, 1), (255, 255, 255))
    transform = ImageCms.buildTransform(profile, lab, "RGB", "LAB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
    lightness, a, b = ImageCms.applyTransform(white, transform).getpixel((0, 0))  # type: ignore[union-attr, misc]
    assert lightness >= 254
    assert abs(a - 128) <= 1
    assert abs(b - 128) <= 1
    if name == "srgb":
        ours = Image.fromarray(COLOURS)
        theirs = ImageCms.createProfile("sRGB")
        got = ImageCms.profileToProfile(ours, profile, ImageCms.ImageCmsProfile(theirs))
        assert np.abs(np.asarray(got).astype(int) - COLOURS).max() <= 2


@pytest.mark.parametrize("icc", ["yes", "srgb", "adobergb", "rommrgb"])
@pytest.mark.parametrize("media_type", sorted(WITH_PROFILE))
def test_profiles_are_embedded_and_colours_stay(media_type: str, icc: str) -> None:
    for content in (COLOURS, COLOURS[:, :, 0]):
        image = Image.open(io.BytesIO(encode(content, Options(media_type, quality=100, icc=icc))))
        embedded = image.info["icc_profile"]
        assert embedded == render_icc.profile_of("srgb" if icc == "yes" else icc)
        back = ImageCms.profileToProfile(
            image.convert("RGB"), ImageCms.ImageCmsProfile(io.BytesIO(embedded)), ImageCms.createProfile("sRGB")
        )
        expected = content if content.ndim == 3 else content[:, :, None].repeat(3, 2)
        tolerance = 40 if media_type == WEBP else 6
        assert np.abs(np.asarray(back).astype(int) - expected)[2:14, 2:22].max() <= tolerance


def test_a_profile_of_the_data_set_is_kept_and_a_broken_one_is_not() -> None:
    own = render_icc.profile_of("adobergb")
    kept = Image.open(io.BytesIO(encode(COLOURS, Options(PNG, icc="yes"), profile=own)))
    assert kept.info["icc_profile"] == own
    for broken in (b"x" * 200, own[:200], own[:16] + b"CMYK" + own[20:]):
        image = Image.open(io.BytesIO(encode(COLOURS, Options(PNG, icc="yes"), profile=broken)))
        assert image.info["icc_profile"] == render_icc.profile_of("srgb")


def test_icons_differ_by_kind() -> None:
    labels = ("SR", "PDF", "VIDEO", "IMAGE", "DICOM")
    icons = [icon(label).tobytes() for label in labels]
    assert len(set(icons)) == len(labels)
    assert render_image.encode(icon("SR"), Options(JP2))
