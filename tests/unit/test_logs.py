"""What the log says of errors."""

from __future__ import annotations

import contextvars
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from pacslite import logs
from pacslite.errors import NotFound


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    out = io.StringIO()
    logs.configure("debug", out)
    try:
        yield out
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def line(stream: io.StringIO) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stream.getvalue().splitlines()[-1])
    return found


def test_the_text_of_a_foreign_error_is_left_out_and_its_place_is_not(stream: io.StringIO) -> None:
    name = "^".join(("Sickman", "Anna"))  # lines of the program are told

    def fail() -> None:
        raise ValueError(f"invalid literal: {name!r}")

    try:
        try:
            fail()
        except ValueError as error:
            raise KeyError(name) from error
    except KeyError:
        logging.getLogger("x").exception("it failed")
    told = line(stream)["exception"]
    assert name not in stream.getvalue()
    assert "ValueError" in told
    assert "KeyError" in told
    assert "in fail" in told


@pytest.mark.parametrize("error", [NotFound("There is no job 'x'."), FileNotFoundError(2, "No such file"), TypeError("takes 2 arguments")])
def test_the_text_of_errors_of_program_and_system_is_told(stream: io.StringIO, error: Exception) -> None:
    logging.getLogger("x").error("it failed", exc_info=error)
    assert str(error) in line(stream)["exception"]


def test_what_is_added_lasts_until_the_end_of_the_request(stream: io.StringIO) -> None:
    def work() -> None:
        with logs.bound(request_id="r1"):
            logs.add(actor="anna")
            logging.getLogger("x").info("inside")
            assert (line(stream)["request_id"], line(stream)["actor"]) == ("r1", "anna")
        logging.getLogger("x").info("outside")
        assert "actor" not in line(stream)

    contextvars.Context().run(work)  # whatever the tests before have added
