"""What is made of files: by the worker's job, of real files, durable, once for equal bytes, and gone with the original."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pacslite import app, job_kinds
from pacslite.app import Pacs
from pacslite.catalog.changes import Origin
from pacslite.core import erasure, files, jobs, patients, rendition_jobs, renditions
from pacslite.core.file_arrivals import Arrived, Description, add, add_version
from pacslite.core.file_notes import Owner
from pacslite.core.file_records import FileRecord
from pacslite.core.file_types import FileVersionType, MedicalFileType
from pacslite.core.patients import About, Cause
from pacslite.core.rendition_jobs import queue_regenerate
from pacslite.errors import NotFound, NotReady, OutOfSpace
from pacslite.settings import load
from tests.support import media
from tests.support.data_sets import image, part10
from tests.support.file_samples import pdf
from tests.support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, serve_s3

OWNER, ORIGIN = Owner(None, "somebody"), Origin("api")
SIZES = ("large", "medium", "thumbnail")


class Clinic:
    """A server's parts and one patient."""

    def __init__(self, pacs: Pacs) -> None:
        self.pacs = pacs
        self.patient = patients.create(pacs, "P1", None, About(), Cause(ORIGIN)).id

    def arrived(self, content: bytes, name: str) -> Arrived:
        with self.pacs.spool.create() as writer:
            writer.write(content)
            return Arrived(writer.finish(), name)

    def add(self, content: bytes, name: str, kind: str = "photo") -> FileRecord:
        return add(self.pacs, [self.arrived(content, name)], Description(self.patient, MedicalFileType(kind)), OWNER, ORIGIN)

    def work(self) -> list[jobs.Job]:
        """Do all jobs that are due."""
        runner = job_kinds.runner(self.pacs, threading.Event())
        while runner.run_next():
            pass
        return jobs.page(self.pacs.catalog, before=None, limit=100)[0]

    def states(self, record: FileRecord) -> dict[str, str]:
        with self.pacs.catalog.read() as conn:
            return renditions.states(conn, [self.blob(record)]).get(self.blob(record), {})

    def facts(self, record: FileRecord) -> dict[str, Any]:
        with self.pacs.catalog.read() as conn:
            return renditions.facts(conn, [self.blob(record)])[self.blob(record)]

    def blob(self, record: FileRecord) -> int:
        pk = record.version.parts[0].blob_pk
        assert pk is not None
        return pk

    def read(self, record: FileRecord, name: str) -> bytes:
        found = renditions.open(self.pacs, self.blob(record), name)
        with self.pacs.stores.open(found) as stream:
            return stream.read()

    def picture(self, record: FileRecord, name: str) -> Image.Image:
        return Image.open(io.BytesIO(self.read(record, name)), formats=["JPEG"])

    def stored(self) -> list[str]:
        return [info.key for info in self.pacs.store.list("patients/")]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("migrated")
    app.migrate(load(environment={"PACSLITE_AUTH": "off"}, data=directory))
    return directory / "catalog.db"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is being made there is nothing to wait for."""
    monkeypatch.setattr(renditions, "_WAIT_S", 0.1)


@pytest.fixture
def clinic(tmp_path: Path, migrated: Path) -> Iterator[Clinic]:
    (tmp_path / "data").mkdir()
    shutil.copyfile(migrated, tmp_path / "data" / "catalog.db")
    pacs = app.build(load(environment={}, data=tmp_path / "data"))
    yield Clinic(pacs)
    pacs.close()


def test_a_photo_gets_its_three_pictures(clinic: Clinic) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "CAMERA"
    turned = media.photo(1600, 1000).transpose(Image.Transpose.ROTATE_90)
    record = clinic.add(media.encoded(turned, "JPEG", exif=exif, comment=b"a name", quality=92), "smile.jpg")
    assert clinic.states(record) == dict.fromkeys(SIZES, "pending")
    [job] = clinic.work()
    assert (job.kind, job.state, job.result) == ("files.renditions", "succeeded", {"made": sorted(SIZES), "failed": {}})
    assert clinic.states(record) == dict.fromkeys(SIZES, "ready")
    assert clinic.facts(record) == {"width": 1600, "height": 1000, "mode": "RGB"}
    for name, size in zip(SIZES, ((1200, 750), (800, 500), (200, 125)), strict=True):
        picture = clinic.picture(record, name)
        assert picture.size == size
        assert media.is_the_photo(picture)
        assert not picture.getexif()
        assert b"CAMERA" not in clinic.read(record, name)
        assert b"a name" not in clinic.read(record, name)


def test_keys_are_beside_the_original_and_say_nothing(clinic: Clinic) -> None:
    clinic.add(media.encoded(media.photo(300, 200), "PNG"), "Anna Maier.png")
    clinic.work()
    [original] = [key for key in clinic.stored() if key.endswith(".png")]
    stem = original.rpartition("/")[2].removesuffix(".png")
    folder = f"patients/patient_{clinic.patient}/photos"
    assert sorted(clinic.stored()) == sorted([original, *(f"{folder}/{name}/{stem}.jpg" for name in ("large", "medium", "thumbnails"))])


def test_a_small_photo_is_not_enlarged(clinic: Clinic) -> None:
    record = clinic.add(media.encoded(media.photo(300, 180), "PNG"), "small.png")
    clinic.work()
    assert [clinic.picture(record, name).size for name in SIZES] == [(300, 180), (300, 180), (200, 120)]


def test_equal_bytes_are_made_once_and_stay_until_the_last_file_goes(clinic: Clinic) -> None:
    content = media.encoded(media.photo(300, 180), "PNG")
    first, second = clinic.add(content, "a.png"), clinic.add(content, "b.png")
    assert len(clinic.work()) == 1
    assert len(clinic.stored()) == 4
    files.delete(clinic.pacs, first.id, OWNER, ORIGIN)
    files.purge(clinic.pacs, first.id, OWNER, ORIGIN)
    assert clinic.picture(second, "thumbnail").size == (200, 120)
    files.delete(clinic.pacs, second.id, OWNER, ORIGIN)
    files.purge(clinic.pacs, second.id, OWNER, ORIGIN)
    for _ in range(2):
        erasure.erase_doomed(clinic.pacs.catalog, clinic.pacs.store, 0)
    assert clinic.stored() == []


def test_what_is_made_after_the_file_is_gone_is_not_kept(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    record = clinic.add(media.encoded(media.photo(300, 180), "PNG"), "a.png")
    settle = renditions.rows.settle

    def purged_meanwhile(*arguments: Any) -> bool:
        return False if arguments[1].pk else settle(*arguments)

    monkeypatch.setattr("pacslite.catalog.renditions.settle", purged_meanwhile)
    clinic.work()
    assert len(clinic.stored()) == 1
    assert set(clinic.states(record).values()) == {"pending"}


def test_what_is_damaged_fails_with_a_reason(clinic: Clinic) -> None:
    content = media.encoded(media.photo(800, 600), "PNG")
    record = clinic.add(content, "a.png")
    path = clinic.pacs.store.local_path(clinic.stored()[0])
    assert path is not None
    path.chmod(0o640)
    path.write_bytes(content[:2000])
    [job] = clinic.work()
    assert job.state == "succeeded"
    assert job.result is not None
    assert set(job.result["failed"]) == set(SIZES)
    assert set(clinic.states(record).values()) == {"failed"}
    with pytest.raises(NotFound, match="damaged"):
        renditions.open(clinic.pacs, clinic.blob(record), "large")
    path.write_bytes(content)
    run_regenerate(clinic)
    assert clinic.picture(record, "large").size == (800, 600)


def run_regenerate(clinic: Clinic, file: str | None = None) -> jobs.Job:
    job = queue_regenerate(clinic.pacs, file)
    clinic.work()
    return jobs.get(clinic.pacs.catalog, job.uid)


def test_pictures_are_made_anew_under_new_keys(clinic: Clinic) -> None:
    first = clinic.add(media.encoded(media.photo(300, 180), "PNG"), "a.png")
    second = clinic.add(media.encoded(media.photo(310, 180), "PNG"), "b.png")
    clinic.work()
    before = set(clinic.stored())
    job = run_regenerate(clinic, first.id)
    assert (job.state, job.result) == ("succeeded", {"files": 1, "failed": 0})
    assert len(set(clinic.stored()) - before) == 3
    assert clinic.picture(first, "thumbnail").size == (200, 120)
    assert run_regenerate(clinic).result == {"files": 2, "failed": 0}
    erasure.erase_doomed(clinic.pacs.catalog, clinic.pacs.store, 0)
    assert len(clinic.stored()) == 8
    assert clinic.picture(second, "large").size == (310, 180)


def test_a_lost_picture_is_made_again_when_somebody_asks(clinic: Clinic) -> None:
    record = clinic.add(media.encoded(media.photo(300, 180), "PNG"), "a.png")
    clinic.work()
    found = renditions.open(clinic.pacs, clinic.blob(record), "large")
    from pacslite.catalog import inventory

    assert clinic.pacs.catalog.write(lambda conn: inventory.change_state(conn, found.pk, "live", "quarantined"))
    with pytest.raises(NotReady):
        renditions.open(clinic.pacs, clinic.blob(record), "large")
    clinic.work()
    assert clinic.picture(record, "large").size == (300, 180)


def test_whoever_asks_waits_shortly_and_gets_it(clinic: Clinic) -> None:
    record = clinic.add(media.encoded(media.photo(300, 180), "PNG"), "a.png")
    with pytest.raises(NotReady):
        renditions.open(clinic.pacs, clinic.blob(record), "large")
    worker = threading.Thread(target=clinic.work)
    worker.start()
    found = None
    while found is None:
        try:
            found = renditions.open(clinic.pacs, clinic.blob(record), "large")
        except NotReady:
            assert worker.is_alive() or clinic.states(record)["large"] == "ready"
    worker.join()
    assert found.media_type == "image/jpeg"


def test_a_text_has_no_pictures(clinic: Clinic) -> None:
    record = clinic.add(b"findings: none\n", "report.txt", "report")
    assert clinic.states(record) == {}
    assert clinic.work() == []
    with pytest.raises(NotFound):
        renditions.open(clinic.pacs, clinic.blob(record), "large")


def test_what_nobody_has_queued_is_queued_when_somebody_asks(clinic: Clinic) -> None:
    record = clinic.add(media.encoded(media.photo(300, 180), "PNG"), "a.png")
    clinic.work()
    from pacslite.catalog import renditions as rows

    clinic.pacs.catalog.write(lambda conn: rows.drop(conn, [clinic.blob(record)], "2026"))
    with pytest.raises(NotReady):
        renditions.open(clinic.pacs, clinic.blob(record), "large")
    clinic.work()
    assert clinic.picture(record, "large").size == (300, 180)


@pytest.mark.parametrize("extension", ["avi", "mov", "mkv", "webm", "mpg", "3gp"])
def test_a_video_becomes_an_mp4(clinic: Clinic, tmp_path: Path, extension: str) -> None:
    content = media.video(tmp_path, extension).read_bytes()
    record = clinic.add(content, f"gait.{extension}", "video")
    assert renditions.processing(clinic.states(record)) == "pending"
    clinic.work()
    assert renditions.processing(clinic.states(record)) == "ready"
    served = clinic.read(record, "served")
    assert served[4:8] == b"ftyp"
    assert served.index(b"moov") < served.index(b"mdat")
    assert b"+52.5" not in served
    assert b"Maier" not in served
    with clinic.pacs.catalog.read() as conn:
        found = renditions.served(conn, [clinic.blob(record)])[clinic.blob(record)]
    assert found.media_type == "video/mp4"
    assert found.storage_key.endswith(".mp4")
    from pacslite.codec import video

    film = video.probe(clinic.pacs.stores.local_path(found) or Path())
    assert (film.codec, film.pixel_format, film.audio_codec) == ("h264", "yuv420p", "aac")
    facts = clinic.facts(record)
    assert (facts["width"], facts["height"]) == (film.width, film.height)
    assert facts["duration_s"] == pytest.approx(1.6, abs=0.2)
    # The frame at one second is blue, those before 0.8 s are red.
    red, _, blue = clinic.picture(record, "thumbnail").resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
    assert blue > 150 > red
    with clinic.pacs.catalog.read() as conn:
        original = renditions.blobs.find(conn, clinic.blob(record))
    assert original is not None
    with clinic.pacs.stores.open(original) as stream:
        assert stream.read() == content


def test_a_video_that_browsers_play_is_served_as_it_is(clinic: Clinic, tmp_path: Path) -> None:
    record = clinic.add(media.video(tmp_path, "mp4").read_bytes(), "a.mp4", "video")
    clinic.work()
    assert clinic.states(record) == {"served": "ready"} | dict.fromkeys(SIZES, "ready")
    assert renditions.open(clinic.pacs, clinic.blob(record), "served").pk == clinic.blob(record)
    files.delete(clinic.pacs, record.id, OWNER, ORIGIN)
    files.purge(clinic.pacs, record.id, OWNER, ORIGIN)
    for _ in range(2):
        erasure.erase_doomed(clinic.pacs.catalog, clinic.pacs.store, 0)
    assert clinic.stored() == []


def test_an_mp4_is_made_once_whatever_is_regenerated(clinic: Clinic, tmp_path: Path) -> None:
    record = clinic.add(media.video(tmp_path, "avi").read_bytes(), "a.avi", "video")
    clinic.work()
    before = renditions.open(clinic.pacs, clinic.blob(record), "served")
    run_regenerate(clinic, record.id)
    assert renditions.open(clinic.pacs, clinic.blob(record), "served") == before


def test_without_ffmpeg_the_original_stays_and_the_reason_is_told(clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = clinic.add(media.video(tmp_path, "avi").read_bytes(), "a.avi", "video")
    monkeypatch.setenv("PATH", str(tmp_path))
    [job] = clinic.work()
    assert job.result is not None
    assert "ffmpeg" in job.result["failed"]["served"]
    assert renditions.processing(clinic.states(record)) == "failed"
    monkeypatch.undo()
    run_regenerate(clinic)
    assert renditions.processing(clinic.states(record)) == "ready"


def test_a_pdf_shows_its_first_page(clinic: Clinic) -> None:
    record = clinic.add(pdf(), "letter.pdf", "pdf")
    clinic.work()
    assert max(clinic.picture(record, "large").size) == 1200
    assert clinic.facts(record)["pages"] >= 1


@pytest.mark.parametrize(("write", "name"), [(media.stl, "stl"), (media.obj, "obj"), (media.ply, "ply")])
def test_a_model_is_measured_and_drawn(clinic: Clinic, write: Callable[[media.Corners], bytes], name: str) -> None:
    record = clinic.add(write(media.ball()), f"jaw.{name}", f"{name}_model")
    clinic.work()
    facts = clinic.facts(record)
    assert (facts["triangles"], facts["is_watertight"], facts["degenerate_triangles"]) == (2208, True, 0)
    assert facts["dimensions"] == pytest.approx([20, 20, 20])
    picture = clinic.picture(record, "large")
    assert picture.size == (1200, 1200)
    grey = picture.convert("L")
    assert (grey.getpixel((5, 5)), grey.getpixel((600, 600))) == pytest.approx((255, 200), abs=45)


def test_a_dicom_file_is_shown_by_the_renderer(clinic: Clinic) -> None:
    ds = image(study="1.2.3", series="1.2.3.4", instance="1.2.3.4.5")
    ds.PatientID = "P1"
    record = clinic.add(part10(ds), "scan.dcm", "dicom")
    assert clinic.states(record) == dict.fromkeys(SIZES, "pending")
    clinic.work()
    for name in SIZES:
        assert max(clinic.picture(record, name).size) <= max(ds.Rows, ds.Columns)
    made = [key for key in clinic.stored() if "/dicoms/" in key]
    assert sorted(key.split("/")[3] for key in made) == ["large", "medium", "thumbnails"]
    # The file is only a record beside the instance: its pictures go by the sweep, the instance stays.
    files.delete(clinic.pacs, record.id, OWNER, ORIGIN)
    clinic.pacs.catalog.write(lambda conn: forget_file(conn, record))
    assert renditions.sweep(clinic.pacs) == 3
    erasure.erase_doomed(clinic.pacs.catalog, clinic.pacs.store, 0)
    assert clinic.stored() == []
    assert [info.key for info in clinic.pacs.store.list("radiology/")]


def test_pictures_of_an_instance_go_with_it(clinic: Clinic) -> None:
    ds = image(study="1.2.3", series="1.2.3.4", instance="1.2.3.4.5")
    ds.PatientID = "P1"
    record = clinic.add(part10(ds), "scan.dcm", "dicom")
    clinic.work()
    assert len(clinic.stored()) == 3
    files.delete(clinic.pacs, record.id, OWNER, ORIGIN)
    files.purge(clinic.pacs, record.id, OWNER, ORIGIN)
    for _ in range(2):
        erasure.erase_doomed(clinic.pacs.catalog, clinic.pacs.store, 0)
    assert clinic.stored() == []
    assert not list(clinic.pacs.store.list("radiology/"))


def forget_file(conn: Any, record: FileRecord) -> None:
    from sqlalchemy import delete, select

    from pacslite.catalog.file_models import file, file_part, file_version

    versions = select(file_version.c.pk).where(file_version.c.file_pk == record.pk)
    conn.execute(delete(file_part).where(file_part.c.version_pk.in_(versions)))
    conn.execute(delete(file_version).where(file_version.c.file_pk == record.pk))
    conn.execute(delete(file).where(file.c.pk == record.pk))


def test_the_sweep_leaves_what_files_need(clinic: Clinic) -> None:
    record = clinic.add(media.encoded(media.photo(300, 180), "PNG"), "a.png")
    clinic.work()
    assert renditions.sweep(clinic.pacs) == 0
    files.delete(clinic.pacs, record.id, OWNER, ORIGIN)  # in the trash it can come back
    assert renditions.sweep(clinic.pacs) == 0
    assert set(clinic.states(record).values()) == {"ready"}


def test_each_version_has_its_own(clinic: Clinic) -> None:
    record = clinic.add(media.encoded(media.photo(300, 180), "PNG"), "a.png")
    second = clinic.arrived(media.encoded(media.photo(400, 180), "PNG"), "b.png")
    newer = add_version(clinic.pacs, record.id, [second], FileVersionType.FOLLOWUP, None, OWNER, ORIGIN)
    clinic.work()
    assert [clinic.picture(one, "large").size for one in (record, newer)] == [(300, 180), (400, 180)]


def test_on_postgresql_and_an_s3_storage(tmp_path: Path, database_url: str) -> None:
    with serve_s3(tmp_path / "s3") as server:
        environment = {
            "PACSLITE_DATABASE_URL": database_url,
            "PACSLITE_STORAGE": "s3",
            "PACSLITE_S3_ENDPOINT": server.endpoint,
            "PACSLITE_S3_BUCKET": BUCKET,
            "PACSLITE_S3_ACCESS_KEY": ACCESS_KEY,
            "PACSLITE_S3_SECRET_KEY": SECRET_KEY,
        }
        pacs = app.build(load(environment=environment, data=tmp_path / "data"))
        pacs.catalog.migrate()
        clinic = Clinic(pacs)
        record = clinic.add(media.encoded(media.photo(900, 500), "WEBP"), "a.webp")
        film = clinic.add(media.video(tmp_path, "webm").read_bytes(), "a.webm", "video")
        assert [job.state for job in clinic.work()] == ["succeeded"] * 2
        assert media.is_the_photo(clinic.picture(record, "medium"))
        assert clinic.read(film, "served")[4:8] == b"ftyp"
        run_regenerate(clinic)
        assert clinic.picture(record, "medium").size == (800, 444)
        for one in (record, film):
            files.delete(pacs, one.id, OWNER, ORIGIN)
            files.purge(pacs, one.id, OWNER, ORIGIN)
        for _ in range(2):
            erasure.erase_doomed(pacs.catalog, pacs.store, 0)
        assert clinic.stored() == []
        assert not list(pacs.spool.directory.iterdir())
        pacs.close()


def test_the_command_makes_pictures_anew(clinic: Clinic) -> None:
    record = clinic.add(media.encoded(media.photo(300, 180), "PNG"), "a.png")
    clinic.work()
    before = set(clinic.stored())
    command = [sys.executable, "-m", "pacslite", "files", "regenerate", "--data", str(clinic.pacs.settings.data), "--json"]
    done = subprocess.run([*command, "--file", record.id], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == {"files": 1, "failed": 0}
    assert len(set(clinic.stored()) - before) == 3
    unknown = subprocess.run([*command, "--file", "none"], capture_output=True, text=True, timeout=120, check=False)
    assert unknown.returncode != 0


def test_one_video_at_a_time_leaves_room_for_other_jobs(clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = clinic.add(media.video(tmp_path, "avi").read_bytes(), "a.avi", "video")
    photo = clinic.add(media.encoded(media.photo(300, 180), "PNG"), "a.png")
    monkeypatch.setattr(rendition_jobs, "_TURN_S", 0.0)
    with rendition_jobs._one_video:  # another thread is at a video
        runner = job_kinds.runner(clinic.pacs, threading.Event())
        for _ in range(3):
            runner.run_next()
        assert set(clinic.states(photo).values()) == {"ready"}
        assert set(clinic.states(film).values()) == {"pending"}
    clinic.work()
    assert set(clinic.states(film).values()) == {"ready"}


def test_a_job_that_fails_to_the_end_says_so(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    record = clinic.add(media.encoded(media.photo(300, 180), "PNG"), "a.png")

    def full(*_: object) -> None:
        raise OutOfSpace("the disk is full")

    monkeypatch.setattr(clinic.pacs.spool.__class__, "check_space", full)
    monkeypatch.setattr("pacslite.catalog.jobs._FIRST_PAUSE_S", 0)
    [job] = clinic.work()
    assert (job.state, job.attempts) == ("failed", 3)
    assert set(clinic.states(record).values()) == {"failed"}
    with pytest.raises(NotFound, match="the disk is full"):
        renditions.open(clinic.pacs, clinic.blob(record), "large")
