"""Golden images: every transfer syntax there and back, judged by decoders that are not ours (dcmtk, OpenJPEG in Pillow, pydicom)."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder

from pacslite.codec.codestreams import read_jpeg_head
from pacslite.codec.encoders import encode_frame
from pacslite.codec.pixels import DecodedFrame, PixelDescription, decode_frame, refusal
from pacslite.codec.processes import CodecProcesses
from pacslite.codec.transcode import describe, transcode
from pacslite.codec.transfer_syntax import frame_bytes
from pacslite.dicom.data_set import open_data_set
from pacslite.dicom.instance import read_instance
from pacslite.dicom.limits import Limits
from pacslite.dicom.syntaxes import (
    ALL_HTJ2K,
    ALL_JPEG_2000,
    ALL_JPEG_LS,
    BIG_ENDIAN,
    DCT,
    DECODABLE,
    DEFLATED,
    DEFLATED_FRAMES,
    EXPLICIT,
    IMPLICIT,
    IRREVERSIBLE,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    NATIVE,
    REVERSIBLE,
    RLE,
)
from pacslite.errors import PacsliteError
from tests.support.data_sets import image, part10

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

needs_dcmtk = pytest.mark.skipif(shutil.which("dcmdjpeg") is None, reason="dcmtk is not here")
_DCMTK = {RLE: "dcmdrle", JPEG_LOSSLESS: "dcmdjpeg", JPEG_LOSSLESS_SV1: "dcmdjpeg", JPEG_LS: "dcmdjpls"}


@dataclass(frozen=True)
class Case:
    """One kind of picture."""

    name: str
    bits: int
    stored: int
    signed: bool = False
    photometric: str = "MONOCHROME2"
    planar: bool = False
    frames: int = 1
    shape: tuple[int, int] = (33, 50)
    overflowing: bool = False  # something stands above Bits Stored


CASES = (
    Case("grey 8", 8, 8),
    Case("inverted 8", 8, 8, photometric="MONOCHROME1", frames=3),
    Case("grey 10 of 16", 16, 10),
    Case("grey 12 of 16", 16, 12, frames=4),
    Case("grey 12 of 16, more in the words", 16, 12, overflowing=True),
    Case("grey 16", 16, 16),
    Case("signed 12 of 16", 16, 12, signed=True, frames=2),
    Case("signed 16", 16, 16, signed=True),
    Case("signed 8", 8, 8, signed=True),
    Case("grey 32", 32, 32),
    Case("signed 32", 32, 32, signed=True),
    Case("rgb", 8, 8, photometric="RGB", frames=2),
    Case("rgb by plane", 8, 8, photometric="RGB", planar=True, frames=2),
    Case("ybr", 8, 8, photometric="YBR_FULL"),
    Case("rgb 16", 16, 16, photometric="RGB"),
    Case("palette", 8, 8, photometric="PALETTE COLOR"),
    Case("bits", 1, 1, frames=3),
)
BY_NAME = {case.name: case for case in CASES}


def pixels_of(case: Case) -> np.ndarray:
    """A picture with smooth parts, edges and extremes: (frames, rows, columns[, samples])."""
    rows, columns = case.shape
    samples = 3 if case.photometric in ("RGB", "YBR_FULL") else 1
    low = -(1 << (case.stored - 1)) if case.signed else 0
    top = (1 << (case.bits if case.overflowing else case.stored)) - 1
    y, x, s, f = np.meshgrid(range(rows), range(columns), range(samples), range(case.frames), indexing="ij")
    wave = (np.sin(x / 9 + f) * np.cos(y / 7 + s) + 1) / 2
    wave[:4] = np.random.default_rng(7).random(wave[:4].shape)
    wave[-1, ::2], wave[-1, 1::2] = 0, 1
    values = (low + np.round(wave * top)).astype(np.int64)
    made = np.moveaxis(values, 3, 0)
    made = made if samples > 1 else made[..., 0]
    return made.astype(f"{'i' if case.signed else 'u'}{max(case.bits, 8) // 8}")


def data_set_of(case: Case) -> Dataset:
    pixels = pixels_of(case)
    ds = image(pixels[..., 0] if pixels.ndim == 4 else pixels, bits=case.bits)
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = case.stored, case.stored - 1, int(case.signed)
    ds.PhotometricInterpretation = case.photometric
    if pixels.ndim == 4:
        ds.SamplesPerPixel, ds.PlanarConfiguration = 3, int(case.planar)
        raw = (np.moveaxis(pixels, 3, 1) if case.planar else pixels).tobytes()
        ds.PixelData = raw + b"\0" * (len(raw) % 2)
    if case.bits > 8:
        ds["PixelData"].VR = "OW"
    if case.photometric == "PALETTE COLOR":
        for colour in ("Red", "Green", "Blue"):
            setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
            ds[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"
            setattr(ds, f"{colour}PaletteColorLookupTableData", np.arange(256, dtype="<u2").tobytes())
    return ds


@pytest.fixture(scope="module")
def codecs() -> Iterator[CodecProcesses]:
    processes = CodecProcesses(2, 30)
    yield processes
    processes.close()


def frames_of(path: Path) -> list[DecodedFrame]:
    """All frames by our decoder."""
    instance = read_instance(path, Limits())
    assert instance.frame_index is not None
    uid, description = instance.meta.transfer_syntax_uid, describe(instance.header)
    with open_data_set(path, Limits()) as file:
        return [
            decode_frame(frame_bytes(lambda at, size: file.source.read(at, size), instance.frame_index, number), description, uid)
            for number in range(1, instance.frame_index.number_of_frames + 1)
        ]


def by_dcmtk(path: Path, tool: str) -> np.ndarray:
    out = path.with_suffix(".native")
    options = ["+cn"] if tool == "dcmdjpeg" else []
    subprocess.run([tool, *options, str(path), str(out)], check=True, capture_output=True)
    return raw_of(dcmread(out))


def by_openjpeg(path: Path) -> np.ndarray:
    ds = dcmread(path)
    frames = generate_frames(ds.PixelData, number_of_frames=int(ds.NumberOfFrames))
    found = np.stack([np.asarray(Image.open(io.BytesIO(frame))) for frame in frames])
    return (
        found >> found.dtype.itemsize * 8 - ds.BitsStored if found.dtype == np.uint16 or ds.BitsStored == 1 else found
    )  # Pillow fills its words


def by_inflating(path: Path, case: Case) -> np.ndarray:
    """Native frames, each deflated alone (PS3.5 A.4.13)."""
    ds = dcmread(path)
    frames = [zlib.decompress(frame, wbits=-15) for frame in generate_frames(ds.PixelData, number_of_frames=int(ds.NumberOfFrames))]
    expected = pixels_of(case)
    if case.bits == 1:
        bits = [np.unpackbits(np.frombuffer(frame, "u1"), count=expected[0].size, bitorder="little") for frame in frames]
        return np.stack(bits).reshape(expected.shape)
    return np.frombuffer(b"".join(frames), expected.dtype).reshape(expected.shape)


def by_bytes_for_bits(path: Path) -> np.ndarray:
    """dcmtk and pydicom know no single bits in run lengths: to them the frames are of bytes (PS3.5 G.2)."""
    ds = dcmread(path)
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    return ds.pixel_array


def by_others(path: Path, target: str, case: Case) -> np.ndarray | None:
    """The pixels by decoders that are not ours; None where others look at Bits Stored only, or have no mode for them."""
    if case.overflowing:
        return None
    if target == DEFLATED_FRAMES:
        return by_inflating(path, case)
    if target == RLE and case.bits == 1:
        return by_bytes_for_bits(path)
    if target in _DCMTK:
        return by_dcmtk(path, _DCMTK[target])
    return by_openjpeg(path) if is_pictured(case) else None


def is_pictured(case: Case) -> bool:
    """Whether Pillow has a mode for it."""
    return not case.signed and (case.bits == 8 or case.photometric not in ("RGB", "YBR_FULL"))


def made(case: Case, target: str, codecs: CodecProcesses, folder: Path, source: str = EXPLICIT) -> tuple[Path, Path]:
    """The picture natively and in another transfer syntax."""
    native, result = folder / "native.dcm", folder / "result.dcm"
    native.write_bytes(part10(data_set_of(case), source))
    result.write_bytes(b"".join(transcode(native, target, Limits(scratch=folder), codecs)))
    return native, result


@needs_dcmtk
@pytest.mark.parametrize("target", sorted(REVERSIBLE))
@pytest.mark.parametrize("name", BY_NAME)
def test_what_is_written_without_loss_is_read_by_others_and_comes_back(
    name: str, target: str, codecs: CodecProcesses, tmp_path: Path
) -> None:
    case = BY_NAME[name]
    native = tmp_path / "native.dcm"
    native.write_bytes(part10(data_set_of(case)))
    if refusal(describe(read_instance(native, Limits()).header), target):
        with pytest.raises(PacsliteError, match="cannot be written"):
            list(transcode(native, target, Limits(scratch=tmp_path), codecs))
        return
    native, result = made(case, target, codecs, tmp_path)
    expected = pixels_of(case)
    assert np.array_equal(np.squeeze(np.stack([frame.array for frame in frames_of(native)])), np.squeeze(expected)) or case.overflowing
    others = by_others(result, target, case)
    if others is not None:
        assert np.array_equal(np.squeeze(others), np.squeeze(expected))
    back = tmp_path / "back.dcm"
    back.write_bytes(b"".join(transcode(result, EXPLICIT, Limits(scratch=tmp_path), codecs)))
    again = dcmread(back)
    words = np.frombuffer(again.PixelData, expected.dtype, expected.size) if case.overflowing else raw_of(again)
    assert np.array_equal(words.reshape(np.squeeze(expected).shape), np.squeeze(expected))
    assert again.PhotometricInterpretation == case.photometric
    assert again.SOPInstanceUID == dcmread(native).SOPInstanceUID
    assert "LossyImageCompression" not in again
    assert again.get("PlanarConfiguration", 0) == 0


def raw_of(ds: Dataset) -> np.ndarray:
    return get_decoder(ds.file_meta.TransferSyntaxUID).as_array(ds, raw=True)[0]


@pytest.mark.parametrize("target", sorted(REVERSIBLE))
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (512, 520)])
def test_single_bits_of_any_kind_come_back(shape: tuple[int, int], share: float, target: str) -> None:
    """Noise too, for which a codec may have no room."""
    bits = (np.random.default_rng(5).random(shape) < share).astype("u1")
    description = PixelDescription(*shape, 1, 1)
    if not refusal(description, target):
        encoded = encode_frame(bits, "MONOCHROME2", description, target).data
        assert np.array_equal(decode_frame(encoded, description, target).array, bits)


@pytest.mark.parametrize("target", [JPEG_LOSSLESS, JPEG_LOSSLESS_SV1])
@pytest.mark.parametrize(("name", "ids"), [("ybr", (1, 2, 3)), ("rgb", tuple(b"RGB"))])
def test_lossless_jpeg_claims_no_other_colours_than_the_data_set(
    name: str, ids: tuple[int, ...], target: str, codecs: CodecProcesses, tmp_path: Path
) -> None:
    """Readers that go by the names of the components get the same picture as those that go by the data set."""
    _, result = made(BY_NAME[name], target, codecs, tmp_path)
    ds = dcmread(result)
    for frame in generate_frames(ds.PixelData, number_of_frames=BY_NAME[name].frames):
        head = read_jpeg_head(frame)
        assert (head.component_ids, head.adobe_transform) == (ids, None if name == "ybr" else 0)


@pytest.mark.parametrize("source", [IMPLICIT, BIG_ENDIAN, DEFLATED])
@pytest.mark.parametrize("name", ["grey 12 of 16", "signed 16", "rgb by plane"])
def test_every_native_transfer_syntax_is_a_source_and_a_target(name: str, source: str, codecs: CodecProcesses, tmp_path: Path) -> None:
    native, result = made(BY_NAME[name], JPEG_LOSSLESS_SV1, codecs, tmp_path, source)
    assert all(np.array_equal(a.array, b.array) for a, b in zip(frames_of(native), frames_of(result), strict=True))
    back = tmp_path / "back.dcm"
    back.write_bytes(b"".join(transcode(result, source, Limits(scratch=tmp_path), codecs)))
    assert dcmread(back).file_meta.TransferSyntaxUID == source
    assert all(np.array_equal(a.array, b.array) for a, b in zip(frames_of(native), frames_of(back), strict=True))


@needs_dcmtk
@pytest.mark.parametrize(
    ("name", "target", "error"),
    [
        ("grey 8", JPEG_BASELINE, 0.02),
        ("grey 12 of 16", JPEG_EXTENDED, 0.02),
        ("rgb", JPEG_BASELINE, 0.05),
        ("grey 12 of 16", "1.2.840.10008.1.2.4.81", 0.001),
        ("grey 12 of 16", "1.2.840.10008.1.2.4.91", 0.004),
        ("signed 16", "1.2.840.10008.1.2.4.91", 0.004),
        ("rgb", "1.2.840.10008.1.2.4.91", 0.01),
        ("grey 16", "1.2.840.10008.1.2.4.203", 0.004),
        ("rgb", "1.2.840.10008.1.2.4.203", 0.02),
    ],
)
def test_what_loses_something_is_another_instance_and_says_so(
    name: str, target: str, error: float, codecs: CodecProcesses, tmp_path: Path
) -> None:
    """PS3.3 C.7.6.1.1.5: marked, derived, with a UID of its own and a reference to its source; the mark stays."""
    case = BY_NAME[name]
    native, result = made(case, target, codecs, tmp_path)
    before, after = dcmread(native), dcmread(result)
    assert after.SOPInstanceUID != before.SOPInstanceUID
    assert after.SOPInstanceUID == after.file_meta.MediaStorageSOPInstanceUID
    assert after.ImageType[0] == "DERIVED"
    assert (after.LossyImageCompression, after.LossyImageCompressionMethod[:4]) == ("01", "ISO_")
    assert float(after.LossyImageCompressionRatio) > 0.5
    assert after.SourceImageSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
    again = b"".join(transcode(native, target, Limits(scratch=tmp_path), codecs))
    assert again == result.read_bytes()
    span = 1 << case.stored
    difference = np.stack([f.array for f in frames_of(result)]).astype(float) - pixels_of(case)
    assert np.sqrt((difference[:, 6:-2] ** 2).mean()) / span < error
    if target in (JPEG_BASELINE, JPEG_EXTENDED):
        other = by_dcmtk(result, "dcmdjpeg").astype(float) if case.photometric != "RGB" else None
        assert other is None or np.abs(np.squeeze(other) - np.squeeze(np.stack([f.array for f in frames_of(result)]))).max() <= span / 128
    back = tmp_path / "back.dcm"
    back.write_bytes(b"".join(transcode(result, EXPLICIT, Limits(scratch=tmp_path), codecs)))
    assert dcmread(back).LossyImageCompression == "01"
    assert dcmread(back).SOPInstanceUID == after.SOPInstanceUID
    assert dcmread(back).PhotometricInterpretation == case.photometric


@pytest.mark.parametrize("target", sorted(IRREVERSIBLE))
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "RGB"])
def test_black_and_white_stay_black_and_white_whatever_is_lost(photometric: str, target: str) -> None:
    """Edges overshoot: what goes beyond the range of the samples must not come out at its other end."""
    samples = 3 if photometric == "RGB" else 1
    description = PixelDescription(64, 64, 8, 8, samples, photometric)
    edges = np.zeros(description.shape, np.uint8)
    edges[16:48, 16:48], edges[::5, ::3] = 255, 255
    frame = encode_frame(edges, photometric, description, target)
    said = PixelDescription(64, 64, 8, 8, samples, frame.photometric_interpretation)
    decoded = decode_frame(frame.data, said, target)
    assert decoded.photometric_interpretation == photometric
    assert np.abs(decoded.array.astype(int) - edges).max() < (200 if target in DCT else 60)


def test_a_lossy_source_without_its_mark_gets_it(codecs: CodecProcesses, tmp_path: Path) -> None:
    _, result = made(BY_NAME["rgb"], JPEG_BASELINE, codecs, tmp_path)
    ds = dcmread(result)
    assert ds.PhotometricInterpretation == "YBR_FULL_422"
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        delattr(ds, keyword)
    ds.save_as(result)
    back = tmp_path / "back.dcm"
    back.write_bytes(b"".join(transcode(result, EXPLICIT, Limits(scratch=tmp_path), codecs)))
    found = dcmread(back)
    assert (found.LossyImageCompression, found.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert found.PhotometricInterpretation == "RGB"


def test_frames_of_a_result_are_found_by_its_offset_table(codecs: CodecProcesses, tmp_path: Path) -> None:
    _, result = made(BY_NAME["grey 12 of 16"], JPEG_LS, codecs, tmp_path)
    index = read_instance(result, Limits()).frame_index
    assert index is not None
    data = result.read_bytes()
    at = data.index(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff") + 12
    assert int.from_bytes(data[at + 4 : at + 8], "little") == 4 * 4
    table = np.frombuffer(data, "<u4", 4, at + 8)
    assert [at + 8 + 16 + int(offset) + 8 for offset in table] == [index.segments(n)[0][0] for n in range(1, 5)]


def _corpus() -> list[Path]:
    folder = Path(os.environ.get("PACSLITE_CORPUS", Path(__file__).resolve().parents[3] / "shared" / "corpus"))
    if not (folder / "index.json").exists():
        return []
    return [folder / entry["file"] for entry in json.loads((folder / "index.json").read_text())]


@pytest.mark.skipif(not _corpus(), reason="the corpus is not here")
def test_the_files_of_many_vendors_decode_as_pydicom_does() -> None:
    """First frames; pydicom's colours are turned off, and of lossy JPEG it gives RGB as we do."""
    seen = dict.fromkeys(DECODABLE, 0)
    for path in _corpus():
        try:
            instance = read_instance(path, Limits())
            uid, index = instance.meta.transfer_syntax_uid, instance.frame_index
            if index is None or uid not in DECODABLE:
                continue
            with open_data_set(path, Limits()) as file:
                data = frame_bytes(lambda at, size, file=file: file.source.read(at, size), index, 1)  # type: ignore[misc]
            ours = decode_frame(data, describe(instance.header), uid)
        except PacsliteError:
            continue
        theirs = _by_pydicom(path, uid, ours)
        if theirs is not None:
            assert np.abs(theirs.astype(np.int64) - ours.array).max() <= (1 if uid in IRREVERSIBLE else 0), path.name
            seen[uid] += 1
    assert sum(seen.values()) > 50
    assert all(seen[uid] for uid in (IMPLICIT, EXPLICIT, JPEG_BASELINE, RLE))


def _by_pydicom(path: Path, uid: str, ours: DecodedFrame) -> np.ndarray | None:
    try:
        ds = dcmread(path, force=True)
        if ds.BitsAllocated == 8 and uid == BIG_ENDIAN:
            return None  # words of two samples, which pydicom leaves turned
        if uid in (ALL_JPEG_2000 | ALL_HTJ2K | ALL_JPEG_LS | NATIVE) and ds.PhotometricInterpretation.startswith("YBR_FULL"):
            return None
        found = get_decoder(uid).as_array(ds, index=0, as_rgb=ours.photometric_interpretation == "RGB", raw=False)[0]
    except (RuntimeError, ValueError, NotImplementedError, AttributeError, TypeError, KeyError, OSError):
        return None  # no decoder of pydicom's, or no file for it
    return found if found.shape == ours.array.shape and ds.get("BitsStored") == ds.BitsAllocated else None
