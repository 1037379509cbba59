"""The parts of a process, one by one, as the core needs them: a module joins those that it works with, and `app.Pacs` has them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog
    from pacslite.core.accounts import Accounts
    from pacslite.core.ingest import Ingest
    from pacslite.settings import Settings
    from pacslite.storage.blob_store import BlobStore
    from pacslite.storage.spool import Spool
    from pacslite.storage.stores import Stores


class WithSettings(Protocol):
    """Has the settings."""

    @property
    def settings(self) -> Settings:
        """Those of this process."""


class WithCatalog(Protocol):
    """Has the catalog."""

    @property
    def catalog(self) -> Catalog:
        """What is known of all that is stored."""


class WithStore(Protocol):
    """Has the active storage."""

    @property
    def store(self) -> BlobStore:
        """Where new bytes go."""


class WithStores(Protocol):
    """Has all storages."""

    @property
    def stores(self) -> Stores:
        """Where bytes are read from, and erased."""


class WithSpool(Protocol):
    """Has the spool."""

    @property
    def spool(self) -> Spool:
        """Room for bytes that are not stored yet, or on their way elsewhere."""


class WithIngest(Protocol):
    """Takes instances in."""

    @property
    def ingest(self) -> Ingest:
        """The only way in."""


class WithAccounts(Protocol):
    """Has the accounts."""

    @property
    def accounts(self) -> Accounts:
        """Those who may log in, and the keys of the server."""
