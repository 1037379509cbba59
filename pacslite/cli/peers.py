"""`pacslite peer`: the known peers; what they hold is asked for by `cli.remote`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TextIO

import click

from pacslite.cli import EXIT_NO
from pacslite.cli.options import json_option, load, local_user, open_catalog, open_pacs, say, settings_options

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog
    from pacslite.catalog.peers import Peer
    from pacslite.core.peers import Origin

_SERVICES = ["store", "find", "move", "get"]


@click.group()
def peer() -> None:
    """Keep the known remote application entities and DICOMweb servers, and work with what they hold.

    Changes count at once in a running server.
    """


def _origin() -> Origin:
    from pacslite.core.peers import Origin

    return Origin("cli", actor=local_user())


@peer.command()
@click.argument("ae_title", metavar="AET")
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535))
@click.option("--allow", type=click.Choice(_SERVICES), multiple=True, help="What it may ask of us; may be repeated (default: all).")
@click.option("--tls", is_flag=True, help="Call it over TLS.")
@click.option("--transfer-syntax", "syntaxes", multiple=True, metavar="UID", help="Preferred when we send to it; may be repeated.")
@click.option("--coercion-warnings/--no-coercion-warnings", "warn", default=None, help="Whether it is warned of accepted deviations.")
@settings_options
@json_option
def add(
    ae_title: str,
    host: str,
    port: int,
    allow: tuple[str, ...],
    tls: bool,
    syntaxes: tuple[str, ...],
    warn: bool | None,
    config_file: str | None,
    data: str | None,
    as_json: bool,
) -> None:
    """Add the remote application entity AET, or replace the one of that title."""
    from pacslite.core import peers

    catalog = open_catalog(load(config_file, data))
    given = {"transfer_syntaxes": syntaxes, "coercion_warnings": warn}
    kept = peers.put(catalog, peers.Peer(ae_title, host, port, allow or tuple(_SERVICES), tls, **given), _origin())  # type: ignore[arg-type]
    say(as_json, _plain(catalog, kept), f"{ae_title} at {kept.host}:{kept.port} is known; `pacslite peer echo {ae_title}` calls it.")


@peer.command("add-web")
@click.argument("name")
@click.argument("url")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="Sent with every request; may be repeated.")
@click.option("--token-file", type=click.File(), help="File with a bearer token, - for stdin.")
@click.option("--username", help="For basic authentication; the password is asked for.")
@settings_options
@json_option
def add_web(
    name: str,
    url: str,
    headers: tuple[str, ...],
    token_file: TextIO | None,
    username: str | None,
    config_file: str | None,
    data: str | None,
    as_json: bool,
) -> None:
    """Add the DICOMweb server at URL under NAME, or replace the one of that name."""
    from pacslite.admin.peers import headers_of
    from pacslite.core import peers

    pairs = {key.strip(): value.strip() for key, _, value in (header.partition(":") for header in headers)}
    password = click.prompt("Password", hide_input=True) if username else None
    secrets = headers_of(pairs, token_file.read().strip() if token_file else None, username, password)
    catalog = open_catalog(load(config_file, data))
    kept = peers.put(catalog, peers.Peer(name, "", 0, (), kind="dicomweb", url=url, headers=secrets), _origin())
    say(as_json, _plain(catalog, kept), f"{name} at {kept.url} is known; `pacslite peer echo {name}` asks it.")


def _plain(catalog: Catalog, peer: Peer) -> dict[str, Any]:
    from pacslite.admin.peers import view_of
    from pacslite.core import peers

    return dataclasses.asdict(view_of(peer, peers.statistics(catalog, peer.ae_title)))


@peer.command()
@click.argument("ae_title", metavar="AET")
@settings_options
@json_option
def show(ae_title: str, config_file: str | None, data: str | None, as_json: bool) -> int:
    """Print the peer AET and what has passed between it and this server."""
    from pacslite.core import peers

    catalog = open_catalog(load(config_file, data))
    known = peers.find(catalog, ae_title)
    if known is None:
        return _unknown(ae_title)
    shown = _plain(catalog, known)
    say(as_json, shown, "\n".join([_line(known), *(f"  {name}: {value}" for name, value in shown["statistics"].items())]))
    return 0


@peer.command("list")
@settings_options
@json_option
def list_peers(config_file: str | None, data: str | None, as_json: bool) -> None:
    """Print the known remote application entities."""
    from pacslite.core import peers

    catalog = open_catalog(load(config_file, data))
    known = peers.listed(catalog)
    none = "No peer is known; `pacslite peer add AET HOST PORT` adds one."
    say(as_json, [_plain(catalog, p) for p in known], "\n".join(map(_line, known)) or none)


@peer.command()
@click.argument("ae_title", metavar="AET")
@settings_options
def remove(ae_title: str, config_file: str | None, data: str | None) -> int:
    """Forget the remote application entity AET."""
    from pacslite.core import peers

    if peers.remove(open_catalog(load(config_file, data)), ae_title, _origin()):
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
    if peer.kind == "dicomweb":
        return f"{peer.ae_title:<16}  {peer.url}"
    return f"{peer.ae_title:<16}  {peer.host}:{peer.port}{'  TLS' if peer.tls else ''}  allowed: {', '.join(peer.allow)}"


# Here, so that they are commands of the group whatever is imported first.
from pacslite.cli import remote  # noqa: E402

for _command in (remote.query, remote.retrieve, remote.send, remote.commit):
    peer.add_command(_command)
