"""Earlier versions of an instance over the wire: `?version=`, our own extension of PS3.18 10.4, and the list of them over REST."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from tests.support.data_sets import image, new_uid, part10
from tests.support.wado import WebArchive, parts, path_of, series_of, study_of, web_archive

SINGLE = "application/dicom; transfer-syntax=*"
DICOM_JSON = "application/dicom+json"
PIXELS = np.arange(2 * 30 * 30, dtype=np.uint16).reshape(2, 30, 30)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebArchive]:
    with web_archive(tmp_path_factory.mktemp("versions")) as made:
        yield made


@pytest.fixture(scope="module")
def made(archive: WebArchive) -> list[Dataset]:
    """One instance in three versions, and a sibling that came between the second and the third."""
    uids = {"study": new_uid(), "series": new_uid(), "instance": new_uid()}
    versions = []
    for number in range(3):
        ds = image(PIXELS + number, **uids)
        ds.ImageComments = f"version {number + 1}"
        versions.append(ds)
        if number == 2:
            archive.store(part10(image(study=uids["study"], series=uids["series"], number=7)))
        archive.store(part10(ds))
    return versions


def listed(archive: WebArchive, ds: Dataset) -> list[dict[str, Any]]:
    answer = archive.rest("GET", path_of(ds) + "/versions")
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = json.loads(answer.body)["items"]
    return found


def comment(archive: WebArchive, path: str) -> list[str]:
    found = json.loads(archive.get(path, DICOM_JSON).body)
    return [ds["00204000"]["Value"][0] for ds in found if "00204000" in ds]


def test_the_versions_of_an_instance_are_listed_newest_first(archive: WebArchive, made: list[Dataset]) -> None:
    items = listed(archive, made[0])
    assert [item["version_number"] for item in items] == [3, 2, 1]
    assert [item["file_size"] for item in items] == [len(part10(ds)) for ds in reversed(made)]
    assert all(item["created_at"] and len(item["file_hash"]) == 64 for item in items)
    for item, ds in zip(items, reversed(made), strict=True):
        path = item["content_url"].removeprefix(archive.server.url)
        assert archive.get(path, SINGLE).body == part10(ds)
    assert archive.rest("GET", path_of(made[0])[:-4] + "9999/versions").status == 404


@pytest.mark.parametrize("by", ["number", "time"])
def test_a_version_is_retrieved_as_it_was(archive: WebArchive, made: list[Dataset], by: str) -> None:
    """Checklist 32: instance, metadata, frames and bulk data of an earlier version, each with a tag of its own."""
    path, items, etags = path_of(made[0]), listed(archive, made[0])[::-1], set()
    for number, ds in enumerate(made, 1):
        query = f"?version={number if by == 'number' else items[number - 1]['created_at']}"
        whole = archive.get(path + query, SINGLE)
        assert (whole.status, whole.body) == (200, part10(ds))
        assert archive.get(path + query, SINGLE, If_None_Match=whole.headers["etag"]).status == 304
        etags.add(whole.headers["etag"])
        assert comment(archive, f"{path}/metadata{query}") == [f"version {number}"]
        [(headers, frame)] = parts(archive.get(f"{path}/frames/2{query}"))
        assert frame == (PIXELS + number - 1)[1].tobytes()
        assert headers["content-location"].endswith(f"{path}/frames/2?version={number}")
        assert archive.get(f"{path}/bulkdata/7FE00010{query}", "*/*").body == (PIXELS + number - 1).tobytes()
        assert archive.get(f"{path}/pixeldata{query}", "application/octet-stream").body == (PIXELS + number - 1).tobytes()
    assert len(etags) == 3
    assert archive.get(path, SINGLE).body == part10(made[2])


def test_links_in_the_metadata_of_a_version_open_that_version(archive: WebArchive, made: list[Dataset]) -> None:
    """Checklist 84: a BulkDataURI of an earlier version names it."""
    [ds] = json.loads(archive.get(path_of(made[0]) + "/metadata?version=1", DICOM_JSON).body)
    uri = ds["7FE00010"]["BulkDataURI"]
    assert uri.endswith("/bulkdata/7FE00010?version=1")
    assert archive.get(uri.removeprefix(archive.server.url), "*/*").body == PIXELS.tobytes()
    assert "version" not in json.loads(archive.get(path_of(made[0]) + "/metadata", DICOM_JSON).body)[0]["7FE00010"]["BulkDataURI"]


def test_a_study_and_a_series_are_as_they_were_at_a_time(archive: WebArchive, made: list[Dataset]) -> None:
    items = listed(archive, made[0])[::-1]
    for path in (study_of(made[0]), series_of(made[0])):
        for number in (1, 2):
            at = items[number - 1]["created_at"]
            assert comment(archive, f"{path}/metadata?version={at}") == [f"version {number}"]
            [(_, file)] = parts(archive.get(f"{path}?version={at}", f'multipart/related; type="application/dicom"{SINGLE[17:]}'))
            assert file == part10(made[number - 1])
        assert len(json.loads(archive.get(f"{path}/metadata?version={items[2]['created_at']}", DICOM_JSON).body)) == 2
        assert archive.get(f"{path}/metadata?version=1999-01-01T00:00:00%2B01:00", DICOM_JSON).status == 404


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("version=4", 404),
        ("version=1999-01-01T00:00:00Z", 404),
        ("version=0", 400),
        ("version=", 400),
        ("version=x", 400),
        ("version=1&version=2", 400),
        ("version=2026-02-30T00:00:00Z", 400),
        ("version=2026-02-20", 400),
    ],
)
def test_a_version_that_is_not_there_is_404_and_one_that_is_none_400(
    archive: WebArchive, made: list[Dataset], query: str, status: int
) -> None:
    for end in ("", "/metadata", "/frames/1", "/bulkdata/7FE00010", "/bulkdata", "/pixeldata"):
        assert archive.get(f"{path_of(made[0])}{end}?{query}").status == status
    assert archive.get(f"{study_of(made[0])}?version=1").status == 400
