"""`pacslite selftest`: a synthetic instance and a file through the configured catalog and storage, and away again.

Needs no server. `of_server` is the round trip through one that runs.
"""

from __future__ import annotations

import hashlib
import io
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pacslite.dicom.uids import new_uid
from pacslite.errors import PacsliteError, StorageError

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.selftest_file import TestFile
    from pacslite.settings import Address
    from pacslite.web.messages import Request, Route

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_PATIENT_ID = "PACSLITE-SELFTEST"
_TIMEOUT_S = 20.0
_TOKEN_SECONDS = 300


class SelftestError(PacsliteError):
    """A step that did not come out as it must."""


@dataclass(frozen=True, slots=True)
class Synthetic:
    """The instance of one self-test."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    file: bytes

    @property
    def path(self) -> str:
        """Its resource below the base URL."""
        study, series, instance = self.study_instance_uid, self.series_instance_uid, self.sop_instance_uid
        return f"/dicom-web/studies/{study}/series/{series}/instances/{instance}"


def synthetic() -> Synthetic:
    """A new small picture of nobody."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = _SECONDARY_CAPTURE, new_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = new_uid(), new_uid()
    ds.PatientID, ds.PatientName, ds.Modality = _PATIENT_ID, "Selftest^Pacslite", "OT"
    ds.StudyDescription, ds.InstanceNumber = "pacslite selftest", 1
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.Rows = ds.Columns = 16
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = bytes(range(256))
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return Synthetic(ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, buffer.getvalue())


Step = tuple[str, str]
"""What was done and what came of it."""


def run(pacs: Pacs, keep: bool) -> Iterator[Step]:
    """Does the steps, telling each when done; raises PacsliteError with the reason at the first that fails."""
    from pacslite.selftest_file import TestFile

    made = synthetic()
    file = TestFile(pacs)
    try:
        stored = _store(pacs, made)
        yield "store", f"{stored}; file {file.store(_PATIENT_ID)}"
        key, size_bytes, sha256 = _verify(pacs, made)
        yield "verify", f"{size_bytes} bytes, SHA-256 {sha256[:16]}; {file.verify()}"
        url, url_of_file = pacs.store.presign(key, 60) or made.path, file.url()
        yield "url", f"{url.partition('?')[0]}; {url_of_file.partition('?')[0]}"
        fetched = _retrieve(pacs, made, url)
        content = _fetch(url_of_file) if "://" in url_of_file else _through_wsgi(pacs, url_of_file)
        yield "retrieve", f"{fetched}; {file.compare(content)}"
    finally:
        removed = "kept, as asked" if keep else _remove_both(pacs, made, file)
    yield "clean up", removed


def _remove_both(pacs: Pacs, made: Synthetic, file: TestFile) -> str:
    file.remove()
    return _clean_up(pacs, made)


def _store(pacs: Pacs, made: Synthetic) -> str:
    from pacslite.core.ingest import Origin

    with pacs.spool.create(".dcm") as writer:
        writer.write(made.file)
        spooled = writer.finish()
    accepted = pacs.ingest.accept(spooled, Origin("job", actor="selftest"))
    if accepted.outcome != "stored":
        raise SelftestError(f"the instance was {accepted.outcome} instead of stored")
    return f"instance {made.sop_instance_uid} in {pacs.store.name}"


def _verify(pacs: Pacs, made: Synthetic) -> tuple[str, int, str]:
    from pacslite.core import retrieve

    resource = retrieve.Resource(made.study_instance_uid, made.series_instance_uid, made.sop_instance_uid)
    (item,) = retrieve.plan(pacs.catalog, resource)
    with closing(pacs.stores.open(item)) as stored:
        content = stored.read()
    found = hashlib.sha256(content).hexdigest()
    if found != item.sha256 or content != made.file:
        raise SelftestError("the stored bytes are not those that were sent")
    return item.storage_key, len(content), found


def _retrieve(pacs: Pacs, made: Synthetic, url: str) -> str:
    content = _fetch(url) if "://" in url else _through_wsgi(pacs, url)
    if not content.endswith(made.file[-256:]):
        raise SelftestError("what was fetched is not what was stored")
    return f"{len(content)} bytes"


def _fetch(url: str, **headers: str) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise SelftestError("the URL of the storage is not HTTP")
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        error.close()
        raise SelftestError(f"{url.partition('?')[0]} answered {error.code}") from None
    except OSError as error:
        raise StorageError(f"{url.partition('?')[0]} cannot be reached: {error}") from None


def _through_wsgi(pacs: Pacs, path: str) -> bytes:
    """The answer of the web application of this very process."""
    from wsgiref.util import setup_testing_defaults

    from pacslite import app
    from pacslite.web.app import create

    where, _, query = path.partition("?")
    environ: dict[str, Any] = {"PATH_INFO": where, "QUERY_STRING": query, "REMOTE_ADDR": "127.0.0.1"}
    if query == "":
        environ["HTTP_ACCEPT"] = "application/dicom"
    setup_testing_defaults(environ)
    statuses: list[str] = []
    answer = create(pacs, app.routes(), (_act_as_local,))(environ, lambda status, headers, *_: statuses.append(status))
    try:
        content = b"".join(answer)
    finally:
        close: Callable[[], None] | None = getattr(answer, "close", None)
        if close:
            close()
    if statuses != ["200 OK"]:
        raise SelftestError(f"retrieval answered {statuses[0]}")
    return content


def _act_as_local(pacs: Pacs, request: Request, route: Route) -> None:
    """Whoever can read the settings of the server may test it."""
    from pacslite.core.access import LOCAL_ADMIN

    request.principal = LOCAL_ADMIN


def _clean_up(pacs: Pacs, made: Synthetic) -> str:
    from pacslite.core import retrieve
    from pacslite.core.erasure import erase_now
    from pacslite.core.ingest import Origin
    from pacslite.core.removal import Target, remove
    from pacslite.errors import NotFound

    try:
        keys = [item.storage_key for item in retrieve.plan(pacs.catalog, retrieve.Resource(made.study_instance_uid))]
        remove(pacs.catalog, Target(made.study_instance_uid), Origin("job", actor="selftest"))
    except NotFound:
        return "there was nothing to remove"
    erase_now(pacs.catalog, pacs.store, keys)  # nobody will want these back: no time of grace
    return "what was stored and its bytes are gone"


def of_server(pacs: Pacs, http: Address, dicom: Address, keep: bool) -> Iterator[Step]:
    """The round trip through a running server: in over DIMSE, found and fetched over DICOMweb."""
    from pacslite.core.access import Right
    from pacslite.core.users import passing_token
    from pacslite.dimse import send

    made = synthetic()
    base = f"http://{http.text}"
    settings = pacs.settings
    peer = send.Receiver(settings.aet, dicom.host, dicom.port, tls=settings.dicom_tls == settings.dicom)
    token = ExitStack()
    try:
        secret = token.enter_context(passing_token(pacs.accounts, "selftest", frozenset({Right.DICOMWEB_READ}), _TOKEN_SECONDS))
        login = {"Authorization": f"Bearer {secret}"}
        yield "echo", f"C-ECHO answered in {send.echo(peer, settings.aet, security=settings) * 1000:.0f} ms by {peer.aet} at {dicom.text}"
        send.store(peer, made.file, settings.aet, settings)
        yield "store over DIMSE", f"instance {made.sop_instance_uid}"
        found = _fetch(f"{base}/dicom-web/studies?StudyInstanceUID={made.study_instance_uid}", Accept="application/dicom+json", **login)
        if made.study_instance_uid.encode() not in found:
            raise SelftestError("the study was stored and is not found")
        yield "find over DICOMweb", f"study {made.study_instance_uid}"
        content = _fetch(base + made.path, Accept="application/dicom", **login)
        if not content.endswith(made.file[-256:]):
            raise SelftestError("what was fetched is not what was stored")
        yield "retrieve over DICOMweb", f"{len(content)} bytes"
    finally:
        token.close()
        removed = "kept, as asked" if keep else _clean_up(pacs, made)
    yield "clean up", removed
