"""`pacslite upload`: files to a server that may be elsewhere, which go on where they broke off."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import click

from pacslite.cli.options import json_option, load, say, settings_options

if TYPE_CHECKING:
    from pacslite.cli.progress import Bar
    from pacslite.settings import Settings
    from pacslite.webclient.tus import Told, TusServer

_PIECE_BYTES = 256 * 1024
_PAUSES_S = (0.5, 1, 2, 4, 8)
_PASSING = frozenset({408, 423, 425, 429, 500, 502, 503, 504})
_STORED, _REFUSED, _BROKEN = "stored", "refused", "unfinished"
_TYPES = (
    "photo xray panoramic ct_scan dicom mri stl_model obj_model ply_model pdf document report video".split()  # noqa: SIM905
)
_CATEGORIES = ("clinical", "diagnostic", "treatment", "surgical")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file."""

    path: str
    outcome: str
    bytes: int
    resumed_from: int = 0
    file_id: str | None = None
    problem: str | None = None


@click.command("upload")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--patient", required=True, type=click.IntRange(1), help="Patient the files are of: `id` of GET /api/v1/patients?q=NAME, not the mrn."
)
@click.option("--file-type", type=click.Choice(_TYPES), help="Kind of the files; else what their names end in says.")
@click.option("--medical-category", type=click.Choice(_CATEGORIES), help="In what part of the care they were made.")
@click.option("--study-date", help="Day they were made, YYYY-MM-DD.")
@click.option("--body-part", help="What they show.")
@click.option("--description", help="What there is to say of them.")
@click.option("--study-instance-uid", help="Study they belong to.")
@click.option("--server", envvar="PACSLITE_SERVER", help="URL of the server (else PACSLITE_SERVER, public_url, or what runs on --data).")
@click.option("--token-file", type=click.File(), help="File with an API token, - for stdin; else it is taken from PACSLITE_TOKEN.")
@settings_options
@json_option
def upload(paths: tuple[Path, ...], server: str | None, token_file: TextIO | None, as_json: bool, **given: Any) -> int:
    """Send files, and all files below folders, to a server, by tus 1.0.0; run again it goes on where it broke off.

    Exit 0 when every file is stored, 1 when some were refused, 3 when the server was lost on the way.
    """
    from pacslite.cli import EXIT_IMPOSSIBLE, EXIT_NO
    from pacslite.cli.progress import Bar
    from pacslite.webclient.tus import TusServer

    settings = load(given.pop("config_file"), given.pop("data"))
    url = _url(server or settings.public_url or _local(settings))
    _check_date(given["study_date"])
    fields = {"patient_id": str(given.pop("patient")), **{name: str(value) for name, value in given.items() if value is not None}}
    token = token_file.read().strip() if token_file else os.environ.get("PACSLITE_TOKEN", "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    files, outcomes = list(_files(paths)), []
    with closing(TusServer(url, headers)) as there, Bar("uploading", _mebibytes) as bar:
        for number, path in enumerate(files, 1):
            label = f"{path.name} ({number}/{len(files)})" if len(files) > 1 else path.name
            outcomes.append(_Sending(there, url, path, fields, bar, label, bool(token)).run())
            if outcomes[-1].outcome == _BROKEN:
                break
    say(as_json, {"items": [asdict(one) for one in outcomes]}, _told(outcomes, len(files)))
    if any(one.outcome == _BROKEN for one in outcomes):
        return EXIT_IMPOSSIBLE
    return EXIT_NO if any(one.outcome == _REFUSED for one in outcomes) else 0


class _Sending:
    """One file on its way."""

    def __init__(self, server: TusServer, url: str, path: Path, fields: Mapping[str, str], bar: Bar, label: str, has_token: bool) -> None:
        self._server, self._path, self._bar, self._label = server, path, bar, label
        self._fields = {"file_type": _type_of(path), **fields, "filename": path.name}
        self._url, self._has_token = url, has_token
        self._known = _Known(url, path, self._fields)
        self._size = path.stat().st_size
        self._sent = self._resumed = 0

    def run(self) -> Outcome:
        """Send it, with some patience for what passes."""
        from pacslite.errors import PeerError

        # A server that was never reached is not waited for as one that was lost.
        pauses, before = iter(_PAUSES_S if self._known.url else _PAUSES_S[:2]), 0
        if not self._fields["file_type"]:
            return Outcome(str(self._path), _REFUSED, 0, problem="its name does not tell what kind of file it is; --file-type does")
        while True:
            told, problem = None, ""
            try:
                told = self._try()
            except PeerError as error:
                problem = str(error)
            if told is not None and told.status not in _PASSING:
                return self._outcome(told)
            if self._sent > before:  # it goes on, if by pieces
                before, pauses = self._sent, iter(_PAUSES_S)
            pause = next(pauses, None)
            if pause is None:
                problem = problem or f"{self._server.host}: HTTP status {told.status if told else 0}: {told.detail if told else ''}"
                return Outcome(str(self._path), _BROKEN, self._sent, self._resumed, problem=problem)
            time.sleep(pause)  # for the server's sake: nothing tells when it is back

    def _try(self) -> Told:
        """One attempt: the answer that ends the file, or one that may be otherwise in a while."""
        url = self._known.url
        told = self._server.head(url) if url else None
        if told is None or told.status in (403, 404, 410):  # expired, ended, or the server has another catalog now
            url, told = self._server.begin(self._size, self._fields)
            if not url:
                return told
            self._known.keep(url)
            offset = 0
        elif told.status != 200 or told.offset is None:
            return told
        else:
            offset = self._resumed = told.offset
        if told.file_id is not None:
            return told
        with self._path.open("rb") as file:
            file.seek(offset)
            told = self._server.append(url, offset, self._size - offset, self._pieces(file, offset))
        # 409 is of the offset, or of the file; after the latter there is no upload any more.
        return self._try() if told.status == 409 and self._server.head(url).status == 200 else told

    def _pieces(self, file: BinaryIO, offset: int) -> Iterator[bytes]:
        self._bar.step(self._label, offset, self._size)
        left = self._size - offset
        while left and (piece := file.read(min(left, _PIECE_BYTES))):
            left -= len(piece)
            yield piece
            self._sent = self._size - left
            self._bar.step(self._label, self._sent, self._size)

    def _outcome(self, told: Told) -> Outcome:
        if told.status in (200, 201, 204) and told.file_id is not None:
            self._known.forget()
            return Outcome(str(self._path), _STORED, self._size, self._resumed, told.file_id)
        if told.status == 401:
            known = "does not know this token, or it has ended" if self._has_token else "wants a login"
            raise click.UsageError(f"{self._server.host} {known}: give an API token with --token-file or PACSLITE_TOKEN.")
        if told.status == 404 and not self._known.url:
            raise click.UsageError(f"--server: {self._url} takes no uploads: {told.detail or 'HTTP status 404'}")
        if told.status != 507:
            self._known.forget()
        problem = told.detail or f"HTTP status {told.status}"
        return Outcome(str(self._path), _REFUSED, self._sent, self._resumed, problem=problem)


class _Known:
    """Where an upload of the same file, for the same patient and server, was begun before: a file of the user's own."""

    def __init__(self, server: str, path: Path, fields: Mapping[str, str]) -> None:
        import hashlib

        found = path.stat()
        told = [server, os.fspath(path.resolve()), found.st_size, found.st_mtime_ns, sorted(fields.items())]
        home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "pacslite" / "uploads"
        self._file = home / hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]

    @property
    def url(self) -> str:
        """Its URL, "" when there is none."""
        try:
            return self._file.read_text().strip()
        except OSError:
            return ""

    def keep(self, url: str) -> None:
        """Remember it; without a place for that nothing can be resumed by another run."""
        with suppress(OSError):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file.write_text(url)

    def forget(self) -> None:
        """It is over."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)


def _local(settings: Settings) -> str:
    """The server that runs on the data of the settings, which may be at another address than theirs."""
    from pacslite import run_state

    running = (state.http for state in run_state.read_all(settings.data) if state.http)
    return f"http://{next(running, settings.http.text)}"


def _check_date(given: str | None) -> None:
    with suppress(ValueError):
        if given is None or date.fromisoformat(given).isoformat() == given:
            return
    raise click.UsageError(f"--study-date: {given!r} is no date (YYYY-MM-DD)")


def _url(text: str) -> str:
    from urllib.parse import urlsplit

    found = urlsplit(text)
    if found.scheme not in ("http", "https") or not found.netloc or found.query or found.fragment:
        raise click.UsageError(f"--server: {text!r} is not http(s)://HOST[:PORT][/PREFIX]")
    return text.rstrip("/")


def _files(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
        else:
            yield path


def _type_of(path: Path) -> str:
    """The kind of file that its name tells; the server says whether it is one."""
    from pacslite.core.file_kinds import DICOM, DOCUMENTS, KINDS, OBJ, PDF, PICTURES, PLY, STL, VIDEOS

    extension = path.suffix.lower()
    kind = next((one for one in KINDS if extension in one.extensions), None)
    one_of = {DICOM: "dicom", STL: "stl_model", OBJ: "obj_model", PLY: "ply_model", PDF: "pdf"}
    if kind in one_of:
        return one_of[kind]
    return "photo" if kind in PICTURES else "video" if kind in VIDEOS else "document" if kind in DOCUMENTS else ""


def _mebibytes(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB"


def _told(outcomes: list[Outcome], wanted: int) -> str:
    stored = [one for one in outcomes if one.outcome == _STORED]
    lines = [f"{len(stored)} of {wanted} files stored ({_mebibytes(sum(one.bytes for one in stored))})"]
    lines += [f"  {one.path}: went on behind {_mebibytes(one.resumed_from)}" for one in stored if one.resumed_from]
    lines += [f"  refused {one.path}: {one.problem}" for one in outcomes if one.outcome == _REFUSED]
    for one in outcomes:
        if one.outcome == _BROKEN:
            lines.append(f"  {one.path}: {one.problem}; run the same command again to go on")
    return "\n".join(lines)
