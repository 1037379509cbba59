"""Native transfer syntaxes into each other: PS3.5 annex A."""

from __future__ import annotations

import io
import struct
import tracemalloc
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacslite.codec.transfer_syntax import TARGETS, can_convert, convert
from pacslite.dicom.data_set import NATIVE
from pacslite.dicom.limits import Limits
from pacslite.errors import UnsupportedTransferSyntax
from tests.support.dicom_files import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, element, part10

LIMITS = Limits()
DEFLATED = "1.2.840.10008.1.2.1.99"
SYNTAXES = sorted(TARGETS)


def sample() -> bytes:
    """A file with every kind of value whose bytes depend on the syntax."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.40", "1.2.3", "1.2.4"
    ds.PatientName, ds.ImageType, ds.PatientWeight = "Doe^J", ["DERIVED", "PRIMARY"], "70.5"
    ds.FrameIncrementPointer, ds.Rows, ds.Columns, ds.BitsAllocated, ds.PixelRepresentation = 0x00181063, 2, 3, 16, 1
    ds.SmallestImagePixelValue, ds.SelectorULValue, ds.SelectorSLValue = -5, [1, 2**31], -7
    ds.SelectorFLValue, ds.SelectorFDValue, ds.SelectorUVValue = 1.5, [0.1, 2.5], 2**40
    ds.add_new(0x00720067, "OF", struct.pack("<2f", 1.5, -2.5))
    ds.add_new(0x00720073, "OD", struct.pack("<d", 0.1))
    ds.add_new(0x00720075, "OL", struct.pack("<I", 7))
    ds.add_new(0x00720069, "OW", struct.pack("<2H", 1, 2))
    inner = Dataset()
    inner.SmallestImagePixelValue, inner.CodeValue = -9, "C1"
    ds.ReferencedImageSequence = Sequence([inner, Dataset()])
    ds.add_new(0x7FE00010, "OW", np.arange(6, dtype="<i2").tobytes())
    out = io.BytesIO()
    ds.save_as(out, implicit_vr=False, little_endian=True)
    return part10([out.getvalue()], identified=False)


def written(raw: bytes, target: str, **options: Any) -> bytes:
    return b"".join(convert(io.BytesIO(raw), target, LIMITS, **options))


def values(raw: bytes) -> dict[Any, Any]:
    """All values of a file as pydicom reads them, the bytes of words turned to little endian."""
    ds = pydicom.dcmread(io.BytesIO(raw))
    sizes = {"OF": 4, "OD": 8, "OL": 4, "OW": 2}

    def plain(data: Dataset) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for each in data:
            value = each.value
            if each.VR == "SQ":
                value = [plain(entry) for entry in value]
            elif each.VR in sizes and not ds.original_encoding[1]:
                value = np.frombuffer(value, f">u{sizes[each.VR]}").astype(f"<u{sizes[each.VR]}").tobytes()
            found[each.tag] = (each.VR, value)
        return found

    return plain(ds)


@pytest.mark.parametrize(("source", "target"), list(product(SYNTAXES, SYNTAXES)))
def test_every_way_keeps_every_value(source: str, target: str) -> None:
    first = written(sample(), source)
    second = written(first, target)
    assert pydicom.dcmread(io.BytesIO(second)).file_meta.TransferSyntaxUID == target
    if target == IMPLICIT_LE:
        second = written(second, EXPLICIT_LE)  # pydicom takes signed items before Pixel Representation as unsigned
    assert values(second) == values(sample())


def test_the_data_set_alone_for_a_message() -> None:
    whole, alone = written(sample(), EXPLICIT_BE), written(sample(), EXPLICIT_BE, with_meta=False)
    assert whole.endswith(alone)
    assert whole[128:132] == b"DICM"
    assert not alone.startswith(whole[:132])


def test_values_too_long_for_their_vr_become_unknown() -> None:
    raw = part10([element(0x00081030, "", b"x" * 70_000, IMPLICIT_LE)], IMPLICIT_LE)
    ds = pydicom.dcmread(io.BytesIO(written(raw, EXPLICIT_LE)))
    with pydicom.config.disable_value_validation():
        assert len(bytes(ds.get_item(0x00081030).value)) == 70_000
    assert ds.get_item(0x00081030).VR == "UN"


def test_group_lengths_go_and_odd_lengths_are_padded() -> None:
    raw = part10([element(0x00080000, "UL", bytes(4)), element(0x00100020, "LO", b"ABC"), element(0x00420011, "OB", b"abc")])
    out = written(raw, IMPLICIT_LE)
    ds = pydicom.dcmread(io.BytesIO(out))
    assert 0x00080000 not in ds
    assert (ds.PatientID, ds.EncapsulatedDocument) == ("ABC", b"abc\0")


def test_deflated_ends_on_an_even_byte() -> None:
    for length in range(0, 12, 2):
        packed = written(part10([element(0x00100020, "LO", b"ABCDEFGHIJKL"[:length])]), DEFLATED, with_meta=False)
        assert len(packed) % 2 == 0


def test_private_big_endian_pixels_become_little_endian() -> None:
    body = part10([element(0x7FE00010, "", b"\1\2\3\4", IMPLICIT_LE)], IMPLICIT_LE)
    raw = part10([], "1.2.840.113619.5.2", identified=False) + body[len(part10([], IMPLICIT_LE, identified=False)) :]
    assert pydicom.dcmread(io.BytesIO(written(raw, EXPLICIT_LE))).PixelData == b"\2\1\4\3"


def test_only_native_syntaxes_are_converted() -> None:
    jpeg = "1.2.840.10008.1.2.4.50"
    assert set(SYNTAXES) <= NATIVE
    assert jpeg not in NATIVE
    assert can_convert(jpeg, jpeg)
    assert not can_convert(EXPLICIT_LE, jpeg)
    assert not can_convert(jpeg, EXPLICIT_LE)
    for raw, target in ((part10([], jpeg), EXPLICIT_LE), (part10([]), jpeg)):
        with pytest.raises(UnsupportedTransferSyntax):
            convert(io.BytesIO(raw), target, LIMITS)


@pytest.mark.parametrize("target", [EXPLICIT_BE, IMPLICIT_LE])
def test_a_large_object_passes_in_bounded_memory(tmp_path: Path, target: str) -> None:
    size = 200_000_000
    head = part10([element(0x7FE00010, "OW", b"", length=size)])
    path = tmp_path / "large.dcm"
    with path.open("wb") as out:
        out.write(head)
        out.truncate(len(head) + size)
    tracemalloc.start()
    try:
        with path.open("rb") as source:
            total = sum(len(piece) for piece in convert(source, target, LIMITS, with_meta=False))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total > size
    assert peak < 12_000_000
