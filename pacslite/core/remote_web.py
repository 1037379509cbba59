"""A DICOMweb server as a remote archive: QIDO-RS, WADO-RS and STOW-RS (PS3.18), several requests at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar

from pacslite.codec.transfer_syntax import can_convert, convert
from pacslite.core import retrieve
from pacslite.core.content import FileBody
from pacslite.core.ingest import Expected, Origin, read_limits
from pacslite.core.remote import Found, Ledger, Parts, Record, RemoteInstance, Watcher, keyword_of
from pacslite.core.retrieve import Item, Resource
from pacslite.dicom.attributes import Level
from pacslite.errors import BadRequest, Busy, Conflict, InstanceRefused, PacsliteError, PeerError
from pacslite.webclient.client import WebClient

if TYPE_CHECKING:
    from pacslite.catalog.peers import Peer
    from pacslite.core.commitment import Reference, Verdict

T = TypeVar("T")
_AT_ONCE = 4
_PIECE_BYTES = 512 * 1024
_FAILED_SEQUENCE, _REASON, _WARNING = "00081198", "00081197", "00081196"
_REFERENCED_SEQUENCE = "00081199"
_PATHS = {Level.STUDY: ("studies",), Level.SERIES: ("series",), Level.INSTANCE: ("instances",)}
_QUERIED = (("StudyInstanceUID", "studies"), ("SeriesInstanceUID", "series"))


class WebArchive:
    """A DICOMweb server; `close` it."""

    methods = ("wado",)

    def __init__(self, parts: Parts, peer: Peer) -> None:
        settings = parts.settings
        self._parts, self._peer = parts, peer
        self._client = WebClient(peer.url, peer.headers, settings.acse_timeout_s, settings.network_timeout_s, _AT_ONCE)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def echo(self) -> None:
        """Search for one study."""
        self._client.search(("studies",), [("limit", "1")])

    def find(self, level: Level, keys: Mapping[str, str], fields: Sequence[str], limit: int) -> Found:
        """QIDO-RS; the UIDs above the level go into the path."""
        if level is Level.PATIENT:
            raise BadRequest("DICOMweb knows no search for patients; search for studies.")
        left = dict(keys)
        path: list[str] = []
        for keyword, segment in _QUERIED:
            uid = left.get(keyword, "")
            if segment == _PATHS[level][0] or not uid or "*" in uid:
                break
            path += [segment, left.pop(keyword)]
        parameters = [(name, value) for name, value in left.items() if value]
        parameters += [("includefield", name) for name in fields if name not in keys]
        found, more = self._client.search((*path, *_PATHS[level]), [*parameters, ("limit", str(limit))])
        return Found(tuple(map(_record, found[:limit])), more or len(found) > limit)

    def fetch(
        self, resource: Resource, wanted: Sequence[RemoteInstance], whole: bool, method: str, ledger: Ledger, watcher: Watcher
    ) -> str:
        """WADO-RS, instance by instance."""

        def one(instance: RemoteInstance) -> None:
            try:
                size = self._fetch(instance)
            except (PeerError, Busy) as error:
                ledger.failed(instance.sop_instance_uid, str(error), transient=True)
            except PacsliteError as error:
                ledger.failed(instance.sop_instance_uid, str(error), transient=False)
            else:
                ledger.succeeded(instance.sop_instance_uid, size)

        _each(wanted, one, watcher)
        return "wado"

    def _fetch(self, instance: RemoteInstance) -> int:
        path = ("studies", instance.study_instance_uid, "series", instance.series_instance_uid, "instances", instance.sop_instance_uid)
        with self._parts.spool.create(".dcm", self._parts.settings.max_upload_bytes) as writer:
            self._client.fetch(path, writer.write)
            file = writer.finish()
        expected = Expected(instance.study_instance_uid, None, instance.sop_instance_uid)
        self._parts.ingest.accept(file, Origin("dicomweb", calling_aet=self._peer.ae_title, address=self._client.host), expected)
        return file.size_bytes

    def send(self, items: Sequence[Item], ledger: Ledger, watcher: Watcher) -> None:
        """STOW-RS, instance by instance."""

        def one(item: Item) -> None:
            try:
                detail = self._store(item)
            except InstanceRefused as error:
                ledger.failed(item.sop_instance_uid, str(error), transient=False)
            except PacsliteError as error:
                ledger.failed(item.sop_instance_uid, str(error), transient=True)
            else:
                ledger.succeeded(item.sop_instance_uid, item.size_bytes, detail)

        _each(items, one, watcher)

    def _store(self, item: Item) -> str:
        """Send one instance; a warning if there was one. Raises InstanceRefused when it was refused for good."""
        target = next((uid for uid in self._peer.transfer_syntaxes if can_convert(item.transfer_syntax_uid, uid)), item.transfer_syntax_uid)
        if target == item.transfer_syntax_uid:
            status, told = self._client.store(item.study_instance_uid, item.size_bytes, self._chunks(item))
        else:
            status, told = self._store_converted(item, target)
        failed = _items(told, _FAILED_SEQUENCE)
        if failed or status not in (200, 202):
            reason = _number(failed[0], _REASON) if failed else None
            said = f"Failure Reason {reason:04X}H" if reason is not None else f"HTTP status {status}"
            if reason is not None and reason & 0xFF00 == 0xA700:
                raise PeerError(f"{self._client.host}: {said}")
            raise InstanceRefused(f"{self._client.host}: {said}")
        stored = _items(told, _REFERENCED_SEQUENCE)
        warning = _number(stored[0], _WARNING) if stored else None
        return f"warning {warning:04X}H" if warning else ""

    def _store_converted(self, item: Item, target: str) -> tuple[int, dict[str, Any]]:
        limits = read_limits(self._parts.settings, self._parts.spool.directory)
        with self._parts.stores.open(item) as source, self._parts.spool.create(".dcm") as writer:
            for piece in convert(source, target, limits):
                writer.write(piece)
            file = writer.finish()
        try:
            return self._client.store(item.study_instance_uid, file.size_bytes, _file_chunks(FileBody(file.path, 0, file.size_bytes)))
        finally:
            file.discard()

    def _chunks(self, item: Item) -> Iterable[bytes]:
        body = retrieve.stored(self._parts.stores, item)
        return _file_chunks(body) if isinstance(body, FileBody) else body.chunks()

    def ask_commitment(self, transaction_uid: str, references: Sequence[Reference], watcher: Watcher) -> Verdict | None:
        """Not there."""
        raise Conflict("storage commitment is asked of DICOM peers")


def _file_chunks(body: FileBody) -> Iterable[bytes]:
    with body.path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _each(things: Sequence[T], work: Callable[[T], None], watcher: Watcher) -> None:
    """Do it with each, several at once; when the watcher ends it, what has begun is finished."""
    with ThreadPoolExecutor(_AT_ONCE, "webclient") as pool:
        flying: set[Future[None]] = set()
        try:
            for thing in things:
                watcher.check()
                flying.add(pool.submit(work, thing))
                if len(flying) >= 2 * _AT_ONCE:
                    flying = _settled(flying)
            while flying:
                flying = _settled(flying)
        finally:
            pool.shutdown(cancel_futures=True)


def _settled(flying: set[Future[None]]) -> set[Future[None]]:
    done, rest = wait(flying, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return rest


def _record(found: Mapping[str, Any]) -> Record:
    """A data set of the DICOM JSON model (PS3.18 F.2) as a record; what is malformed is left out."""
    record: Record = {}
    for tag, element in found.items():
        try:
            name = keyword_of(int(tag, 16))
        except ValueError:
            continue
        values = element.get("Value") if isinstance(element, dict) else None
        plain = [_plain(value) for value in values] if isinstance(values, list) else []
        record[name] = plain[0] if len(plain) == 1 and not isinstance(plain[0], dict) else plain or ""
    return record


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        names = [str(value.get(group, "")) for group in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(names).rstrip("=") if any(names) else _record(value)
    return "" if value is None else str(value)


def _items(told: Mapping[str, Any], tag: str) -> list[dict[str, Any]]:
    element = told.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


def _number(item: Mapping[str, Any], tag: str) -> int | None:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values and isinstance(values[0], int) else None
