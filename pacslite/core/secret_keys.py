"""The secret of this installation, and the keys made of it: one for each purpose, so that none serves for another."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from pacslite.durability import sync_directory
from pacslite.errors import ConfigurationError
from pacslite.settings import Settings

FILE_NAME = "secret.key"
_SHORTEST, _SHORT = 16, 32
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SecretKeys:
    """`raw` signs access tokens; `previous` ones are believed and sign nothing. Everything else has a derived key."""

    raw: bytes = field(repr=False)
    previous: tuple[bytes, ...] = field(default=(), repr=False)

    def derive(self, label: str) -> bytes:
        """The key for another purpose: HKDF-SHA256 (RFC 5869) without salt, the label as info."""
        return _derived(self.raw, label)

    def derive_all(self, label: str) -> tuple[bytes, ...]:
        """The same of the present and the previous secrets: what may have been signed with."""
        return tuple(_derived(secret, label) for secret in (self.raw, *self.previous))


def _derived(secret: bytes, label: str) -> bytes:
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, b"pacslite " + label.encode() + b"\x01", "sha256")


def load(settings: Settings) -> SecretKeys:
    """The secrets of the settings, else the one kept in the data directory, which is made when absent. Raises ConfigurationError."""
    previous = tuple(_checked("previous_secret_keys", one) for one in _listed(settings.previous_secret_keys))
    if settings.secret_key is not None:
        return SecretKeys(_checked("secret_key", settings.secret_key), previous)
    return SecretKeys(_kept(settings.data / FILE_NAME), previous)


def _listed(text: str | None) -> list[str]:
    return [one.strip() for one in (text or "").split(",") if one.strip()]


def _checked(name: str, secret: str) -> bytes:
    if len(secret.encode()) < _SHORTEST:
        raise ConfigurationError(f"{name}: is shorter than {_SHORTEST} bytes; `openssl rand -base64 48` makes a good one")
    if len(secret.encode()) < _SHORT:
        _log.warning("%s is shorter than %d bytes, which RFC 7518 wants of keys for HS256", name, _SHORT)
    return secret.encode()


def _kept(path: Path) -> bytes:
    try:
        if not path.exists():
            _make(path)
        secret = path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"the secret key {path} cannot be read or made: {error.strerror}") from None
    return _checked(f"the secret key in {path}", secret)


def _make(path: Path) -> None:
    """A new secret, whole and durable before it has its name; of several processes the first one's counts."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    sync_directory(path.parent)


def fingerprint(secret: str | bytes) -> str:
    """The hash by which a long random secret is looked up and kept."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()
