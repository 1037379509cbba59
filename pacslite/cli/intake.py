"""`pacslite import` and `pacslite samples`."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pacslite.cli.options import json_option, load, open_pacs, say, settings_options

if TYPE_CHECKING:
    from pacslite.core.importer import Summary

_SHOWN_REFUSALS = 20


@click.command("import")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
@click.option("--resume", is_flag=True, help="Skip the files that an interrupted import of this catalog has finished.")
@settings_options
@json_option
def import_command(paths: tuple[Path, ...], resume: bool, config_file: str | None, data: str | None, as_json: bool) -> int:
    """Take in files and folders (with all below them) of DICOM instances; other files are passed over.

    Exit 0 when every instance is in the server, 1 when some were refused, 2 when there was none.
    """
    from pacslite.cli.progress import Bar
    from pacslite.core.importer import import_paths

    pacs = open_pacs(load(config_file, data))
    with Bar("importing") as bar:
        summary = import_paths(pacs, paths, resume=resume, progress=bar.update)
    pacs.close()
    say(as_json, dataclasses.asdict(summary), _told(summary))
    return summary.exit_code


@click.command()
@settings_options
@json_option
def samples(config_file: str | None, data: str | None, as_json: bool) -> int:
    """Take in a small sample: CT, MR, colour ultrasound and a report that the program draws, and test files that pydicom ships."""
    from pacslite.cli.progress import Bar
    from pacslite.core.importer import import_paths
    from pacslite.samples import generate

    pacs = open_pacs(load(config_file, data))
    with tempfile.TemporaryDirectory(prefix=".samples-", dir=pacs.settings.data) as scratch:
        with Bar("drawing the sample") as bar:
            generate(Path(scratch), bar.update)
        with Bar("taking it in") as bar:
            summary = import_paths(pacs, [Path(scratch)], progress=bar.update)
    pacs.close()
    say(as_json, dataclasses.asdict(summary), _told(summary))
    return summary.exit_code


_COUNTS = (
    ("stored", "stored"),
    ("already_there", "already there"),
    ("new_versions", "new versions"),
    ("repaired", "repaired"),
    ("kept_first", "differ from what is there, which is kept"),
    ("resumed", "finished by the import before"),
    ("refused", "refused"),
    ("not_dicom", "passed over, not DICOM"),
    ("dicomdirs", "passed over, DICOMDIR"),
)


def _told(summary: Summary) -> str:
    counts = [f"{getattr(summary, name)} {words}" for name, words in _COUNTS if getattr(summary, name)]
    lines = [", ".join(counts) or "There is no DICOM instance in what was given."]
    lines += [f"  refused {refusal.path}: {refusal.reason}" for refusal in summary.refusals[:_SHOWN_REFUSALS]]
    if summary.refused > _SHOWN_REFUSALS:
        lines.append(f"  and {summary.refused - _SHOWN_REFUSALS} more; --json lists them all")
    return "\n".join(lines)
