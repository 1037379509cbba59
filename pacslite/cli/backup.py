"""`pacslite backup` and `pacslite restore`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pacslite.cli import EXIT_NO
from pacslite.cli.options import json_option, load, open_pacs, origin, say, settings_options

if TYPE_CHECKING:
    from pacslite.core.backup import BackupReport
    from pacslite.core.backup_restore import RestoreReport

_SHOWN = 50
_PLACE = click.Path(file_okay=False, path_type=Path)
_target = click.argument("target", type=_PLACE)
_which = click.option("--backup", "backup_id", default="", help="Id of the backup, as `list` shows it (default: the newest).")


class _MadeByDefault(click.Group):
    """`pacslite backup TARGET` is `pacslite backup make TARGET`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["make", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_MadeByDefault)
def backup() -> None:
    """Back up catalog and storage into a directory: `pacslite backup TARGET`. May run beside a server.

    The options of that (--full, --keep, ...) are told by `pacslite backup make --help`.
    """


@backup.command()
@_target
@click.option("--incremental", "full", flag_value=False, default=False, help="Copy what the directory does not have yet (default).")
@click.option("--full", "full", flag_value=True, help="The same, after reading all that it has; what is damaged there is copied again.")
@click.option("--with-secret-key", is_flag=True, help="Include <data>/secret.key: who has the backup can then sign access tokens.")
@click.option("--keep", type=click.IntRange(min=1), help="Then remove all backups but the newest so many.")
@settings_options
@json_option
def make(
    target: Path, full: bool, with_secret_key: bool, keep: int | None, config_file: str | None, data: str | None, as_json: bool
) -> int:
    """Make a backup. Exit 1 when bytes that the catalog names were missing or damaged; they are listed, all else is backed up."""
    from pacslite.cli.progress import Bar
    from pacslite.core import backup as backups

    pacs = open_pacs(load(config_file, data))
    try:
        with Bar("backup") as bar:
            report = backups.make(pacs, target.absolute(), full=bool(full), with_secret_key=with_secret_key, progress=bar.update)
    finally:
        pacs.close()
    removed, freed = _pruned(target, keep) if keep else ([], 0)
    say(as_json, {**dataclasses.asdict(report), "removed": removed, "freed_bytes": freed}, _told(report, removed))
    return EXIT_NO if report.missing_count else 0


def _told(report: BackupReport, removed: list[str]) -> str:
    lines = [
        f"Backup {report.id}: {report.blobs} blobs, {report.size_bytes} bytes; {report.copied} copied now, {report.copied_bytes} bytes."
    ]
    lines += [f"  {problem}: {key}" for key, problem in report.missing[:_SHOWN]]
    if report.missing_count:
        lines.append(f"{report.missing_count} blobs are in no backup; `pacslite verify` tells more.")
    if removed:
        lines.append(f"Removed: {', '.join(removed)}.")
    return "\n".join(lines)


def _pruned(target: Path, keep: int) -> tuple[list[str], int]:
    from pacslite.core.backup_repository import Repository

    repository = Repository(target.absolute())
    repository.check()
    with repository.locked():
        return repository.prune(keep)


@backup.command("list")
@_target
@json_option
def list_backups(target: Path, as_json: bool) -> int:
    """Show the backups in a directory, oldest first. Exit 1 when the description of one is damaged."""
    from pacslite.core.backup_repository import Repository

    repository = Repository(target.absolute())
    repository.check()
    found, damaged = repository.descriptions()
    rows = [f"{one.id}  {one.blobs} blobs  {one.size_bytes} bytes  {one.copied_bytes} copied  {one.missing} missing" for one in found]
    rows += [f"{one}  damaged" for one in damaged]
    value = {"backups": [dataclasses.asdict(one) for one in found], "damaged": damaged}
    say(as_json, value, "\n".join(rows) or "There is no backup.")
    return EXIT_NO if damaged else 0


@backup.command()
@_target
@_which
@json_option
def verify(target: Path, backup_id: str, as_json: bool) -> int:
    """Read all that belongs to a backup and compare it with its digests. Exit 1 when something is damaged."""
    from pacslite.cli.progress import Bar
    from pacslite.core import backup_restore

    return _verified(target, backup_id, as_json, Bar, backup_restore.verify)


def _verified(target: Path, backup_id: str, as_json: bool, bar: Any, look: Any) -> int:
    from pacslite.errors import BackupDamaged

    try:
        with bar("verify") as drawn:
            report = look(target.absolute(), backup_id, drawn.update)
    except BackupDamaged as error:
        say(as_json, {"damaged": list(error.damaged), "problem": str(error)}, f"{error}.")
        return EXIT_NO
    say(as_json, dataclasses.asdict(report), _told_of_files(report, "are whole"))
    return EXIT_NO if report.damaged_count else 0


def _told_of_files(report: RestoreReport, what: str) -> str:
    lines = [f"Backup {report.id}: {report.files} files, {report.size_bytes} bytes {what}."]
    lines += [f"  {problem}: {name}" for name, problem in report.damaged[:_SHOWN]]
    if report.damaged_count:
        lines.append(f"{report.damaged_count} files are damaged; `pacslite backup --full` copies them again where they are still there.")
    lines += [f"  {problem} when the backup was made: {name}" for name, problem in report.missing[:_SHOWN]]
    return "\n".join(lines)


@backup.command()
@_target
@click.option("--keep", type=click.IntRange(min=1), required=True, help="How many of the newest backups stay.")
@json_option
def prune(target: Path, keep: int, as_json: bool) -> None:
    """Remove all backups but the newest, and what none of those needs."""
    removed, freed = _pruned(target, keep)
    say(as_json, {"removed": removed, "freed_bytes": freed}, f"{len(removed)} backups removed, {freed} bytes freed.")


@click.command()
@click.argument("source", type=_PLACE)
@_which
@click.option("--verify-only", is_flag=True, help="Only read the backup and compare it with its digests.")
@click.option("--without-damaged", is_flag=True, help="Leave out what is damaged in the backup, instead of refusing it.")
@settings_options
@json_option
def restore(
    source: Path, backup_id: str, verify_only: bool, without_damaged: bool, config_file: str | None, data: str | None, as_json: bool
) -> int:
    """Restore a backup to an empty place: the directory, database and storage of the settings. Exit 1 when the backup is damaged."""
    from pacslite import app, logs
    from pacslite.cli.progress import Bar
    from pacslite.core import audit, backup_restore
    from pacslite.errors import BackupDamaged

    if verify_only:
        return _verified(source, backup_id, as_json, Bar, backup_restore.verify)
    settings = load(config_file, data)
    logs.configure("warning" if settings.log_level == "info" else settings.log_level)
    pacs = app.build(settings)
    try:
        with Bar("restore") as bar:
            report = backup_restore.restore(pacs, source.absolute(), backup_id, without_damaged=without_damaged, progress=bar.update)
        audit.record(pacs.catalog, audit.change_of(origin(), "cli.restore", report.id, files=report.files, damaged=report.damaged_count))
    except BackupDamaged as error:
        say(as_json, {"damaged": list(error.damaged), "problem": str(error)}, f"{error}.")
        return EXIT_NO
    finally:
        pacs.close()
    say(as_json, dataclasses.asdict(report), _told_of_files(report, f"and {report.rows} rows of the catalog are restored"))
    return EXIT_NO if report.damaged_count else 0
