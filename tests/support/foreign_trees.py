"""Trees of files as other services keep them, made of real files."""

from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image
from pydicom.dataset import Dataset

from tests.support import file_samples
from tests.support.data_sets import image, part10

JPEG_SIZE = (32, 24)


def jpeg(number: int = 0) -> bytes:
    """A small JPEG; other numbers are other pictures."""
    out = io.BytesIO()
    picture = Image.new("RGB", JPEG_SIZE, (number * 37 % 256, number * 101 % 256, number * 13 % 256))
    picture.save(out, "JPEG", comment=str(number))
    return out.getvalue()


def png(number: int = 0) -> bytes:
    """A small PNG; other numbers are other pictures."""
    out = io.BytesIO()
    Image.new("RGB", (16, 16), (number & 255, number >> 8 & 255, 7)).save(out, "PNG")
    return out.getvalue()


def stl(number: int = 0) -> bytes:
    """A small model; other numbers are other files."""
    return file_samples.binary_stl(header=f"model {number}".encode())


def dicom(patient_id: str, **more: str) -> tuple[Dataset, bytes]:
    """An instance of a patient and its file."""
    ds = image(**more)
    ds.PatientID = patient_id
    return ds, part10(ds)


def put(root: Path, files: dict[str, bytes], modified_at: float | None = None) -> Path:
    """Writes files by their paths below a folder."""
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        if modified_at is not None:
            os.utime(root / path, (modified_at, modified_at))
    return root
