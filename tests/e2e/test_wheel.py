"""The wheel by itself: built, installed into a fresh environment, used from another directory."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support import data_sets
from tests.support.processes import ROOT, environment


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in environment(**env).items() if name != "PYTHONPATH"}
    ended = subprocess.run([*map(str, command)], cwd=cwd, env=clean, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, f"{command}:\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return ended


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "wheel", "--no-deps", "-w", target, ROOT]
    run(*pip, cwd=target, PIP_CONSTRAINT=str(ROOT / "constraints.txt"))
    (built,) = target.glob("pacslite-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that has the wheel and what it needs."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home / "venv", with_pip=True)
    python = home / "venv/bin/python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-q", "install", "--no-compile"]
    run(*pip, wheel, cwd=home, PIP_CONSTRAINT=str(ROOT / "constraints.txt"))
    return python


def test_the_wheel_carries_the_migrations_and_the_samples_of_settings(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {f"pacslite/migrations/{path.relative_to(ROOT / 'migrations')}" for path in (ROOT / "migrations").rglob("*.py")}
    expected |= {f"pacslite/conf/{path.name}" for path in (ROOT / "conf").iterdir() if path.is_file()}
    expected |= {str(path.relative_to(ROOT)) for path in (ROOT / "pacslite").rglob("*.py")}
    assert expected <= names
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]


def test_the_installed_wheel_migrates_imports_serves_and_tests_itself(python: Path, tmp_path: Path) -> None:
    def pacslite(*arguments: str | Path) -> str:
        return run(python.parent / "pacslite", *arguments, cwd=tmp_path).stdout

    (tmp_path / "one.dcm").write_bytes(data_sets.part10(data_sets.image()))
    pacslite("migrate")
    assert (tmp_path / "data/catalog.db").exists()
    assert "1 stored" in pacslite("import", "one.dcm")
    assert "clean up" in pacslite("selftest")
    assert "#aet" in pacslite("config", "sample")
    served = subprocess.Popen(
        [python.parent / "pacslite", "serve", "--no-auth", "--json", "--http", "127.0.0.1:0", "--dicom", "127.0.0.1:0"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH" and not name.startswith("PACSLITE_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert served.stdout is not None
        assert '"event": "ready"' in served.stdout.readline()
        assert "retrieve over DICOMweb" in pacslite("selftest", "--server")
    finally:
        served.terminate()
        served.wait(40)
        if served.stdout:
            served.stdout.close()
    assert served.returncode == 0
