"""Upkeep from the command line: the same work as the jobs, with JSON, dry runs and exit codes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pacslite import app, cli
from pacslite.core.ingest import Origin
from pacslite.settings import load
from tests.support.data_sets import image, part10


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PACSLITE_ARCHIVE_ROOT", str(tmp_path / "archive"))
    policy = {"old CTs": {"action": "purge", "older_than_days": 1, "modalities": ["CT"]}}
    monkeypatch.setenv("PACSLITE_RETENTION_POLICIES", json.dumps(policy))
    settings = load(environment={**os.environ, "PACSLITE_DATA": str(tmp_path / "data")})
    app.migrate(settings)
    pacs = app.build(settings)
    for study in ("1.1", "1.2"):
        ds = image(study=study, series=f"{study}.1", instance=f"{study}.1.1")
        ds.Modality = "CT"
        with pacs.spool.create(".dcm") as writer:
            writer.write(part10(ds))
            pacs.ingest.accept(writer.finish(), Origin("import"))
    pacs.close()
    return tmp_path / "data"


def told(capsys: pytest.CaptureFixture[str], data: Path, *arguments: str, code: int = 0) -> Any:
    assert cli.run([*arguments, "--data", str(data), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def instances(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.dcm*") if ".spool" not in path.parts)


def test_old_instances_are_archived_verified_and_mended_from_what_is_left(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wish = ("archive", "--older-than-days", "0", "--to", "archive")
    size = sum(path.stat().st_size for path in instances(data / "storage"))
    assert told(capsys, data, *wish, "--dry-run")["archived"] == 2
    assert told(capsys, data, *wish, "--modality", "MR")["archived"] == 0
    done = told(capsys, data, *wish)
    assert (done["archived"], done["freed_bytes"], done["held"]) == (2, size, 0)
    assert told(capsys, data, "archive", "--older-than-days", "0")["skipped"].keys() <= {"not_smaller"}
    assert told(capsys, data, "verify", "--deep")["damaged"] == []
    # The sources are there for a while yet: the second copy of a damaged one.
    damaged = instances(data.parent / "archive")[0]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    found = told(capsys, data, "verify", "--deep", "--repair", code=1)
    assert ([one["problem"] for one in found["damaged"]], found["mended_count"]) == (["hash"], 1)
    assert told(capsys, data, "verify", "--deep")["damaged"] == []
    stats = told(capsys, data, "storage", "stats")
    assert {one["name"]: one["size_bytes"] for one in stats["backends"]} == {"filesystem": 0, "archive": size}
    assert stats["by_type"] == {"dicom": {"count": 2, "size_bytes": size}}
    cleaned = told(capsys, data, "cleanup", "--older-than-hours", "0")
    assert (cleaned["deleted_count"], cleaned["freed_bytes"]) == (2, size)
    assert instances(data / "storage/radiology") == []
    assert told(capsys, data, "verify", "--deep")["damaged"] == []
    assert cli.run(["archive", "--older-than-days", "0", "--to", "tape", "--data", str(data)]) == 2


def test_orphans_are_told_and_removed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orphan = data / "storage/patients/patient_1/photos/20200101_photo_x.jpg"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"x")
    os.utime(orphan, (time.time() - 7200,) * 2)
    assert [one["size_bytes"] for one in told(capsys, data, "orphans")["orphans"]] == [1]
    assert told(capsys, data, "orphans", "--remove")["removed"] == 1
    assert not orphan.exists()
    instances(data / "storage")[0].unlink()
    assert told(capsys, data, "orphans", code=1)["missing"][0]["problem"] == "missing"


def test_policies_are_tried_done_and_stopped_by_a_legal_hold(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, data, "policies")["policies"][0]["done"] == 0  # nothing is old
    age(data)
    tried = told(capsys, data, "policies")
    assert [(one["name"], one["done"], one["held"]) for one in tried["policies"]] == [("old CTs", 2, 0)]
    assert told(capsys, data, "hold", "1.1") == {"study_instance_uid": "1.1", "legal_hold": True}
    done = told(capsys, data, "policies", "--apply")
    assert [(one["done"], one["held"]) for one in done["policies"]] == [(1, 1)]
    assert told(capsys, data, "storage", "stats")["file_count"] == 1
    assert told(capsys, data, "hold", "1.1", "--lift")["legal_hold"] is False
    assert told(capsys, data, "policies", "--apply")["policies"][0]["done"] == 1
    assert told(capsys, data, "storage", "stats")["file_count"] == 0
    assert cli.run(["hold", "1.9", "--data", str(data)]) == 3


def age(data: Path) -> None:
    """Make everything two days older."""
    from sqlalchemy import update

    from pacslite.catalog.models import series

    catalog = app.build_catalog(load(environment={"PACSLITE_DATA": str(data)}))
    catalog.write(lambda conn: conn.execute(update(series).values(updated_at="2020-01-01T00:00:00.000000Z")))
    catalog.close()


def test_room_is_told_by_the_exit_code(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, data, "storage", "space", "1") == {"enough": True}
    assert told(capsys, data, "storage", "space", str(10**17), code=1) == {"enough": False}
