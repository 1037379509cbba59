"""The file of `pacslite selftest`: a few words among the files of the patient whom the synthetic instance has brought."""

from __future__ import annotations

import hashlib
from contextlib import closing, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from pacslite.errors import NotFound, StorageError

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.core.file_content import Content

_URL_SECONDS = 60


class TestFile:
    """A document that is stored, looked at, and erased again."""

    __test__ = False  # no test of pytest

    def __init__(self, pacs: Pacs) -> None:
        from pacslite.core.file_notes import Owner
        from pacslite.core.ingest import Origin
        from pacslite.dicom.uids import new_uid

        self._pacs = pacs
        self._content = f"pacslite selftest {new_uid()}\n".encode()  # nobody has such bytes already
        self._who = Owner(None, "selftest"), Origin("job", actor="selftest")
        self._id: str | None = None

    def store(self, mrn: str) -> str:
        """Keeps it among the files of the patient of that number; its id."""
        from pacslite.catalog import patients
        from pacslite.catalog.arrival import PatientIdentity
        from pacslite.core import files
        from pacslite.core.file_types import MedicalFileType

        with self._pacs.catalog.read() as conn:
            found = patients.of_identity(conn, PatientIdentity(mrn, self._pacs.settings.default_issuer.strip()))
            if found is None:
                raise NotFound("the patient of the instance is not in the catalog")
            number = patients.survivor(conn, found.id)
        with self._pacs.spool.create(".txt") as writer:
            writer.write(self._content)
            spooled = writer.finish()
        about = files.Description(number, MedicalFileType.DOCUMENT, description="pacslite selftest")
        self._id = files.add(self._pacs, [files.Arrived(spooled, "selftest.txt")], about, *self._who).id
        return self._id

    def verify(self) -> str:
        """Compares what is stored with what was sent; how much it is."""
        blob = self._found().blob
        with closing(self._pacs.stores.open(blob)) as stored:
            content = stored.read()
        if blob.sha256 != hashlib.sha256(content).hexdigest():
            raise StorageError("the stored bytes of the file have another digest than the catalog says")
        return self.compare(content)

    def url(self) -> str:
        """A URL that gives the bytes: of the storage, or a path of this server."""
        from pacslite.core import file_content

        signed = file_content.sign(self._pacs, str(self._id), file_content.Which(None, None, None), _URL_SECONDS, *self._who)
        return signed.url or f"/api/v1/files/{self._id}/signed?{urlencode(signed.query)}"

    def compare(self, content: bytes) -> str:
        """Whether that is what was sent; how much it is."""
        if content != self._content:
            raise StorageError("the bytes of the file are not those that were sent")
        return f"{len(content)} bytes"

    def remove(self) -> None:
        """Erases it, without the time of grace: nobody will want it back."""
        from pacslite.core import files
        from pacslite.core.erasure import erase_now

        if self._id is None:
            return
        blob = None
        with suppress(NotFound):
            blob = self._found().blob
        files.purge(self._pacs, self._id, *self._who)
        if blob is not None:
            erase_now(self._pacs.catalog, self._pacs.store, [blob.storage_key])

    def _found(self) -> Content:
        from pacslite.core import file_content

        return file_content.find(self._pacs, str(self._id), file_content.Which(None, None, None))
