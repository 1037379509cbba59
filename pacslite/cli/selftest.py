"""`pacslite selftest`."""

from __future__ import annotations

import json

import click

from pacslite.cli import EXIT_NO
from pacslite.cli.options import json_option, load, settings_options


@click.command()
@click.option("--keep", is_flag=True, help="Leave the instance and the file there.")
@click.option("--server", is_flag=True, help="Also go through the running server: in over DIMSE, found and fetched over DICOMweb.")
@settings_options
@json_option
def selftest(keep: bool, server: bool, config_file: str | None, data: str | None, as_json: bool) -> int:
    """Store a synthetic instance and a file, verify them, fetch them by URLs and remove them; makes the catalog if there is none.

    A line for each step; with --json one in all. Exit 1 with the reason at the first that fails. Needs no server, except with --server.
    """
    from pacslite import app, logs, run_state
    from pacslite.errors import PacsliteError
    from pacslite.selftest import of_server, run
    from pacslite.settings import Address

    settings = load(config_file, data)
    logs.configure("error")
    step, done = "prepare", []
    try:
        app.prepare_directories(settings)
        app.migrate(settings)
        pacs = app.build(settings)
        steps = [run(pacs, keep)]
        if server:
            states = run_state.read_all(settings.data)
            http = next((Address.parse(s.http) for s in states if s.http), settings.http)
            dicom = next((Address.parse(s.dicom) for s in states if s.dicom), settings.dicom)
            steps.append(of_server(pacs, http, dicom, keep))
        for part in steps:
            for step, said in part:
                done.append({"step": step, "result": said})
                if not as_json:
                    click.echo(f"{step:<22} ok  {said}")
    except (PacsliteError, OSError) as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "steps": done, "failed_after": step, "problem": str(error)}))
        else:
            click.echo(f"selftest failed after '{step}': {error}", err=True)
        return EXIT_NO
    pacs.close()
    if as_json:
        click.echo(json.dumps({"ok": True, "steps": done}))
    return 0
