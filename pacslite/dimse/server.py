"""The DICOM listener of one process: the lobby's thread, and a thread per association."""

from __future__ import annotations

import functools
import importlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pacslite import metrics
from pacslite.core import peers
from pacslite.core.callers import Authenticate, Callers
from pacslite.dimse import audit, commands, commitment, commitment_reports, echo, find, get, lobby, move, pdus, store, tls
from pacslite.dimse.associations import Association, Serve
from pacslite.dimse.lobby import Door
from pacslite.settings import Address, Settings

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.catalog.peers import Peer

_log = logging.getLogger(__name__)
# A-ASSOCIATE-RJ: rejected-transient, by the service provider (presentation), local limit exceeded (PS3.8 table 9-21).
_TOO_MANY = (2, 3, 2)
_GRACE_S = 10.0
_SERVICES: dict[int, Serve] = {
    commands.C_ECHO_RQ: echo.serve,
    commands.C_STORE_RQ: store.serve,
    commands.C_FIND_RQ: find.serve,
    commands.C_GET_RQ: get.serve,
    commands.C_MOVE_RQ: move.serve,
    commands.N_ACTION_RQ: commitment.serve,
    commands.N_EVENT_REPORT_RQ: commitment_reports.serve,
    commands.N_EVENT_REPORT_RSP: commitment.acknowledge,
}


class DimseServer:
    """Listens between `start` and `stop`; `authenticate` recognizes the users that `dicom_user_identity` asks for.

    `on_deaf` is called when a fault ends the listening before `stop`: the process is of no use then.
    """

    def __init__(
        self,
        settings: Settings,
        pacs: Pacs,
        authenticate: Authenticate | None = None,
        find_peer: Callable[[str], Peer | None] | None = None,
        on_deaf: Callable[[], None] | None = None,
    ) -> None:
        self._settings, self._pacs = settings, pacs
        self._callers = Callers(settings, find_peer or (lambda aet: peers.find_entity(pacs.catalog, aet)), authenticate)
        self.tls_address: Address | None = None
        self._active: dict[Association, threading.Thread] = {}
        self._lock = threading.Lock()
        self._lobby: lobby.Lobby
        self._thread: threading.Thread
        self._started = False
        self._on_deaf = on_deaf

    @property
    def associations(self) -> int:
        """How many associations are held."""
        return len(self._active)

    def start(self) -> Address:
        """Listen; returns the bound address, at which connections succeed from now on. Raises OSError, ConfigurationError."""
        settings = self._settings
        secure = tls.incoming(settings) if settings.dicom_tls is not None else None
        tls_only = settings.dicom_tls == settings.dicom and settings.dicom.port != 0
        doors = [self._door(settings.dicom, secure if tls_only else None)]
        if settings.dicom_tls is not None and not tls_only:
            try:
                doors.append(self._door(settings.dicom_tls, secure))
            except OSError:
                doors[0].listener.close()
                raise
        address, *more = [Address(*door.listener.getsockname()[:2]) for door in doors]
        self.tls_address = address if tls_only else next(iter(more), None)
        turned_away = functools.partial(audit.turned_away, self._pacs.audit)
        self._lobby = lobby.Lobby(doors, settings.acse_timeout_s, self._deliver, turned_away)
        self._thread = threading.Thread(target=self._watch, name="dimse-lobby", daemon=True)
        self._started = True
        self._thread.start()
        return address

    def _door(self, address: Address, secure: tls.Reloading | None) -> Door:
        return Door(lobby.listen(address.host, address.port, self._settings.dimse_processes), secure)

    def stop(self, grace_s: float = _GRACE_S) -> None:
        """Stop listening, let running stores finish within the grace, abort the rest; returns when all threads are done."""
        if not self._started:
            return
        self._started = False
        self._lobby.stop()
        self._thread.join()
        deadline = time.monotonic() + grace_s
        with self._lock:
            running = dict(self._active)
        for association in running:
            association.stop()
        for thread in running.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        for association, thread in running.items():
            if thread.is_alive():
                association.cut()
        for thread in running.values():
            thread.join(grace_s)
        self._lobby.close()

    def _watch(self) -> None:
        # Loading pynetdicom takes a tenth of a second: after the port is open, before the first association needs it.
        importlib.import_module("pacslite.dimse.admission")
        try:
            self._lobby.run()
        finally:
            if self._started and self._on_deaf is not None:
                self._on_deaf()

    def _deliver(self, sock: socket.socket, address: str, associate_rq: bytes) -> None:
        """Start an association in its own thread, or reject it past the bound; runs in the lobby's thread."""
        association = Association(sock, address, self._pacs, _SERVICES, self._callers)
        thread = threading.Thread(target=self._run, args=(association, sock, associate_rq), name=f"dimse-{association.id}", daemon=True)
        with self._lock:
            room = self._has_room(address)
            if room:
                self._active[association] = thread
        if not room:
            metrics.ASSOCIATIONS.add("overloaded")
            audit.turned_away(self._pacs.audit, address, "too many associations")
            _log.warning("association rejected: too many", extra={"address": address})
            self._lobby.say_goodbye(sock, address, pdus.reject_pdu(*_TOO_MANY))
            return
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            _log.error("association rejected", extra={"address": address, "reason": str(error)})
            self._forget(association)
            self._lobby.say_goodbye(sock, address, pdus.reject_pdu(*_TOO_MANY))

    def _has_room(self, address: str) -> bool:
        mine = self._settings.max_associations_per_address
        if mine and sum(other.address == address for other in self._active) >= mine:
            return False
        return len(self._active) < self._settings.max_associations

    def _run(self, association: Association, sock: socket.socket, associate_rq: bytes) -> None:
        linger = False
        metrics.ASSOCIATIONS_OPEN.add()
        try:
            linger = association.run(associate_rq)
        finally:
            metrics.ASSOCIATIONS_OPEN.add(amount=-1)
            if linger:
                self._lobby.linger(sock)
            else:
                sock.close()
            self._forget(association)
            self._count(association)

    def _count(self, association: Association) -> None:
        if not association.calling_aet:
            return
        counts = {"associations_received": 1, "instances_received": association.instances_received}
        self._pacs.peer_counts.note(association.calling_aet, {**counts, "bytes_received": association.bytes_received})

    def _forget(self, association: Association) -> None:
        with self._lock:
            self._active.pop(association, None)
