"""Answers of WADO-RS taken apart, and the paths that are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset

from pacslite.dicomweb.media_types import parse_media_type
from pacslite.dicomweb.multipart_related import Limits, MultipartReader, boundary_of
from tests.support.data_sets import CONTENT_TYPE, body
from tests.support.http import Answer, WebServer, running


@dataclass
class Pieces:
    data: bytes

    def read(self, size: int = -1) -> bytes:
        data, self.data = self.data, b""
        return data


def parts(answer: Answer) -> list[tuple[dict[str, str], bytes]]:
    assert answer.status == 200, answer.body
    media = parse_media_type(answer.headers["content-type"])
    assert media.name == "multipart/related"
    assert int(answer.headers.get("content-length", len(answer.body))) == len(answer.body)
    reader = MultipartReader(Pieces(answer.body), boundary_of(media), Limits(1 << 30, 10_000))
    found = [(part.headers, b"".join(map(bytes, part.data()))) for part in reader.parts()]
    assert all(parse_media_type(headers["content-type"]).name == media.parameter("type") for headers, _ in found)
    assert all(int(headers.get("content-length", len(data))) == len(data) for headers, data in found)
    return found


def path_of(ds: Dataset) -> str:
    return f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"


def study_of(ds: Dataset) -> str:
    return f"/studies/{ds.StudyInstanceUID}"


def series_of(ds: Dataset) -> str:
    return f"{study_of(ds)}/series/{ds.SeriesInstanceUID}"


@dataclass(frozen=True)
class WebArchive:
    """A web server to put instances in and get them out of."""

    server: WebServer

    def get(self, path: str, accept: str | None = None, **headers: str) -> Answer:
        return self.server.get(path, accept, **headers)

    def rest(self, method: str, path: str) -> Answer:
        """A request to what is not DICOMweb."""
        return replace(self.server, root="/api/v1").request(method, path)

    def store(self, *files: bytes) -> None:
        answer = self.server.request("POST", "/studies", body(files), {"Content-Type": CONTENT_TYPE})
        assert answer.status == 200, answer.body

    def lose(self, ds: Dataset) -> None:
        """Takes the stored bytes of an instance away behind the server's back."""
        found = [file for file in (self.server.data / "storage").rglob("*.dcm") if str(ds.SOPInstanceUID) in str(file)]
        assert found
        for file in found:
            file.unlink()


@contextmanager
def web_archive(data: Path, **settings: str) -> Iterator[WebArchive]:
    """A server over `data` with these settings."""
    with running(data, **settings) as server:
        yield WebArchive(server)
