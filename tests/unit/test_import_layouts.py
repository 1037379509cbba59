"""What the place of a file in a foreign tree tells, and that no path whatever leads it astray."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacslite.core.file_types import MedicalCategory, MedicalFileType
from pacslite.core.import_layouts import Layout, Place, place_of

UUID = "0b0d9c4e-8a4f-4a55-9a53-ad2b0c1f9d10"
PHOTO, STL, SERIES = MedicalFileType.PHOTO, MedicalFileType.STL_MODEL, MedicalFileType.PHOTO_SERIES


def place(layout: Layout, path: str) -> Place:
    return place_of(layout, path.split("/"))


@pytest.mark.parametrize(
    ("path", "number", "kind", "day", "how"),
    [
        (f"patients/patient_7/photos/20240517_photo_{UUID}.jpg", "7", PHOTO, "2024-05-17", "name"),
        ("patients/patient_007/xrays/a.png", "7", MedicalFileType.XRAY, None, ""),
        ("store/patients/123/X-Rays/2024/05/a.png", "123", MedicalFileType.XRAY, "2024-05-01", "month"),
        ("patient-12/3d_models/upper.stl", "12", None, None, ""),
        ("patients/Patient 12/stl models/upper.stl", "12", STL, None, ""),
        ("patients/p12/photos/2024/05/17/a.jpg", "12", PHOTO, "2024-05-17", "folder"),
        ("patients/patient_1/2023-01-31/photos/a.jpg", "1", PHOTO, "2023-01-31", "folder"),
        ("patients/patient_1/photos/2024-05/IMG_2024-05-17.jpg", "1", PHOTO, "2024-05-17", "name"),
        ("patients/patient_1/photos/2024/05/IMG_20230101.jpg", "1", PHOTO, "2024-05-01", "month"),
        ("patients/patient_1/photos/20249917.jpg", "1", PHOTO, None, ""),
        ("patients/patient_1/photos/29990101.jpg", "1", PHOTO, None, ""),
        ("patients/patient_1/photos/12024051799.jpg", "1", PHOTO, None, ""),
        ("patients/patient_1/letter.pdf", "1", None, None, ""),
        ("patients/photos/a.jpg", None, PHOTO, None, ""),
        ("photos/a.jpg", None, PHOTO, None, ""),
    ],
)
def test_typed_folders_of_patients(path: str, number: str | None, kind: MedicalFileType | None, day: str | None, how: str) -> None:
    found = place(Layout.PATIENTS, path)
    assert (found.number, found.file_type, found.study_date, found.dated_by, found.skipped) == (number, kind, day, how, "")


def test_a_folder_below_photo_series_is_one_series() -> None:
    one, two, other = (place(Layout.PATIENTS, f"patients/patient_1/photo_series/{name}") for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg"))
    assert one.file_type is SERIES
    assert one.series == two.series != other.series
    assert place(Layout.PATIENTS, "patients/patient_2/photo_series/a/1.jpg").series != one.series
    assert place(Layout.PATIENTS, "patients/patient_1/photo_series/2024/05/1.jpg").series == ()


def test_a_category_on_the_way_counts() -> None:
    assert place(Layout.PATIENTS, "patients/patient_1/surgical/photos/a.jpg").medical_category is MedicalCategory.SURGICAL


@pytest.mark.parametrize("folder", ["large", "medium", "thumbnails", "Thumbnail", "thumbs", "small"])
@pytest.mark.parametrize(
    ("layout", "path"),
    [
        (Layout.PATIENTS, "patients/patient_1/photos/{}/a.jpg"),
        (Layout.MEDIA, "media/{}/2024/05/a.jpg"),
        (Layout.MEDIA, "media/originals/2024/05/{}/a.jpg"),
        (Layout.IMAGES, "images/user-3/2024/05/{}/a.jpg"),
        (Layout.RADIOLOGY, f"radiology/{UUID}/{UUID}/{{}}/a.jpg"),
    ],
)
def test_what_was_made_of_others_is_passed_over(layout: Layout, path: str, folder: str) -> None:
    assert place(layout, path.format(folder)).skipped


def test_what_systems_leave_behind_is_passed_over() -> None:
    for name in ("Thumbs.db", ".DS_Store", "._a.jpg", "@eaDir/a.jpg", "~$letter.docx"):
        assert place(Layout.PATIENTS, f"patients/patient_1/photos/{name}").skipped, name


@pytest.mark.parametrize(
    ("path", "number", "day", "how"),
    [
        ("media/originals/2024/05/a.jpg", None, "2024-05-01", "month"),
        ("media/originals/2024/05/patient_12_front.jpg", "12", "2024-05-01", "month"),
        ("media/originals/2024/05/20240509_front.jpg", None, "2024-05-09", "name"),
        ("originals/2024/5/a.jpg", None, "2024-05-01", "month"),
        ("thumbnails/media/originals/2024/05/a.jpg", None, "2024-05-01", "month"),
        ("media/originals/patient_4/2024/05/a.jpg", "4", "2024-05-01", "month"),
    ],
)
def test_originals_by_year_and_month(path: str, number: str | None, day: str, how: str) -> None:
    found = place(Layout.MEDIA, path)
    assert (found.number, found.study_date, found.dated_by, found.skipped) == (number, day, how, "")


@pytest.mark.parametrize(
    ("path", "number"),
    [("images/user-12/2024/05/a.jpg", "12"), ("images/user_007/2024/05/a.jpg", "7"), (f"images/user-{UUID}/2024/05/a.jpg", UUID)],
)
def test_pictures_by_user(path: str, number: str) -> None:
    found = place(Layout.IMAGES, path)
    assert (found.number, found.study_date, found.dated_by) == (number, "2024-05-01", "month")


def test_radiology_tells_nothing_but_a_date_in_the_name() -> None:
    assert place(Layout.RADIOLOGY, f"radiology/{UUID}/{UUID}/{UUID}/{UUID}.dcm") == Place()


_COMPONENT = st.one_of(
    st.text(min_size=1, max_size=300),
    st.sampled_from(["..", ".", "patients", "patient_1", "photos", "2024", "05", "originals", "user-1", "\udcff", "patient_" + "9" * 400]),
    st.from_regex(r"[0-9]{1,40}", fullmatch=True),
)


@given(layout=st.sampled_from(list(Layout)), parts=st.lists(_COMPONENT, min_size=1, max_size=12))
def test_any_path_gives_a_place_of_harmless_words(layout: Layout, parts: list[str]) -> None:
    found = place_of(layout, parts)
    assert found.number is None or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", found.number)
    assert found.study_date is None or re.fullmatch(r"(19|20)\d\d-\d\d-\d\d", found.study_date)
    assert bool(found.study_date) == bool(found.dated_by)
