"""Catalogs for tests: a new SQLite file, or a new database on a PostgreSQL that is started for the session.

PostgreSQL comes from the system (Debian's /usr/lib/postgresql, or PATH), listens on a unix socket in a temporary
directory only, and refuses to run as root: then it runs as `nobody`.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from pacslite.catalog.database import Catalog


@dataclass(frozen=True)
class PostgresServer:
    """A running server; `new_database` makes an empty database in it."""

    socket_directory: Path
    user: str

    def new_database(self, template: str = "template0") -> str:
        """The URL of a new database, empty or a copy of one that nobody uses."""
        name = f"t{os.urandom(6).hex()}"
        with psycopg.connect(host=str(self.socket_directory), user=self.user, dbname="postgres", autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY WAL_LOG")  # type: ignore[arg-type]
        return f"postgresql://{self.user}@/{name}?host={self.socket_directory}"

    @contextmanager
    def frozen(self, *, only_connections: bool = False) -> Iterator[None]:
        """No process of it runs while the block lasts, or none but the one that takes new connections (SIGSTOP)."""
        first = int((self.socket_directory / "data/postmaster.pid").read_text().splitlines()[0])
        os.kill(first, signal.SIGSTOP)  # so that no further ones come
        pids = [first]
        try:
            pids += [int(pid) for pid in Path(f"/proc/{first}/task/{first}/children").read_text().split()]
            for pid in pids:
                _signal(pid, signal.SIGSTOP)
            if only_connections:
                _signal(first, signal.SIGCONT)
            yield
        finally:
            for pid in pids:
                _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # one that has ended meanwhile
        os.kill(pid, number)


def _binaries() -> Path | None:
    candidates = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which("initdb")
    if found:
        candidates.append(Path(found).parent)
    return next((c for c in candidates if (c / "initdb").is_file() and (c / "postgres").is_file()), None)


def _unprivileged() -> dict[str, int]:
    """Arguments of subprocess that drop root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("nobody")
    return {"user": account.pw_uid, "group": account.pw_gid}


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this session; skips when there are no binaries of it."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed")
    # Not below pytest's own directory: the path of a socket is limited to 107 bytes, and the account must reach it.
    directory = Path(tempfile.mkdtemp(prefix="pacslite-pg-"))
    drop = _unprivileged()
    if drop:
        os.chown(directory, drop["user"], drop["group"])
    data = directory / "data"
    initdb = [binaries / "initdb", "-D", data, "-U", "pacslite", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
    control = [binaries / "pg_ctl", "-D", data, "-w"]
    # fsync is off because no test here survives a crash of the machine; what is told apart is the transaction, not the disk.
    options = f"-c listen_addresses= -c unix_socket_directories={directory} -c fsync=off -c max_connections=60 -c shared_buffers=32MB"
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        subprocess.run(initdb, check=True, cwd=directory, env=environment, stdout=subprocess.DEVNULL, **drop)  # type: ignore[call-overload]
        start = [*control, "-l", directory / "log", "-o", options, "start"]
        subprocess.run(start, check=True, cwd=directory, env=environment, stdout=subprocess.DEVNULL, **drop)  # type: ignore[call-overload]
        try:
            yield PostgresServer(directory, "pacslite")
        finally:
            stop = [*control, "-m", "immediate", "stop"]
            subprocess.run(stop, check=True, cwd=directory, env=environment, stdout=subprocess.DEVNULL, **drop)  # type: ignore[call-overload]
    finally:
        shutil.rmtree(directory)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes empty databases and gives their URLs, once of each kind."""
    if request.param == "sqlite":
        numbers = itertools.count()
        return lambda: f"sqlite:///{tmp_path / f'catalog{next(numbers)}.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database


@pytest.fixture
def database_url(new_database: Callable[[], str]) -> str:
    """The URL of an empty database, once of each kind."""
    return new_database()


# Databases with a schema, one of each server ("" for SQLite): a copy costs less than the migrations.
_templates: dict[str, str] = {}


@pytest.fixture
def catalog(
    request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Catalog]:
    """A catalog with its schema, once of each kind."""
    if request.node.callspec.params["new_database"] == "sqlite":
        template = _templates.get("")
        if template is None:
            template = _templates[""] = str(tmp_path_factory.mktemp("template") / "catalog.db")
            _migrate(f"sqlite:///{template}")
        shutil.copyfile(template, tmp_path / "catalog.db")
        url = f"sqlite:///{tmp_path / 'catalog.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        template = _templates.get(str(server.socket_directory))
        if template is None:
            made = server.new_database()
            _migrate(made)
            template = _templates[str(server.socket_directory)] = made.partition("@/")[2].partition("?")[0]
        url = server.new_database(template)
    opened = Catalog(url, busy_timeout_s=20, pool_size=4)
    yield opened
    opened.close()


def _migrate(url: str) -> None:
    made = Catalog(url)
    made.migrate()
    made.close()
