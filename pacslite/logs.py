"""Structured logs: one JSON object a line on stderr.

Every line has `time, level, message`, and `request_id`/`association_id`/`actor` when there is one;
operations on data add `action, object_id, outcome`. Never patient identity, passwords or tokens.
"""

from __future__ import annotations

import contextvars
import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from pacslite.errors import PacsliteError

_context: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("pacslite_log_context", default={})  # noqa: B039

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record, its `extra` fields and the bound context as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
            "process": record.process,
            **_context.get(),
        }
        line.update((k, v) for k, v in record.__dict__.items() if k not in _STANDARD)
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = _told(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


# What these say is of the program or the system; the text of others may repeat what was sent, a name for one.
_PLAIN_ERRORS = (PacsliteError, OSError, AttributeError, ImportError, MemoryError, NameError, RecursionError, TypeError)


def _told(error: BaseException) -> str:
    """Where an error came from, and its text if that cannot be a patient's."""
    told: list[str] = []
    inner: BaseException | None = error
    while inner is not None and len(told) < 5:
        what = f"{type(inner).__name__}{f': {inner}' if isinstance(inner, _PLAIN_ERRORS) else ''}"
        told.insert(0, "".join(["Traceback:\n", *traceback.format_tb(inner.__traceback__), what]))
        inner = inner.__cause__ or (None if inner.__suppress_context__ else inner.__context__)
    return "\n\nthen ".join(told)


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Send all logs of this process as JSON lines to `stream` (stderr); replaces earlier handlers."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These log identifiers or whole data sets at their chattier levels.
    for name in ("pynetdicom", "pydicom", "botocore", "boto3", "urllib3", "s3transfer", "sqlalchemy", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def add(**fields: Any) -> None:
    """Adds fields to every line until the end of the innermost `bound`, which is where the work began."""
    _context.set({**_context.get(), **fields})


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Adds fields (`request_id=...`, `association_id=...`) to every line logged inside."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)
