"""Smaller pictures, MP4s and facts over the wire: announced, waited for, with hashes of their own, made anew by an administrator."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import Engine, event

from pacslite import app, job_kinds
from pacslite.app import Pacs
from pacslite.core import file_lists
from pacslite.core.file_lists import Filters
from pacslite.settings import load
from tests.support import file_samples, media
from tests.support.file_site import Site, file_site
from tests.support.files import new_patient
from tests.support.http import Answer

SIZES = {"large": 1200, "medium": 800, "thumbnail": 200}


@dataclass
class Workshop:
    """A server, and a worker that works when it is told to."""

    site: Site
    pacs: Pacs

    def work(self) -> None:
        runner = job_kinds.runner(self.pacs, threading.Event())
        while runner.run_next():
            pass

    def content(self, file_id: str, query: str = "") -> Answer:
        return self.site.content(file_id, query)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    data = tmp_path_factory.mktemp("variants")
    with file_site(data) as site:
        pacs = app.build(load(environment={}, data=data))
        yield Workshop(site, pacs)
        pacs.close()


def png(width: int, height: int) -> bytes:
    return media.encoded(media.photo(width, height), "PNG")


def test_variants_are_null_until_they_are_made(workshop: Workshop) -> None:
    made = workshop.site.upload(png(1400, 700), "a.png")
    assert made["variants"] == dict.fromkeys(SIZES)
    answer = workshop.content(made["id"], "?variant=large")
    assert (answer.status, json.loads(answer.body)["type"].rpartition("/")[2]) == (503, "not-ready")
    assert int(answer.headers["retry-after"]) >= 1
    workshop.work()
    urls = workshop.site.json("GET", made["id"])["variants"]
    for name, pixels in SIZES.items():
        shown = workshop.site.ask("GET", "/" + urls[name].split("/", 3)[3])
        assert shown.status == 200
        assert shown.headers["content-type"] == "image/jpeg"
        assert shown.headers["etag"] == f'"{hashlib.sha256(shown.body).hexdigest()}"'
        assert shown.headers["cache-control"] == "private, max-age=86400, immutable"
        assert Image.open(io.BytesIO(shown.body), formats=["JPEG"]).size == (pixels, pixels // 2)
        assert shown.headers["content-disposition"].count(".jpg")
    assert workshop.content(made["id"]).body == png(1400, 700)


def test_a_variant_has_ranges_and_conditions(workshop: Workshop) -> None:
    made = workshop.site.upload(png(900, 500), "a.png")
    workshop.work()
    whole = workshop.content(made["id"], "?variant=thumbnail")
    part = workshop.site.content(made["id"], "?variant=thumbnail", headers={"Range": "bytes=10-19"})
    assert (part.status, part.body) == (206, whole.body[10:20])
    same = workshop.site.content(made["id"], "?variant=thumbnail", headers={"If-None-Match": whole.headers["etag"]})
    assert same.status == 304


def test_each_version_keeps_its_own(workshop: Workshop) -> None:
    made = workshop.site.upload(png(300, 200), "a.png")
    workshop.site.version(made["id"], png(300, 100), "b.png")
    workshop.work()
    asked = ("?variant=large&version=1", "?variant=large&version=2", "?variant=large")
    pictures = [Image.open(io.BytesIO(workshop.content(made["id"], query).body)) for query in asked]
    assert [picture.size for picture in pictures] == [(300, 200), (300, 100), (300, 100)]


def test_unknown_variants_and_files_without(workshop: Workshop) -> None:
    photo = workshop.site.upload(png(30, 20), "a.png")
    assert workshop.content(photo["id"], "?variant=huge").status == 400
    text = workshop.site.upload(b"findings: none\n", "a.txt", file_type="report")
    assert not any(text["variants"].values())
    assert workshop.content(text["id"], "?variant=large").status == 404
    assert workshop.content(photo["id"], "?variant=original").body == png(30, 20)


def test_items_of_a_series_have_their_own(workshop: Workshop) -> None:
    fields = {"patient_id": workshop.site.patient, "file_type": "photo_series"}
    answer = workshop.site.post(fields, [(f"{width}.png", png(width, 100)) for width in (310, 320, 330)])
    assert answer.status == 201
    made = json.loads(answer.body)
    workshop.work()
    for position, width in enumerate((310, 320, 330)):
        shown = workshop.content(made["id"], f"?item={position}&variant=large")
        assert Image.open(io.BytesIO(shown.body)).size == (width, 100)


def test_a_video_is_an_mp4_once_it_is_made(workshop: Workshop, tmp_path: Path) -> None:
    sent = media.video(tmp_path, "avi").read_bytes()
    made = workshop.site.upload(sent, "gait.avi", file_type="video")
    assert made["processing"] == "pending"
    assert workshop.content(made["id"]).status == 503
    assert workshop.content(made["id"], "?variant=original").body == sent
    workshop.work()
    known = workshop.site.json("GET", made["id"])
    shown = workshop.content(made["id"])
    digest = hashlib.sha256(shown.body).hexdigest()
    assert (known["processing"], known["mime_type"], known["file_hash"]) == ("ready", "video/mp4", digest)
    assert (known["file_size"], shown.headers["etag"], shown.body[4:8]) == (len(shown.body), f'"{digest}"', b"ftyp")
    assert shown.headers["content-type"] == "video/mp4"
    part = workshop.site.content(made["id"], headers={"Range": "bytes=-100"})
    assert (part.status, part.body) == (206, shown.body[-100:])
    assert workshop.content(made["id"], "?variant=original").body == sent
    assert workshop.content(made["id"], "?variant=thumbnail").headers["content-type"] == "image/jpeg"


def test_a_video_that_cannot_be_made_keeps_what_was_sent(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = media.video(tmp_path, "webm").read_bytes()
    made = workshop.site.upload(sent, "a.webm", file_type="video")
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        workshop.work()
    known = workshop.site.json("GET", made["id"])
    assert (known["processing"], known["mime_type"]) == ("failed", "video/webm")
    assert workshop.content(made["id"]).body == sent
    assert workshop.content(made["id"], "?variant=thumbnail").status == 404


def regenerate(workshop: Workshop, body: Any) -> dict[str, Any]:
    job = workshop.site.json("POST", "regenerate", body, 202, bearer=workshop.site.admin)
    workshop.work()
    done: dict[str, Any] = workshop.site.json("GET", f"/api/v1/jobs/{job['id']}", bearer=workshop.site.admin)
    return done


def test_an_administrator_has_pictures_made_anew(workshop: Workshop) -> None:
    made = workshop.site.upload(png(400, 300), "a.png")
    workshop.work()
    before = workshop.content(made["id"], "?variant=large").body
    job = regenerate(workshop, {"file_id": made["id"]})
    assert (job["kind"], job["state"], job["result"]) == ("files.regenerate", "succeeded", {"files": 1, "failed": 0})
    assert job["progress"] == {"done": 1, "total": 1, "unit": "files"}
    assert workshop.content(made["id"], "?variant=large").body == before
    assert regenerate(workshop, {})["state"] == "succeeded"


def test_nobody_else_has(workshop: Workshop) -> None:
    assert workshop.site.json("POST", "regenerate", {}, 403)["status"] == 403
    assert workshop.site.json("POST", "regenerate", {"file_id": "none"}, 404, bearer=workshop.site.admin)["status"] == 404
    assert workshop.site.json("POST", "regenerate", {"files": 1}, 400, bearer=workshop.site.admin)["status"] == 400


CORNER = np.array([[[0, 0, 0], [1, 0, 0], [1, 1, 0]], [[0, 0, 0], [1, 1, 0], [0, 1, 0]]], float)


def box(width: float, depth: float, height: float) -> media.Corners:
    """The twelve triangles of a closed box."""
    sides = [CORNER[:, ::-1], CORNER + np.array((0, 0, 1))]
    for axes in ((0, 2, 1), (2, 1, 0)):
        turned = CORNER[..., axes]
        back = np.array((0, 1, 0) if axes == (0, 2, 1) else (1, 0, 0))
        sides += [turned, (turned + back)[:, ::-1]]
    return np.concatenate(sides) * (width, depth, height)


def test_what_was_found_out_about_a_photo_is_told_with_it_its_versions_and_in_lists(workshop: Workshop) -> None:
    turned = media.encoded(media.photo(90, 40), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0")
    made = workshop.site.upload(turned, "a.jpg")
    assert made["media"] is None
    workshop.site.version(made["id"], png(60, 50), "b.png")
    workshop.work()
    newest, oldest = workshop.site.json("GET", f"{made['id']}/versions")["items"]
    assert (oldest["media"]["width"], oldest["media"]["height"]) == (40, 90)  # upright
    assert (newest["media"]["width"], newest["media"]["height"]) == (60, 50)
    assert workshop.site.json("GET", made["id"])["media"] == newest["media"]
    listed = workshop.site.json("GET", f"patient/{workshop.site.patient}/files?limit=1")["items"]
    assert [(one["id"], one["media"]) for one in listed] == [(made["id"], newest["media"])]
    again = workshop.site.upload(png(60, 50), "c.png")  # equal bytes: nothing is to be found out any more
    assert again["media"] == newest["media"]


def test_what_was_found_out_about_a_model(workshop: Workshop) -> None:
    """A cube has twelve triangles, and is closed; without one of them it is open."""
    cube = box(20, 10, 5)
    closed = workshop.site.upload(media.stl(cube), "cube.stl", file_type="stl_model")
    opened = workshop.site.upload(media.stl(cube[1:]), "open.stl", file_type="stl_model")
    workshop.work()
    known = workshop.site.json("GET", closed["id"])["media"]
    assert (known["triangles"], known["degenerate_triangles"], known["is_watertight"]) == (12, 0, True)
    assert known["dimensions"] == [20, 10, 5]
    known = workshop.site.json("GET", opened["id"])["media"]
    assert (known["triangles"], known["is_watertight"]) == (11, False)


def test_what_was_found_out_about_a_video_and_a_document(workshop: Workshop, tmp_path: Path) -> None:
    video = workshop.site.upload(media.video(tmp_path, "mov").read_bytes(), "a.mov", file_type="video")
    pdf = workshop.site.upload(file_samples.pdf(), "a.pdf", file_type="pdf")
    text = workshop.site.upload(b"nothing to be measured\n", "a.txt", file_type="report")
    workshop.work()
    known = workshop.site.json("GET", video["id"])["media"]
    assert known["duration_s"] == pytest.approx(1.6, abs=0.1)
    assert (known["width"], known["height"], known["video_codec"]) == (160, 120, "h264")
    known = workshop.site.json("GET", pdf["id"])["media"]
    assert (known["pages"], known["page_width_pt"], known["page_height_pt"]) == (1, 200, 100)
    assert workshop.site.json("GET", text["id"])["media"] is None


def test_what_was_found_out_about_each_picture_of_a_series(workshop: Workshop) -> None:
    fields = {"patient_id": workshop.site.patient, "file_type": "photo_series"}
    made = json.loads(workshop.site.post(fields, [(f"{width}.png", png(width, 70)) for width in (110, 120)]).body)
    workshop.work()
    known = workshop.site.json("GET", made["id"])
    assert [one["media"]["width"] for one in known["items"]] == [110, 120]
    assert known["media"] == known["items"][0]["media"]
    version = workshop.site.json("GET", f"{made['id']}/versions")["items"][0]
    assert [one["media"]["width"] for one in version["items"]] == [110, 120]


def test_media_is_looked_up_once_for_a_list(workshop: Workshop) -> None:
    """However many files a page has, the catalog is asked as often as for one."""
    asked: list[str] = []
    patient = new_patient(workshop.pacs.catalog, "many")
    for n in range(4):
        workshop.site.upload(png(20 + n, 9), "a.png", patient_id=patient)
    workshop.work()

    def statements(limit: int) -> int:
        asked.clear()
        event.listen(Engine, "before_cursor_execute", note)
        try:
            found, _ = file_lists.listed(workshop.pacs.catalog, patient, Filters(), None, limit)
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        assert all(record.version.parts[0].media for record in found)
        assert len(found) == limit
        return len(asked)

    def note(conn: object, cursor: object, statement: str, *rest: object) -> None:
        asked.append(statement)

    assert statements(1) == statements(4)
    assert sum("blob_info" in one for one in asked) == 1
