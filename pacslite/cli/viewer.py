"""`pacslite viewer`."""

from __future__ import annotations

import click

from pacslite.cli.options import load, settings_options


@click.group()
def viewer() -> None:
    """The OHIF viewer that the web server shows at /viewer/."""
