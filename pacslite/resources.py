"""Where the files that travel with the code lie: the schema migrations and the samples of `conf/`.

A wheel carries them inside the package, a checkout at its top level; nobody else needs to know which it is.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def directory(name: str) -> Path:
    """The directory `migrations` or `conf`; raises FileNotFoundError when the installation is incomplete."""
    for candidate in (_PACKAGE / f"_{name}", _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"{name}/ is neither in the package nor beside it; the installation is incomplete")
