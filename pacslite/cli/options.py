"""Options that many commands take, and how they become settings."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.catalog.database import Catalog
    from pacslite.core.accounts import Accounts
    from pacslite.core.audit import Event
    from pacslite.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(command: F) -> F:
    """Adds `--config` and `--data`; the command gets `config_file` and `data` to give to `load`."""

    @click.option("--config", "config_file", type=click.Path(dir_okay=False), help="TOML file of settings (else PACSLITE_CONFIG).")
    @click.option("--data", type=click.Path(file_okay=False), help="Directory of the data (default ./data).")
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    return wrapped  # type: ignore[return-value]


def json_option(command: F) -> F:
    """Adds `--json`; the command gets `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def load(config_file: str | None, data: str | None, **overrides: Any) -> Settings:
    """The settings of this call; says on stderr which `PACSLITE_*` variables are unknown. Raises ConfigurationError."""
    from pacslite import settings

    context = click.get_current_context(silent=True)
    given = config_file or (context.find_root().obj if context else None)
    unknown = settings.unknown_variables(os.environ)
    if unknown:
        click.echo(f"pacslite: warning: unknown environment variables are ignored: {', '.join(unknown)}", err=True)
    return settings.load(Path(given) if given else None, data=data, **overrides)


def open_pacs(settings: Settings) -> Pacs:
    """The parts over an existing catalog of this release; raises Unavailable with what to do otherwise."""
    from pacslite import app, logs

    logs.configure("warning" if settings.log_level == "info" else settings.log_level)
    pacs = app.build(settings)
    pacs.catalog.check_revision()
    _record(settings, pacs.catalog)
    return pacs


def open_catalog(settings: Settings) -> Catalog:
    """As `open_pacs`, for commands that need nothing else, whose start takes two thirds of the time."""
    from pacslite import app, logs

    logs.configure("warning" if settings.log_level == "info" else settings.log_level)
    app.prepare_directories(settings)
    catalog = app.build_catalog(settings)
    catalog.check_revision()
    _record(settings, catalog)
    return catalog


def open_accounts(settings: Settings) -> Accounts:
    """As `open_catalog`, for commands about accounts."""
    from pacslite.core.accounts import Accounts

    return Accounts(settings, open_catalog(settings))


def local_user() -> str:
    """The account of this machine that gives the command."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def origin() -> Event:
    """At whose wish, for the events that a change notes in its own transaction."""
    from pacslite.core.audit import Event

    return Event("", actor=local_user(), protocol="cli")


_begun: list[tuple[Settings, str]] = []
"""The command that is on record and whose end is not."""


def record_end(code: int) -> None:
    """Puts on record how the command ended, if its beginning is. One that was killed has a beginning alone."""
    from pacslite import app
    from pacslite.core import audit
    from pacslite.errors import PacsliteError

    while _begun:
        settings, name = _begun.pop()
        catalog = app.build_catalog(settings)
        try:
            event = audit.change_of(origin(), f"cli.{name}", name, exit_code=code)
            audit.record(catalog, dataclasses.replace(event, object_type="command", outcome=audit.FAILED if code else audit.SUCCESS))
        except PacsliteError as error:
            click.echo(f"pacslite: warning: the audit log cannot be written: {error}", err=True)
        finally:
            catalog.close()


def _record(settings: Settings, catalog: Catalog) -> None:
    """Puts the command into the audit log before it reads or changes anything."""
    from pacslite.core import audit
    from pacslite.errors import PacsliteError

    context = click.get_current_context(silent=True)
    path = [] if context is None else context.command_path.split()[1:]
    name = ".".join(path) or "command"
    event = dataclasses.replace(audit.change_of(origin(), f"cli.{name}", name, state="begun"), object_type="command")
    try:
        audit.record(catalog, event)
        _begun[:] = [(settings, name)]
    except PacsliteError as error:  # a command may be what mends the catalog
        click.echo(f"pacslite: warning: the audit log cannot be written: {error}", err=True)


def say(as_json: bool, value: Any, text: str) -> None:
    """Prints the value as JSON or the text for people."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str) if as_json else text)
