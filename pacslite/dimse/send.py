"""C-STORE as SCU (PS3.4 annex B): one instance to a remote application entity, as it is."""

from __future__ import annotations

import io
from dataclasses import dataclass

from pydicom import dcmread
from pynetdicom import AE

from pacslite.dimse import tls
from pacslite.dimse.peers import echo
from pacslite.errors import PeerError
from pacslite.settings import Settings

__all__ = ["Receiver", "echo", "store"]

_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Receiver:
    """A remote application entity."""

    aet: str
    host: str
    port: int
    tls: bool = False


def store(receiver: Receiver, file: bytes, calling_aet: str, security: Settings | None = None) -> None:
    """Send a Part 10 file in its own transfer syntax; raises PeerError unless the answer is 0000H or a warning.

    A receiver that wants TLS is called by the `dicom_tls_*` settings of `security`.
    """
    data_set = dcmread(io.BytesIO(file))
    entity = AE(ae_title=calling_aet)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _TIMEOUT_S
    entity.add_requested_context(data_set.file_meta.MediaStorageSOPClassUID, data_set.file_meta.TransferSyntaxUID)
    where = f"{receiver.aet} at {receiver.host}:{receiver.port}"
    if receiver.tls and security is None:
        raise PeerError(f"{where}: is to be called over TLS, for which there are no settings here")
    secured = (tls.outgoing(security), receiver.host) if receiver.tls and security is not None else None
    association = entity.associate(receiver.host, receiver.port, ae_title=receiver.aet, tls_args=secured)
    if not association.is_established:
        raise PeerError(f"{where}: no association")
    try:
        status = association.send_c_store(data_set)
    except ValueError as error:
        raise PeerError(f"{where}: {error}") from None
    finally:
        association.release()
    number = status.get("Status")
    if number is None:
        raise PeerError(f"{where}: no answer to C-STORE")
    if number != 0 and number & 0xF000 != 0xB000:
        raise PeerError(f"{where}: C-STORE was answered with status {number:04X}H")
