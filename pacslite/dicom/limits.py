"""Bounds on what reading one file may cost, and what the reader is asked for."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a file may be looked at, and which attributes are wanted as values.

    `max_header_bytes` bounds what is read of the data set besides bulk values; `max_depth` the nesting of sequences and
    `max_elements` the number of elements and items; values of more than `bulk_threshold_bytes` become references to bulk
    data where PS3.18 10.4.3.3.2 allows it; `max_inflated_bytes` bounds a deflated data set, which is inflated into a
    nameless file in `scratch`, where `reserve_bytes` stay free; `tags` are the top-level attributes wanted in
    `Instance.values` (sequences among them: kept in `Instance.header`).
    """

    max_header_bytes: int = 64 * 1024 * 1024
    max_depth: int = 64
    max_elements: int = 2_000_000
    bulk_threshold_bytes: int = 4096
    max_inflated_bytes: int = 4 * 1024**3
    reserve_bytes: int = 0
    scratch: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    tags: frozenset[int] = frozenset()
