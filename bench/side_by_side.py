"""Runs the side-by-side harness with pacslite and its peers: `python bench/side_by_side.py [harness options]`."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache" / "bench"


def harness() -> Path | None:
    """The folder of the harness, if there is one."""
    folder = Path(os.environ.get("PACSLITE_HARNESS", HERE.parent.parent / "shared" / "bench"))
    return folder if (folder / "bench.py").is_file() else None


def interpreter(folder: Path) -> Path:
    """A Python with what the harness needs, made once."""
    python = CACHE / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(CACHE / "venv", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", folder / "requirements.txt"], check=True)
    return python


def main(arguments: list[str]) -> int:
    """Exit status of the harness; 0 with a message when there is none."""
    folder = harness()
    if folder is None:
        print("The side-by-side harness is not here (PACSLITE_HARNESS); ratios to peers are left out.")
        return 0
    CACHE.mkdir(parents=True, exist_ok=True)
    options = arguments or ["--quick"]
    if "--targets" not in options:
        options = ["--targets", f"orthanc-sqlite,{HERE / 'pacslite.toml'}", *options]
    return subprocess.run([interpreter(folder), folder / "bench.py", "run", *options], cwd=CACHE, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
