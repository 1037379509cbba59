"""`/storage` over HTTP: what is stored, whether it is whole, and what keeps it so."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacslite import app, job_kinds
from pacslite.settings import load
from tests.support.data_sets import image, part10
from tests.support.file_site import Site, file_site
from tests.support.files import any_photo, of_json

TEXT = b"%PDF-1.4\n" + b"% much of the same, again and again\n" * 3000 + b"%%EOF\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("storage")
    policies = {"old reports": {"action": "trash", "older_than_days": 30, "file_types": ["report"]}}
    with file_site(data, archive_root=str(data / "archive"), retention_policies=json.dumps(policies)) as found:
        yield found


@pytest.fixture(scope="module")
def pacs(site: Site) -> Iterator[Any]:
    data = site.guarded.server.data
    opened = app.build(load(environment={"PACSLITE_DATA": str(data), "PACSLITE_ARCHIVE_ROOT": str(data / "archive")}))
    yield opened
    opened.close()


def ask(site: Site, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    return site.json(method, f"/api/v1{path}", body, status, site.admin)


def worked(site: Site, pacs: Any, path: str, body: Any = None) -> Any:
    """The result of a job that is asked for and run."""
    job = ask(site, "POST", path, body, 202)
    runner = job_kinds.runner(pacs, threading.Event())
    while runner.run_next():
        pass
    done = ask(site, "GET", f"/jobs/{job['id']}")
    assert done["state"] == "succeeded", done
    return done["result"]


def path_of(site: Site, file_id: str) -> Path:
    """Where the bytes of a file are."""
    digest = site.json("GET", file_id)["file_hash"]
    for found in (site.guarded.server.data / "storage/patients").rglob("*"):
        if found.is_file() and hashlib.sha256(found.read_bytes()).hexdigest() == digest:
            return found
    raise AssertionError("the bytes are nowhere")


def purge(site: Site, file_id: str) -> None:
    assert site.ask("DELETE", f"{file_id}?purge=true", bearer=site.admin).status == 204


def stow(site: Site, uid: str) -> bytes:
    data = part10(image(study=uid, series=f"{uid}.1", instance=f"{uid}.1.1"))
    assert site.ask("POST", "/dicom-web/studies", data, {"Content-Type": "application/dicom"}).status == 200
    return data


def test_what_is_stored_is_told_by_type_and_by_storage(site: Site) -> None:
    before = ask(site, "GET", "/storage/stats")
    photo = any_photo()
    made = site.upload(photo)
    site.upload(photo)
    site.version(made["id"], any_photo())
    stow(site, "1.71")
    after = ask(site, "GET", "/storage/stats")
    assert set(after) == {"total_size_bytes", "file_count", "available_bytes", "by_type", "dedup_saved_bytes", "backends"}
    assert after["file_count"] - before["file_count"] == 3
    assert after["by_type"]["photo"]["count"] - before["by_type"].get("photo", {"count": 0})["count"] == 2
    assert after["by_type"]["dicom"]["count"] == before["by_type"].get("dicom", {"count": 0})["count"] + 1
    assert after["dedup_saved_bytes"] - before["dedup_saved_bytes"] == len(photo)
    assert after["total_size_bytes"] > before["total_size_bytes"]
    assert after["available_bytes"] > 0
    backends = {one["name"]: one for one in after["backends"]}
    assert set(backends) == {"filesystem", "archive"}
    assert set(backends["archive"]) == {"name", "kind", "active", "size_bytes", "encryption", "compression"}
    assert (backends["filesystem"]["active"], backends["archive"]["active"]) == (True, False)
    assert backends["filesystem"]["size_bytes"] == after["total_size_bytes"]


def test_room_is_asked_for(site: Site) -> None:
    assert ask(site, "GET", "/storage/space?required_bytes=1") == {"enough": True}
    assert ask(site, "GET", f"/storage/space?required_bytes={10**17}") == {"enough": False}
    for wrong in ("", "?required_bytes=", "?required_bytes=-1", "?required_bytes=many", "?bytes=1"):
        assert ask(site, "GET", f"/storage/space{wrong}", status=400)["type"] == "invalid-form"


def test_everything_is_for_administrators(site: Site) -> None:
    for method, path in [
        ("GET", "stats"),
        ("GET", "space?required_bytes=1"),
        ("POST", "cleanup"),
        ("POST", "verify"),
        ("POST", "orphans"),
        ("POST", "archive"),
        ("GET", "policies"),
        ("POST", "policies/apply"),
    ]:
        assert site.ask(method, f"/api/v1/storage/{path}").status == 403


def test_forms_are_looked_at(site: Site) -> None:
    for path, body, field in [
        ("cleanup", {}, "older_than_hours"),
        ("cleanup", {"older_than_hours": -1}, "older_than_hours"),
        ("cleanup", {"older_than_hours": float("nan")}, "older_than_hours"),
        ("verify", {"fast": True}, "fast"),
        ("orphans", {"remove": 1}, "remove"),
        ("archive", {}, "older_than_days"),
        ("archive", {"older_than_days": 1, "to": "tape"}, "to"),
        ("archive", {"older_than_days": 1, "file_types": ["film"]}, "file_types"),
    ]:
        assert field in str(ask(site, "POST", f"/storage/{path}", body, 400)["errors"])


def test_a_flipped_byte_is_found_reported_and_quarantined(site: Site, pacs: Any) -> None:
    made, data = site.upload(any_photo()), stow(site, "1.72")
    path = path_of(site, made["id"])
    instance = next((site.guarded.server.data / "storage/radiology/1.72").rglob("*.dcm"))
    assert instance.read_bytes() == data
    for one in (path, instance):
        content = bytearray(one.read_bytes())
        content[len(content) // 2] ^= 0x10
        one.write_bytes(content)
    looked = worked(site, pacs, "/storage/verify", {"repair": False})
    root = site.guarded.server.data / "storage"
    expected = [
        {"key": str(path.relative_to(root)), "file_id": made["id"], "problem": "hash"},
        {"key": str(instance.relative_to(root)), "sop_instance_uid": "1.72.1.1", "problem": "hash"},
    ]
    assert sorted(looked["damaged"], key=lambda one: str(one["key"])) == expected
    assert path.exists()
    found = worked(site, pacs, "/storage/verify")
    assert sorted(found["damaged"], key=lambda one: str(one["key"])) == expected
    assert (found["checked"], found["quarantined"], found["repaired"]) == (looked["checked"], 2, 0)
    assert not path.exists()
    assert (root / "quarantine" / path.relative_to(root)).exists()
    assert site.content(made["id"]).status == 500
    # The same bytes sent again make both whole.
    content[len(content) // 2] ^= 0x10
    stow(site, "1.72")
    assert [one["problem"] for one in worked(site, pacs, "/storage/verify", {})["damaged"]] == ["missing"]
    purge(site, made["id"])
    assert worked(site, pacs, "/storage/verify", {})["damaged"] == []


def test_orphans_are_found_both_ways_and_removed_when_asked(site: Site, pacs: Any) -> None:
    """Those younger than an hour are left out: somebody may be about to record them."""
    root = site.guarded.server.data / "storage"
    old, young = root / "patients/patient_1/photos/20200101_photo_old.jpg", root / "radiology/1.9/1.9.1/1.9.1.1/young.dcm"
    for one in (old, young):
        one.parent.mkdir(parents=True, exist_ok=True)
        one.write_bytes(b"nobody's")
    os.utime(old, (time.time() - 7200,) * 2)
    made = site.upload(any_photo())
    lost = path_of(site, made["id"])
    content = lost.read_bytes()
    lost.unlink()
    found = worked(site, pacs, "/storage/orphans")
    key = str(old.relative_to(root))
    assert found["orphans"] == [{"key": key, "size_bytes": 8, "storage": "filesystem"}]
    assert found["missing"] == [{"key": str(lost.relative_to(root)), "file_id": made["id"], "problem": "missing"}]
    assert old.exists()
    removed = worked(site, pacs, "/storage/orphans", {"remove": True})
    assert (removed["removed"], removed["freed_bytes"]) == (1, 8)
    assert not old.exists()
    assert young.exists()
    lost.write_bytes(content)
    assert worked(site, pacs, "/storage/orphans", {"remove": False}) == {"orphans": [], "missing": [], "removed": 0, "freed_bytes": 0}
    young.unlink()


@pytest.mark.parametrize("to", ["archive", None])
def test_what_is_archived_is_read_as_before(site: Site, pacs: Any, to: str | None) -> None:
    number = 73 if to else 74
    text = TEXT.replace(b"again", b"a%d" % number)
    made = of_json(site.post({"patient_id": site.patient, "file_type": "pdf"}, [("a.pdf", text)]), 201)
    data, resource = stow(site, f"1.{number}"), f"/dicom-web/studies/1.{number}/series/1.{number}.1/instances/1.{number}.1.1"
    dry = worked(site, pacs, "/storage/archive", {"older_than_days": 0, "dry_run": True} | ({"to": to} if to else {}))
    assert dry["archived"] >= 1
    done = worked(site, pacs, "/storage/archive", {"older_than_days": 0} | ({"to": to} if to else {}))
    assert done["archived"] >= 1
    assert done["freed_bytes"] > 0
    assert site.json("GET", made["id"])["file_hash"] == made["file_hash"]
    whole = site.content(made["id"])
    assert (whole.status, whole.body, whole.headers["etag"]) == (200, text, f'"{made["file_hash"]}"')
    part = site.content(made["id"], headers={"Range": "bytes=100-163"})
    assert (part.status, part.body, part.headers["content-range"]) == (206, text[100:164], f"bytes 100-163/{len(text)}")
    assert site.ask("GET", resource, headers={"Accept": 'application/dicom; transfer-syntax="*"; type="application/dicom"'}).body == data
    assert site.ask("GET", f"{resource}/frames/1").status == 200
    assert site.ask("GET", f"{resource}/rendered", headers={"Accept": "image/png"}).status == 200
    assert site.ask("GET", f"/api/v1/studies/1.{number}/archive").body[:2] == b"PK"
    assert worked(site, pacs, "/storage/verify", {})["damaged"] == []
    backends = {one["name"]: one for one in ask(site, "GET", "/storage/stats")["backends"]}
    assert backends["archive"]["size_bytes"] > 0
    if to is None:
        assert "gzip" in {one["compression"] for one in backends.values()}


def test_cleaning_up_takes_what_was_left_behind(site: Site, pacs: Any) -> None:
    worked(site, pacs, "/storage/orphans")  # the work of other tests is over
    ask(site, "POST", "/storage/cleanup", {"older_than_hours": 0})
    spool = site.guarded.server.data / "spool"
    (spool / "left.dcm").write_bytes(b"12345")
    made = of_json(site.post({"patient_id": site.patient, "file_type": "pdf"}, [("b.pdf", TEXT)]), 201)
    path = path_of(site, made["id"])
    purge(site, made["id"])
    assert ask(site, "POST", "/storage/cleanup", {"older_than_hours": 1}) == {"deleted_count": 0, "freed_bytes": 0}
    assert path.exists()
    assert ask(site, "POST", "/storage/cleanup", {"older_than_hours": 0}) == {"deleted_count": 2, "freed_bytes": 5 + len(TEXT)}
    assert not path.exists()
    assert not (spool / "left.dcm").exists()


def test_what_is_on_legal_hold_is_not_deleted(site: Site) -> None:
    made = site.upload(any_photo())
    stow(site, "1.75")
    tied = site.upload(any_photo(), study_instance_uid="1.75")
    assert ask(site, "PUT", f"/files/{made['id']}/legal-hold", {"legal_hold": True}) == {
        "legal_hold": True,
        "created_by": None,
        "created_at": None,
    }
    held = ask(site, "PUT", "/studies/1.75/legal-hold", {"legal_hold": True})
    assert (held["legal_hold"], held["created_by"]) == (True, "admin")
    assert ask(site, "GET", "/studies/1.75/legal-hold") == held
    for file_id in (made["id"], tied["id"]):
        assert site.status("DELETE", file_id) == 409
        assert ask(site, "DELETE", f"/files/{file_id}?purge=true", status=409)["type"] == "conflict"
    for below in ("", "/series/1.75.1", "/series/1.75.1/instances/1.75.1.1"):
        assert site.ask("DELETE", f"/dicom-web/studies/1.75{below}", bearer=site.admin).status == 409
    assert site.ask("GET", "/dicom-web/studies/1.75/metadata").status == 200
    assert ask(site, "PUT", "/studies/1.75/legal-hold", {"legal_hold": False})["legal_hold"] is False
    assert ask(site, "PUT", f"/files/{made['id']}/legal-hold", {"legal_hold": False})["legal_hold"] is False
    assert site.ask("DELETE", "/dicom-web/studies/1.75", bearer=site.admin).status == 204
    assert site.status("DELETE", made["id"]) == 204
    assert ask(site, "PUT", "/studies/1.999/legal-hold", {"legal_hold": True}, 404)["type"] == "not-found"
    assert site.ask("PUT", "/api/v1/studies/1.71/legal-hold", b'{"legal_hold": true}', {"Content-Type": "application/json"}).status == 403


def test_policies_are_told_and_tried(site: Site, pacs: Any) -> None:
    told = ask(site, "GET", "/storage/policies")
    assert told["trash_days"] == 30
    assert [(one["name"], one["action"], one["older_than_days"], one["file_types"]) for one in told["items"]] == [
        ("old reports", "trash", 30.0, ["report"])
    ]
    job = ask(site, "POST", "/storage/policies/apply", {"dry_run": True}, 202)
    assert ask(site, "POST", "/storage/policies/apply", {"dry_run": True}, 202)["id"] == job["id"]
    assert ask(site, "POST", f"/jobs/{job['id']}/cancel")["state"] == "cancelled"
