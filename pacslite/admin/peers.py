"""`/peers`: the known remote application entities and DICOMweb servers."""

from __future__ import annotations

import base64
import dataclasses
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from pacslite.core import peers
from pacslite.core.access import Right
from pacslite.errors import InvalidForm, NotFound
from pacslite.web.forms import parse, rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import ROOT, Operation, json_reply
from pacslite.web.pages import PAGE, page_of

if TYPE_CHECKING:
    from pacslite.app import Pacs

Service = Literal["store", "find", "move", "get"]
PeerKind = Literal["dicom", "dicomweb"]
_ALLOW = rule("What it may ask of this server; storage commitment goes with `store`.")
_SECRET = "It is kept with the peer and never shown."


@dataclass(frozen=True, slots=True)
class PeerForm:
    """A remote application entity, or a DICOMweb server, to know; one of the same title or name is replaced."""

    ae_title: str = field(default="", metadata=rule("Application entity title.", maxLength=64))
    host: str = field(default="", metadata=rule("Host name or address.", maxLength=253, pattern=r"^[A-Za-z0-9._:%-]*$"))
    port: int = field(default=0, metadata=rule("TCP port.", minimum=0, maximum=65535))
    allow: tuple[Service, ...] = field(default=("store", "find", "move", "get"), metadata=_ALLOW)
    tls: bool = field(default=False, metadata=rule("Whether it is called over TLS."))
    kind: PeerKind = field(default="dicom", metadata=rule("DICOM over TCP, or a DICOMweb server."))
    name: str | None = field(default=None, metadata=rule("Of a DICOMweb server, in place of `ae_title`; its host when absent."))
    url: str | None = field(default=None, metadata=rule("Root of a DICOMweb server, above /studies.", maxLength=2000))
    headers: dict[str, str] | None = field(default=None, metadata=rule(f"Sent with every request to a DICOMweb server. {_SECRET}"))
    token: str | None = field(default=None, metadata=rule(f"Bearer token for a DICOMweb server. {_SECRET}"))
    username: str | None = field(default=None, metadata=rule(f"For a DICOMweb server with basic authentication. {_SECRET}"))
    password: str | None = field(default=None, metadata=rule(f"For `username`. {_SECRET}"))
    transfer_syntaxes: tuple[str, ...] = field(default=(), metadata=rule("Preferred when we send to it, the first one most."))
    coercion_warnings: bool | None = field(
        default=None, metadata=rule("Whether it is warned of accepted deviations; null: by the setting.")
    )


@dataclass(frozen=True, slots=True)
class PeerPatch:
    """What to change of a peer; what is left out stays."""

    host: str | None = field(default=None, metadata=rule("Host name or address.", maxLength=253))
    port: int | None = field(default=None, metadata=rule("TCP port.", minimum=1, maximum=65535))
    allow: tuple[Service, ...] | None = field(default=None, metadata=_ALLOW)
    tls: bool | None = field(default=None, metadata=rule("Whether it is called over TLS."))
    url: str | None = field(default=None, metadata=rule("Root of a DICOMweb server.", maxLength=2000))
    headers: dict[str, str] | None = field(default=None, metadata=rule(f"Replace all headers, and token and password. {_SECRET}"))
    token: str | None = field(default=None, metadata=rule(f"Bearer token for a DICOMweb server. {_SECRET}"))
    username: str | None = field(default=None, metadata=rule(f"For a DICOMweb server with basic authentication. {_SECRET}"))
    password: str | None = field(default=None, metadata=rule(f"For `username`. {_SECRET}"))
    transfer_syntaxes: tuple[str, ...] | None = field(default=None, metadata=rule("Preferred when we send to it."))
    coercion_warnings: bool | None = field(default=None, metadata=rule("Whether it is warned of accepted deviations."))


@dataclass(frozen=True, slots=True)
class StatisticsView:
    """What has passed between this server and a peer; a few seconds old."""

    associations_received: int
    associations_sent: int
    instances_received: int
    bytes_received: int
    instances_sent: int
    bytes_sent: int
    failures: int
    last_seen_at: str | None


@dataclass(frozen=True, slots=True)
class PeerView:
    """A known remote application entity or DICOMweb server."""

    ae_title: str = field(metadata=rule("Title, or the name of a DICOMweb server."))
    host: str
    port: int
    allow: tuple[Service, ...]
    tls: bool
    created_at: str
    kind: PeerKind
    url: str | None
    header_names: tuple[str, ...] = field(metadata=rule("Names of the headers that go with requests; their values are not shown."))
    transfer_syntaxes: tuple[str, ...]
    coercion_warnings: bool | None
    statistics: StatisticsView


@dataclass(frozen=True, slots=True)
class PeerList:
    """A page of the known peers, by title."""

    items: tuple[PeerView, ...]
    total: int
    next: str | None


@dataclass(frozen=True, slots=True)
class EchoView:
    """What came of a C-ECHO."""

    outcome: Literal["success", "failed"]
    duration_s: float
    detail: str = field(metadata=rule("The answer, or why there was none."))


def view_of(peer: peers.Peer, statistics: peers.Statistics) -> PeerView:
    """A peer as others see it: without its secrets."""
    return PeerView(
        peer.ae_title,
        peer.host,
        peer.port,
        peer.allow,  # type: ignore[arg-type]
        peer.tls,
        peer.created_at,
        peer.kind,  # type: ignore[arg-type]
        peer.url or None,
        tuple(peer.headers),
        peer.transfer_syntaxes,
        peer.coercion_warnings,
        StatisticsView(**dataclasses.asdict(statistics)),
    )


def _view(pacs: Pacs, peer: peers.Peer) -> PeerView:
    return view_of(peer, peers.statistics(pacs.catalog, peer.ae_title))


def _origin(request: Request) -> peers.Origin:
    return peers.Origin("api", address=request.address, actor=request.actor, request_id=request.request_id)


def list_peers(pacs: Pacs, request: Request) -> Reply:
    """A page of peers."""
    page = page_of(request, [_view(pacs, peer) for peer in peers.listed(pacs.catalog)], key=lambda peer: peer.ae_title)
    return json_reply(page)


def get_peer(pacs: Pacs, request: Request, ae_title: str) -> Reply:
    """One peer."""
    return json_reply(_view(pacs, peers.get(pacs.catalog, ae_title)))


def put_peer(pacs: Pacs, request: Request) -> Reply:
    """Adds or replaces a peer."""
    form = parse(PeerForm, request)
    title = form.ae_title or form.name or (urlsplit(form.url).hostname if form.kind == "dicomweb" and form.url else None) or ""
    given = form.transfer_syntaxes, form.coercion_warnings
    secrets = headers_of(form.headers, form.token, form.username, form.password)
    peer = peers.Peer(title, form.host, form.port, form.allow, form.tls, "", form.kind, form.url or "", secrets, *given)
    kept = peers.put(pacs.catalog, peer, _origin(request))
    return json_reply(_view(pacs, kept), 201, [("Location", f"{request.base_url}{ROOT}/peers/{quote(kept.ae_title)}")])


def patch_peer(pacs: Pacs, request: Request, ae_title: str) -> Reply:
    """Changes a peer."""
    form = parse(PeerPatch, request)
    changed: dict[str, Any] = {
        name: value
        for name, value in dataclasses.asdict(form).items()
        if value is not None and name not in ("token", "username", "password")
    }
    if any(value is not None for value in (form.headers, form.token, form.username)):
        changed["headers"] = headers_of(form.headers, form.token, form.username, form.password)
    kept = peers.put(pacs.catalog, replace(peers.get(pacs.catalog, ae_title), **changed), _origin(request))
    return json_reply(_view(pacs, kept))


def headers_of(headers: dict[str, str] | None, token: str | None, username: str | None, password: str | None) -> dict[str, str]:
    """The headers that carry the given secrets; raises InvalidForm."""
    made = dict(headers or {})
    if token is not None and username is not None:
        raise InvalidForm.at("token", "a user name is given too")
    if token is not None:
        made["Authorization"] = f"Bearer {token}"
    if username is not None:
        made["Authorization"] = "Basic " + base64.b64encode(f"{username}:{password or ''}".encode()).decode()
    return made


def remove_peer(pacs: Pacs, request: Request, ae_title: str) -> Reply:
    """Forgets a peer."""
    if not peers.remove(pacs.catalog, ae_title, _origin(request)):
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
        "The known remote application entities and DICOMweb servers",
        "peers",
        {200: PeerList},
        Right.ADMIN,
        parameters=PAGE,
    ),
    Operation(
        "POST",
        "/peers",
        put_peer,
        "Add or replace a peer",
        "peers",
        {201: PeerView},
        Right.ADMIN,
        form=PeerForm,
    ),
    Operation(
        "GET",
        "/peers/{ae_title}",
        get_peer,
        "One peer, with what has passed between it and this server",
        "peers",
        {200: PeerView},
        Right.ADMIN,
        problems=(404,),
    ),
    Operation(
        "PATCH",
        "/peers/{ae_title}",
        patch_peer,
        "Change a peer",
        "peers",
        {200: PeerView},
        Right.ADMIN,
        form=PeerPatch,
        problems=(404,),
    ),
    Operation("DELETE", "/peers/{ae_title}", remove_peer, "Forget a peer", "peers", {204: None}, Right.ADMIN, problems=(404,)),
    Operation(
        "POST",
        "/peers/{ae_title}/echo",
        echo_peer,
        "Send a C-ECHO, or ask a DICOMweb server",
        "peers",
        {200: EchoView},
        Right.ADMIN,
        problems=(404,),
    ),
)
