"""Passwords: what is good enough, how it is hashed, and that a wrong name takes as long as a wrong password.

Argon2id with the second set of parameters that RFC 9106 4 recommends. Hashing takes 64 MiB, so only a few are under way at once.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from pacslite.errors import Busy, InvalidForm

LONGEST = 256
_AT_ONCE, _PATIENCE_S = 2, 15.0
_HASHER = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
_slots = threading.BoundedSemaphore(_AT_ONCE)
waits: Callable[[], AbstractContextManager[None]] = nullcontext
"""What a thread does while it waits for a slot; the web server has another thread serve meanwhile."""

# Tried first by everybody who guesses, of the length that is asked for at least.
_COMMON_TEXT = """
    password password1 password12 password123 password1234 passw0rd p@ssw0rd p@ssword 12345678 123456789 1234567890 0123456789
    11111111 00000000 88888888 87654321 987654321 12341234 11223344 147258369 qwertyui qwertyuiop qwerty123 qwerty1234 1q2w3e4r
    1qaz2wsx qazwsxedc asdfghjk asdfghjkl zxcvbnm123 abcd1234 abc12345 abcdefgh iloveyou sunshine princess football baseball
    superman trustno1 starwars whatever changeme changeme1 changeit letmein1 letmein123 welcome1 welcome123 admin123 admin1234
    administrator adminadmin rootroot hospital radiology orthanc pacsadmin pacspacs pacslite dicomdicom default1
"""
_COMMON = frozenset(_COMMON_TEXT.split())


def check(password: str, username: str, shortest: int) -> None:
    """Raises InvalidForm for a password that is too short, too long, well known, or the user's own name.

    Length and well-known values are what NIST SP 800-63B looks at; it advises against rules for kinds of characters.
    """
    plain = normal(password)
    fault = None
    if len(plain) < shortest:
        fault = f"is shorter than {shortest} characters"
    elif len(plain) > LONGEST:
        fault = f"is longer than {LONGEST} characters"
    elif plain.casefold() in _COMMON or len(set(plain)) < 3:
        fault = "is one of those that are tried first"
    elif plain.casefold() == normal(username).casefold():
        fault = "is the name of the user"
    if fault:
        raise InvalidForm.at("password", fault)


def normal(password: str) -> str:
    """The password as it is hashed: one form for what keyboards write in several (NIST SP 800-63B)."""
    return unicodedata.normalize("NFKC", password)


def hashed(password: str) -> str:
    """The hash to keep; raises Busy."""
    with _slot():
        return _HASHER.hash(normal(password))


def verified(password: str, kept: str | None) -> tuple[bool, str | None]:
    """Whether this is the password, and its hash by today's parameters when the kept one is of others; raises Busy.

    Without a kept hash the answer is no, after the same work.
    """
    with _slot():
        try:
            _HASHER.verify(kept or _nobodys(), normal(password[: 4 * LONGEST]))
        except (VerificationError, InvalidHashError):
            return False, None
        if kept is None:
            return False, None
        return True, _HASHER.hash(normal(password)) if _HASHER.check_needs_rehash(kept) else None


@cache
def _nobodys() -> str:
    return _HASHER.hash("nobody has this password \x00")


@contextmanager
def _slot() -> Iterator[None]:
    if not _slots.acquire(blocking=False):
        with waits():
            if not _slots.acquire(timeout=_PATIENCE_S):
                raise Busy("too many logins at once")
    try:
        yield
    finally:
        _slots.release()
