"""The DICOM listener of one process: the lobby's thread, and a thread per association."""

from __future__ import annotations

import importlib
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING

from pacslite.dimse import commands, commitment, echo, find, get, lobby, move, pdus, store
from pacslite.dimse.associations import Association, Serve
from pacslite.settings import Address, Settings

if TYPE_CHECKING:
    from pacslite.app import Pacs

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
    commands.N_EVENT_REPORT_RSP: commitment.acknowledge,
}


class DimseServer:
    """Listens between `start` and `stop`."""

    def __init__(self, settings: Settings, pacs: Pacs) -> None:
        self._settings, self._pacs = settings, pacs
        self._active: dict[Association, threading.Thread] = {}
        self._lock = threading.Lock()
        self._lobby: lobby.Lobby
        self._thread: threading.Thread
        self._started = False

    @property
    def associations(self) -> int:
        """How many associations are held."""
        return len(self._active)

    def start(self) -> Address:
        """Listen; returns the bound address, at which connections succeed from now on. Raises OSError."""
        listener = lobby.listen(self._settings.dicom.host, self._settings.dicom.port, self._settings.dimse_processes)
        host, port = listener.getsockname()[:2]
        self._lobby = lobby.Lobby(listener, self._settings.acse_timeout_s, self._deliver)
        self._thread = threading.Thread(target=self._watch, name="dimse-lobby", daemon=True)
        self._thread.start()
        self._started = True
        return Address(host, port)

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
        importlib.import_module("pacslite.dimse.negotiation")
        self._lobby.run()

    def _deliver(self, sock: socket.socket, address: str, associate_rq: bytes) -> None:
        """Start an association in its own thread, or reject it past the bound; runs in the lobby's thread."""
        association = Association(sock, address, self._pacs, _SERVICES)
        thread = threading.Thread(target=self._run, args=(association, sock, associate_rq), name=f"dimse-{association.id}", daemon=True)
        with self._lock:
            room = len(self._active) < self._settings.max_associations
            if room:
                self._active[association] = thread
        if not room:
            _log.warning("association rejected: too many", extra={"address": address})
            self._lobby.say_goodbye(sock, address, pdus.reject_pdu(*_TOO_MANY))
            return
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            _log.error("association rejected", extra={"address": address, "reason": str(error)})
            self._forget(association)
            self._lobby.say_goodbye(sock, address, pdus.reject_pdu(*_TOO_MANY))

    def _run(self, association: Association, sock: socket.socket, associate_rq: bytes) -> None:
        linger = False
        try:
            linger = association.run(associate_rq)
        finally:
            if linger:
                self._lobby.linger(sock)
            else:
                sock.close()
            self._forget(association)

    def _forget(self, association: Association) -> None:
        with self._lock:
            self._active.pop(association, None)
