"""What one instance is made of: each step of ingest and of an answer alone, in milliseconds. `python bench/micro.py [--json]`.

Runs on a catalog and a storage in a temporary directory on the disk of the current directory, with full durability.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from pacslite.app import Pacs, build, migrate
from pacslite.core.ingest import Origin, arrival_of, read_limits
from pacslite.core.query import Query, find
from pacslite.dicom.attributes import Level
from pacslite.dicom.instance import read_instance
from pacslite.dicom.uids import new_uid
from pacslite.settings import load
from pacslite.storage.spool import SpoolFile

ORIGIN = Origin(protocol="job")


def ct_slice(study: str, series: str, number: int, size: int) -> bytes:
    """A CT image of `size` x `size` 16-bit pixels with about sixty attributes, as a Part 10 file."""
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 100"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, new_uid()
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = "20260102"
    data.StudyTime = data.SeriesTime = data.AcquisitionTime = data.ContentTime = "101112.500000"
    data.AccessionNumber, data.Modality, data.Manufacturer = "A1", "CT", "Nobody"
    data.ReferringPhysicianName, data.PatientName, data.PatientID = "Nobody^Norbert", "Bench^Bertha", "BENCH-1"
    data.PatientBirthDate, data.PatientSex = "19700101", "F"
    data.StudyDescription, data.SeriesDescription = "Bench", "Axial"
    data.StudyInstanceUID, data.SeriesInstanceUID = study, series
    data.StudyID, data.SeriesNumber, data.InstanceNumber = "1", 1, number
    data.FrameOfReferenceUID = series + ".1"
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
    data.SliceThickness, data.KVP, data.PixelSpacing, data.SliceLocation = 1, 120, [0.5, 0.5], number
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows = data.Columns = size
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.WindowCenter, data.WindowWidth, data.RescaleIntercept, data.RescaleSlope = 40, 400, -1024, 1
    item = Dataset()
    item.ScheduledProcedureStepID, item.RequestedProcedureID = "S1", "R1"
    data.RequestAttributesSequence = [item]
    data.PixelData = np.random.default_rng(number).integers(0, 4096, size * size, dtype=np.uint16).tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with tempfile.TemporaryFile() as file:
        data.save_as(file, enforce_file_format=True)
        file.seek(0)
        return file.read()


def timed(repeats: int, step: Callable[[int], object]) -> float:
    """Median milliseconds of a step."""
    spent = []
    for i in range(repeats):
        begin = time.perf_counter()
        step(i)
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent) * 1000


def _spooled(pacs: Pacs, content: bytes) -> SpoolFile:
    with pacs.spool.create(".dcm") as writer:
        view = memoryview(content)
        for offset in range(0, len(content), 131072):
            writer.write(view[offset : offset + 131072])
        return writer.finish()


def ingest_steps(pacs: Pacs, size: int, repeats: int) -> dict[str, float]:
    """The steps of taking one instance in, and all of them together."""
    study, series = new_uid(), new_uid()
    files = [ct_slice(study, series, i + 1, size) for i in range(repeats)]
    kept: list[SpoolFile] = []
    costs = {"spool, with both digests": timed(repeats, lambda i: kept.append(_spooled(pacs, files[i])))}
    limits = read_limits(pacs.settings, pacs.spool.directory)
    costs["read header, metadata, frames"] = timed(repeats, lambda i: read_instance(kept[i].path, limits))
    read = read_instance(kept[0].path, limits)
    costs["make the rows"] = timed(repeats, lambda i: arrival_of(read, kept[0].data_set_digest or "", ORIGIN, pacs.settings))
    arrival = arrival_of(read, kept[0].data_set_digest or "", ORIGIN, pacs.settings)
    costs["look for the instance"] = timed(repeats, lambda i: pacs.ingest.find(arrival))
    costs["keep the bytes (sync, rename, sync)"] = timed(repeats, lambda i: pacs.store.put(kept[i].path, f"bench/{series}/{i}/v.dcm"))
    costs["commit of a row"] = timed(repeats, lambda i: pacs.catalog.write(lambda conn: conn.exec_driver_sql("DELETE FROM peer")))
    costs["all of it: spool and ingest.accept"] = timed(repeats, lambda i: pacs.ingest.accept(_spooled(pacs, files[i]), ORIGIN))
    return costs


def disk_steps(folder: Path, repeats: int) -> dict[str, float]:
    """What the disk takes for one sync of a file of 16 KiB and of a directory entry."""
    data = os.urandom(16384)

    def file(i: int) -> None:
        fd = os.open(folder / f"f{i}", os.O_CREAT | os.O_WRONLY)
        os.write(fd, data)
        os.fdatasync(fd)
        os.close(fd)

    directory = os.open(folder, os.O_RDONLY)

    def entry(i: int) -> None:
        os.mkdir(folder / f"d{i}")
        os.fsync(directory)

    costs = {"disk: sync of a new 16 KiB file": timed(repeats, file), "disk: sync of a new directory": timed(repeats, entry)}
    os.close(directory)
    return costs


def main(arguments: list[str]) -> int:
    """Prints the table; exit status 0."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        settings = load(data=name, environment={})
        migrate(settings)
        pacs = build(settings)
        table = {"disk": disk_steps(Path(name), 100)}
        table["512x512 (527 KB)"] = ingest_steps(pacs, 512, 60)
        table["88x88 (15 KB)"] = ingest_steps(pacs, 88, 200)
        table["answers"] = {"QIDO, one study": timed(100, lambda i: find(pacs.catalog, Query(Level.STUDY, (), (0x0020000D,), limit=1)))}
        pacs.close()
    if "--json" in arguments:
        print(json.dumps(table, indent=1))
        return 0
    for title, costs in table.items():
        print(f"\n{title}")
        for step, cost in costs.items():
            print(f"  {cost:8.3f} ms  {step}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
