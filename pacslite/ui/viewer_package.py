"""The OHIF viewer on this machine: fetched once as a pinned npm package, trimmed, made independent of its base path.

The package is a prebuilt single-page application with `/` built in. After `install` its scripts and style sheet find
their files beside themselves, and `index.html` holds a mark where the server puts the base path of the request, so one
installed viewer serves any path prefix. It lies in `<data>/viewer/<version>/`, with a list of its files.
"""

from __future__ import annotations

import base64
import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from pacslite.errors import Unavailable

PACKAGE = "@ohif/app"
VERSION = "3.12.10"
# SHA-512 of the tarball, as the registry and a package-lock.json state it.
INTEGRITY = "0kuF66Mq9c9dMD++bUsTjMrJpXJwaZhz9B4uS244DawAjSkTwIYFU93pxPuRUQixaRi7QAHlF3Fe1qudBlZrmA=="
# Counts what `install` does to the files: an installed viewer of another revision is made anew.
REVISION = 3

BASE_MARK = "%PACSLITE_VIEWER_BASE%"
LIST_NAME = "viewer.json"
_FETCH_TIMEOUT_S = 600
_COMPRESS_FROM_BYTES = 2048
_COMPRESSED = frozenset({".js", ".css", ".wasm", ".svg", ".json", ".xml"})

# What the viewer needs of the package; dicom-microscopy-viewer/ shows whole slides. Left out: ort/ (136 MB, AI segmentation),
# source maps, the service worker (loads scripts from a public host), OIDC and hosting files, and the default app-config.js.
_NEEDED = re.compile(
    r"[\w-]+\.bundle(?:\.[0-9a-f]+)?\.(?:js|css)|\d+\.css|[0-9a-f]+\.(?:wasm|woff2)"
    r"|index\.html|manifest\.json|init-service-worker\.js|ohif-logo(?:-light)?\.svg|assets/[\w./-]+"
    r"|dicom-microscopy-viewer/\w+(?:\.worker)?(?:\.min)?\.(?:js|wasm)"
)
_HASHED = re.compile(r"(?:.*\.)?[0-9a-f]{20}\.\w+")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class ViewerFile:
    """One file that may be served. `fixed`: its name holds a hash of its content, so it may be cached for ever."""

    size_bytes: int
    digest: str
    fixed: bool
    gzip_bytes: int | None


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed viewer: its directory and all its files by name."""

    directory: Path
    files: dict[str, ViewerFile]


def directory_of(data: Path) -> Path:
    """Where the viewer of this version lies."""
    return data / "viewer" / VERSION


def installed(data: Path) -> Installed | None:
    """The installed viewer, or None when there is none that this version of pacslite made."""
    directory = directory_of(data)
    try:
        listed = json.loads((directory / LIST_NAME).read_bytes())
    except (OSError, ValueError):
        return None  # not there, or cut short: installing makes it anew
    if listed.get("revision") != REVISION:
        return None
    return Installed(directory, {name: ViewerFile(**file) for name, file in listed["files"].items()})


def _silent(_step: str, _done: int, _total: int) -> None:
    """The progress of callers that show none."""


def install(data: Path, *, tarball: Path | None = None, progress: Progress = _silent) -> Installed:
    """The viewer in `data`, fetched with npm (or taken from `tarball`) unless it is there already.

    `progress` gets a step ("fetching", "unpacking") with done and total. Raises Unavailable with what to do about it.
    """
    home = (data / "viewer").resolve()  # npm runs in a directory of its own
    try:
        home.mkdir(mode=0o750, parents=True, exist_ok=True)
        with _alone(home / ".lock"):
            present = installed(data)
            if present is not None:
                return present
            with tempfile.TemporaryDirectory(prefix=".new-", dir=home) as scratch:
                source = tarball or _fetch(Path(scratch), progress)
                _check_integrity(source)
                made = Path(scratch) / "viewer"
                made.mkdir(mode=0o750)
                _unpack(source, made, progress)
                _put_in_place(made, directory_of(data), Path(scratch))
    except OSError as error:
        raise Unavailable(f"The viewer cannot be installed in {home}: {error.strerror or error}.") from error
    present = installed(data)
    if present is None:
        raise Unavailable(f"The viewer in {home} is not whole; delete that directory and install again.")
    return present


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Waits until no other process installs."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _put_in_place(made: Path, target: Path, scratch: Path) -> None:
    if target.exists():
        target.rename(scratch / "old")
    made.rename(target)


def _fetch(scratch: Path, progress: Progress) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable(
            "npm is not on PATH, so the viewer cannot be fetched. Install Node.js with npm and run `pacslite viewer install`; "
            f"or fetch the tarball elsewhere with `npm pack {PACKAGE}@{VERSION}` and name it with --tarball."
        )
    progress("fetching", 0, 1)
    _run([npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--pack-destination", str(scratch)], scratch)
    packed = list(scratch.glob("*.tgz"))
    if len(packed) != 1:
        raise Unavailable(f"npm gave {len(packed)} files for {PACKAGE}@{VERSION} instead of one.")
    progress("fetching", 1, 1)
    return packed[0]


def _run(command: list[str], directory: Path) -> None:
    """Runs npm in a session of its own, so that a time-out ends its children too."""
    process = subprocess.Popen(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=_FETCH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"npm did not fetch {PACKAGE}@{VERSION} within {_FETCH_TIMEOUT_S} s.") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        errors = [line.removeprefix("npm error ").strip() for line in said.splitlines() if line.startswith("npm error ")]
        raise Unavailable(f"npm could not fetch {PACKAGE}@{VERSION}: {'; '.join(errors[:3]) or f'exit code {process.returncode}'}.")


def _check_integrity(tarball: Path) -> None:
    with tarball.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    if base64.b64encode(digest).decode() != INTEGRITY:
        raise Unavailable(f"{tarball.name} is not {PACKAGE} {VERSION} as published: its SHA-512 is another. Nothing was installed.")


def _unpack(tarball: Path, target: Path, progress: Progress) -> None:
    with tarfile.open(tarball, "r:gz") as archive:
        members = archive.getmembers()
        _check_package(archive)
        files: dict[str, ViewerFile] = {}
        for done, member in enumerate(members, 1):
            name = member.name.removeprefix("package/dist/")
            if member.isfile() and name != member.name and _is_needed(name):
                files[name] = _write(target, name, _read(archive, member))
            progress("unpacking", done, len(members))
        (target / "LICENSE").write_bytes(_read(archive, archive.getmember("package/LICENSE")))
    _check_complete(files)
    listed = {"package": PACKAGE, "version": VERSION, "revision": REVISION, "files": {name: asdict(file) for name, file in files.items()}}
    (target / LIST_NAME).write_text(json.dumps(listed, indent=1))


def _is_needed(name: str) -> bool:
    """Whether the viewer needs the file; never a name that leads out of its directory."""
    return _NEEDED.fullmatch(name) is not None and ".." not in PurePosixPath(name).parts


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file: IO[bytes] | None = archive.extractfile(member)
    assert file is not None, "members are asked for isfile() before"
    return file.read()


def _check_package(archive: tarfile.TarFile) -> None:
    described = json.loads(_read(archive, archive.getmember("package/package.json")))
    if (described.get("name"), described.get("version")) != (PACKAGE, VERSION):
        raise Unavailable(f"The package is {described.get('name')} {described.get('version')}, not {PACKAGE} {VERSION}.")


def _check_complete(files: dict[str, ViewerFile]) -> None:
    missing = {"index.html", "app.bundle.css", "manifest.json", "init-service-worker.js"} - set(files)
    if missing:
        raise Unavailable(f"The package lacks {', '.join(sorted(missing))}.")


def _write(target: Path, name: str, original: bytes) -> ViewerFile:
    content = mended(name, original)
    path = target / name
    path.parent.mkdir(mode=0o750, exist_ok=True)
    path.write_bytes(content)
    gzip_bytes = None
    if path.suffix in _COMPRESSED and len(content) >= _COMPRESS_FROM_BYTES:
        packed = gzip.compress(content, 8, mtime=0)
        path.with_name(path.name + ".gz").write_bytes(packed)
        gzip_bytes = len(packed)
    # A file that was rewritten no longer is what the hash in its name says: browsers must ask again.
    fixed = content == original and _HASHED.fullmatch(name) is not None
    return ViewerFile(len(content), hashlib.sha256(content).hexdigest()[:32], fixed, gzip_bytes)


# The main script and its workers: each finds the others beside itself.
_PUBLIC_PATH = b'__webpack_require__.p = "/";'
_OWN_PATH = (
    b'__webpack_require__.p = new URL(".", typeof document !== "undefined" && document.currentScript'
    b" ? document.currentScript.src : self.location.href).href;"
)

# The viewer of whole slides is loaded beside the main script too.
_SLIDES = b"browserImportFunction('/dicom-microscopy-viewer/"
_OWN_SLIDES = b"browserImportFunction(__webpack_require__.p + 'dicom-microscopy-viewer/"

# Two modules ask for Node's `__filename` when no script is current, as when a style sheet arrives after the scripts that
# wait for it: an error that leaves the page blank.
_NODE_NAME = b"true&&(e=e||__filename)"
_PAGE_NAME = b"true&&(e=e||self.location.href)"


def mended(name: str, content: bytes) -> bytes:
    """A file of the package without the `/` that was built in as its base path, and without what breaks in a browser."""
    if name == "index.html":
        return _rebased_page(content)
    if name.endswith(".js"):
        return content.replace(_PUBLIC_PATH, _OWN_PATH).replace(_NODE_NAME, _PAGE_NAME).replace(_SLIDES, _OWN_SLIDES)
    if name.endswith(".css"):
        return content.replace(b"url(/", b"url(")
    if name == "manifest.json":
        return content.replace(b'"/assets/', b'"assets/')
    if name.startswith("assets/") and name.endswith((".json", ".webapp", ".xml")):
        return content.replace(b'"/assets/', b'"')
    return content


def _rebased_page(content: bytes) -> bytes:
    mark = BASE_MARK.encode()
    content = content.replace(b"window.PUBLIC_URL = '/';", b"window.PUBLIC_URL = '" + mark + b"';")
    return re.sub(rb'\b(href|src|content)="/', rb'\1="' + mark, content)
