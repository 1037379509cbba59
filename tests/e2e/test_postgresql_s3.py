"""The main job on PostgreSQL and S3: real servers of both, dcmtk and HTTP as the clients, no file of ours but the spool."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from pacslite.catalog.database import Catalog
from tests.support import data_sets
from tests.support.catalog_dump import dump
from tests.support.databases import PostgresServer, postgres
from tests.support.multipart import contents
from tests.support.processes import Server, environment, pacslite, serving
from tests.support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server, serve_s3

__all__ = ["postgres"]

pytestmark = pytest.mark.skipif(not shutil.which("storescu"), reason="dcmtk is not installed")

SLICES = 12
PREFIX = "hospital/a"
AS_STORED = {"Accept": "application/dicom; transfer-syntax=*"}


@dataclass
class Site:
    """Where everything is, and what was sent."""

    data: Path
    settings: dict[str, str]
    bucket: S3Server
    ct: list[Dataset]
    cine: Dataset

    def dump(self) -> dict[str, list[dict[str, Any]]]:
        """All that the catalog says."""
        with closing(Catalog(self.settings["PACSLITE_DATABASE_URL"])) as catalog:
            return dump(catalog)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of pacslite with these settings."""
        return pacslite(*arguments, "--data", str(self.data), env=environment(**self.settings))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    study, series = data_sets.new_uid(), data_sets.new_uid()
    ct = [data_sets.image(np.full((1, 8, 8), n, dtype=np.uint16), study=study, series=series, number=n) for n in range(SLICES)]
    for ds in ct:
        ds.PatientName, ds.PatientID, ds.SpecificCharacterSet = "Müller^Jörg", "PG-1", "ISO_IR 100"
    cine = data_sets.image(np.arange(5 * 16 * 16, dtype=np.uint16).reshape(5, 16, 16))
    cine.PatientName, cine.PatientID = "Cine^Loop", "PG-2"
    with serve_s3(folder / "objects") as bucket:
        settings = {
            "PACSLITE_DATABASE_URL": postgres.new_database(),
            "PACSLITE_STORAGE": "s3",
            "PACSLITE_S3_ENDPOINT": bucket.endpoint,
            "PACSLITE_S3_BUCKET": BUCKET,
            "PACSLITE_S3_ACCESS_KEY": ACCESS_KEY,
            "PACSLITE_S3_SECRET_KEY": SECRET_KEY,
            "PACSLITE_S3_PREFIX": PREFIX,
        }
        yield Site(folder / "data", settings, bucket, ct, cine)


@pytest.fixture(scope="module")
def server(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server, with the CT sent by storescu and the clip by STOW-RS."""
    files = tmp_path_factory.mktemp("files")
    for number, ds in enumerate(site.ct):
        (files / f"{number}.dcm").write_bytes(data_sets.part10(ds))
    with serving(site.data, **site.settings) as running:
        sent = subprocess.run(
            ["storescu", "+sd", "-aec", "PACSLITE", *running.dicom, str(files)], capture_output=True, text=True, timeout=60, check=False
        )
        assert sent.returncode == 0, sent.stderr
        stored = requests.post(
            f"{running.url}/dicom-web/studies",
            data=data_sets.body([data_sets.part10(site.cine, ExplicitVRBigEndian)]),
            headers={"Content-Type": data_sets.CONTENT_TYPE},
            timeout=30,
        )
        assert stored.status_code == 200, stored.text
        yield running
        assert "Traceback" not in running.logged()


def url_of(server: Server, ds: Dataset) -> str:
    return f"{server.url}/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"


def find(server: Server, folder: Path, *keys: str) -> list[Dataset]:
    """The matches of findscu."""
    arguments = [argument for key in keys for argument in ("-k", key)]
    command = ["findscu", "-aec", "PACSLITE", "-S", "-X", "-od", str(folder), *arguments, *server.dicom]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [dcmread(path, force=True) for path in sorted(folder.glob("rsp*.dcm"))]


def test_the_server_says_that_all_is_well_and_keeps_no_bytes_of_its_own(site: Site, server: Server) -> None:
    assert {name: check["state"] for name, check in server.health()["checks"].items()} == {
        **dict.fromkeys(("catalog", "storage", "spool", "disk", "video", "clock", "worker", "dimse"), "ok"),
        **dict.fromkeys(("certificate", "quota"), "unknown"),
    }
    assert not (site.data / "catalog.db").exists()
    assert not [path for path in (site.data / "storage").rglob("*") if path.is_file()]
    assert list((site.data / "spool").iterdir()) == []
    objects = list((site.bucket.directory / PREFIX).rglob("*.dcm"))
    assert len(objects) == SLICES + 1


def test_findscu_finds_what_was_sent(site: Site, server: Server, tmp_path: Path) -> None:
    [study] = find(server, tmp_path, "QueryRetrieveLevel=STUDY", "PatientName=muller*", "StudyInstanceUID", "NumberOfStudyRelatedInstances")
    assert (study.StudyInstanceUID, study.NumberOfStudyRelatedInstances) == (site.ct[0].StudyInstanceUID, SLICES)
    assert str(study.PatientName) == "Müller^Jörg"


def test_findscu_finds_every_instance(site: Site, server: Server, tmp_path: Path) -> None:
    ds = site.ct[0]
    keys = (f"StudyInstanceUID={ds.StudyInstanceUID}", f"SeriesInstanceUID={ds.SeriesInstanceUID}", "SOPInstanceUID")
    found = find(server, tmp_path, "QueryRetrieveLevel=IMAGE", *keys)
    assert {str(one.SOPInstanceUID) for one in found} == {str(one.SOPInstanceUID) for one in site.ct}


@pytest.mark.parametrize("key", ["PatientName=Muller*", "PatientName=müller^jörg", "PatientID=PG-1", "StudyDate=20260101-20260131"])
def test_qido_finds_what_was_sent(site: Site, server: Server, key: str) -> None:
    answer = requests.get(f"{server.url}/dicom-web/studies?{key}", timeout=10)
    assert answer.status_code == 200
    assert site.ct[0].StudyInstanceUID in [study["0020000D"]["Value"][0] for study in answer.json()]


def test_instances_come_back_as_sent(site: Site, server: Server) -> None:
    for ds in site.ct:
        assert data_sets.read(requests.get(url_of(server, ds), headers=AS_STORED, timeout=10).content) == ds
    stored = requests.get(url_of(server, site.cine), headers=AS_STORED, timeout=10)
    assert stored.content == data_sets.part10(site.cine, ExplicitVRBigEndian)
    converted = data_sets.read(requests.get(url_of(server, site.cine), headers={"Accept": "application/dicom"}, timeout=10).content)
    assert converted == site.cine


def test_a_series_comes_back_whole(site: Site, server: Server) -> None:
    series = url_of(server, site.ct[0]).rpartition("/instances/")[0]
    answer = requests.get(series, headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}, timeout=30)
    parts = [data_sets.read(part) for part in contents(answer.headers["Content-Type"], answer.content)]
    assert {str(part.SOPInstanceUID) for part in parts} == {str(ds.SOPInstanceUID) for ds in site.ct}
    metadata = requests.get(f"{series}/metadata", timeout=10).json()
    assert [one["00200013"]["Value"] for one in metadata] == [[n] for n in range(SLICES)]
    assert metadata[0]["00100010"]["Value"] == [{"Alphabetic": "Müller^Jörg"}]


@pytest.mark.parametrize("number", [1, 3, 5])
def test_frames_and_ranges_of_objects(site: Site, server: Server, number: int) -> None:
    frame = np.frombuffer(site.cine.PixelData, "<u2")[(number - 1) * 256 : number * 256].tobytes()
    url = f"{url_of(server, site.cine)}/frames/{number}"
    answer = requests.get(url, headers={"Accept": 'multipart/related; type="application/octet-stream"'}, timeout=10)
    assert contents(answer.headers["Content-Type"], answer.content) == [frame]
    part = requests.get(url, headers={"Accept": "application/octet-stream", "Range": "bytes=10-19"}, timeout=10)
    assert (part.status_code, part.content) == (206, frame[10:20])


def test_the_same_again_stores_nothing_and_lost_bytes_are_made_whole(site: Site, server: Server) -> None:
    ds = data_sets.image()
    body = data_sets.body([data_sets.part10(ds)])

    def send() -> int:
        return requests.post(
            f"{server.url}/dicom-web/studies", data=body, headers={"Content-Type": data_sets.CONTENT_TYPE}, timeout=30
        ).status_code

    assert [send(), send()] == [200, 200]
    [stored] = (site.bucket.directory / PREFIX).rglob(f"{ds.SOPInstanceUID}/*.dcm")
    key = stored.relative_to(site.bucket.directory.parent)
    bucket = boto(site)
    bucket.delete_object(Bucket=BUCKET, Key=str(key.relative_to(BUCKET)))
    for accept in ("application/dicom; transfer-syntax=*", "*/*"):
        lost = requests.get(url_of(server, ds), headers={"Accept": accept}, timeout=10)
        assert (lost.status_code, lost.json()["type"]) == (500, "blob-missing")
    assert send() == 200
    assert data_sets.read(requests.get(url_of(server, ds), headers=AS_STORED, timeout=10).content) == ds


def boto(site: Site):  # type: ignore[no-untyped-def]
    import boto3

    return boto3.client(
        "s3", endpoint_url=site.bucket.endpoint, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name="us-east-1"
    )


def test_verify_reads_every_object(site: Site, server: Server) -> None:
    done = site.run("verify", "--deep", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["damaged_count"], report["orphan_count"]) == (0, 0)
    assert report["checked"] >= SLICES + 1


def test_a_catalog_made_anew_from_the_bucket_says_the_same(site: Site, server: Server, postgres: PostgresServer) -> None:
    """The last test: the server has ended, its catalog is lost."""
    server.stop()
    before = site.dump()
    site.settings["PACSLITE_DATABASE_URL"] = postgres.new_database()
    done = site.run("reindex", "--yes", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    after = site.dump()
    for table in ("patient", "study", "series", "instance", "version", "blob", "metadata"):
        assert after[table] == before[table], table
    with serving(site.data, **site.settings) as again:
        assert data_sets.read(requests.get(url_of(again, site.ct[3]), headers=AS_STORED, timeout=10).content) == site.ct[3]
