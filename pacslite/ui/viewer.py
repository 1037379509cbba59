"""The OHIF viewer over HTTP, under `/viewer/`: its files, its configuration made on the fly, the headers it needs.

Only files on the list that `viewer_package.install` wrote are ever opened, so no path of a request reaches the disk.
"""

from __future__ import annotations

import html
import json
from functools import lru_cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pacslite.core.access import Right
from pacslite.errors import NotFound, Unauthenticated
from pacslite.ui import viewer_package
from pacslite.ui.pages import login_path, prefix_of, redirect
from pacslite.ui.viewer_package import Installed, ViewerFile
from pacslite.web.authentication import principal_of
from pacslite.web.encodings import takes_gzip
from pacslite.web.messages import FileBody, Headers, Reply, Request, Route

if TYPE_CHECKING:
    from pacslite.app import Pacs

_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".webapp": "application/manifest+json",
    ".xml": "application/xml",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}
# SharedArrayBuffer, which the viewer decodes and reconstructs with, exists only on isolated pages; the scripts of its
# workers must carry the same. The policy lets it reach this origin alone; it compiles code and makes styles, pictures,
# documents and workers of its own (data:, blob:).
_HEADERS: Headers = [
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Embedder-Policy", "require-corp"),
    (
        "Content-Security-Policy",
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
        "object-src 'self' blob:; frame-src 'self' blob:; frame-ancestors 'self'; base-uri 'self'; form-action 'self'",
    ),
]
# A login that is over while the viewer is open: the page comes back to where it was.
_TO_LOGIN = """window.config.httpErrorHandler = error => {
  if (error && error.status === 401) {
    window.location.assign("%LOGIN%?next=" + encodeURIComponent(window.location.pathname + window.location.search));
  }
};
"""
_DATA_SOURCE = "@ohif/extension-default.dataSourcesModule.dicomweb"
_ONE_YEAR = "public, max-age=31536000, immutable"


def base_path(request: Request) -> str:
    """The path of the viewer as the caller sees it, with a final slash."""
    return prefix_of(request) + "/viewer/"


def without_slash(pacs: Pacs, request: Request) -> Reply:
    """Leads from `/viewer` to the viewer; what was asked for stays."""
    query = request.environ.get("QUERY_STRING", "")
    return _redirect(308, base_path(request) + (f"?{query}" if query else ""))


def _redirect(status: int, location: str) -> Reply:
    return Reply(status, [("Location", location), ("Cache-Control", "no-cache")])


def configuration(pacs: Pacs, request: Request) -> Reply:
    """`app-config.js`: the roots are paths of the same origin, as the caller sees them."""
    script = f"window.config = {json.dumps(config(request), indent=2)};\n"
    if pacs.settings.auth:
        script += _TO_LOGIN.replace("%LOGIN%", prefix_of(request) + "/login")
    return Reply(200, [("Content-Type", _TYPES[".js"]), ("Cache-Control", "no-store"), *_HEADERS], script.encode())


def config(request: Request) -> dict[str, Any]:
    """The viewer's configuration for a caller."""
    source = _source(prefix_of(request) + "/dicom-web")
    return {
        "name": "pacslite",
        "routerBasename": base_path(request),
        "extensions": [],
        "modes": [],
        # The tour for new users starts before there is a picture to point at, and then stays in the way.
        "customizationService": {"ohif.tours": {"$set": []}},
        "showStudyList": True,
        "maxNumberOfWebWorkers": 3,
        "showWarningMessageForCrossOrigin": False,
        "showCPUFallbackMessage": False,
        "showLoadingIndicator": True,
        "strictZSpacingForVolumeViewport": True,
        "groupEnabledModesFirst": True,
        "investigationalUseDialog": {"option": "never"},
        "maxNumRequests": {"interaction": 100, "thumbnail": 75, "prefetch": 25},
        "defaultDataSourceName": "dicomweb",
        "dataSources": [{"namespace": _DATA_SOURCE, "sourceName": "dicomweb", "configuration": source}],
    }


def _source(root: str) -> dict[str, Any]:
    """Where the viewer gets its studies from, and what may be asked there."""
    return {
        "friendlyName": "pacslite",
        "name": "pacslite",
        "qidoRoot": root,
        "wadoRoot": root,
        "wadoUriRoot": root,
        "qidoSupportsIncludeField": True,
        "supportsReject": False,
        "supportsStow": True,
        "dicomUploadEnabled": True,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "staticWado": False,
        "omitQuotationForMultipartRequest": True,
        "singlepart": "bulkdata,video",
        "bulkDataURI": {"enabled": True},
    }


def file(pacs: Pacs, request: Request, path: str = "") -> Reply:
    """One file of the viewer; its page for every path that names none, as a single-page application needs, after a login.

    Raises NotFound for names of files that are not there.
    """
    viewer = _installed(pacs.settings.data)
    if viewer is not None and path in viewer.files and path != "index.html":
        return _file(request, viewer.directory / path, viewer.files[path])
    if "." in PurePosixPath(path).name and path != "index.html":
        raise NotFound("The viewer has no such file.")
    if pacs.settings.auth and not _is_known(pacs, request):
        query = request.environ.get("QUERY_STRING", "")
        return redirect(login_path(request, prefix_of(request) + quote(request.path) + (f"?{query}" if query else "")))
    return _absent() if viewer is None else _page(request, viewer)


def _is_known(pacs: Pacs, request: Request) -> bool:
    """Whether the page has somebody to show studies to."""
    try:
        return principal_of(pacs, request) is not None
    except Unauthenticated:
        return False


def _installed(data: Path) -> Installed | None:
    listed = viewer_package.directory_of(data) / viewer_package.LIST_NAME
    try:
        changed_at = listed.stat().st_mtime_ns
    except OSError:
        return None  # not installed
    return _read_list(data, changed_at)


@lru_cache(maxsize=4)
def _read_list(data: Path, changed_at: int) -> Installed | None:
    """The list of files as it was at a time: read once, and again when it is installed anew."""
    return viewer_package.installed(data)


def _page(request: Request, viewer: Installed) -> Reply:
    page = (viewer.directory / "index.html").read_text().replace(viewer_package.BASE_MARK, html.escape(base_path(request)))
    return Reply(200, [("Content-Type", _TYPES[".html"]), ("Cache-Control", "no-cache"), *_HEADERS], page.encode())


def _absent() -> Reply:
    page = files("pacslite.ui").joinpath("no_viewer.html").read_text().replace("%VERSION%", viewer_package.VERSION)
    policy = (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    )
    return Reply(503, [("Content-Type", _TYPES[".html"]), ("Cache-Control", "no-store"), policy], page.encode())


def _file(request: Request, path: Path, found: ViewerFile) -> Reply:
    etag, size = found.digest, found.size_bytes
    headers: Headers = [
        ("Content-Type", _TYPES.get(path.suffix, "application/octet-stream")),
        ("Cache-Control", _ONE_YEAR if found.fixed else "no-cache"),
        *_HEADERS,
    ]
    if found.gzip_bytes is not None:
        headers.append(("Vary", "Accept-Encoding"))
        if takes_gzip(request):
            path, size, etag = path.with_name(path.name + ".gz"), found.gzip_bytes, etag + "-gz"
            headers.append(("Content-Encoding", "gzip"))
    headers.append(("ETag", f'"{etag}"'))
    return Reply(200, headers, FileBody(path, 0, size))


ROUTES = (
    Route("GET", "/viewer", without_slash, Right.PUBLIC),
    Route("GET", "/viewer/", file, Right.PUBLIC),
    Route("GET", "/viewer/app-config.js", configuration, Right.PUBLIC),
    Route("GET", "/viewer/<path:path>", file, Right.PUBLIC),
)
