"""The client many scripts use, dicomweb-client, against a real server with its defaults."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO

from pacslite.samples.report import measurement_report
from tests.support.data_sets import image, new_uid, part10
from tests.support.http import WebServer, running

dicomweb_client = pytest.importorskip("dicomweb_client")

PIXELS = np.arange(3 * 8 * 9, dtype=np.uint16).reshape(3, 8, 9)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with running(tmp_path_factory.mktemp("client")) as started:
        yield started


def sent() -> list[Dataset]:
    study, series = new_uid(), new_uid()
    return [dcmread(DicomBytesIO(part10(image(PIXELS, study=study, series=series, number=n)))) for n in (1, 2)]


def test_what_is_stored_is_found_and_comes_back(server: WebServer) -> None:
    client = dicomweb_client.DICOMwebClient(server.url)
    instances = sent()
    study, series, instance = instances[0].StudyInstanceUID, instances[0].SeriesInstanceUID, instances[0].SOPInstanceUID
    response = client.store_instances(instances)
    assert [item.ReferencedSOPInstanceUID for item in response.ReferencedSOPSequence] == [ds.SOPInstanceUID for ds in instances]
    assert not hasattr(response, "FailedSOPSequence")

    assert [found["0020000D"]["Value"] for found in client.search_for_studies(search_filters={"StudyInstanceUID": study})] == [[study]]
    assert len(client.search_for_series(study)) == 1
    assert len(client.search_for_instances(study, series)) == 2

    assert client.retrieve_instance(study, series, instance) == instances[0]
    assert sorted(ds.InstanceNumber for ds in client.retrieve_series(study, series)) == [1, 2]
    assert len(client.retrieve_study(study)) == 2
    assert client.retrieve_instance_metadata(study, series, instance)["00080018"]["Value"] == [instance]
    assert len(client.retrieve_series_metadata(study, series)) == len(client.retrieve_study_metadata(study)) == 2

    frames = client.retrieve_instance_frames(study, series, instance, [1, 3])
    assert [np.frombuffer(frame, np.uint16).reshape(8, 9).tolist() for frame in frames] == [PIXELS[0].tolist(), PIXELS[2].tolist()]
    uri = client.retrieve_instance_metadata(study, series, instance)["7FE00010"]["BulkDataURI"]
    # This client sends a Host header without the port; the URL has it nevertheless.
    assert uri.startswith(server.url)
    assert b"".join(client.retrieve_bulkdata(uri)) == PIXELS.tobytes()


def kept(client: Any, ds: Dataset) -> tuple[str, str, str]:
    """The UIDs of an instance that was just stored."""
    file = dcmread(DicomBytesIO(part10(ds)))
    client.store_instances([file])
    return str(file.StudyInstanceUID), str(file.SeriesInstanceUID), str(file.SOPInstanceUID)


def picture() -> Dataset:
    grey = np.tile(np.arange(64, dtype=np.uint8) * 4, (2, 64, 1))
    return image(grey)


def test_searches_take_every_parameter_of_the_client(server: WebServer) -> None:
    """Checklist 33, 36, 42, 53: filters, fields, limit, offset, fuzzy matching, on all levels."""
    client = dicomweb_client.DICOMwebClient(server.url)
    instances = sent()
    client.store_instances(instances)
    study, series = instances[0].StudyInstanceUID, instances[0].SeriesInstanceUID
    [found] = client.search_for_studies(
        fuzzymatching=True,
        limit=5,
        offset=0,
        fields=["PatientSize", "00081030"],
        search_filters={"StudyInstanceUID": study, "PatientName": "pat tes"},
    )
    assert found["00100010"]["Value"] == [{"Alphabetic": "Test^Patient"}]
    assert [one["0020000E"]["Value"] for one in client.search_for_series(search_filters={"StudyInstanceUID": study})] == [[series]]
    pages = [client.search_for_instances(study, limit=1, offset=n) for n in range(3)]
    assert [len(page) for page in pages] == [1, 1, 0]
    assert pages[0] != pages[1]
    assert len(client.search_for_instances(search_filters={"SeriesInstanceUID": series}, get_remaining=True)) == 2
    assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []


def test_all_levels_can_be_iterated(server: WebServer) -> None:
    client = dicomweb_client.DICOMwebClient(server.url)
    instances = sent()
    client.store_instances(instances, study_instance_uid=instances[0].StudyInstanceUID)
    study, series, instance = instances[0].StudyInstanceUID, instances[0].SeriesInstanceUID, instances[0].SOPInstanceUID
    uids = {ds.SOPInstanceUID for ds in instances}
    assert {ds.SOPInstanceUID for ds in client.iter_study(study)} == uids
    assert {ds.SOPInstanceUID for ds in client.iter_series(study, series)} == uids
    frames = list(client.iter_instance_frames(study, series, instance, [1, 2, 3]))
    assert frames == [frame.tobytes() for frame in PIXELS]
    uri = client.retrieve_instance_metadata(study, series, instance)["7FE00010"]["BulkDataURI"]
    assert b"".join(client.iter_bulkdata(uri)) == PIXELS.tobytes()


@pytest.mark.parametrize(
    ("media_type", "syntax"),
    [
        ("image/jls", "1.2.840.10008.1.2.4.80"),
        ("image/jp2", "1.2.840.10008.1.2.4.90"),
        ("image/dicom-rle", "1.2.840.10008.1.2.5"),
        ("image/jpeg", "1.2.840.10008.1.2.4.70"),
    ],
)
def test_frames_and_instances_come_compressed(server: WebServer, media_type: str, syntax: str) -> None:
    """Checklist 13, 90: the client names media type and transfer syntax."""
    client = dicomweb_client.DICOMwebClient(server.url)
    uids = kept(client, picture())
    frames = client.retrieve_instance_frames(*uids, [1, 2], media_types=((media_type, syntax),))
    assert len(frames) == 2
    assert all(frame and len(frame) != 64 * 64 for frame in frames)
    found = client.retrieve_instance(*uids, media_types=(("application/dicom", syntax),))
    assert found.file_meta.TransferSyntaxUID == syntax
    [found] = client.retrieve_series(*uids[:2], media_types=(("application/dicom", syntax),))
    assert found.file_meta.TransferSyntaxUID == syntax


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png", "image/gif", "image/jp2"])
def test_pictures_are_rendered(server: WebServer, media_type: str) -> None:
    """Checklist 95, 96, 97, 99: whole instances and frames, with the parameters the client knows."""
    client = dicomweb_client.DICOMwebClient(server.url)
    uids = kept(client, picture())
    parameters = {"viewport": "32,32", "window": "128,256,linear"} if media_type != "image/jpeg" else {"quality": 70}
    side = 64 if media_type == "image/jpeg" else 32
    for data in (
        client.retrieve_instance_rendered(*uids, media_types=(media_type,), params=parameters),
        client.retrieve_instance_frames_rendered(*uids, [2], media_types=(media_type,), params=parameters),
    ):
        with Image.open(io.BytesIO(data)) as made:
            assert made.size == (side, side)
            assert len(np.unique(np.asarray(made.convert("L")))) > 8


def test_reports_are_rendered_as_text(server: WebServer) -> None:
    client = dicomweb_client.DICOMwebClient(server.url)
    ds = measurement_report()
    uids = kept(client, ds)
    assert b"<html" in client.retrieve_instance_rendered(*uids, media_types=("text/html",)).lower()
    assert b"Imaging Measurement Report" in client.retrieve_instance_rendered(*uids, media_types=("text/plain",))


def test_what_is_deleted_is_gone(server: WebServer) -> None:
    """Checklist 24: 204, then 410, on each level."""
    requests = pytest.importorskip("requests")
    client = dicomweb_client.DICOMwebClient(server.url)
    instances = sent()
    study, series, instance = instances[0].StudyInstanceUID, instances[0].SeriesInstanceUID, instances[0].SOPInstanceUID
    client.store_instances(instances)
    client.delete_instance(study, series, instance)
    assert len(client.search_for_instances(study)) == 1
    with pytest.raises(requests.HTTPError, match="410"):
        client.retrieve_instance(study, series, instance)
    client.delete_series(study, series)
    with pytest.raises(requests.HTTPError, match="410"):
        client.retrieve_study_metadata(study)
    client.store_instances(instances)
    client.delete_study(study)
    assert client.search_for_studies(search_filters={"StudyInstanceUID": study}) == []


def test_large_uploads_are_chunked(server: WebServer) -> None:
    """Checklist 113: the client sends the body in chunks, without its length."""
    client = dicomweb_client.DICOMwebClient(server.url, chunk_size=100_000)
    ds = image(np.arange(500 * 1000, dtype=np.uint16).reshape(1, 500, 1000))
    uids = kept(client, ds)
    assert client.retrieve_instance(*uids).PixelData == ds.PixelData


def test_what_is_not_there_is_told(server: WebServer) -> None:
    client = dicomweb_client.DICOMwebClient(server.url)
    requests = pytest.importorskip("requests")
    with pytest.raises(requests.HTTPError, match="404"):
        client.retrieve_study(new_uid())
