"""A process that notes audit events and chains them; `python -m tests.support.audit_writer URL DATA NAME COUNT`.

With a COUNT of 0 it goes on until it is killed. It begins when a line comes on stdin, and prints a line after each event.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from pacslite.catalog import audit as rows
from pacslite.catalog.database import Catalog
from pacslite.core import audit_chain
from pacslite.core.audit import Event


def main(url: str, data: str, name: str, count: int) -> None:
    catalog, anchor = Catalog(url, busy_timeout_s=60, pool_size=2), audit_chain.anchor_of(Path(data))
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count) if count else itertools.count():
        event = Event("study.read", actor=name, object_type="study", object_id=str(number))
        catalog.write(lambda conn, event=event: rows.note(conn, event))  # type: ignore[misc]
        print(number, flush=True)
        audit_chain.advance(catalog, anchor)
    catalog.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
