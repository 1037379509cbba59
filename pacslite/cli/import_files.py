"""`pacslite import-files`: takes over the files that another service has kept."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from pacslite.cli.options import json_option, load, local_user, open_pacs, say, settings_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacslite.core.file_import import Summary
    from pacslite.core.import_taking import Outcome

_SHOWN_REFUSALS = 20
_LAYOUTS = ("patients", "media", "images", "radiology")


@click.command("import-files")
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path))
@click.option("--layout", type=click.Choice(_LAYOUTS), required=True, help="How the tree is built.")
@click.option("--mapping", type=click.Path(dir_okay=False, path_type=Path), help="CSV or JSON: whose files are, of which type, from when.")
@click.option(
    "--copy/--move", "copy", default=True, help="Leave the files where they are (default), or erase each once it is kept for sure."
)
@click.option("--create-patients", is_flag=True, help="Make patients whose numbers nobody knows yet.")
@click.option("--patient-numbers", "numbers", type=click.Choice(("mrn", "id")), default="mrn", help="What numbers in the tree are.")
@click.option("--issuer", help="Issuer of these numbers (else default_issuer).")
@click.option("--patient", "patient_id", type=click.IntRange(min=1), help="Our number of the patient of all files that tell none.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write what became of each file: .csv, else JSON.")
@click.option("--dry-run", is_flag=True, help="Take nothing in, tell what would be.")
@click.option("--anew", is_flag=True, help="Look at files again that an interrupted import has finished.")
@settings_options
@json_option
def import_files(
    path: Path,
    layout: str,
    mapping: Path | None,
    copy: bool,
    report: Path | None,
    config_file: str | None,
    data: str | None,
    as_json: bool,
    **wishes: Any,
) -> int:
    """Take over the photos, models, documents and DICOM files below PATH.

    The same bytes are taken once for each patient, however often this runs. Exit 0 when every file is in the server, 1 when some
    were refused, 2 when there was none.
    """
    from pacslite.cli.progress import Bar
    from pacslite.core.file_import import Wishes, import_tree
    from pacslite.core.files import Owner
    from pacslite.core.import_layouts import Layout
    from pacslite.core.import_mapping import FileMapping, read_mapping

    told = read_mapping(mapping) if mapping is not None else FileMapping()
    digest = hashlib.sha256(mapping.read_bytes()).hexdigest() if mapping is not None else ""
    wanted = Wishes(Layout(layout), told, digest, move=not copy, **wishes)
    pacs = open_pacs(load(config_file, data))
    try:
        with _reporting(report) as note, Bar("looking" if wanted.dry_run else "importing") as bar:
            summary = import_tree(pacs, path, wanted, Owner(None, local_user()), progress=bar.update, note=note)
    finally:
        pacs.close()
    shown = dataclasses.asdict(summary) | {"refusals": [outcome.row for outcome in summary.refusals]}
    say(as_json, shown, _told(summary))
    return summary.exit_code


@contextlib.contextmanager
def _reporting(path: Path | None) -> Iterator[Callable[[Outcome], None]]:
    """Writes outcomes as they come, so that of a killed import there is a report too."""
    if path is None:
        yield lambda _: None
        return
    try:
        file = path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise click.UsageError(f"the report cannot be written: {error.strerror}") from None
    with file:
        yield from _csv(file) if path.suffix.lower() == ".csv" else _json(file)


def _csv(file: IO[str]) -> Iterator[Callable[[Outcome], None]]:
    from pacslite.core.import_taking import Outcome

    writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Outcome) if field.name != "key"])
    writer.writeheader()
    file.flush()

    def note(outcome: Outcome) -> None:
        writer.writerow({name: _plain(value) for name, value in outcome.row.items()})
        file.flush()

    yield note


def _plain(value: Any) -> Any:
    """Text that a spreadsheet does not take for a formula."""
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _json(file: IO[str]) -> Iterator[Callable[[Outcome], None]]:
    separator = "[\n"

    def note(outcome: Outcome) -> None:
        nonlocal separator
        file.write(separator + json.dumps(outcome.row, ensure_ascii=False))
        file.flush()
        separator = ",\n"

    try:
        yield note
    finally:
        file.write("\n]\n" if separator == ",\n" else "[]\n")


_COUNTS = (
    ("stored", "stored"),
    ("would_store", "would be stored"),
    ("duplicate", "already there"),
    ("resumed", "finished by the import before"),
    ("erased", "erased where they were"),
    ("skipped", "passed over: smaller pictures, links, what systems leave behind"),
    ("refused", "refused"),
    ("patients_created", "patients made"),
)


def _told(summary: Summary) -> str:
    counts = [f"{getattr(summary, name)} {words}" for name, words in _COUNTS if getattr(summary, name)]
    refused = [f"  {one.path}: {one.reason}" for one in summary.refusals[:_SHOWN_REFUSALS]]
    if summary.refused > len(refused):
        refused.append(f"  and {summary.refused - len(refused)} more")
    return "\n".join([", ".join(counts) or "no file found", *refused])
