"""The processes in which bytes of files are read, when whoever started them is gone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("told", [b"", b'["pacslite.codec.pictures:'])
def test_a_task_that_was_not_told_to_its_end_is_left_without_a_word(told: bytes) -> None:
    """The worker was killed while it started the process."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "pacslite.codec.apart", str(writing)]
    try:
        ended = subprocess.run(command, input=told, pass_fds=(writing,), capture_output=True, timeout=60, check=False)
    finally:
        os.close(reading)
        os.close(writing)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, b"", b"")
