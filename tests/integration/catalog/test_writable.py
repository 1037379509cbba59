"""A catalog that can be read and not written is told before anything is lost to it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pacslite.admin.health import get_ready
from pacslite.catalog.database import Catalog
from pacslite.errors import Unavailable


@contextmanager
def nobody() -> Iterator[None]:
    """Not root, to whom everything is writable."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_writable_catalog_passes(catalog: Catalog) -> None:
    catalog.check_writable()


def test_a_catalog_file_that_cannot_be_written_makes_the_server_not_ready() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        data.chmod(0o755)
        catalog = Catalog(f"sqlite:///{data / 'catalog.db'}")
        catalog.migrate()
        store = SimpleNamespace(check=lambda: None)
        pacs = cast(Any, SimpleNamespace(catalog=catalog, store=store, settings=SimpleNamespace(data=data, spool_directory=data)))
        assert json.loads(cast(bytes, get_ready(pacs, cast(Any, None)).body))["checks"]["catalog"]["state"] == "ok"
        (data / "catalog.db").chmod(0o444)
        with nobody(), pytest.raises(Unavailable, match=r"catalog\.db is read-only for the account that runs the server"):
            catalog.check_writable()
        with nobody():
            reply = get_ready(pacs, cast(Any, None))
        assert reply.status == 503
        found = json.loads(cast(bytes, reply.body))
        assert (found["status"], found["checks"]["catalog"]["state"]) == ("not-ready", "failed")
        assert "cannot be written: catalog.db" in found["checks"]["catalog"]["detail"]
        catalog.close()
