"""Where the files that travel with the code lie: inside the package in a wheel, at the top level of a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def directory(name: str) -> Path:
    """The directory `migrations` or `conf`; raises FileNotFoundError when the installation is incomplete."""
    for candidate in (_PACKAGE / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"{name}/ is neither in the package nor beside it; the installation is incomplete")
