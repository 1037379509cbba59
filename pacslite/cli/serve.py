"""`pacslite serve`."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

import click

from pacslite.cli.options import json_option, load, settings_options
from pacslite.settings import FIELDS, Address

if TYPE_CHECKING:
    from pacslite.run_state import RunState
    from pacslite.settings import Settings


def _default(name: str) -> str:
    default = FIELDS[name].default
    return default.text if isinstance(default, Address) else str(default)


@click.command()
@click.argument("scope", type=click.Choice(["all", "web", "dimse", "worker"]), default="all", required=False)
@click.option("--http", metavar="HOST:PORT", help=f"Address of the web server (default {_default('http')}; port 0 takes a free one).")
@click.option("--dicom", metavar="HOST:PORT", help=f"Address of the DICOM listener (default {_default('dicom')}).")
@click.option("--aet", metavar="TITLE", help=f"Application entity title (default {_default('aet')}).")
@click.option("--no-auth", is_flag=True, help="Nobody logs in; every call acts as the administrator 'local'. Loopback only.")
@click.option("--web-processes", type=int, metavar="N", help=f"Processes of the web role (default {_default('web_processes')}).")
@click.option("--dimse-processes", type=int, metavar="N", help=f"Processes of the DICOM listener (default {_default('dimse_processes')}).")
@settings_options
@json_option
def serve(
    scope: str,
    http: str | None,
    dicom: str | None,
    aet: str | None,
    no_auth: bool,
    web_processes: int | None,
    dimse_processes: int | None,
    config_file: str | None,
    data: str | None,
    as_json: bool,
) -> int:
    """Run the server until SIGTERM or Ctrl-C.

    The catalog is created or migrated first. Addresses are printed once everything serves; the same is in DATA/run/serve.json.
    """
    settings = load(
        config_file,
        data,
        http=http,
        dicom=dicom,
        aet=aet,
        auth=False if no_auth else None,
        web_processes=web_processes,
        dimse_processes=dimse_processes,
    )
    return run(settings, scope, as_json)


def run(settings: Settings, scope: str, as_json: bool, epilog: str = "") -> int:
    """Checks, migrates, supervises; the exit code."""
    from pacslite import app, listeners, logs, roles
    from pacslite.supervisor import Supervisor, in_child

    logs.configure(settings.log_level)
    listeners.check_loopback(settings)
    app.prepare_directories(settings)
    # Once, before the first fork: what is forked shares it.
    roles.load(roles.of_scope(scope), settings.resolved_database_url)
    in_child(lambda: app.migrate(settings))
    in_child(lambda: app.recover(settings))

    def announce(state: RunState) -> None:
        # Made when it can be told: whoever does not see it printed has not got it.
        made = in_child(lambda: app.first_administrator(settings)) if settings.auth and state.http else None
        first = {"first_administrator": {"username": made[0], "password": made[1]}} if made else {}
        text = json.dumps({"event": "ready", **dataclasses.asdict(state), **first}) if as_json else _told(state, settings, made)
        click.echo(text + ("" if as_json else epilog))
        sys.stdout.flush()

    return Supervisor(settings, scope, announce).run()


def _told(state: RunState, settings: Settings, first: tuple[str, str] | None) -> str:
    lines = [f"pacslite {state.version} serves {settings.data}"]
    if state.http:
        base = settings.public_url or f"http://{state.http}"
        lines += [f"  Web page   {base}/", f"  DICOMweb   {base}/dicom-web", f"  REST       {base}/api/v1/docs"]
    if state.dicom:
        lines.append(f"  DICOM      {state.aet} at {state.dicom}")
    if state.dicom_tls:
        lines.append(f"  DICOM TLS  {state.aet} at {state.dicom_tls}")
    if first:
        said = f"  The first administrator is {first[0]!r} with the password  {first[1]}"
        lines += ["", said, "  It is shown this once; change it after the first login.", ""]
    return "\n".join([*lines, "Ctrl-C stops it."])
