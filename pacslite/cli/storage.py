"""`pacslite orphans`, `archive`, `policies`, `hold` and `storage`: what the jobs of `/api/v1/storage` do, here and now."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from pacslite.cli import EXIT_NO
from pacslite.cli.options import json_option, load, open_pacs, origin, say, settings_options
from pacslite.cli.progress import Bar

if TYPE_CHECKING:
    from pacslite.app import Pacs

_SHOWN = 50


class _Drawn:
    """A watcher that draws a bar, and is ended by the interrupt alone."""

    def __init__(self, bar: Bar) -> None:
        self.memo: dict[str, Any] = {}
        self._bar = bar

    def check(self) -> None:
        """Nobody cancels a command but by an interrupt."""

    def progress(self, done: int, total: int | None = None) -> None:
        """Draw it."""
        self._bar.update(done, total or 0)

    def remember(self, **memo: Any) -> None:
        """A command does not go on later."""


@contextmanager
def _opened(config_file: str | None, data: str | None) -> Iterator[Pacs]:
    pacs = open_pacs(load(config_file, data))
    try:
        yield pacs
    finally:
        pacs.close()


@click.command()
@click.option("--remove", is_flag=True, help="Erase bytes that no row names; younger than an hour are left alone.")
@settings_options
@json_option
def orphans(remove: bool, config_file: str | None, data: str | None, as_json: bool) -> int:
    """Look for bytes without rows and rows without bytes. May run beside a server. Exit 1 when a row lacks its bytes."""
    from pacslite.core.verification import find_orphans

    with _opened(config_file, data) as pacs, Bar("orphans") as bar:
        found = find_orphans(pacs, _Drawn(bar), remove=remove)
    lines = [f"{len(found['orphans'])} orphans, {found['removed']} removed; {len(found['missing'])} rows without their bytes."]
    lines += [f"  orphan: {one['key']} ({one['size_bytes']} bytes, {one['storage']})" for one in found["orphans"][:_SHOWN]]
    lines += [f"  {one['problem']}: {one['key']}" for one in found["missing"][:_SHOWN]]
    say(as_json, found, "\n".join(lines))
    return EXIT_NO if found["missing"] else 0


@click.command()
@click.option("--older-than-days", type=click.FloatRange(min=0), required=True, help="Days since the bytes were stored.")
@click.option("--to", help="Name of a storage (`archive` for instance); without it bytes are compressed where they are.")
@click.option("--type", "file_types", multiple=True, help="Only files of this type; `dicom` stands for instances. May be repeated.")
@click.option("--modality", "modalities", multiple=True, help="Only instances of series of this modality. May be repeated.")
@click.option("--dry-run", is_flag=True, help="Change nothing, tell how much it would be.")
@settings_options
@json_option
def archive(
    older_than_days: float,
    to: str | None,
    file_types: tuple[str, ...],
    modalities: tuple[str, ...],
    dry_run: bool,
    config_file: str | None,
    data: str | None,
    as_json: bool,
) -> None:
    """Move old bytes to an archive storage, or compress them in place; what is on legal hold stays. May run beside a server."""
    from pacslite.core import archival

    wish = archival.Wish(older_than_days, to, file_types, modalities, dry_run)
    with _opened(config_file, data) as pacs, Bar("archive") as bar:
        done = archival.archive(pacs, wish, _Drawn(bar))
    verb = "would be archived" if dry_run else "archived"
    text = f"{done.archived} blobs {verb}, {done.freed_bytes} bytes freed; {done.held} on legal hold."
    skipped = "".join(f" {count} {reason.replace('_', ' ')}." for reason, count in sorted(done.skipped.items()))
    say(as_json, dataclasses.asdict(done), text + skipped)


@click.command()
@click.option(
    "--apply", "do_apply", is_flag=True, help="Do the policies now, as is done once a day anyhow; else only tell what they would do."
)
@settings_options
@json_option
def policies(do_apply: bool, config_file: str | None, data: str | None, as_json: bool) -> None:
    """Tell what the retention policies of the settings (retention_policies) would do, or do them."""
    from pacslite.core import retention

    with _opened(config_file, data) as pacs, Bar("policies") as bar:
        done = retention.apply(pacs, _Drawn(bar), dry_run=not do_apply)
    verb = "done" if do_apply else "would be done"
    lines = [f"{p['name']}: {p['action']} {verb} with {p['done']} ({p['size_bytes']} bytes), {p['held']} held." for p in done["policies"]]
    say(as_json, done, "\n".join(lines) or "There are no retention policies.")


@click.command()
@click.argument("study")
@click.option("--lift", is_flag=True, help="Lift the hold.")
@settings_options
@json_option
def hold(study: str, lift: bool, config_file: str | None, data: str | None, as_json: bool) -> None:
    """Put the study of that UID on legal hold: nothing of it can be deleted, or is thinned out, until the hold is lifted."""
    from pacslite.core import legal_hold

    with _opened(config_file, data) as pacs:
        found = legal_hold.set_of_study(pacs.catalog, study, not lift, origin())
    value = {"study_instance_uid": study, "legal_hold": found is not None}
    say(as_json, value, f"Study {study} is on legal hold." if found else f"Study {study} is not on legal hold.")


@click.group()
def storage() -> None:
    """What is stored, and where."""


@storage.command()
@settings_options
@json_option
def stats(config_file: str | None, data: str | None, as_json: bool) -> None:
    """Print how much is stored, by type and by storage."""
    from pacslite.core.storage_stats import stats as count

    with _opened(config_file, data) as pacs:
        found = count(pacs)
    room = "?" if found.available_bytes is None else found.available_bytes
    lines = [f"{found.file_count} files, {found.total_size_bytes} bytes; {found.dedup_saved_bytes} saved; room for {room}."]
    lines += [f"  {name:<14} {one.count:>10} {one.size_bytes:>16}" for name, one in sorted(found.by_type.items())]
    lines += [f"  storage {b.name} ({b.kind}{', active' if b.active else ''}): {b.size_bytes} bytes" for b in found.backends]
    say(as_json, dataclasses.asdict(found), "\n".join(lines))


@storage.command()
@click.argument("required_bytes", type=click.IntRange(min=0))
@settings_options
@json_option
def space(required_bytes: int, config_file: str | None, data: str | None, as_json: bool) -> int:
    """Tell whether so many bytes can be stored. Exit 1 when not."""
    from pacslite.core.storage_stats import has_room

    with _opened(config_file, data) as pacs:
        enough = has_room(pacs, required_bytes)
    say(as_json, {"enough": enough}, "There is room." if enough else "There is not enough room.")
    return 0 if enough else EXIT_NO
