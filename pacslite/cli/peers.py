"""`pacslite peer`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from pacslite.cli import EXIT_NO
from pacslite.cli.options import json_option, load, open_pacs, say, settings_options

if TYPE_CHECKING:
    from pacslite.catalog.peers import Peer

_SERVICES = ["store", "find", "move", "get"]


@click.group()
def peer() -> None:
    """Keep the known remote application entities. Changes count at once in a running server."""


@peer.command()
@click.argument("ae_title", metavar="AET")
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535))
@click.option("--allow", type=click.Choice(_SERVICES), multiple=True, help="What it may ask of us; may be repeated (default: all).")
@click.option("--tls", is_flag=True, help="Call it over TLS.")
@settings_options
@json_option
def add(
    ae_title: str, host: str, port: int, allow: tuple[str, ...], tls: bool, config_file: str | None, data: str | None, as_json: bool
) -> None:
    """Add the remote application entity AET, or replace the one of that title."""
    from pacslite.core import peers

    pacs = open_pacs(load(config_file, data))
    kept = peers.put(pacs.catalog, peers.Peer(ae_title, host, port, allow or tuple(_SERVICES), tls))
    say(as_json, dataclasses.asdict(kept), f"{ae_title} at {kept.host}:{kept.port} is known; `pacslite peer echo {ae_title}` calls it.")


@peer.command("list")
@settings_options
@json_option
def list_peers(config_file: str | None, data: str | None, as_json: bool) -> None:
    """Print the known remote application entities."""
    from pacslite.core import peers

    known = peers.listed(open_pacs(load(config_file, data)).catalog)
    none = "No peer is known; `pacslite peer add AET HOST PORT` adds one."
    say(as_json, [dataclasses.asdict(p) for p in known], "\n".join(map(_line, known)) or none)


@peer.command()
@click.argument("ae_title", metavar="AET")
@settings_options
def remove(ae_title: str, config_file: str | None, data: str | None) -> int:
    """Forget the remote application entity AET."""
    from pacslite.core import peers

    if peers.remove(open_pacs(load(config_file, data)).catalog, ae_title):
        click.echo(f"{ae_title} is forgotten.")
        return 0
    return _unknown(ae_title)


def _unknown(ae_title: str) -> int:
    click.echo(f"pacslite: there is no peer {ae_title!r}; `pacslite peer list` shows the known ones", err=True)
    return EXIT_NO


@peer.command()
@click.argument("ae_title", metavar="AET")
@settings_options
@json_option
def echo(ae_title: str, config_file: str | None, data: str | None, as_json: bool) -> int:
    """Send a C-ECHO to the remote application entity AET; exit 1 when it does not answer."""
    from pacslite.core import peers
    from pacslite.errors import NotFound

    pacs = open_pacs(load(config_file, data))
    try:
        came = peers.echo(pacs.catalog, ae_title, pacs.send_echo)
    except NotFound:
        return _unknown(ae_title)
    say(as_json, dataclasses.asdict(came), f"{ae_title}: {came.outcome} after {came.duration_s:.3f} s: {came.detail}")
    return 0 if came.outcome == "success" else EXIT_NO


def _line(peer: Peer) -> str:
    return f"{peer.ae_title:<16}  {peer.host}:{peer.port}{'  TLS' if peer.tls else ''}  allowed: {', '.join(peer.allow)}"
