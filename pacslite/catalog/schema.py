"""Where the migrations are and how they run."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

import pacslite
from pacslite.errors import ConfigurationError, Unavailable


def migrations_directory() -> Path:
    """The Alembic environment: inside the package when installed from a wheel, else at the top of the source checkout."""
    package = Path(pacslite.__file__).resolve().parent
    for directory in (package / "migrations", package.parent / "migrations"):
        if (directory / "env.py").is_file():
            return directory
    raise ConfigurationError("the migrations are not part of this installation")


def upgrade(conn: Connection, target: str = "head") -> None:
    """Run the missing migrations on a connection whose transaction the caller commits."""
    # Alembic takes 0.2 s to import, and only this needs it.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = conn
    try:
        command.upgrade(config, target)
    except CommandError as error:
        raise Unavailable(f"the catalog cannot be migrated: {error}; was it made by a newer release?") from None
