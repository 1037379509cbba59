"""WADO-RS and STOW-RS when the bytes lie in an object store: streams and ranged reads in place of files."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from pacslite.storage.s3 import S3Options, S3Store
from tests.support.data_sets import CONTENT_TYPE, body, image, new_uid, part10
from tests.support.http import WebServer, running
from tests.support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server, serve_s3
from tests.support.wado import parts

PIXELS = np.random.default_rng(3).integers(0, 65536, (2, 300, 400), dtype=np.uint16)
STUDY, SERIES = new_uid(), new_uid()
AS_STORED = "transfer-syntax=*"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serve_s3(tmp_path_factory.mktemp("objects")) as started:
        yield started


@pytest.fixture(scope="module")
def server(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with (
        running(
            tmp_path_factory.mktemp("s3"),
            storage="s3",
            s3_endpoint=s3.endpoint,
            s3_bucket=BUCKET,
            s3_access_key=ACCESS_KEY,
            s3_secret_key=SECRET_KEY,
        ) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def files(server: WebServer) -> dict[str, bytes]:
    syntaxes = (ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
    sent = {}
    for number, syntax in enumerate(syntaxes):
        ds = image(PIXELS, study=STUDY, series=SERIES, number=number)
        sent[f"/studies/{STUDY}/series/{SERIES}/instances/{ds.SOPInstanceUID}"] = part10(ds, syntax)
    assert server.request("POST", "/studies", body(sent.values()), {"Content-Type": CONTENT_TYPE}).status == 200
    return sent


def test_instances_come_whole_and_in_ranges(server: WebServer, files: dict[str, bytes]) -> None:
    for path, file in files.items():
        assert server.get(path, f"application/dicom; {AS_STORED}").body == file
        some = server.get(path, f"application/dicom; {AS_STORED}", Range="bytes=128-131")
        assert (some.status, some.body, some.headers["content-range"]) == (206, b"DICM", f"bytes 128-131/{len(file)}")


def test_a_series_comes_in_order(server: WebServer, files: dict[str, bytes]) -> None:
    answer = server.get(f"/studies/{STUDY}/series/{SERIES}", f"multipart/related; type=application/dicom; {AS_STORED}")
    assert answer.status == 200
    assert len(answer.body) == int(answer.headers["content-length"])
    places = [answer.body.index(file) for file in files.values()]
    assert places == sorted(places)


def test_frames_and_bulk_data_are_ranged_reads(server: WebServer, files: dict[str, bytes]) -> None:
    for path in files:
        assert server.get(f"{path}/frames/2", "application/octet-stream").body == PIXELS[1].tobytes()
        assert server.get(f"{path}/bulkdata/7FE00010", "*/*").body == PIXELS.tobytes()
        assert server.get(f"{path}/bulkdata/7FE00010", "*/*", Range="bytes=-4").body == PIXELS.tobytes()[-4:]
    assert len(json.loads(server.get(f"/studies/{STUDY}/metadata", "application/dicom+json").body)) == len(files)


def test_a_series_of_which_a_later_object_is_missing_is_refused_before_it_begins(server: WebServer, s3: S3Server) -> None:
    """Checklist 23: all or nothing: the objects are looked at before the answer begins, and those that are missing are named."""
    study, series = new_uid(), new_uid()
    made = [image(study=study, series=series, number=number) for number in range(1, 6)]
    assert server.request("POST", "/studies", body(map(part10, made)), {"Content-Type": CONTENT_TYPE}).status == 200
    path, whole = f"/studies/{study}/series/{series}", f"multipart/related; type=application/dicom; {AS_STORED}"
    assert server.get(path, whole).status == 200
    client = S3Store(S3Options(BUCKET, s3.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY))
    [lost] = [info.key for info in client.list(f"radiology/{study}/") if made[3].SOPInstanceUID in info.key]
    client.delete(lost)
    client.close()
    for resource in (path, f"/studies/{study}"):
        for accept in (whole, "application/zip", "multipart/related; type=application/octet-stream"):
            answer = server.get(resource, accept)
            problem = json.loads(answer.body)
            assert (answer.status, problem["type"]) == (500, "blob-missing")
            assert made[3].SOPInstanceUID in problem["detail"]
            assert made[0].SOPInstanceUID not in problem["detail"]
    assert server.get(f"{path}/instances/{made[0].SOPInstanceUID}", f"application/dicom; {AS_STORED}").status == 200
    assert server.get(f"{path}/instances/{made[3].SOPInstanceUID}", f"application/dicom; {AS_STORED}").status == 500


def test_an_archive_of_objects_is_whole_and_goes_on_where_it_broke_off(server: WebServer, files: dict[str, bytes]) -> None:
    whole = server.get(f"/studies/{STUDY}", "application/zip")
    with zipfile.ZipFile(io.BytesIO(whole.body)) as archive:
        assert archive.testzip() is None
        assert sorted(map(archive.read, archive.namelist()[1:])) == sorted(files.values())
    for begin in (0, 1000, len(whole.body) // 2, len(whole.body) - 30):
        rest = server.get(f"/studies/{STUDY}", "application/zip", Range=f"bytes={begin}-", If_Range=whole.headers["etag"])
        assert (rest.status, rest.body) == (206, whole.body[begin:])


def test_bulk_data_before_and_inside_sequences_of_an_object_is_found(server: WebServer) -> None:
    """Checklist 84, 92: values before the pixels, where only the head of the object is fetched, and values behind them."""
    for syntax in (ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        ds, table = image(PIXELS), Dataset()
        table.LUTData = list(range(4000))
        table["LUTData"].VR = "US"
        ds.ModalityLUTSequence = [table]
        ds.DataSetTrailingPadding = b"\1\2" * 2000
        assert server.request("POST", "/studies", body([part10(ds, syntax)]), {"Content-Type": CONTENT_TYPE}).status == 200
        path = f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
        values = {"00283000/1/00283006": np.arange(4000, dtype="<u2").tobytes(), "7FE00010": PIXELS.tobytes(), "FFFCFFFC": b"\1\2" * 2000}
        for name, value in values.items():
            assert server.get(f"{path}/bulkdata/{name}", "*/*").body == value
        answer = server.get(f"{path}/bulkdata", 'multipart/related; type="application/octet-stream"')
        assert [data for _, data in parts(answer)] == list(values.values())
        assert server.get(f"{path}/bulkdata/00283000/2/00283006", "*/*").status == 404
