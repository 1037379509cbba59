"""Certificates made by openssl: an authority, who it vouches for, and strangers."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


@dataclass(frozen=True)
class Authority:
    """A certification authority of its own directory."""

    directory: Path

    @property
    def certificate(self) -> Path:
        """What others verify by."""
        return self.directory / "ca.pem"

    @property
    def _key(self) -> Path:
        return self.directory / "ca.key"

    @classmethod
    def make(cls, directory: Path) -> Authority:
        """A new authority."""
        if not shutil.which("openssl"):
            pytest.skip("openssl is not installed")
        directory.mkdir(parents=True)
        made = cls(directory)
        _openssl(*_NEW_KEY, "-keyout", made._key, "-x509", "-subj", "/CN=authority", "-days", "30", "-out", made.certificate)
        return made

    def issue(self, name: str, *, hosts: str = "DNS:localhost,IP:127.0.0.1") -> Pair:
        """A certificate for these hosts."""
        pair = Pair(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        request, extensions = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={hosts}\nextendedKeyUsage=serverAuth,clientAuth\n")
        _openssl(*_NEW_KEY, "-keyout", pair.key, "-subj", f"/CN={name}", "-out", request)
        signed_by = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *signed_by, "-days", "30", "-extfile", extensions, "-out", pair.certificate)
        return pair

    def client_context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """What a client uses that trusts this authority, and shows `pair` when it is asked."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        return context


_NEW_KEY = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
