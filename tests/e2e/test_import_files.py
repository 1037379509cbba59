"""`pacslite import-files` as a command: its reports and exit codes, and that killing it at any moment loses nothing."""

from __future__ import annotations

import csv
import hashlib
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import full
from tests.support.foreign_trees import jpeg, put
from tests.support.processes import environment, pacslite, until

FILES, ROUNDS = (2000, 20) if full() else (240, 4)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    assert pacslite("migrate", "--data", tmp_path / "data").returncode == 0
    return tmp_path / "data"


def kept(data: Path) -> Counter[str]:
    """The digests of what is stored below `patients/`."""
    return Counter(hashlib.sha256(path.read_bytes()).hexdigest() for path in (data / "storage" / "patients").rglob("*") if path.is_file())


def test_killed_in_the_middle_of_moving_and_run_again_everything_is_there_once(data: Path, tmp_path: Path) -> None:
    """kill -9 again and again: at no moment is a file neither in the tree nor in the storage, and in the end each is there once."""
    tree = put(tmp_path / "old", {f"patients/{n % 5}/photos/{n:04}.jpg": jpeg(n) for n in range(1, FILES + 1)})
    wanted = {hashlib.sha256(path.read_bytes()).hexdigest() for path in tree.rglob("*.jpg")}
    assert len(wanted) == FILES
    command = [sys.executable, "-m", "pacslite", "import-files", "--layout", "patients", "--move", "--create-patients", str(tree)]
    for number in range(ROUNDS):
        left = len(list(tree.rglob("*.jpg")))
        process = subprocess.Popen([*command, "--data", str(data)], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        gone = FILES // (2 * ROUNDS)
        until(lambda: process.poll() is not None or len(list(tree.rglob("*.jpg"))) <= left - gone - number, what="some files to be moved")  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.wait()
        in_tree = {hashlib.sha256(path.read_bytes()).hexdigest() for path in tree.rglob("*.jpg")}
        assert in_tree | set(kept(data)) == wanted
    assert in_tree
    done = pacslite("import-files", "--layout", "patients", "--move", "--create-patients", tree, "--data", data, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["refused"] == 0
    assert list(tree.rglob("*.jpg")) == []
    again = pacslite("import-files", "--layout", "patients", "--copy", "--create-patients", tree, "--data", data)
    assert again.returncode == 2
    # Bytes without a row may be left by a kill, for the sweep; each file has one row.
    assert set(kept(data)) == wanted
    rows = Counter(_digests(data))
    assert set(rows) == wanted
    assert set(rows.values()) == {1}


def _digests(data: Path) -> list[str]:
    from sqlalchemy import select

    from pacslite.catalog.database import Catalog
    from pacslite.catalog.file_models import file_part

    catalog = Catalog(f"sqlite:///{data / 'catalog.db'}")
    try:
        with catalog.read() as conn:
            return list(conn.execute(select(file_part.c.sha256)).scalars())
    finally:
        catalog.close()


def test_reports_in_csv_and_json_and_exit_codes(data: Path, tmp_path: Path) -> None:
    tree = put(
        tmp_path / "old", {"patients/1/photos/a.jpg": jpeg(1), "patients/2/photos/=b.jpg": jpeg(2), "patients/1/photos/c.exe": b"MZ"}
    )
    (tmp_path / "mapping.csv").write_text("number,mrn,path,file_type\n1,M1,,\n,,=b.jpg,xray\n")
    command = ["import-files", "--layout", "patients", tree, "--data", data, "--mapping", tmp_path / "mapping.csv"]
    planned = pacslite(*command, "--dry-run", "--json")
    assert (planned.returncode, json.loads(planned.stdout)["would_store"]) == (1, 1)
    done = pacslite(*command, "--report", tmp_path / "report.json")
    assert done.returncode == 1
    assert "1 stored" in done.stdout
    assert "c.exe" in done.stdout
    report = {row["path"]: row for row in json.loads((tmp_path / "report.json").read_text())}
    assert {path: row["outcome"] for path, row in report.items()} == {
        "patients/1/photos/a.jpg": "stored",
        "patients/1/photos/c.exe": "refused",
        "patients/2/photos/=b.jpg": "refused",
    }
    whole = pacslite(*command, "--create-patients", "--report", tmp_path / "report.csv", "--anew")
    assert whole.returncode == 1
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert [row["outcome"] for row in rows.values()] == ["duplicate", "refused", "stored"]
    assert rows["patients/2/photos/=b.jpg"]["file_type"] == "xray"
    assert rows["patients/1/photos/a.jpg"]["file_id"] == report["patients/1/photos/a.jpg"]["file_id"]


def test_wrong_usage_is_said_before_anything_is_done(data: Path, tmp_path: Path) -> None:
    tree = put(tmp_path / "old", {"patients/1/photos/a.jpg": jpeg(1)})
    (tmp_path / "m.csv").write_text("path,whose\na,b\n")
    for more in (["--mapping", tmp_path / "m.csv"], ["--mapping", tmp_path / "absent.csv"], ["--report", tmp_path / "no" / "r.csv"]):
        done = pacslite("import-files", "--layout", "patients", tree, "--data", data, *more)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr
    assert pacslite("import-files", tree, "--data", data).returncode == 2
    assert pacslite("import-files", "--layout", "patients", tmp_path / "absent", "--data", data).returncode == 2
