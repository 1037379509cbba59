"""A remote application entity as a remote archive: C-FIND, C-MOVE, C-GET, C-STORE and N-ACTION as SCU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pacslite.core.commitment import Reference, Verdict
from pacslite.core.ingest import Expected, Origin
from pacslite.core.remote import Found, Ledger, Parts, Record, RemoteInstance, Watcher
from pacslite.core.retrieve import Item, Resource
from pacslite.dicom.attributes import Level
from pacslite.dimse import commands, contexts, pdus, peers
from pacslite.dimse.commands import Command
from pacslite.dimse.commitment_data import decode_report, encode_action
from pacslite.dimse.delivery import Delivery
from pacslite.dimse.pdus import ProtocolViolation
from pacslite.dimse.receiving import receive
from pacslite.dimse.remote_identifiers import (
    SYNTAXES,
    common_classes,
    decode_record,
    encode_identifier,
    keys_of,
    narrowed,
    offer_to_receive,
    question,
)
from pacslite.dimse.remote_messages import action_rq, cancel_rq, comment_of, send_request, status_of
from pacslite.dimse.requestor import Offer, Requested, peer_errors
from pacslite.dimse.sub_operations import Supply, Tally
from pacslite.error_map import mapping_of
from pacslite.errors import NotDicom, PacsliteError, PeerError

if TYPE_CHECKING:
    from pacslite.catalog.peers import Peer

_FIND, _MOVE, _GET = commands.C_FIND_RQ, commands.C_MOVE_RQ, commands.C_GET_RQ
_PENDING = frozenset({commands.PENDING, commands.PENDING_WARNING})
# Matches of one query are kept up to this size; a peer that goes on after a C-CANCEL is listened to for so long.
_MAX_MATCHES_BYTES, _CANCEL_S = 128 * 1024**2, 5.0
# A peer may work long at one sub-operation of a C-MOVE without a word; what happens is looked at in between.
_MOVE_SILENCE_S, _LOOK_S = 900.0, 0.5
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
        with self._associated(tuple((model, SYNTAXES) for model in models)) as association:
            context_id, model = _first_accepted(association, models, "queries")
            syntax = association.accepted[context_id]
            identifier = encode_identifier(question(level, dict.fromkeys(fields, "") | dict(keys)), syntax)
            send_request(association, context_id, _FIND, model, identifier)
            truncated, size, give_up_at = False, 0, float("inf")
            while True:
                _, response = association.next_message()
                status = status_of(response, _FIND)
                if status not in _PENDING:
                    break
                data = association.data_set()
                size += len(data)
                if len(records) < limit and size <= _MAX_MATCHES_BYTES:
                    records.append(decode_record(data, syntax))
                elif not truncated:
                    truncated, give_up_at = True, time.monotonic() + _CANCEL_S
                    association.send(pdus.encode_message(context_id, cancel_rq(), None, association.max_pdu_bytes))
                elif time.monotonic() >= give_up_at:
                    break
        if status != commands.SUCCESS and not (truncated and status in (commands.CANCELLED, *_PENDING)):
            raise PeerError(f"{self._where}: C-FIND was answered with status {status:04X}H{comment_of(response)}")
        return Found(tuple(records), truncated)

    @property
    def _where(self) -> str:
        return f"{self._peer.aet} at {self._peer.host}:{self._peer.port}"

    # C-GET and C-MOVE

    def fetch(
        self, resource: Resource, wanted: Sequence[RemoteInstance], whole: bool, method: str, ledger: Ledger, watcher: Watcher
    ) -> str:
        """C-GET, or C-MOVE to our listener; with `auto` C-GET when the peer speaks it."""
        asked = [resource] if whole else narrowed(wanted)
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
        classes = tuple(dict.fromkeys(one.sop_class_uid for one in wanted if one.sop_class_uid)) or common_classes()
        offer = offer_to_receive(classes)
        with self._associated(offer, as_scp=classes) as association:
            if 1 not in association.accepted:
                raise _NotSpoken(f"{self._where}: C-GET was not accepted")
            storage = {2 * number + 1: sop_class for number, (sop_class, _) in enumerate(offer)}
            for resource in asked:
                identifier = encode_identifier(question(*keys_of(resource)), association.accepted[1])
                send_request(association, 1, _GET, contexts.STUDY_ROOT_GET, identifier)
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
            status = status_of(command, _GET)
            if status in _PENDING:
                continue
            if status not in (commands.SUCCESS, commands.COERCED):
                raise PeerError(f"{self._where}: C-GET was answered with status {status:04X}H{comment_of(command)}")
            return

    def _take_in(self, association: Requested, context_id: int, command: Command, ledger: Ledger) -> int:
        """One instance, through the same door as every other; the status of the answer."""
        sop_class_uid = command.uid(commands.AFFECTED_SOP_CLASS_UID)
        uid = command.uid(commands.AFFECTED_SOP_INSTANCE_UID)
        try:
            if not command.has_data_set:
                raise NotDicom("C-STORE without a data set")
            with self._parts.spool.create(".dcm", self._settings.max_upload_bytes) as writer:
                receive(writer, association.fragments(), sop_class_uid, uid, association.accepted[context_id], self._peer.ae_title)
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
        with self._associated(((contexts.STUDY_ROOT_MOVE, SYNTAXES),), _MOVE_SILENCE_S) as association:
            if 1 not in association.accepted:
                raise ProtocolViolation("neither C-GET nor C-MOVE was accepted")
            before = 0
            for resource in asked:
                identifier = encode_identifier(question(*keys_of(resource)), association.accepted[1])
                send_request(association, 1, _MOVE, contexts.STUDY_ROOT_MOVE, identifier, self._settings.aet)
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
            status = status_of(response, _MOVE)
            counted = (commands.COMPLETED, commands.FAILED, commands.WARNING)
            done = sum(response.number(element) for element in counted if element in response.values)
            if status in _PENDING:
                watcher.progress(min(before + done, total))
                continue
            if status not in (commands.SUCCESS, commands.COERCED):
                raise PeerError(f"{self._where}: C-MOVE was answered with status {status:04X}H{comment_of(response)}")
            return done

    # C-STORE

    def send(self, items: Sequence[Item], ledger: Ledger, watcher: Watcher) -> None:
        """C-STORE in the stored syntax, or in one that the peer prefers or takes."""
        supply = Supply(self._parts.stores, self._parts.conversions, preferred=self._peer.transfer_syntaxes)
        delivery = Delivery(self._peer, items, supply, self._settings)
        delivery.tally = _LedgerTally(ledger, watcher, delivery)
        delivery.run()
        delivery.tally.settle()

    # Storage commitment

    def ask_commitment(self, transaction_uid: str, references: Sequence[Reference], watcher: Watcher) -> Verdict | None:
        """N-ACTION; the report when it comes within a moment on the same association."""
        with self._associated(((contexts.COMMITMENT, SYNTAXES),)) as association:
            if 1 not in association.accepted:
                raise ProtocolViolation("Storage Commitment Push Model was not accepted")
            data_set = encode_action(transaction_uid, references, association.accepted[1])
            association.send(pdus.encode_message(1, action_rq(), data_set, association.max_pdu_bytes))
            verdict: Verdict | None = None
            answered = False
            while not answered or (verdict is None and association.await_input(_REPORT_S)):
                _, message = association.next_message()
                if message.field == commands.N_EVENT_REPORT_RQ:
                    told_uid, told = decode_report(association.data_set(), association.accepted[1])
                    verdict = told if told_uid == transaction_uid else verdict
                    association.send(pdus.encode_message(1, commands.encode_response(message, 0), None, association.max_pdu_bytes))
                else:
                    status = status_of(message, commands.N_ACTION_RQ)
                    if status != commands.SUCCESS:
                        raise PeerError(f"{self._where}: N-ACTION was answered with status {status:04X}H{comment_of(message)}")
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
