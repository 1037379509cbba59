"""Keys of files: where they lie, and what their blobs are found by."""

from __future__ import annotations

import pytest

from pacslite.core.file_types import KEY_NAMES, PICTURE_SIZES, MedicalFileType
from pacslite.storage.keys import blob_uid, check_key, file_key, new_version_id, picture_key


@pytest.mark.parametrize("file_type", list(MedicalFileType))
def test_every_type_has_its_folder_and_its_key_tells_the_blob(file_type: MedicalFileType) -> None:
    names, made = KEY_NAMES[file_type], new_version_id()
    key = check_key(file_key(7, names.folder, "20260301", names.prefix, made, ".jpg"))
    assert key == f"patients/patient_7/{names.folder}/20260301_{names.prefix}_{made}.jpg"
    assert blob_uid(key) == made
    assert blob_uid("quarantine/" + key) == made


def test_smaller_pictures_lie_beside_the_original_under_the_same_stem() -> None:
    made = new_version_id()
    key = file_key(7, "photos", "20260301", "photo", made, ".heic")
    keys = {size.folder: picture_key(key, size.folder) for size in PICTURE_SIZES.values()}
    assert keys["thumbnails"] == f"patients/patient_7/photos/thumbnails/20260301_photo_{made}.jpg"
    assert len({blob_uid(each) for each in (key, *keys.values())}) == 4
    assert blob_uid(keys["large"]) == f"{made}.large"


@pytest.mark.parametrize(
    "parts",
    [
        (0, "photos", "20260301", "photo", ".jpg"),
        (1, "../x", "20260301", "photo", ".jpg"),
        (1, "photos", "2026-03-01", "photo", ".jpg"),
        (1, "photos", "20260301", "pho/to", ".jpg"),
        (1, "photos", "20260301", "photo", "/../x"),
        (1, "photos", "20260301", "photo", ".J PG"),
    ],
)
def test_a_key_of_other_parts_is_not_made(parts: tuple[int, str, str, str, str]) -> None:
    patient, folder, day, prefix, extension = parts
    with pytest.raises(ValueError, match="not the parts"):
        file_key(patient, folder, day, prefix, new_version_id(), extension)


def test_only_files_have_pictures() -> None:
    with pytest.raises(ValueError, match="no picture key"):
        picture_key(f"radiology/1/2/3/{new_version_id()}.dcm", "large")
