"""The sample: repeatable, well-formed, visibly different pictures with known values."""

import itertools
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from pacslite import samples
from pacslite.samples import ct, identity, mr, report, ultrasound


def hounsfield(instance: Dataset) -> np.ndarray:
    return instance.pixel_array.astype(int) * int(instance.RescaleSlope) + int(instance.RescaleIntercept)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return samples.generate(tmp_path_factory.mktemp("sample"))


def test_generating_again_writes_the_same_bytes(generated: list[Path], tmp_path: Path) -> None:
    again = samples.generate(tmp_path)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in generated]


def test_every_file_is_announced_and_written(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    written = samples.generate(tmp_path, lambda done, total: told.append((done, total)))
    assert told == [(n, samples.TOTAL) for n in range(1, samples.TOTAL + 1)]
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())


def test_every_instance_has_its_own_valid_uid(generated: list[Path]) -> None:
    uids = [pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in generated]
    assert len(set(uids)) == len(uids)
    assert all(uid.is_valid for uid in uids)


def test_drawn_patients_are_obviously_fictional(generated: list[Path]) -> None:
    drawn = [pydicom.dcmread(path, stop_before_pixels=True) for path in generated if path.parent.name != "pydicom"]
    assert {str(ds.PatientName).split("^")[0] for ds in drawn} == {"Phantom"}
    assert all(ds.PatientID.startswith("SAMPLE-") for ds in drawn)


def test_uids_of_the_sample_never_change() -> None:
    assert identity.CT_STUDY.uid == "2.25.137081684621525448029935444917028487471"


@pytest.mark.parametrize("number", [1, 12, 24])
def test_known_points_of_the_ct_have_their_density_with_room_around(number: int) -> None:
    values = hounsfield(ct.instance(number))
    for point in ct.KNOWN_POINTS:
        around = values[point.row - 12 : point.row + 13, point.column - 12 : point.column + 13]
        assert np.unique(around).tolist() == [point.hounsfield]


def test_slices_and_frames_differ_visibly() -> None:
    for pictures in ([i.pixel_array for i in ct.series()], [i.pixel_array for i in mr.series()], ultrasound.multi_frame().pixel_array):
        for one, next_one in itertools.pairwise(pictures):
            assert np.count_nonzero(one != next_one) > one.size // 200


def test_ct_slices_lie_evenly_along_the_normal() -> None:
    positions = [ds.ImagePositionPatient[2] for ds in ct.series()]
    assert np.diff(positions) == pytest.approx(ct.SLICE_MM)


def test_ultrasound_is_native_colour() -> None:
    clip = ultrasound.multi_frame()
    assert clip.PhotometricInterpretation == "RGB"
    assert clip.pixel_array.shape == (12, 240, 320, 3)


def test_the_report_measures_an_image_of_the_ct() -> None:
    ds = report.measurement_report()
    (evidence,) = ds.CurrentRequestedProcedureEvidenceSequence
    referenced = evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    image = ct.instance(ct.NODULE_SLICE)
    assert (evidence.StudyInstanceUID, referenced.ReferencedSOPInstanceUID) == (image.StudyInstanceUID, image.SOPInstanceUID)
    number = ds.ContentSequence[-1].ContentSequence[0].ContentSequence[-1]
    across = 2 * ct.NODULE_RADIUS * ct.SPACING_MM
    assert float(number.MeasuredValueSequence[0].NumericValue) == pytest.approx(across, abs=0.05)
