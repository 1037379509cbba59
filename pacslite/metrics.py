"""What is counted for Prometheus: every metric by name, counted by all processes of this data, given out by one.

Each process counts in files of its own in `<data>/run/metrics`, mapped into memory by prometheus_client; whoever is asked adds up
the files of all (docs/decisions/0021-metrics.md). What a process that has ended counted is kept in one file, its gauges go
with it. Before `start` an observation does nothing and loads nothing. Label values are words of this program, never of a caller;
past `MAX_SERIES` label sets of a metric the rest is counted as `other`.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from abc import ABC, abstractmethod
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_SERIES = 250
"""Label sets of one metric."""
OTHER = "other"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ENDED = "ended"
_LOCK_NAME = re.compile(r"([a-z]+)-(\d+)-[0-9a-f]+\.lock")
# From a cached frame to a study of many instances; powers of about three keep the series few.
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_SHORT_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 20.0)
_LONG_SECONDS = (0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)

_is_on = False
_make_lock = threading.Lock()
_held_locks: list[int] = []  # open as long as the process lives: they say that it does
TABLE: dict[str, Metric] = {}
"""Every metric there is, by name."""


class Metric:
    """A name with its labels, and whether its values count up or are as they are."""

    kind = "gauge"

    def __init__(self, name: str, help: str, labels: tuple[str, ...] = ()) -> None:
        self.name, self.help, self.labels = name, help, labels
        TABLE[name] = self


class Counted(Metric, ABC):
    """A metric that the processes count; what it is made of in prometheus_client comes with the first observation."""

    def __init__(self, name: str, help: str, labels: tuple[str, ...] = ()) -> None:
        super().__init__(name, help, labels)
        self._children: dict[tuple[str, ...], Any] = {}
        self._parent: Any = None

    @abstractmethod
    def _made(self) -> Any:
        """The metric of prometheus_client."""

    def _child(self, values: tuple[str, ...]) -> Any:
        with _make_lock:
            if self._parent is None:
                self._parent = self._made()
            if len(self._children) >= MAX_SERIES and values not in self._children:
                values = (OTHER,) * len(values)
            if values not in self._children:
                self._children[values] = self._parent.labels(*values) if values else self._parent
            return self._children[values]


class Counter(Counted):
    """Only grows."""

    kind = "counter"

    def _made(self) -> Any:
        import prometheus_client

        return prometheus_client.Counter(self.name, self.help, self.labels, registry=None)

    def add(self, *values: str, amount: float = 1) -> None:
        """Count."""
        if _is_on:
            (self._children.get(values) or self._child(values)).inc(amount)


class Gauge(Counted):
    """Goes up and down; of several processes the sum."""

    _mode = "livesum"

    def _made(self) -> Any:
        import prometheus_client

        return prometheus_client.Gauge(self.name, self.help, self.labels, registry=None, multiprocess_mode=self._mode)  # type: ignore[arg-type]

    def add(self, *values: str, amount: float = 1) -> None:
        """Change by an amount."""
        if _is_on:
            (self._children.get(values) or self._child(values)).inc(amount)

    def set(self, value: float, *values: str) -> None:
        """The value now."""
        if _is_on:
            (self._children.get(values) or self._child(values)).set(value)


class Latest(Gauge):
    """A gauge that one process at a time knows; of several the newest counts."""

    _mode = "livemostrecent"


class Histogram(Counted):
    """How often how much."""

    kind = "histogram"

    def __init__(self, name: str, help: str, labels: tuple[str, ...] = (), buckets: Sequence[float] = _SECONDS) -> None:
        super().__init__(name, help, labels)
        self._buckets = buckets

    def _made(self) -> Any:
        import prometheus_client

        return prometheus_client.Histogram(self.name, self.help, self.labels, registry=None, buckets=self._buckets)

    def observe(self, amount: float, *values: str) -> None:
        """Count one of this size."""
        if _is_on:
            (self._children.get(values) or self._child(values)).observe(amount)


class Asked(Metric):
    """A gauge that is looked up when somebody asks, not counted."""


class AskedTotal(Metric):
    """A counter that is looked up when somebody asks."""

    kind = "counter"


@dataclass(frozen=True, slots=True)
class Sample:
    """A value of a metric that was looked up."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()


HTTP_SECONDS = Histogram("pacslite_http_request_seconds", "Requests by their time from head to last byte.", ("route", "method", "status"))
HTTP_SENT_BYTES = Counter("pacslite_http_sent_bytes_total", "Bytes of answers.", ("route",))
HTTP_MALFORMED = Counter("pacslite_http_malformed_total", "Requests that could not be read.", ("status",))

ASSOCIATIONS_OPEN = Gauge("pacslite_associations_open", "Associations that are open.")
ASSOCIATIONS = Counter("pacslite_associations_total", "Association requests: accepted, rejected, overloaded.", ("outcome",))
DIMSE_SECONDS = Histogram(
    "pacslite_dimse_operation_seconds",
    "DIMSE operations by their time from command to last answer, and by kind of their final status.",
    ("operation", "status"),
)
DIMSE_RESPONSES = Counter("pacslite_dimse_responses_total", "Final DIMSE answers by status, hexadecimal.", ("operation", "status"))

UPLOADS = Counter("pacslite_uploads_total", "Uploads of files by what became of them.", ("outcome",))
FILE_VERSIONS = Counter("pacslite_file_versions_total", "Versions of files that were stored, the first ones too.", ("type",))
FILE_READ_SECONDS = Histogram("pacslite_file_read_seconds", "Time to find and open the bytes of a file.", buckets=_SHORT_SECONDS)
INGESTED = Counter("pacslite_ingest_total", "Instances by where they came from and what became of them.", ("source", "outcome"))
INGESTED_BYTES = Counter("pacslite_ingest_bytes_total", "Bytes of these instances.", ("source", "outcome"))
INGEST_SECONDS = Histogram("pacslite_ingest_seconds", "Time from the last byte to durable bytes and rows.", ("source",))

LOCK_WAIT_SECONDS = Histogram("pacslite_catalog_lock_wait_seconds", "Waits for the write lock of an SQLite catalog.", (), _SHORT_SECONDS)
WRITE_SECONDS = Histogram(
    "pacslite_catalog_write_seconds", "Writes to the catalog, with their wait for a commit.", ("outcome",), _SHORT_SECONDS
)
BATCH_SIZE = Histogram("pacslite_catalog_batch_writes", "Writes in one commit.", (), _SIZES)
WRITES_QUEUED = Gauge("pacslite_catalog_queued_writes", "Writes left waiting when a commit began.")

CACHE_REQUESTS = Counter("pacslite_cache_requests_total", "What was looked for in a cache: hit, miss, or joined.", ("cache", "result"))
CODEC_SECONDS = Histogram(
    "pacslite_codec_seconds", "Tasks of the codec processes, by how long their results were waited for.", ("task", "outcome")
)

JOB_SECONDS = Histogram("pacslite_job_seconds", "Runs of jobs by their time.", ("kind", "outcome"), _LONG_SECONDS)
TASK_SECONDS = Histogram("pacslite_task_seconds", "Runs of the worker's tasks by their time.", ("task", "outcome"), _SECONDS)
DAMAGED = Counter("pacslite_damaged_blobs_total", "Blobs found damaged, by problem and what was done.", ("problem", "became"))
TASK_DONE_AT = Latest("pacslite_task_success_timestamp_seconds", "When a task of the worker was last done.", ("task",))

JOBS = Asked("pacslite_jobs", "Jobs by state.", ("state",))
JOB_OVERDUE_SECONDS = Asked("pacslite_job_overdue_seconds", "How long the first queued job has been due.")
PATIENTS = Latest("pacslite_patients", "Patients in the catalog.")
STUDIES = Latest("pacslite_studies", "Studies in the catalog.")
SERIES = Latest("pacslite_series", "Series in the catalog.")
INSTANCES = Latest("pacslite_instances", "Instances in the catalog, each once however many versions it has.")
FILES = Latest("pacslite_files", "Files that are not in the trash, by type.", ("type",))
STORAGE_BYTES = Latest("pacslite_storage_bytes", "Bytes in a storage, as the catalog says.", ("backend",))
STORAGE_BLOBS = Latest("pacslite_storage_blobs", "Blobs in a storage by state: live, doomed, quarantined.", ("backend", "state"))
REMOVAL_QUEUE = Asked("pacslite_removal_queue", "Blobs that wait for their erasure.")
WAL_BYTES = Asked("pacslite_catalog_wal_bytes", "Size of the write-ahead log of an SQLite catalog.")
SPOOL_FILES = Asked("pacslite_spool_files", "Files in the spool.")
SPOOL_BYTES = Asked("pacslite_spool_bytes", "Their bytes.")
DISK_FREE_BYTES = Asked("pacslite_disk_free_bytes", "Room on the disk of a directory.", ("directory",))
QUOTA_BYTES = Asked("pacslite_quota_bytes", "What all accounts together may keep in files; infinite when that is not limited.")
QUOTA_USED_BYTES = Asked("pacslite_quota_used_bytes", "What they keep, unfinished uploads included.")
QUOTA_ACCOUNTS = Asked(
    "pacslite_quota_accounts", "Accounts by how near they are to their quota: ok, warning, critical, exceeded.", ("level",)
)
CERTIFICATE_ENDS_AT = Asked("pacslite_certificate_expiry_timestamp_seconds", "When a certificate ends.", ("name",))
PROCESSES = Asked("pacslite_processes", "Processes that count here, by role.", ("role",))
RESIDENT_BYTES = Asked("pacslite_process_resident_bytes", "Memory of these processes, what they share counted in each.", ("role",))
RESTARTS = AskedTotal("pacslite_restarts_total", "Restarts of a process by its supervisor.", ("name",))
UNANSWERED = Asked("pacslite_metrics_unanswered", "Parts of these metrics that could not be looked up in time.", ("part",))
INFO = Asked("pacslite_info", "Always 1.", ("version",))


def directory(data: Path) -> Path:
    """Where the processes of this data count."""
    return data / "run" / "metrics"


def start(data: Path, role: str) -> None:
    """Count from now on; to be called once in a process, after the last fork. Raises OSError."""
    global _is_on
    where = directory(data)
    where.mkdir(mode=0o750, parents=True, exist_ok=True)
    name = f"{role}-{os.getpid()}-{os.urandom(3).hex()}"
    with _held(where):
        _tidy(where)
        lock = os.open(where / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        fcntl.flock(lock, fcntl.LOCK_EX)
        _held_locks.append(lock)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(where)
    from prometheus_client import values

    values.ValueClass = values.MultiProcessValue(lambda: name)
    _is_on = True


def exposition(data: Path, samples: Iterable[Sample] = ()) -> bytes:
    """Everything counted by the processes of this data, and what was looked up, in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    where = directory(data)
    where.mkdir(mode=0o750, parents=True, exist_ok=True)
    with _held(where):
        living = _tidy(where)
        counted = list(MultiProcessCollector.merge([str(path) for path in sorted(where.glob("*.db"))], accumulate=True))
    families = [*counted, *_families([*samples, *_of_processes(living)])]
    registry = CollectorRegistry()
    registry.register(_Collected(sorted(families, key=lambda family: str(family.name))))
    return generate_latest(registry)


class _Collected:
    def __init__(self, families: list[Any]) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        return self._families


def _families(samples: Iterable[Sample]) -> list[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    families: dict[str, Any] = {}
    for sample in samples:
        metric = sample.metric
        family = families.get(metric.name)
        if family is None:
            make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = families[metric.name] = make(metric.name, metric.help, labels=metric.labels)
        family.add_metric(sample.labels, sample.value)
    return list(families.values())


def _of_processes(living: list[str]) -> Iterator[Sample]:
    roles: Tally[str] = Tally()
    resident: Tally[str] = Tally()
    for name in living:
        found = _LOCK_NAME.fullmatch(name + ".lock")
        assert found is not None
        roles[found[1]] += 1
        with suppress(OSError, IndexError, ValueError):  # in another container there is no such process
            resident[found[1]] += int(Path(f"/proc/{found[2]}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    yield from (Sample(PROCESSES, count, (role,)) for role, count in sorted(roles.items()))
    yield from (Sample(RESIDENT_BYTES, size, (role,)) for role, size in sorted(resident.items()))


# The files


@contextmanager
def _held(where: Path) -> Iterator[None]:
    """The files are added up, and tidied, by one process at a time."""
    lock = os.open(where / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _tidy(where: Path) -> list[str]:
    """The processes that live; what those counted that have ended goes into one file, or away when nobody lives."""
    living: list[str] = []
    for path in sorted(where.glob("*-*-*.lock")):
        if _LOCK_NAME.fullmatch(path.name):
            living += [path.stem] if _is_locked(path) else []
    files = [path for path in where.glob("*.db") if path.stem.rpartition("_")[2] not in living]
    if not living:
        _remove(files)
    else:
        for kind in ("counter", "histogram"):
            ended = [path for path in files if path.name.startswith(kind)]
            if any(not path.stem.endswith(_ENDED) for path in ended):
                _join(where / f"{kind}_{_ENDED}.db", ended)
        _remove(path for path in files if path.name.startswith("gauge"))
    _remove(path for path in where.glob("*-*-*.lock") if path.stem not in living)
    return living


def _is_locked(path: Path) -> bool:
    if any(os.path.samestat(os.fstat(lock), path.stat()) for lock in _held_locks):
        return True  # ours
    lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _join(target: Path, files: list[Path]) -> None:
    """Adds up files of one kind into one; a kill before the last of them is removed counts it twice, which is the lesser evil."""
    from prometheus_client.mmap_dict import MmapedDict

    sums: dict[str, float] = {}
    for path in files:
        with suppress(RuntimeError, UnicodeDecodeError):  # torn by a power cut
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):
                sums[key] = sums.get(key, 0.0) + value
    partial = target.with_suffix(".part")
    partial.unlink(missing_ok=True)
    joined = MmapedDict(str(partial))
    for key, value in sums.items():
        joined.write_value(key, value, 0.0)
    joined.close()
    partial.replace(target)
    _remove(path for path in files if path != target)


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        path.unlink(missing_ok=True)
