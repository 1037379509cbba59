"""A process that stores instances from several threads; `python -m tests.support.catalog_writer URL NAME THREADS COUNT`.

Prints one line of JSON: how many of each outcome, and every error. It begins when a line comes on stdin.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter

from pacslite.catalog.database import Catalog
from pacslite.errors import PacsliteError
from tests.support.arrivals import arrival, store


def main(url: str, name: str, threads: int, count: int) -> None:
    catalog = Catalog(url, busy_timeout_s=60, pool_size=threads)
    outcomes: Counter[str] = Counter()
    errors: list[str] = []
    lock = threading.Lock()

    def run(thread: int) -> None:
        for i in range(count):
            own = arrival(study=f"1.{i % 3}", series=f"1.{i % 3}.{thread}", sop=f"2.{name}.{thread}.{i}", Modality=("CT", "MR")[i % 2])
            contended = arrival(study="9", series="9.1", sop=f"9.1.{i}", PatientID="P9")
            for one in (own, contended):
                try:
                    outcome = store(catalog, one).outcome
                except PacsliteError as error:
                    with lock:
                        errors.append(repr(error))
                else:
                    with lock:
                        outcomes[("own " if one is own else "contended ") + outcome] += 1

    workers = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    print("ready", flush=True)
    sys.stdin.readline()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    catalog.close()
    print(json.dumps({"outcomes": outcomes, "errors": errors}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
