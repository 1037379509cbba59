"""`pacslite migrate`, `verify`, `reindex` and `cleanup`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from pacslite.cli import EXIT_NO
from pacslite.cli.options import json_option, load, open_pacs, say, settings_options

if TYPE_CHECKING:
    from pacslite.core.reindex import ReindexReport
    from pacslite.core.verify import VerifyReport

_SHOWN = 50


@click.command()
@click.option("--check", "only_check", is_flag=True, help="Change nothing; exit 1 when the schema is not this release's.")
@settings_options
@json_option
def migrate(only_check: bool, config_file: str | None, data: str | None, as_json: bool) -> int:
    """Create the catalog, or bring it to this release's schema; nothing is done when it is there."""
    from pacslite import app
    from pacslite.catalog.models import REVISION

    settings = load(config_file, data)
    if only_check and settings.database_url is None and not (settings.data / "catalog.db").exists():
        # A look must not leave an empty catalog in a directory that may be a mistyped one.
        say(as_json, {"before": None, "revision": None, "needed": REVISION, "up_to_date": False}, _behind(None, REVISION))
        return EXIT_NO
    app.prepare_directories(settings)
    catalog = app.build_catalog(settings)
    try:
        before = catalog.revision()
        if not only_check:
            catalog.migrate()
        after = catalog.revision()
    finally:
        catalog.close()
    value = {"before": before, "revision": after, "needed": REVISION, "up_to_date": after == REVISION}
    if after == REVISION:
        say(as_json, value, f"The catalog has schema {after}." if before == after else f"The catalog now has schema {after}.")
        return 0
    say(as_json, value, _behind(after, REVISION))
    return EXIT_NO


def _behind(found: str | None, needed: str) -> str:
    return f"The catalog has schema {found or 'none'}, this release needs {needed}; `pacslite migrate` brings it there."


@click.command()
@click.option("--quick", "depth", flag_value="quick", default=True, help="Every blob is there with the right size (default).")
@click.option("--deep", "depth", flag_value="deep", help="Also read every blob: its SHA-256, and that it is what the catalog says.")
@click.option("--repair", is_flag=True, help="Replace damaged blobs by a second copy, or put them aside until they are sent again.")
@settings_options
@json_option
def verify(depth: str, repair: bool, config_file: str | None, data: str | None, as_json: bool) -> int:
    """Compare the catalog with every storage, instances and files. May run beside a server. Exit 1 when a row lacks its bytes."""
    from pacslite.cli.progress import Bar
    from pacslite.core.ingest import read_limits
    from pacslite.core.verify import Verifier

    pacs = open_pacs(load(config_file, data))
    with Bar(f"verify --{depth}") as bar:
        verifier = Verifier(pacs.catalog, pacs.stores, pacs.spool, read_limits(pacs.settings, pacs.spool.directory))
        report = verifier.run(deep=depth == "deep", repair=repair, progress=bar.update)
    pacs.close()
    say(as_json, dataclasses.asdict(report), _told(report, repair))
    return 0 if report.is_whole else EXIT_NO


def _told(report: VerifyReport, repair: bool) -> str:
    lines = [f"{report.checked} blobs checked, {report.damaged_count} damaged, {report.orphan_count} orphans."]
    lines += [f"  {one.problem}: {one.key} ({one.detail})" for one in report.damaged[:_SHOWN]]
    lines += [f"  orphan: {one.key} ({one.size_bytes} bytes)" for one in report.orphans[:_SHOWN]]
    if max(report.damaged_count, report.orphan_count) > _SHOWN:
        lines.append("  and more; --json lists them")
    if report.damaged_count and repair:
        aside = report.repaired_count - report.mended_count
        lines.append(f"{report.mended_count} were repaired from a second copy, {aside} put aside; send these again to make them whole.")
    elif report.damaged_count:
        lines.append("`pacslite verify --repair` puts what is damaged aside; then send these instances again to make them whole.")
    if report.orphan_count:
        lines.append("Orphans harm nobody; the worker removes them after two sweeps.")
    return "\n".join(lines)


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask before the catalog is emptied.")
@settings_options
@json_option
def reindex(yes: bool, config_file: str | None, data: str | None, as_json: bool) -> int:
    """Rebuild the whole catalog from the storage alone. Stop the server first. Exit 1 when something could not be recovered."""
    from pacslite import app, run_state
    from pacslite.cli.progress import Bar
    from pacslite.core.reindex import reindex as rebuild
    from pacslite.errors import Unavailable

    settings = load(config_file, data)
    running = run_state.read_all(settings.data)
    if running:
        raise Unavailable(f"process {running[0].pid} serves {settings.data}; stop it first, it would write into the catalog meanwhile")
    if not yes:
        click.confirm("The catalog is emptied and made again from the storage. Go on?", abort=True)
    pacs = app.build(settings)
    pacs.catalog.migrate()
    with Bar("reindex") as bar:
        report = rebuild(pacs, bar.update)
    pacs.close()
    say(as_json, dataclasses.asdict(report), _told_of_reindex(report))
    return EXIT_NO if report.refused or report.missing else 0


def _told_of_reindex(report: ReindexReport) -> str:
    lines = [f"{report.recorded} versions of instances and {report.files} of files recorded, {report.deleted} deletions repeated."]
    if report.copies:
        lines.append(f"{report.copies} blobs hold what is there anyhow; the worker's sweep removes them.")
    if report.not_journaled:
        lines.append(f"{len(report.not_journaled)} versions are in no journal: who sent them and when is not known any more.")
    if report.unknown_files:
        lines.append(
            f"{len(report.unknown_files)} files below patients/ are in no journal: whose they are is not known (or made of others)."
        )
    lines += [f"  missing: {key}" for key in report.missing[:_SHOWN]]
    lines += [f"  not readable: {key}: {reason}" for key, reason in report.refused[:_SHOWN]]
    return "\n".join(lines)


@click.command()
@click.option("--older-than-hours", type=click.FloatRange(min=0), default=24.0, show_default=True, help="0 takes everything.")
@settings_options
@json_option
def cleanup(older_than_hours: float, config_file: str | None, data: str | None, as_json: bool) -> None:
    """Remove what broken-off uploads left, and erase what was deleted, as the worker does every 24 hours. May run beside a server.

    With 0 deleted bytes go at once, without the time of grace in which they could be brought back.
    """
    from pacslite.core.cleanup import cleanup as clean_up

    pacs = open_pacs(load(config_file, data))
    done = clean_up(pacs, older_than_hours)
    pacs.close()
    text = f"{done.spool_files} spool files, {done.uploads} unfinished uploads and {done.erased} deleted blobs removed"
    say(as_json, done.told(), f"{text}, {done.freed_bytes} bytes.")
