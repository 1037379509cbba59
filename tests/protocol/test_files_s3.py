"""Files when their bytes lie in an object store: streams and ranged reads in place of files, and URLs that the store has signed."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Iterator
from urllib.error import HTTPError

import pytest

from tests.support.data_sets import image, part10
from tests.support.file_site import Site, file_site
from tests.support.files import any_photo
from tests.support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server, serve_s3


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serve_s3(tmp_path_factory.mktemp("objects")) as started:
        yield started


@pytest.fixture(scope="module")
def site(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    keys = {"s3_bucket": BUCKET, "s3_access_key": ACCESS_KEY, "s3_secret_key": SECRET_KEY}
    with file_site(tmp_path_factory.mktemp("files-s3"), storage="s3", s3_endpoint=s3.endpoint, **keys) as found:
        yield found


def test_content_streams_whole_and_in_ranges(site: Site) -> None:
    data = any_photo()
    made = site.upload(data)
    answer = site.content(made["id"])
    assert (answer.body, answer.headers["etag"]) == (data, f'"{hashlib.sha256(data).hexdigest()}"')
    assert site.content(made["id"], headers={"Range": "bytes=10-19"}).body == data[10:20]
    assert site.content(made["id"], method="HEAD").headers["content-length"] == str(len(data))
    assert site.content(made["id"], headers={"If-None-Match": answer.headers["etag"]}).status == 304


def test_a_signed_url_is_the_stores_own(site: Site, s3: S3Server) -> None:
    data = any_photo()
    made = site.upload(data)
    url = site.json("POST", f"{made['id']}/url", {"expires_in": 60})["url"]
    assert url.startswith(s3.endpoint)
    assert read(url) == data
    assert read(url, Range="bytes=1-3") == data[1:4]
    with pytest.raises(HTTPError) as refused:
        read(url.replace("Signature=", "Signature=0"))
    assert refused.value.code == 403
    refused.value.close()


def read(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        found: bytes = answer.read()
        return found


def test_versions_and_the_trash_are_as_on_a_disk(site: Site) -> None:
    first = any_photo()
    made = site.upload(first)
    site.version(made["id"], any_photo())
    site.json("POST", f"{made['id']}/versions/1/restore", status=201)
    assert site.content(made["id"]).body == first
    assert site.status("DELETE", made["id"]) == 204
    assert site.json("POST", f"{made['id']}/undelete")["version_number"] == 3


def test_a_dicom_file_is_an_instance_there_too(site: Site) -> None:
    ds = image()
    ds.PatientID = "P-1"
    sent = part10(ds)
    made = site.upload(sent, "a.dcm", file_type="dicom")
    assert site.content(made["id"]).body == sent
    assert read(site.json("POST", f"{made['id']}/url", {})["url"]) == sent


def test_a_store_that_is_gone_is_told_as_such(site: Site, s3: S3Server) -> None:
    made = site.upload(any_photo())
    before = site.json("GET", f"patient/{site.patient}/files")["total"]
    s3.stop()
    assert site.content(made["id"]).status == 503
    answer = site.post({"patient_id": site.patient, "file_type": "photo"}, [("a.jpg", any_photo())])
    assert (answer.status, json.loads(answer.body)["type"]) == (503, "storage-unavailable")
    assert site.json("GET", f"patient/{site.patient}/files")["total"] == before
    assert site.spooled() == []
