"""Sample instances, so that a fresh checkout has something to find and to look at: drawn ones, and test files that pydicom ships.

Nothing here is of a person who could be told: pictures are drawn, and the names say so, or pydicom's are anonymous. All UIDs and all
values are fixed: making the sample again gives the same data sets, and taking it in again stores nothing new.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pydicom import Dataset
from pydicom.data import get_testdata_file

from pacslite.samples import ct, mr, report, ultrasound

# Small instances of other kinds, which the wheel of pydicom carries: compressed syntaxes, palette, plan, waveform, SR.
SHIPPED = (
    "CT_small.dcm",
    "JPEG2000.dcm",
    "MR_small.dcm",
    "SC_rgb_rle_2frame.dcm",
    "examples_palette.dcm",
    "test-SR.dcm",
    "waveform_ecg.dcm",
)

Progress = Callable[[int, int], None]


def _drawn() -> Iterator[tuple[str, Dataset]]:
    for number, instance in enumerate(ct.series(), 1):
        yield f"ct/{number:03}.dcm", instance
    for number, instance in enumerate(mr.series(), 1):
        yield f"mr/{number:03}.dcm", instance
    yield "us/001.dcm", ultrasound.multi_frame()
    yield "sr/001.dcm", report.measurement_report()


TOTAL = ct.SLICES + mr.SLICES + 2 + len(SHIPPED)


def _quiet(_done: int, _total: int) -> None:
    """The progress of callers that show none."""


def generate(directory: Path, progress: Progress = _quiet) -> list[Path]:
    """Writes the sample into `directory` as Part 10 files and gives their paths in a fixed order.

    Existing files of the sample are replaced by the same content. `progress` is told (done, total) after every file.
    """
    written: list[Path] = []

    def place(name: str) -> Path:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def note(path: Path) -> None:
        written.append(path)
        progress(len(written), TOTAL)

    for name, instance in _drawn():
        path = place(name)
        instance.save_as(path, enforce_file_format=True)
        note(path)
    for name in SHIPPED:
        source = get_testdata_file(name, download=False)
        if isinstance(source, str):  # a distribution's own package of pydicom may leave its test files out
            path = place(f"pydicom/{name}")
            shutil.copyfile(source, path)
            note(path)
    return written
