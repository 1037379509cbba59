"""`pacslite viewer`."""

from __future__ import annotations

from pathlib import Path

import click

from pacslite.cli.options import load, settings_options


@click.group()
def viewer() -> None:
    """The OHIF viewer that the web server shows at /viewer/."""


@viewer.command()
@click.option("--tarball", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The npm package as a file, instead of npm.")
@settings_options
def install(tarball: Path | None, config_file: str | None, data: str | None) -> None:
    """Fetch the viewer with npm into DATA/viewer; nothing is done when it is there."""
    from pacslite import app
    from pacslite.cli.progress import Bar
    from pacslite.ui import viewer_package

    settings = load(config_file, data)
    app.prepare_directories(settings)
    with Bar() as bar:
        installed = viewer_package.install(settings.data, tarball=tarball, progress=bar.step)
    click.echo(f"The viewer is in {installed.directory}; `pacslite serve` shows it at /viewer/.")
