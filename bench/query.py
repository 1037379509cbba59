"""Searches timed inside the process: 10,000 synthetic studies straight into a catalog, then QIDO-RS from request to bytes.

    python bench/query.py [--studies N] [--database URL]

Without a URL the catalog is a new SQLite file in a temporary directory.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pacslite.catalog.database import Catalog
from pacslite.core import query
from pacslite.core.query_keys import Dialect, build_keys, path_of
from pacslite.dicom.attributes import Level
from pacslite.dicomweb import qido
from pacslite.settings import Settings
from pacslite.web.messages import Reply, Request
from tests.support.catalog_rows import Loader

_KNOWN = ("Doe", "Roe", "Müller", "García", "Smith", "Nguyen", "Kowalska", "Rossi", "Okafor", "Yamada^Tarou=山田^太郎=やまだ^たろう")
FAMILIES = (*_KNOWN, *(f"Family{i}" for i in range(30)))
ROOT = "1.2.826.0.1.3680043.10.1355"


def load(catalog: Catalog, studies: int) -> None:
    """One patient, series and instance per study over five years; the last study has a series of 300 instances."""
    rng = random.Random(7)

    def work(connection: Any) -> None:
        loader = Loader(connection)
        for n in range(studies):
            family = rng.choice(FAMILIES)
            name = family if "^" in family else f"{family}^Given{n % 97}"
            patient = loader.patient(PatientID=f"PID{n:06d}", PatientName=name, PatientBirthDate="19700101", PatientSex="FMO"[n % 3])
            date = f"{rng.randint(2020, 2024)}{rng.randint(1, 12):02d}{rng.randint(1, 28):02d}"
            clock = f"{rng.randint(0, 23):02d}{rng.randint(0, 59):02d}{rng.randint(0, 59):02d}"
            last = n == studies - 1
            study = loader.study(
                patient, StudyInstanceUID=f"{ROOT}.1.{n}", StudyDate=date, StudyTime=clock, AccessionNumber=f"ACC{n}", StudyID=str(n),
                StudyDescription=f"Study {n % 50}", ReferringPhysicianName="Refer^Ring", ModalitiesInStudy="CT",
                NumberOfStudyRelatedSeries=1, NumberOfStudyRelatedInstances=300 if last else 1,
            )  # fmt: skip
            series = loader.series(
                study, SeriesInstanceUID=f"{ROOT}.2.{n}", Modality="CT", SeriesNumber="1", SeriesDescription="Axial",
                NumberOfSeriesRelatedInstances=300 if last else 1,
            )  # fmt: skip
            for i in range(300 if last else 1):
                loader.instance(
                    series, SOPClassUID="1.2.840.10008.5.1.4.1.1.2", SOPInstanceUID=f"{ROOT}.3.{n}.{i}", InstanceNumber=str(i + 1),
                    Rows="512", Columns="512", BitsAllocated="16",
                )  # fmt: skip
        loader.flush()

    catalog.write(work)


def request(url: str) -> Request:
    """A GET request of a URL below the DICOMweb root."""
    parts = urlsplit(url)
    return Request(
        {
            "REQUEST_METHOD": "GET", "PATH_INFO": "/dicom-web" + parts.path, "QUERY_STRING": parts.query, "HTTP_HOST": "127.0.0.1:8080",
            "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8080", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(),
        }
    )  # fmt: skip


def measure(name: str, work: Callable[[], object], repeat: int = 200) -> None:
    """Median and 95th percentile in milliseconds after a few warm runs."""
    for _ in range(10):
        work()
    spans = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        spans.append((time.perf_counter() - start) * 1000)
    print(f"{name:46} {statistics.median(spans):8.3f} ms   p95 {statistics.quantiles(spans, n=20)[-1]:8.3f} ms")


def main() -> None:
    """Load, then time each search of the side-by-side harness and a few more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--database")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        catalog = Catalog(arguments.database or f"sqlite:///{directory}/catalog.db")
        catalog.migrate()
        start = time.perf_counter()
        load(catalog, arguments.studies)
        print(f"{arguments.studies} studies loaded in {time.perf_counter() - start:.1f} s")
        run(catalog, arguments.studies)
        catalog.close()


def run(catalog: Catalog, studies: int) -> None:
    """All searches."""
    pacs: Any = SimpleNamespace(catalog=catalog, settings=Settings())
    rng, last = random.Random(3), studies - 1

    def get(handler: Callable[..., Reply], url: Callable[[], str], **path: str) -> Callable[[], Reply]:
        return lambda: handler(pacs, request(url()), **path)

    study, series = f"{ROOT}.1.{last}", f"{ROOT}.2.{last}"
    month = lambda: f"{rng.randint(2020, 2024)}{rng.randint(1, 12):02d}"  # noqa: E731

    def in_month() -> str:
        m = month()
        return f"/studies?StudyDate={m}01-{m}31&limit=25"

    measure("studies, PatientID", get(qido.search_studies, lambda: f"/studies?PatientID=PID{rng.randrange(studies):06d}"))
    measure("studies, StudyInstanceUID", get(qido.search_studies, lambda: f"/studies?StudyInstanceUID={ROOT}.1.{rng.randrange(studies)}"))
    measure("studies, a month, limit=25", get(qido.search_studies, in_month))
    measure("studies, PatientName=Doe*, limit=25", get(qido.search_studies, lambda: "/studies?PatientName=Doe*&limit=25"))
    measure("studies, PatientName=*mith*, limit=25", get(qido.search_studies, lambda: "/studies?PatientName=*mith*&limit=25"))
    measure("studies, limit=100 at 90 %", get(qido.search_studies, lambda: f"/studies?limit=100&offset={studies * 9 // 10}"))
    viewer = "/studies?limit=101&offset=0&fuzzymatching=false&includefield=00081030%2C00080060"
    measure("studies, first page of the viewer", get(qido.search_studies, lambda: viewer))
    measure("series of a study", get(qido.search_series, lambda: f"/studies/{study}/series", study=study))
    measure("instances of a series, 300", get(qido.search_instances, lambda: "/instances", study=study, series=series))
    measure("all instances, limit=100", get(qido.search_instances, lambda: "/instances?limit=100"), repeat=50)

    def c_find() -> object:
        keys = build_keys([(path_of("PatientID"), f"PID{rng.randrange(studies):06d}")], Dialect(lenient=True))
        page = query.find(catalog, query.Query(Level.STUDY, keys, (0x00100010, 0x00100020, 0x00080020), 100))
        return list(page.records())

    measure("core: PatientID, records", c_find)


if __name__ == "__main__":
    main()
