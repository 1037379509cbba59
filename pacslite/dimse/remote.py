"""A remote application entity as a remote archive: C-FIND, C-MOVE, C-GET, C-STORE and N-ACTION as SCU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from pacslite.core.commitment import Reference, Verdict
from pacslite.core.ingest import Expected, Origin
from pacslite.core.remote import Found, Ledger, Parts, Record, RemoteInstance, Watcher
from pacslite.core.retrieve import Item, Resource
from pacslite.dicom.attributes import Level
from pacslite.dicom.part10 import encode_preamble_and_meta
from pacslite.dimse import commands, contexts, pdus, peers
from pacslite.dimse.commands import Command
from pacslite.dimse.commitment_data import decode_report, encode_action
from pacslite.dimse.delivery import Delivery
from pacslite.dimse.pdus import AssociationEnded, ProtocolViolation
from pacslite.dimse.requestor import MAX_CONTEXTS, Offer, Requested, peer_errors
from pacslite.dimse.sub_operations import Supply, Tally
from pacslite.error_map import mapping_of
from pacslite.errors import BadRequest, NotDicom, PacsliteError, PeerError

if TYPE_CHECKING:
    from pacslite.catalog.peers import Peer

_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_SYNTAXES = (_EXPLICIT, _IMPLICIT)
# In which C-GET may bring instances: one context for each, so that the peer need not transcode what it holds.
_STORED_SYNTAXES = (
    *("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57"),
    *("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),
    *("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.102"),
    *("1.2.840.10008.1.2.4.103", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"),
)
_LEVEL_NAMES = {Level.PATIENT: "PATIENT", Level.STUDY: "STUDY", Level.SERIES: "SERIES", Level.INSTANCE: "IMAGE"}
_FIND, _MOVE, _GET = commands.C_FIND_RQ, commands.C_MOVE_RQ, commands.C_GET_RQ
_PENDING = frozenset({commands.PENDING, commands.PENDING_WARNING})
# A peer may work long at one sub-operation of a C-MOVE without a word; what happens is looked at in between.
_MOVE_SILENCE_S, _LOOK_S = 900.0, 0.5
# When no more than these are missing of a series they are asked for one by one.
_FEW = 20
# An archive may report on the association of the request; it is given this long.
_REPORT_S = 1.0
_TRANSIENT = frozenset({0xA700, 0x0213})


class DimseArchive:
    """A DICOM peer; each use makes an association."""

    methods = ("get", "move")

    def __init__(self, parts: Parts, peer: Peer) -> None:
        self._parts, self._peer, self._settings = parts, peer, parts.settings

    def echo(self) -> None:
        """C-ECHO."""
        peers.echo(self._peer, self._settings.aet, security=self._settings)

    @contextlib.contextmanager
    def _associated(self, offer: Offer, silence_s: float | None = None, as_scp: tuple[str, ...] = ()) -> Iterator[Requested]:
        settings = self._settings
        with peer_errors(self._peer):
            spans = settings.acse_timeout_s, silence_s or settings.network_timeout_s
            association = Requested.connect(self._peer, settings.aet, offer, *spans, as_scp=as_scp, security=settings)
            self._parts.peer_counts.note(self._peer.ae_title)
            try:
                yield association
            except BaseException:
                association.abort()
                raise
            association.release()

    # C-FIND

    def find(self, level: Level, keys: Mapping[str, str], fields: Sequence[str], limit: int) -> Found:
        """One C-FIND, cancelled when there are more matches than wanted."""
        models = (contexts.PATIENT_ROOT_FIND,) if level is Level.PATIENT else (contexts.STUDY_ROOT_FIND, contexts.PATIENT_ROOT_FIND)
        records: list[Record] = []
        with self._associated(tuple((model, _SYNTAXES) for model in models)) as association:
            context_id, model = _first_accepted(association, models, "queries")
            syntax = association.accepted[context_id]
            identifier = _encode(_identifier(level, dict.fromkeys(fields, "") | dict(keys)), syntax)
            _request(association, context_id, _FIND, model, identifier)
            truncated = False
            while True:
                _, response = association.next_message()
                status = _status(response, _FIND)
                if status not in _PENDING:
                    break
                data = association.data_set()
                if len(records) < limit:
                    records.append(_record(data, syntax))
                elif not truncated:
                    truncated = True
                    association.send(pdus.encode_message(context_id, _cancel(), None, association.max_pdu_bytes))
        if status != commands.SUCCESS and not (truncated and status == commands.CANCELLED):
            raise PeerError(f"{self._where}: C-FIND was answered with status {status:04X}H{_comment(response)}")
        return Found(tuple(records), truncated)

    @property
    def _where(self) -> str:
        return f"{self._peer.aet} at {self._peer.host}:{self._peer.port}"

    # C-GET and C-MOVE

    def fetch(
        self, resource: Resource, wanted: Sequence[RemoteInstance], whole: bool, method: str, ledger: Ledger, watcher: Watcher
    ) -> str:
        """C-GET, or C-MOVE to our listener; with `auto` C-GET when the peer speaks it."""
        asked = [resource] if whole else _narrowed(wanted)
        if method in ("auto", "get"):
            try:
                self._get(asked, wanted, ledger, watcher)
            except _NotSpoken as error:
                if method == "get":
                    raise PeerError(str(error)) from None
            else:
                return "get"
        self._move(asked, wanted, watcher)
        return "move"

    def _get(self, asked: Sequence[Resource], wanted: Sequence[RemoteInstance], ledger: Ledger, watcher: Watcher) -> None:
        classes = tuple(dict.fromkeys(one.sop_class_uid for one in wanted if one.sop_class_uid)) or _common_classes()
        offer = _offer_to_receive(classes)
        with self._associated(offer, as_scp=classes) as association:
            if 1 not in association.accepted:
                raise _NotSpoken(f"{self._where}: C-GET was not accepted")
            storage = {2 * number + 1: sop_class for number, (sop_class, _) in enumerate(offer)}
            for resource in asked:
                identifier = _encode(_identifier(*_keys_of(resource)), association.accepted[1])
                _request(association, 1, _GET, contexts.STUDY_ROOT_GET, identifier)
                self._receive(association, storage, ledger, watcher)

    def _receive(self, association: Requested, storage: Mapping[int, str], ledger: Ledger, watcher: Watcher) -> None:
        """Take in what a C-GET brings, until its final response."""
        while True:
            watcher.check()
            context_id, command = association.next_message()
            if command.field == commands.C_STORE_RQ and context_id in storage:
                status = self._take_in(association, context_id, command, ledger)
                association.send(
                    pdus.encode_message(context_id, commands.encode_response(command, status), None, association.max_pdu_bytes)
                )
                continue
            status = _status(command, _GET)
            if status in _PENDING:
                continue
            if status not in (commands.SUCCESS, commands.COERCED):
                raise PeerError(f"{self._where}: C-GET was answered with status {status:04X}H{_comment(command)}")
            return

    def _take_in(self, association: Requested, context_id: int, command: Command, ledger: Ledger) -> int:
        """One instance, through the same door as every other; the status of the answer."""
        sop_class_uid = command.uid(commands.AFFECTED_SOP_CLASS_UID)
        uid = command.uid(commands.AFFECTED_SOP_INSTANCE_UID)
        try:
            if not command.has_data_set:
                raise NotDicom("C-STORE without a data set")
            with self._parts.spool.create(".dcm", self._settings.max_upload_bytes) as writer:
                writer.write(encode_preamble_and_meta(sop_class_uid, uid, association.accepted[context_id], self._peer.ae_title))
                for fragment in association.fragments():
                    writer.write(fragment)
                file = writer.finish()
            expected = Expected(sop_class_uid=sop_class_uid, sop_instance_uid=uid)
            self._parts.ingest.accept(file, Origin("dimse", calling_aet=self._peer.ae_title, address=self._peer.host), expected)
        except PacsliteError as error:
            ledger.failed(uid, str(error), transient=False)
            return mapping_of(error).dimse
        ledger.succeeded(uid, file.size_bytes)
        return commands.SUCCESS

    def _move(self, asked: Sequence[Resource], wanted: Sequence[RemoteInstance], watcher: Watcher) -> None:
        """C-MOVE with our own title as destination: what is sent comes to our listener, as from anybody."""
        with self._associated(((contexts.STUDY_ROOT_MOVE, _SYNTAXES),), _MOVE_SILENCE_S) as association:
            if 1 not in association.accepted:
                raise ProtocolViolation("neither C-GET nor C-MOVE was accepted")
            before = 0
            for resource in asked:
                identifier = _encode(_identifier(*_keys_of(resource)), association.accepted[1])
                _request(association, 1, _MOVE, contexts.STUDY_ROOT_MOVE, identifier, self._settings.aet)
                before += self._accompany(association, before, len(wanted), watcher)

    def _accompany(self, association: Requested, before: int, total: int, watcher: Watcher) -> int:
        """Hear how far a C-MOVE is, until its final response; how many sub-operations are over."""
        heard_at = time.monotonic()
        while True:
            while not association.await_input(_LOOK_S):
                watcher.check()
                if time.monotonic() - heard_at > _MOVE_SILENCE_S:
                    raise ProtocolViolation("silent for too long")
            _, response = association.next_message()
            heard_at = time.monotonic()
            status = _status(response, _MOVE)
            counted = (commands.COMPLETED, commands.FAILED, commands.WARNING)
            done = sum(response.number(element) for element in counted if element in response.values)
            if status in _PENDING:
                watcher.progress(min(before + done, total))
                continue
            if status not in (commands.SUCCESS, commands.COERCED):
                raise PeerError(f"{self._where}: C-MOVE was answered with status {status:04X}H{_comment(response)}")
            return done

    # C-STORE

    def send(self, items: Sequence[Item], ledger: Ledger, watcher: Watcher) -> None:
        """C-STORE in the stored syntax, or in one that the peer prefers or takes."""
        supply = Supply(self._parts.store, self._parts.conversions, preferred=self._peer.transfer_syntaxes)
        delivery = Delivery(self._peer, items, supply, self._settings)
        delivery.tally = _LedgerTally(ledger, watcher, delivery)
        delivery.run()
        delivery.tally.settle()

    # Storage commitment

    def ask_commitment(self, transaction_uid: str, references: Sequence[Reference], watcher: Watcher) -> Verdict | None:
        """N-ACTION; the report when it comes within a moment on the same association."""
        with self._associated(((contexts.COMMITMENT, _SYNTAXES),)) as association:
            if 1 not in association.accepted:
                raise ProtocolViolation("Storage Commitment Push Model was not accepted")
            data_set = encode_action(transaction_uid, references, association.accepted[1])
            association.send(pdus.encode_message(1, _action_rq(), data_set, association.max_pdu_bytes))
            verdict: Verdict | None = None
            answered = False
            while not answered or (verdict is None and association.await_input(_REPORT_S)):
                _, message = association.next_message()
                if message.field == commands.N_EVENT_REPORT_RQ:
                    told_uid, told = decode_report(association.data_set(), association.accepted[1])
                    verdict = told if told_uid == transaction_uid else verdict
                    association.send(pdus.encode_message(1, commands.encode_response(message, 0), None, association.max_pdu_bytes))
                else:
                    status = _status(message, commands.N_ACTION_RQ)
                    if status != commands.SUCCESS:
                        raise PeerError(f"{self._where}: N-ACTION was answered with status {status:04X}H{_comment(message)}")
                    answered = True
        return verdict


class _NotSpoken(Exception):
    """The peer does not speak C-GET."""


class _LedgerTally(Tally):
    """Counts into a ledger; ends the delivery when the watcher says so."""

    def __init__(self, ledger: Ledger, watcher: Watcher, delivery: Delivery) -> None:
        super().__init__()
        self._ledger, self._watcher, self._delivery = ledger, watcher, delivery
        self._stopped: Exception | None = None

    def answered(self, item: Item, status: int) -> None:
        """By the status that the receiver gave."""
        failed = self.failed
        super().answered(item, status)
        if self.failed == failed:
            self._ledger.succeeded(item.sop_instance_uid, item.size_bytes, f"warning {status:04X}H" if status else "")
        self._look()

    def fail(self, item: Item, reason: str) -> None:
        """Refused, or not sent."""
        super().fail(item, reason)
        lasting = "not accepted:" in reason or ("the receiver answered" in reason and int(reason[-5:-1], 16) not in _TRANSIENT)
        self._ledger.failed(item.sop_instance_uid, reason, transient=not lasting)

    def _look(self) -> None:
        try:
            self._watcher.check()
        except Exception as stopped:  # noqa: BLE001  raised again by `settle`, when the association has been released
            self._stopped = stopped
            self._delivery.stop()

    def settle(self) -> None:
        """Raise what has ended the delivery."""
        if self._stopped is not None:
            raise self._stopped


def _first_accepted(association: Requested, models: Sequence[str], what: str) -> tuple[int, str]:
    for number, model in enumerate(models):
        if 2 * number + 1 in association.accepted:
            return 2 * number + 1, model
    raise ProtocolViolation(f"{what} were not accepted")


def _offer_to_receive(classes: Sequence[str]) -> Offer:
    """C-GET and contexts for what it brings: one for each transfer syntax while there is room, else all syntaxes in one."""
    room = (MAX_CONTEXTS - 1) // len(classes)
    pairs: list[tuple[str, tuple[str, ...]]] = [(contexts.STUDY_ROOT_GET, _SYNTAXES)]
    for sop_class in classes:
        if room >= len(_STORED_SYNTAXES):
            pairs += [(sop_class, (syntax,)) for syntax in _STORED_SYNTAXES]
        elif room >= 2:
            pairs += [(sop_class, _SYNTAXES), (sop_class, _STORED_SYNTAXES[2:])]
        else:
            pairs.append((sop_class, _STORED_SYNTAXES))
    return tuple(pairs[:MAX_CONTEXTS])


def _common_classes() -> tuple[str, ...]:
    """What to be ready for when the peer does not tell SOP classes."""
    from pynetdicom import StoragePresentationContexts

    return tuple(str(context.abstract_syntax) for context in StoragePresentationContexts[: MAX_CONTEXTS - 1])


def _narrowed(wanted: Sequence[RemoteInstance]) -> list[Resource]:
    """What to ask for when only a part is missing: single instances when they are few, else their series."""
    by_series: dict[tuple[str, str], list[str]] = {}
    for one in wanted:
        by_series.setdefault((one.study_instance_uid, one.series_instance_uid), []).append(one.sop_instance_uid)
    asked: list[Resource] = []
    for series, uids in by_series.items():
        asked += [Resource(*series, uid) for uid in uids] if len(uids) <= _FEW else [Resource(*series)]
    return asked


def _keys_of(resource: Resource) -> tuple[Level, dict[str, str]]:
    keys = {"StudyInstanceUID": resource.study_instance_uid}
    if resource.series_instance_uid is None:
        return Level.STUDY, keys
    keys["SeriesInstanceUID"] = resource.series_instance_uid
    if resource.sop_instance_uid is None:
        return Level.SERIES, keys
    return Level.INSTANCE, keys | {"SOPInstanceUID": resource.sop_instance_uid}


def _identifier(level: Level, keys: Mapping[str, str]) -> dict[str, str]:
    return {"QueryRetrieveLevel": _LEVEL_NAMES[level], **keys}


def _encode(keys: Mapping[str, str], syntax: str) -> bytes:
    """An identifier (PS3.4 C.4.1.1.3) from values by keyword."""
    from pydicom import config
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset
    from pynetdicom.dsutils import encode

    ds = Dataset()
    with config.disable_value_validation():
        if any(not value.isascii() for value in keys.values()):
            ds.SpecificCharacterSet = "ISO_IR 192"
        for name, value in keys.items():
            tag = tag_for_keyword(name)
            if tag is None:
                raise BadRequest(f"{name[:64]} is not the keyword of an attribute")
            vr = dictionary_VR(tag).split(" ")[0]
            if vr == "SQ":
                ds.add(DataElement(tag, vr, []))
            else:
                try:
                    ds.add(DataElement(tag, vr, int(value) if vr in ("US", "SS", "UL", "SL") and value else value))
                except (ValueError, TypeError):
                    raise BadRequest(f"{name}: {vr} cannot be {value[:64]!r}") from None
        data = encode(ds, syntax == _IMPLICIT, True)
    if data is None:
        raise BadRequest("the keys cannot be written as an identifier")
    return bytes(data)


def _record(data: bytes, syntax: str) -> Record:
    """A match as values by keyword; raises ProtocolViolation for what is no data set."""
    from pydicom import config
    from pydicom.dataset import Dataset
    from pynetdicom.dsutils import decode

    def plain(ds: Dataset) -> Record:
        told: Record = {}
        for element in ds:
            name = element.keyword or f"{int(element.tag):08X}"
            if element.VR == "SQ":
                told[name] = [plain(item) for item in element.value]
            elif element.VR not in ("OB", "OW", "UN", "OF", "OD", "OL", "OV") and name not in (
                "SpecificCharacterSet",
                "QueryRetrieveLevel",
            ):
                value = element.value
                told[name] = [str(one) for one in value] if element.VM > 1 else "" if value is None else str(value)
        return told

    try:
        with config.disable_value_validation():
            return plain(decode(BytesIO(data), syntax == _IMPLICIT, True))
    # pydicom raises whatever comes up while it decodes.
    except Exception as error:  # noqa: BLE001
        raise ProtocolViolation(f"a match that cannot be read ({type(error).__name__})") from None


def _request(association: Requested, context_id: int, field: int, model: str, identifier: bytes, destination: str = "") -> None:
    values: dict[int, bytes | int] = {
        commands.AFFECTED_SOP_CLASS_UID: _padded(model, b"\0"),
        commands.COMMAND_FIELD: field,
        commands.MESSAGE_ID: 1,
    }
    if destination:
        values[commands.MOVE_DESTINATION] = _padded(destination, b" ")
    values |= {commands.PRIORITY: 0, commands.DATA_SET_TYPE: commands.SOME_DATA_SET}
    association.send(pdus.encode_message(context_id, commands.encode_command(values), identifier, association.max_pdu_bytes))


def _cancel() -> bytes:
    values: dict[int, bytes | int] = {commands.COMMAND_FIELD: commands.C_CANCEL_RQ, commands.MESSAGE_ID_RESPONDED_TO: 1}
    return commands.encode_command(values | {commands.DATA_SET_TYPE: commands.NO_DATA_SET})


def _action_rq() -> bytes:
    return commands.encode_command(
        {
            commands.REQUESTED_SOP_CLASS_UID: _padded(contexts.COMMITMENT, b"\0"),
            commands.COMMAND_FIELD: commands.N_ACTION_RQ,
            commands.MESSAGE_ID: 1,
            commands.DATA_SET_TYPE: commands.SOME_DATA_SET,
            commands.REQUESTED_SOP_INSTANCE_UID: _padded(contexts.COMMITMENT_INSTANCE, b"\0"),
            commands.ACTION_TYPE_ID: 1,
        }
    )


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii")
    return value + padding * (len(value) % 2)


def _status(response: Command, field: int) -> int:
    if response.field != field | commands.RESPONSE:
        raise AssociationEnded("another message than the response that is awaited")
    return response.number(commands.STATUS)


def _comment(response: Command) -> str:
    comment = response.title(commands.ERROR_COMMENT)
    return f" ({comment})" if comment else ""
