"""What one login by a provider is told apart by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attempt:
    """Secrets of one browser, for one use: against forged answers, exchanged ID tokens and stolen codes (RFC 9700 2.1)."""

    state: str
    nonce: str
    verifier: str
