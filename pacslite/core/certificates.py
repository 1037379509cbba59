"""When a certificate ends, read from its DER (X.509, RFC 5280 4.1); the standard library tells it of connections only."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from pacslite.errors import ConfigurationError

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


def ends_at(path: Path) -> datetime:
    """When the first certificate of a PEM file ends; raises ConfigurationError."""
    try:
        text = path.read_text("ascii", errors="replace")
        begin = text.index(_BEGIN)
        return not_after(ssl.PEM_cert_to_DER_cert(text[begin : text.index(_END, begin) + len(_END)]))
    except OSError as error:
        raise ConfigurationError(f"the certificate cannot be read: {error.strerror}") from None
    except (ValueError, IndexError):
        raise ConfigurationError("the certificate is none") from None


def not_after(der: bytes) -> datetime:
    """The end of a certificate; raises ValueError or IndexError when it is none."""
    _, body, _ = _element(der, 0)
    kind, to_be_signed, _ = _element(body, 0)
    if kind != _SEQUENCE:
        raise ValueError("no certificate")
    kind, _, at = _element(to_be_signed, 0)
    if kind != _VERSION:
        at = 0  # version 1 does not say so
    for _ in range(3):  # serial number, signature algorithm, issuer
        _, _, at = _element(to_be_signed, at)
    _, validity, _ = _element(to_be_signed, at)
    _, _, at = _element(validity, 0)
    kind, value, _ = _element(validity, at)
    if kind not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("no time")
    text = value.decode("ascii")
    if kind == _UTC_TIME:
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Tag, value and end of a DER element."""
    kind, length, begin = data[at], data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[begin : begin + count])
        begin += count
    if begin + length > len(data):
        raise ValueError("cut off")
    return kind, data[begin : begin + length], begin + length
