"""DICOM over TLS (PS3.15 B.12, BCP 195: RFC 8996 and RFC 9325): certificates, ciphers, both directions.

TLS 1.2 with ephemeral elliptic curve keys and AES-GCM, and TLS 1.3; nothing older, no compression, no renegotiation, no
resumption. Certificates, key and authorities are read anew when their files change; what cannot be read leaves the ones
before in use.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from pacslite.errors import ConfigurationError
from pacslite.settings import Settings

_log = logging.getLogger(__name__)
# RFC 9325 4.2; those of TLS 1.3 are OpenSSL's own, all of them recommended.
_CIPHERS = ":".join(f"ECDHE-{kind}-AES{size}" for size in ("128-GCM-SHA256", "256-GCM-SHA384") for kind in ("ECDSA", "RSA"))
_CLIENT_CERTIFICATES = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

Stamp = tuple[tuple[int, int, int] | None, ...]


class Reloading:
    """A context that is made again when one of its files has changed."""

    def __init__(self, make: Callable[[], ssl.SSLContext], files: tuple[Path | None, ...]) -> None:
        """Raises ConfigurationError."""
        self._make, self._files = make, tuple(file for file in files if file is not None)
        self._stamp = self._look()
        self._context = make()

    def current(self) -> ssl.SSLContext:
        """The context by the files as they are; the last that could be made when they are no good."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = self._make()
                _log.info("certificates read anew")
            except ConfigurationError as error:
                _log.error("certificates not read, the ones before stay in use", extra={"reason": str(error)})
        return self._context

    def _look(self) -> Stamp:
        return tuple(map(_stamp_of, self._files))


def _stamp_of(file: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def incoming(settings: Settings) -> Reloading:
    """For those who call us; raises ConfigurationError."""
    authorities = settings.dicom_tls_ca if settings.dicom_tls_client_certificates != "none" else None

    def make() -> ssl.SSLContext:
        context = _context(ssl.PROTOCOL_TLS_SERVER, settings)
        context.num_tickets = 0
        # An end without close_notify is an end like any other: DICOM says itself where its messages end, and an abort can
        # still be sent after we have shut our reading side down.
        context.options |= ssl.OP_NO_TICKET | ssl.OP_IGNORE_UNEXPECTED_EOF
        context.verify_mode = _CLIENT_CERTIFICATES[settings.dicom_tls_client_certificates]
        if authorities is not None:
            _trust(context, authorities)
        return context

    return Reloading(make, (settings.dicom_tls_certificate, settings.dicom_tls_key, authorities))


def outgoing(settings: Settings) -> ssl.SSLContext:
    """For those whom we call; our certificate is shown to those who ask. Raises ConfigurationError."""
    files = settings.dicom_tls_certificate, settings.dicom_tls_key, settings.dicom_tls_ca
    return _outgoing(*files, settings.dicom_tls_key_password, settings.dicom_tls_version, settings.dicom_tls_check_host).current()


@lru_cache(maxsize=8)
def _outgoing(
    certificate: Path | None, key: Path | None, authorities: Path | None, password: str | None, version: str, check_host: bool
) -> Reloading:
    settings = Settings(dicom_tls_certificate=certificate, dicom_tls_key=key, dicom_tls_key_password=password, dicom_tls_version=version)

    def make() -> ssl.SSLContext:
        context = _context(ssl.PROTOCOL_TLS_CLIENT, settings)
        context.check_hostname = check_host
        if authorities is not None:
            _trust(context, authorities)
        else:
            context.load_default_certs()
        return context

    return Reloading(make, (certificate, key, authorities))


def _context(protocol: int, settings: Settings) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if settings.dicom_tls_version == "1.3" else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    certificate, key = settings.dicom_tls_certificate, settings.dicom_tls_key
    if certificate is not None:
        try:
            # With a password given, even an empty one, OpenSSL asks nobody at a terminal.
            context.load_cert_chain(certificate, key, settings.dicom_tls_key_password or "")
        except OSError as error:  # ssl.SSLError is one
            raise ConfigurationError(f"dicom_tls_certificate, dicom_tls_key: {certificate}: {told(error)}") from None
    return context


def _trust(context: ssl.SSLContext, authorities: Path) -> None:
    try:
        context.load_verify_locations(authorities)
    except OSError as error:
        raise ConfigurationError(f"dicom_tls_ca: {authorities}: {told(error)}") from None


def told(error: OSError) -> str:
    """What went wrong, in few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return str(error.reason).replace("_", " ").lower()
    return error.strerror or str(error) or type(error).__name__


def accept(sock: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """The connection as that of a server whose handshake is still to be done, without waiting. Raises OSError."""
    return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


def connect(sock: socket.socket, host: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """The connection as that of a client, with the handshake done within the timeout of the socket. Raises OSError."""
    return context.wrap_socket(sock, server_hostname=host)


def say_goodbye(sock: socket.socket) -> None:
    """Tells a TLS peer that nothing more comes (RFC 8446 6.1); never waits. The socket cannot be used for TLS afterwards."""
    if isinstance(sock, ssl.SSLSocket):
        with contextlib.suppress(OSError, ValueError):  # no answer yet; or no handshake, or the peer is gone
            sock.settimeout(0)
            sock.unwrap()
