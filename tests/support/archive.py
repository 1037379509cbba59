"""The parts of one process, over any catalog and store, with instances to put in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from pacslite.catalog.database import Catalog
from pacslite.core.ingest import Accepted, Ingest, Origin
from pacslite.settings import Settings
from pacslite.storage.blob_store import BlobStore
from pacslite.storage.spool import Spool
from pacslite.storage.stores import Stores
from tests.support.data_sets import image, part10


@dataclass(frozen=True)
class Archive:
    """What `app.build` gives, with a store of the test's choice."""

    settings: Settings
    catalog: Catalog
    store: BlobStore
    spool: Spool
    ingest: Ingest

    @property
    def stores(self) -> Stores:
        """The one store there is."""
        return Stores(self.store)

    def accept(self, ds: Dataset, origin: Origin = Origin("stow", actor="local", request_id="r1")) -> Accepted:  # noqa: B008  frozen
        """Take a data set in."""
        with self.spool.create(".dcm") as writer:
            writer.write(part10(ds))
            return self.ingest.accept(writer.finish(), origin)

    def key_of(self, accepted: Accepted) -> str:
        """Key of the bytes of the newest version."""
        prefix = f"radiology/{accepted.study_instance_uid}/{accepted.series_instance_uid}/{accepted.sop_instance_uid}/"
        return [info.key for info in self.store.list(prefix)][-1]


def archive(data: Path, catalog: Catalog, store: BlobStore) -> Archive:
    """An archive whose spool is under `data`."""
    settings = Settings(data=data)
    spool = Spool(data / "spool")
    return Archive(settings, catalog, store, spool, Ingest(settings, catalog, store, spool))


def slice_of(study: str, series: str, instance: str, **attributes: str) -> Dataset:
    """A small image; attributes by keyword."""
    ds = image(study=study, series=series, instance=instance)
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds
