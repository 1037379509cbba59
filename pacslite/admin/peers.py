"""`/peers`: the known remote application entities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pacslite.core import peers
from pacslite.errors import NotFound
from pacslite.web.forms import parse, rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import ROOT, Operation, Parameter, json_reply
from pacslite.web.pages import page_of

if TYPE_CHECKING:
    from pacslite.app import Pacs

Service = Literal["store", "find", "move", "get"]


@dataclass(frozen=True, slots=True)
class PeerForm:
    """A remote application entity to know; one of the same title is replaced."""

    ae_title: str = field(metadata=rule("Application entity title.", minLength=1, maxLength=16))
    host: str = field(metadata=rule("Host name or address.", minLength=1, maxLength=253, pattern=r"^[A-Za-z0-9._:%-]+$"))
    port: int = field(metadata=rule("TCP port.", minimum=1, maximum=65535))
    allow: tuple[Service, ...] = field(default=("store", "find", "move", "get"), metadata=rule("What it may ask of this server."))
    tls: bool = field(default=False, metadata=rule("Whether it is called over TLS."))


@dataclass(frozen=True, slots=True)
class PeerView:
    """A known remote application entity."""

    ae_title: str
    host: str
    port: int
    allow: tuple[Service, ...]
    tls: bool
    created_at: str


@dataclass(frozen=True, slots=True)
class PeerList:
    """A page of the known remote application entities, by title."""

    items: tuple[PeerView, ...]
    total: int
    next: str | None


@dataclass(frozen=True, slots=True)
class EchoView:
    """What came of a C-ECHO."""

    outcome: Literal["success", "failed"]
    duration_s: float
    detail: str = field(metadata=rule("The answer, or why there was none."))


def list_peers(pacs: Pacs, request: Request) -> Reply:
    """A page of peers."""
    return json_reply(page_of(request, peers.listed(pacs.catalog), key=lambda peer: peer.ae_title))


def put_peer(pacs: Pacs, request: Request) -> Reply:
    """Adds or replaces a peer."""
    form = parse(PeerForm, request)
    kept = peers.put(pacs.catalog, peers.Peer(form.ae_title, form.host, form.port, form.allow, form.tls))
    return json_reply(kept, 201, [("Location", f"{request.base_url}{ROOT}/peers/{kept.ae_title}")])


def remove_peer(pacs: Pacs, request: Request, ae_title: str) -> Reply:
    """Forgets a peer."""
    if not peers.remove(pacs.catalog, ae_title):
        raise NotFound(f"There is no peer {ae_title!r}.")
    return Reply(204)


def echo_peer(pacs: Pacs, request: Request, ae_title: str) -> Reply:
    """Sends a C-ECHO; a peer that does not answer is a result, not an error."""
    return json_reply(peers.echo(pacs.catalog, ae_title, pacs.send_echo))


OPERATIONS = (
    Operation(
        "GET",
        "/peers",
        list_peers,
        "The known remote application entities",
        "peers",
        {200: PeerList},
        parameters=(Parameter("limit", "Items of a page, 100 by default, at most 1000.", "integer"), Parameter("cursor", "From `next`.")),
    ),
    Operation(
        "POST",
        "/peers",
        put_peer,
        "Add or replace a remote application entity",
        "peers",
        {201: PeerView},
        form=PeerForm,
        problems=(413, 415),
    ),
    Operation("DELETE", "/peers/{ae_title}", remove_peer, "Forget a remote application entity", "peers", {204: None}, problems=(404,)),
    Operation("POST", "/peers/{ae_title}/echo", echo_peer, "Send a C-ECHO", "peers", {200: EchoView}, problems=(404,)),
)
