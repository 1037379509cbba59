"""Rendered pictures beside those of dcmtk's dcmj2pnm, another renderer, of the same files: checklist B31."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from tests.support.data_sets import image, part10
from tests.support.wado import WebArchive, path_of, web_archive

ROWS, COLUMNS = 40, 52
RNG = np.random.default_rng(3)
Y, X = np.mgrid[0:ROWS, 0:COLUMNS]
SLOPE = (X * 65535 // (COLUMNS - 1)).astype(np.uint16)


def grey(stored: int = 16, allocated: int = 16, signed: bool = False, shift: int = 0, **attributes: object) -> Dataset:
    """A ramp over all values, and every value beside every other."""
    values = SLOPE >> (16 - stored)
    values[ROWS // 2 :] = RNG.integers(0, 1 << stored, (ROWS - ROWS // 2, COLUMNS))
    ds = image((values << shift).astype(np.uint8 if allocated == 8 else np.uint16)[np.newaxis])
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = stored, stored + shift - 1, int(signed)
    del ds.NumberOfFrames
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def colour(photometric: str, planar: int = 0) -> Dataset:
    pixels = RNG.integers(0, 256, (ROWS, COLUMNS, 3), dtype=np.uint8)
    ds = image(np.zeros((1, ROWS, COLUMNS), np.uint8))
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, photometric, planar
    ds.PixelData = (np.moveaxis(pixels, 2, 0) if planar else pixels).tobytes()
    if photometric == "YBR_FULL_422":
        ds.PixelData = RNG.integers(0, 256, ROWS * COLUMNS * 2, dtype=np.uint8).tobytes()
    return ds


def palette(entry_bits: int, first: int = 0, allocated: int = 8) -> Dataset:
    stored = 8 if allocated == 8 else 12
    ds = grey(stored, allocated, PhotometricInterpretation="PALETTE COLOR")
    count = 200 if allocated == 8 else 3000
    for number in range(3):
        entries = RNG.integers(0, 1 << entry_bits, count)
        ds.add_new(0x00281101 + number, "US", [count, first, entry_bits])
        raw = entries.astype(np.uint8).tobytes() if entry_bits == 8 else entries.astype("<u2").tobytes()
        ds.add_new(0x00281201 + number, "OW", raw)
    return ds


def tables(modality: bool, signed: bool = False, vr: str = "") -> Dataset:
    item = Dataset()
    first = -1000 if signed else 500
    vr = vr or ("SS" if signed else "US")
    item.add_new(0x00283002, vr, [2500, first & 0xFFFF if vr == "US" else first, 12])
    item.add_new(0x00283006, "US", (np.arange(2500) ** 2 * 4095 // 2499**2).tolist())
    if not modality:
        return grey(12, signed=signed, VOILUTSequence=[item])
    item.ModalityLUTType = "OD"
    return grey(12, signed=signed, ModalityLUTSequence=[item], WindowCenter=1500, WindowWidth=2000)


WINDOW = {"WindowCenter": "40", "WindowWidth": "400", "RescaleSlope": "1", "RescaleIntercept": "-1024"}
FIRST, TABLE, SPREAD = ("+Wi", "1"), ("+Wl", "1"), ("+Wm",)
CASES: dict[str, tuple[Callable[[], Dataset], tuple[str, ...], str]] = {
    "8 bits": (lambda: grey(8, 8), (), ExplicitVRLittleEndian),
    "6 of 8 bits": (lambda: grey(6, 8), (), ExplicitVRLittleEndian),
    "8 signed bits": (lambda: grey(8, 8, True), (), ExplicitVRLittleEndian),
    "8 bits rescaled": (lambda: grey(8, 8, RescaleSlope="2.5", RescaleIntercept="-7"), (), ExplicitVRLittleEndian),
    "12 bits windowed": (lambda: grey(12, **WINDOW), FIRST, ExplicitVRLittleEndian),
    "12 high bits windowed": (lambda: grey(12, shift=4, **WINDOW), FIRST, ImplicitVRLittleEndian),
    "12 signed bits windowed": (lambda: grey(12, signed=True, **WINDOW), FIRST, ExplicitVRLittleEndian),
    "16 signed bits windowed": (lambda: grey(signed=True, **WINDOW), FIRST, ExplicitVRBigEndian),
    "16 bits windowed": (lambda: grey(**{**WINDOW, "RescaleSlope": "0.07"}), FIRST, ExplicitVRLittleEndian),
    "reversed": (lambda: grey(12, PhotometricInterpretation="MONOCHROME1", **WINDOW), FIRST, ExplicitVRLittleEndian),
    "sigmoid": (lambda: grey(12, VOILUTFunction="SIGMOID", **WINDOW), (*FIRST, "+Wfs"), ExplicitVRLittleEndian),
    "a window of one": (lambda: grey(12, WindowCenter="2000", WindowWidth="1"), FIRST, ExplicitVRLittleEndian),
    "several windows": (lambda: grey(12, WindowCenter=["900", "40"], WindowWidth=["800", "400"]), FIRST, ExplicitVRLittleEndian),
    "spread 16 bits": (lambda: grey(16), SPREAD, ExplicitVRLittleEndian),
    "spread 12 signed bits": (lambda: grey(12, signed=True, RescaleSlope="2", RescaleIntercept="9"), SPREAD, ExplicitVRLittleEndian),
    "spread and reversed": (lambda: grey(10, PhotometricInterpretation="MONOCHROME1"), SPREAD, ExplicitVRLittleEndian),
    "VOI table": (lambda: tables(False), TABLE, ExplicitVRLittleEndian),
    "VOI table of signed values": (lambda: tables(False, True), TABLE, ExplicitVRLittleEndian),
    "VOI table of signed values, described without sign": (lambda: tables(False, True, "US"), TABLE, ExplicitVRLittleEndian),
    "modality table": (lambda: tables(True), FIRST, ExplicitVRLittleEndian),
    "modality table of signed values": (lambda: tables(True, True), FIRST, ExplicitVRLittleEndian),
    "RGB": (lambda: colour("RGB"), (), ExplicitVRLittleEndian),
    "RGB by planes": (lambda: colour("RGB", 1), (), ExplicitVRBigEndian),
    "RGB run-length": (lambda: colour("RGB"), (), RLELossless),
    "YBR_FULL": (lambda: colour("YBR_FULL"), (), ExplicitVRLittleEndian),
    "YBR_FULL by planes": (lambda: colour("YBR_FULL", 1), (), ExplicitVRLittleEndian),
    "YBR_FULL_422": (lambda: colour("YBR_FULL_422"), (), ExplicitVRLittleEndian),
    "palette of 16 bits": (lambda: palette(16), (), ExplicitVRLittleEndian),
    "palette of 8 bits": (lambda: palette(8), (), ExplicitVRLittleEndian),
    "palette from 30 on": (lambda: palette(16, 30), (), ExplicitVRLittleEndian),
    "palette for 12 bits": (lambda: palette(16, 100, 16), (), ExplicitVRLittleEndian),
    "palette run-length": (lambda: palette(16), (), RLELossless),
}
# dcmtk rounds the matrix of YBR otherwise, makes 252 of the highest of 6 bits, and rounds rescaled values before the window.
TOLERANCE = {"6 of 8 bits": 3, "16 bits windowed": 2, "YBR_FULL": 2, "YBR_FULL by planes": 2, "YBR_FULL_422": 2}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebArchive]:
    with web_archive(tmp_path_factory.mktemp("golden")) as made:
        yield made


def dcmtk(file: bytes, folder: Path, *options: str) -> np.ndarray | None:
    """The picture that dcmj2pnm makes of a file, without overlays; None when it cannot."""
    program = shutil.which("dcmj2pnm")
    if program is None:
        pytest.skip("needs dcmj2pnm (Debian: dcmtk)")
    source, target = folder / "in.dcm", folder / "out.png"
    source.write_bytes(file)
    target.unlink(missing_ok=True)
    subprocess.run([program, "-q", "-O", "+on", *options, source, target], check=False, capture_output=True, timeout=60)
    return np.asarray(Image.open(target).convert("RGB")).astype(int) if target.exists() else None


def ours(archive: WebArchive, ds: Dataset) -> np.ndarray:
    answer = archive.get(f"{path_of(ds)}/rendered", "image/png")
    assert answer.status == 200, answer.body
    return np.asarray(Image.open(io.BytesIO(answer.body)).convert("RGB")).astype(int)


@pytest.mark.parametrize("name", CASES)
def test_pictures_are_those_of_another_renderer(archive: WebArchive, name: str, tmp_path: Path) -> None:
    """Checklist B31: palette, MONOCHROME1, signed, planes, YBR, tables and windows, in several transfer syntaxes."""
    make, options, syntax = CASES[name]
    ds = make()
    if syntax == RLELossless:
        ds.ensure_file_meta()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.compress(RLELossless, generate_instance_uid=False)
    file = part10(ds, syntax)
    archive.store(file)
    expected = dcmtk(file, tmp_path, *options)
    assert expected is not None
    got = ours(archive, ds)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= TOLERANCE.get(name, 1)
    assert got.max() > got.min()


def _comparable(ds: Dataset) -> tuple[str, ...] | None:
    """How dcmj2pnm is asked for the same picture; None where the two differ on purpose.

    dcmtk shows single bits as grey, spreads padding too, knows no functional groups, and rounds what is rescaled to whole numbers.
    """
    if ds.get("BitsAllocated", 1) == 1 or "PixelPaddingValue" in ds or "SharedFunctionalGroupsSequence" in ds:
        return None
    if abs(ds.get("RescaleSlope") or 1) < 0.01:
        return None
    if ds.get("SamplesPerPixel") != 1 or ds.PhotometricInterpretation == "PALETTE COLOR":
        return ()
    if "VOILUTSequence" in ds:
        return TABLE
    return FIRST if ds.get("WindowWidth") not in (None, "") else SPREAD if ds.BitsStored > 8 else ()


@pytest.mark.full
@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, on odd values
def test_real_files_are_shown_as_another_renderer_does(archive: WebArchive, corpus: Path, tmp_path: Path) -> None:
    compared, wrong = 0, {}
    for path in sorted(corpus.glob("*.dcm")):
        try:
            ds = dcmread(path)
            options = _comparable(ds) if "PixelData" in ds else None
            archive.store(path.read_bytes())
        except Exception:  # noqa: BLE001 - what is damaged or refused is the matter of others
            continue
        expected = None if options is None else dcmtk(path.read_bytes(), tmp_path, *options)
        if expected is None:
            continue
        if archive.get(f"{path_of(ds)}/rendered", "image/png").status == 406:
            continue  # a transfer syntax that is not decoded here
        difference = np.abs(ours(archive, ds) - expected).max()
        compared += 1
        if difference > 2:
            wrong[path.name] = int(difference)
    assert not wrong
    assert compared > 30
