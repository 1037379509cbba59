"""How often callers may come: logins by address and name, calls by account, or by address where nobody has logged in.

The counts are shared by all processes of a host (docs/decisions/0014). What a number is, is a setting; 0 is no limit.
"""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from pacslite.core.access import LOCAL_ADMIN, Principal
from pacslite.core.file_cache import boot_mark
from pacslite.errors import TooManyRequests
from pacslite.run_state import directory

if TYPE_CHECKING:
    from pacslite.rates.counting import Counting
    from pacslite.settings import Settings

LOGIN, API, FILES, DICOMWEB = "login", "api", "files", "dicomweb"
_IPV6_NETWORK = 64
_LONGEST_NAME = 256


class Limits:
    """The rates of one process; the file is opened when first something is counted."""

    def __init__(self, settings: Settings) -> None:
        self._data = settings.data
        self._per_minute = {
            LOGIN: settings.login_rate_per_minute,
            API: settings.api_rate_per_minute,
            FILES: settings.file_rate_per_minute,
            DICOMWEB: settings.dicomweb_rate_per_minute,
        }
        self._counting: Counting | None = None

    def login(self, username: str, address: str, *, counts: bool = True) -> None:
        """Counts an attempt to log in, before the password is looked at; raises TooManyRequests. Without a name by address alone.

        Without `counts` it only looks, for callers who count what has failed.
        """
        from pacslite.core.logins import username_key

        self._count(LOGIN, "from " + network_of(address), counts=counts)
        if username:  # in the form in which it names an account: each other way to write it would begin anew
            self._count(LOGIN, "as " + username_key(username[:_LONGEST_NAME]), counts=counts)

    def call(self, kind: str, principal: Principal | None, address: str) -> None:
        """Counts a call by whoever makes it; raises TooManyRequests."""
        if principal is not None and principal.account_id is not None:
            self._count(kind, f"account {principal.account_id}")
        elif principal is not LOCAL_ADMIN or kind == FILES:
            self._count(kind, "from " + network_of(address))

    def is_limited(self, kind: str) -> bool:
        """Whether calls of this kind are counted at all."""
        return self._per_minute[kind] > 0

    def _count(self, kind: str, who: str, *, counts: bool = True) -> None:
        per_minute = self._per_minute[kind]
        if not per_minute:
            return
        wait_s = self._opened().wait_s(kind, who, per_minute, counts=counts)
        if wait_s:
            raise TooManyRequests(f"More than {per_minute} calls of this kind in a minute; try again in {wait_s} s.", wait_s)

    def _opened(self) -> Counting:
        if self._counting is None:
            from pacslite.rates.counting import Counting

            self._counting = Counting(_file_of_this_boot(directory(self._data)))
        return self._counting

    def close(self) -> None:
        """Closes the file."""
        if self._counting is not None:
            self._counting.close()


def network_of(address: str) -> str:
    """What counts as one address: of IPv6 the network of 64 bits, of which one site has all."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(IPv6Address(int(found) >> _IPV6_NETWORK << _IPV6_NETWORK))


def _file_of_this_boot(run: Path) -> Path:
    """The file, beside which those of earlier starts of the machine go: it is never synced, so they may be damaged."""
    with suppress(OSError):
        run.mkdir(mode=0o750, exist_ok=True)
        ours = f"rates-{boot_mark()}"
        for other in run.glob("rates-*"):
            if not other.name.startswith(ours):
                other.unlink(missing_ok=True)
    return run / f"rates-{boot_mark()}1.db"
