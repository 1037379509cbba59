"""Data sets made for tests: small images in any transfer syntax, as Part 10 files in memory, and STOW bodies of them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from copy import deepcopy

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
BOUNDARY = "test-boundary"
CONTENT_TYPE = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'


def new_uid() -> str:
    """A fresh UID."""
    return str(generate_uid())


def image(
    pixels: np.ndarray | None = None,
    *,
    study: str | None = None,
    series: str | None = None,
    instance: str | None = None,
    number: int = 1,
    compressed: Sequence[bytes] = (),
    bits: int = 0,
) -> Dataset:
    """A secondary capture of grey pixels (frames, rows, columns), or of the compressed frames given."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, instance or new_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study or new_uid(), series or new_uid()
    ds.PatientID, ds.PatientName = "T-1", "Test^Patient"
    ds.StudyDate, ds.StudyTime, ds.Modality = "20260102", "030405", "OT"
    ds.SeriesNumber, ds.InstanceNumber = 1, number
    if pixels is None:
        pixels = np.arange(24, dtype=np.uint16).reshape(1, 4, 6)
    ds.NumberOfFrames = len(compressed) or len(pixels)
    ds.Rows, ds.Columns = pixels.shape[1:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated = bits or 8 * pixels.dtype.itemsize
    ds.BitsStored, ds.HighBit = ds.BitsAllocated, ds.BitsAllocated - 1
    if compressed:
        ds.PixelData = encapsulate(list(compressed))
        ds["PixelData"].VR = "OB"
        return ds
    raw = np.packbits(pixels.astype(bool).ravel(), bitorder="little").tobytes() if bits == 1 else pixels.tobytes()
    ds.PixelData = raw + b"\0" * (len(raw) % 2)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated == 16 else "OB"
    return ds


def document(content: bytes, mime_type: str = "application/pdf") -> Dataset:
    """An encapsulated document."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = EncapsulatedPDFStorage, new_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = new_uid(), new_uid()
    ds.PatientID, ds.PatientName, ds.Modality = "T-1", "Test^Patient", "DOC"
    ds.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    ds.EncapsulatedDocumentLength = len(content)
    ds.MIMETypeOfEncapsulatedDocument = mime_type
    return ds


def part10(ds: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The data set as a Part 10 file."""
    syntax = UID(transfer_syntax)
    copy = deepcopy(ds)
    copy.file_meta = FileMetaDataset()
    copy.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", "1.2.3")
    copy.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2.3")
    copy.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian and ds["PixelData"].VR == "OW":
        copy["PixelData"].value = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    out = io.BytesIO()
    copy.save_as(out, enforce_file_format=True)
    return out.getvalue()


def body(files: Iterable[bytes], part_headers: bytes = b"Content-Type: application/dicom\r\n", newline: bytes = b"\r\n") -> bytes:
    """A multipart body of files."""
    parts = [b"--" + BOUNDARY.encode() + newline + part_headers + newline + file + newline for file in files]
    return b"".join(parts) + b"--" + BOUNDARY.encode() + b"--" + newline


def read(file: bytes) -> Dataset:
    """The data set of a Part 10 file."""
    return dcmread(io.BytesIO(file))
