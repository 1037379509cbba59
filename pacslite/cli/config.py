"""`pacslite config`."""

from __future__ import annotations

import click

from pacslite.cli.options import json_option, load, say, settings_options


@click.group()
def config() -> None:
    """Show or check the settings that a server started now would have."""


@config.command()
@settings_options
@json_option
def show(config_file: str | None, data: str | None, as_json: bool) -> None:
    """Print every setting; secrets are hidden."""
    from pacslite import settings

    values = settings.shown(load(config_file, data))
    width = max(map(len, values))
    say(as_json, values, "\n".join(f"{name:<{width}}  {'' if value is None else value}" for name, value in values.items()))


@config.command()
@settings_options
@json_option
def check(config_file: str | None, data: str | None, as_json: bool) -> None:
    """Check the settings, the directories and the connections; exit 2 or 3 with the reason when something is wrong."""
    from pacslite import app, listeners

    settings = load(config_file, data)
    listeners.check_loopback(settings)
    if settings.dicom_tls is not None:
        from pacslite.dimse import tls

        tls.incoming(settings)
    app.prepare_directories(settings)
    app.build_store(settings).check()
    catalog = app.build_catalog(settings)
    try:
        revision = catalog.revision()
    finally:
        catalog.close()
    note = "" if revision else " The catalog does not exist yet; `pacslite migrate` or `pacslite serve` makes it."
    say(as_json, {"ok": True, "catalog_revision": revision}, f"The settings are right.{note}")


@config.command()
@click.argument("name", type=click.Choice(["pacslite.toml", "gunicorn.py", "nginx.conf", "ohif-app-config.js"]), default="pacslite.toml")
def sample(name: str) -> None:
    """Print a sample: of the settings, or for what stands around the server."""
    from pacslite import resources

    click.echo((resources.directory("conf") / name).read_text(), nl=False)
