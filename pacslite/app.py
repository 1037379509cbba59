"""The one place where objects meet: `build(settings)` makes what a role needs, `Pacs` holds it.

Modules are imported when they are first needed, so that a role pays only for what it uses.
"""

from __future__ import annotations

import logging
import os
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacslite.errors import ConfigurationError, PacsliteError, PeerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pacslite.catalog.database import Catalog
    from pacslite.catalog.peers import Peer
    from pacslite.codec.processes import CodecProcesses
    from pacslite.core.accounts import Accounts
    from pacslite.core.audit import Recorder
    from pacslite.core.conversion import Conversions
    from pacslite.core.ingest import Ingest
    from pacslite.core.limits import Limits
    from pacslite.core.peer_counts import PeerCounts
    from pacslite.core.remote import RemoteArchive
    from pacslite.settings import Settings
    from pacslite.storage.blob_store import BlobStore
    from pacslite.storage.spool import Spool
    from pacslite.storage.stores import Stores
    from pacslite.web.front import WsgiApplication
    from pacslite.web.messages import Route

_log = logging.getLogger(__name__)
_PATIENCE_S = 3600
_UNLOGGED = (
    "%s lies on an ext4 without a journal: what was acknowledged survives a crash of the programs, and perhaps not a failure of power; "
    "keep it on a file system with a journal"
)


@dataclass(frozen=True, slots=True)
class Pacs:
    """The parts of one process. Everything else (queries, retrieval, peers) is functions over these."""

    settings: Settings
    catalog: Catalog
    store: BlobStore  # the active one, for what is written
    stores: Stores  # all of them, for what is read
    spool: Spool
    ingest: Ingest
    codecs: CodecProcesses
    conversions: Conversions
    peer_counts: PeerCounts
    limits: Limits
    accounts: Accounts = field(init=False)
    audit: Recorder

    def __post_init__(self) -> None:
        from pacslite.core.accounts import Accounts

        object.__setattr__(self, "accounts", Accounts(self.settings, self.catalog))

    @contextmanager
    def remote(self, peer: Peer) -> Iterator[RemoteArchive]:
        """The archive of a peer, while the block lasts."""
        if peer.kind == "dicomweb":
            from pacslite.core.remote_web import WebArchive

            with closing(WebArchive(self, peer)) as archive:
                yield archive
        else:
            from pacslite.dimse.remote import DimseArchive

            yield DimseArchive(self, peer)

    def send_echo(self, peer: Peer) -> None:
        """Sees that the peer answers; raises PeerError."""
        try:
            with self.remote(peer) as archive:
                archive.echo()
        except PeerError:
            self.peer_counts.note(peer.ae_title, {"failures": 1}, seen=False)
            raise

    def close(self) -> None:
        """Lets go of the connections to the catalog, and of the codec processes."""
        from pacslite import tracing

        tracing.stop()
        self.codecs.close()
        with suppress(PacsliteError):  # nothing is lost: the worker, or the next start, settles what this process has not
            self.ingest.settling.settle_own()
        with suppress(PacsliteError):  # counts are not worth a failure at the end
            self.peer_counts.write()
        self.limits.close()
        self.accounts.close()
        self.audit.close()
        self.catalog.close()


def prepare_directories(settings: Settings) -> None:
    """Makes the directories of the data, private to the account that runs the server; raises ConfigurationError."""
    wanted = [settings.data, settings.cache_directory]
    if settings.storage == "filesystem":
        wanted.append(settings.resolved_storage_root)
    for path in wanted:
        _make_directory(path, settings.data)
    _make_directory(settings.spool_directory, settings.data)  # depends on the devices of the ones above


def _make_directory(path: Path, data: Path) -> None:
    from pacslite.storage.allocation import make_apart

    try:
        if path.parent == data:
            make_apart(path)
        else:
            path.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot make the directory {path}: {error.strerror}; give another with --data or PACSLITE_DATA") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigurationError(f"the directory {path} is not writable by this account")


def build_store(settings: Settings) -> BlobStore:
    """The active storage."""
    if settings.storage == "s3":
        from pacslite.storage.s3 import S3Store

        return S3Store.from_settings(settings)
    from pacslite.storage.filesystem import FilesystemStore

    return FilesystemStore(settings.resolved_storage_root, settings.filesystem_name)


def build_stores(settings: Settings, active: BlobStore) -> Stores:
    """The active storage and every other one that has its settings."""
    from pacslite.storage.filesystem import FilesystemStore
    from pacslite.storage.spool import Spool
    from pacslite.storage.stores import Stores

    others: list[BlobStore] = []
    roots = {settings.archive_name: settings.archive_root}
    if settings.storage == "s3" and (settings.storage_root or settings.resolved_storage_root.is_dir()):
        roots[settings.filesystem_name] = settings.resolved_storage_root
    others += [FilesystemStore(root, name) for name, root in roots.items() if root is not None]
    spools = {name: Spool(root / ".spool") for name, root in roots.items() if root is not None}
    if settings.storage != "s3" and settings.s3_bucket:
        from pacslite.storage.s3 import S3Store

        others.append(S3Store.from_settings(settings))
    if settings.archive_s3_bucket:
        from pacslite.storage.s3 import S3Store

        others.append(S3Store.archive_from_settings(settings))
    return Stores(active, others, spools)


def build_catalog(settings: Settings, *, is_patient: bool = True) -> Catalog:
    """The catalog, connected lazily; its schema is not looked at. Who is patient has no client that waits for a statement."""
    from pacslite.catalog.database import Catalog
    from pacslite.catalog.engines import kept_for_reading

    kept = kept_for_reading(settings.web_processes + settings.dimse_processes + 1)
    timeout_s = max(_PATIENCE_S, settings.database_timeout_s) if is_patient else settings.database_timeout_s
    url, busy_s = settings.resolved_database_url, settings.busy_timeout_s
    return Catalog(url, busy_timeout_s=busy_s, kept_connections=kept, statement_timeout_s=timeout_s)


def migrate(settings: Settings) -> None:
    """Brings the catalog to this release's schema, under a lock; makes the first administrator if the settings name one."""
    from pacslite.core.accounts import Accounts

    catalog = build_catalog(settings)
    try:
        catalog.migrate()
        if settings.auth:
            from pacslite.core import users

            accounts = Accounts(settings, catalog)
            _ = accounts.keys  # made here, or found to be wrong, before anybody needs them
            users.first_administrator_of_settings(accounts)
    finally:
        catalog.close()


def recover(settings: Settings) -> None:
    """After a failure of power: files that had not reached their places come there (`core.settling`). Warns where that is not enough."""
    from pacslite.core.settling import Settling
    from pacslite.storage.spool import Spool
    from pacslite.storage.syncing import is_unlogged

    for directory in _kept_in(settings):
        if is_unlogged(os.fspath(directory)):
            _log.warning(_UNLOGGED, directory, extra={"action": "storage.recover"})
    catalog = build_catalog(settings)
    try:
        store, spool = build_store(settings), Spool(settings.spool_directory, settings.free_space_reserve_bytes)
        Settling(catalog, store, spool, settings.write_ahead_bytes).settle(compare=True)
    finally:
        catalog.close()


def _kept_in(settings: Settings) -> list[Path]:
    """The directories with what must survive, one of each file system."""
    from pacslite.catalog.engines import database_file, parse_url

    url = parse_url(settings.resolved_database_url)
    catalog = database_file(url).parent if url.get_backend_name() == "sqlite" else None
    found: dict[int, Path] = {}
    for directory in filter(None, (settings.data, catalog, settings.resolved_storage_root, settings.archive_root)):
        with suppress(OSError):  # not there, as an archive that is not mounted: whoever needs it says so
            found.setdefault(os.stat(directory).st_dev, directory)
    return list(found.values())


def first_administrator(settings: Settings) -> tuple[str, str] | None:
    """Makes the first administrator when there is no account: name and password; None when there is one."""
    from pacslite.core import users
    from pacslite.core.accounts import Accounts

    catalog = build_catalog(settings)
    try:
        return users.first_administrator(Accounts(settings, catalog), settings.admin_password)
    finally:
        catalog.close()


def build(settings: Settings, *, is_patient: bool = True) -> Pacs:
    """Everything of one process, on existing directories or new ones. Call it after forking, never before."""
    from pacslite.codec.processes import CodecProcesses
    from pacslite.core.audit import Recorder
    from pacslite.core.conversion import Conversions
    from pacslite.core.ingest import Ingest
    from pacslite.core.limits import Limits
    from pacslite.core.peer_counts import PeerCounts
    from pacslite.core.result_cache import ResultCache
    from pacslite.core.retrieve import limits_of
    from pacslite.dicom.indexed_attributes import indexed_attributes
    from pacslite.storage.spool import Spool

    indexed_attributes(settings.index_attributes)  # a wrong name is told at the start, not by the first search
    prepare_directories(settings)
    catalog, store, spool = (
        build_catalog(settings, is_patient=is_patient),
        build_store(settings),
        Spool(settings.spool_directory, settings.free_space_reserve_bytes),
    )
    stores = build_stores(settings, store)
    codecs = CodecProcesses(settings.codec_processes, settings.codec_timeout_s)
    results = ResultCache(settings.cache_directory / "transcoded", settings.transcoded_cache_bytes)
    conversions = Conversions(stores, limits_of(settings, spool.directory), codecs, results)
    ingest, recorder = Ingest(settings, catalog, store, spool, stores), Recorder(catalog, settings.audit_repeat_s)
    return Pacs(settings, catalog, store, stores, spool, ingest, codecs, conversions, PeerCounts(catalog), Limits(settings), recorder)


def routes() -> list[Route]:
    """The routes of all HTTP adapters."""
    from pacslite import admin, files
    from pacslite.conformance import ROUTES as CONFORMANCE
    from pacslite.dicomweb.routes import ROUTES as DICOMWEB
    from pacslite.ui import routes as ui
    from pacslite.web import app as _  # noqa: F401 - Flask too is loaded here, once for all workers

    return [*DICOMWEB, *CONFORMANCE, *admin.routes(files.OPERATIONS), *files.ROUTES, *ui.ROUTES]


def _routes_of(settings: Settings) -> list[Route]:
    from pacslite.admin import metrics

    return metrics.public(routes()) if settings.metrics_public else routes()


def observe(settings: Settings, role: str) -> None:
    """Counts, and traces if the settings say so, from now on in this process. Call it after forking, never before."""
    from pacslite import metrics, tracing

    tracing.start(settings, role)
    try:
        metrics.start(settings.data, role)
    except OSError as error:
        _log.error("nothing is counted: %s", error.strerror)


def web_application(settings: Settings) -> WsgiApplication:
    """The WSGI application of one process; raises Unavailable when the catalog is of another revision."""
    from pacslite.web import app as web
    from pacslite.web.audit import record_request
    from pacslite.web.authentication import authenticate
    from pacslite.web.rate_limits import limited

    pacs = build(settings, is_patient=False)
    pacs.catalog.check_revision()
    observe(settings, "web")
    return web.create(pacs, _routes_of(settings), limited(authenticate), record_request)
