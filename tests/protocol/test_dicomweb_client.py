"""The client many scripts use, dicomweb-client, against a real server with its defaults."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO

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


def test_what_is_not_there_is_told(server: WebServer) -> None:
    client = dicomweb_client.DICOMwebClient(server.url)
    requests = pytest.importorskip("requests")
    with pytest.raises(requests.HTTPError, match="404"):
        client.retrieve_study(new_uid())
