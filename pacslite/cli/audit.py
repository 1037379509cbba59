"""`pacslite audit`."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, TextIO

import click

from pacslite.cli import EXIT_NO
from pacslite.cli.options import json_option, load, local_user, open_catalog, say, settings_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacslite.core.audit import Entry, Filter
    from pacslite.core.audit_verify import AuditReport

_FILTERS = (
    click.option("--actor", help="Only of this user."),
    click.option("--action", help="Only this action (study.read), or all of a kind (study.*)."),
    click.option("--patient-id", "patient_id", help="Only of the patient of this number."),
    click.option("--study", "study_instance_uid", metavar="UID", help="Only about this study."),
    click.option("--outcome", type=click.Choice(["success", "refused", "failed"]), help="Only what came out like this."),
    click.option("--since", metavar="TIME", help="From this date or time on (ISO 8601; UTC without an offset)."),
    click.option("--until", metavar="TIME", help="Before this date or time."),
)


@click.group()
def audit() -> None:
    """What was done and refused: who, what, which study, from where. Verify that nobody has changed it."""


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def _filter(given: dict[str, str | None]) -> Filter:
    from pacslite.admin.audit import filter_of

    return filter_of({name: value for name, value in given.items() if value is not None})


def line(entry: Entry) -> str:
    """An entry on one line."""
    event = entry.event
    who = event.actor or event.calling_aet or "-"
    about = event.study_instance_uid or event.object_id
    return f"{entry.seq:>8}  {event.at[:19]}Z  {event.outcome:<7}  {event.action:<20} {who:<16} {event.address or '-':<15} {about}"


@audit.command("list")
@_filters
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many, the newest first.")
@settings_options
@json_option
def list_entries(limit: int, config_file: str | None, data: str | None, as_json: bool, **given: str | None) -> None:
    """Print entries, the newest first."""
    from pacslite.core import audit as core
    from pacslite.core import audit_chain
    from pacslite.core.audit_segments import plain

    wanted = _filter(given)
    settings = load(config_file, data)
    catalog = open_catalog(settings)
    audit_chain.advance(catalog, audit_chain.anchor_of(settings.data))
    found, _ = core.page(catalog, wanted, None, limit)
    catalog.close()
    say(as_json, [plain(entry) for entry in found], "\n".join(map(line, found)) or "There are no such entries.")


@audit.command()
@click.option(
    "--accept", is_flag=True, help="After a restored backup: go on from the log as it is, and keep the old anchor beside the new."
)
@settings_options
@json_option
def verify(accept: bool, config_file: str | None, data: str | None, as_json: bool) -> int:
    """Verify that no entry was changed, removed or added between others, by hashes and the anchor. Exit 1 when one was."""
    from pacslite.core import audit_chain
    from pacslite.core.audit_verify import verify as verify_log

    settings = load(config_file, data)
    catalog = open_catalog(settings)
    anchor = audit_chain.anchor_of(settings.data)
    audit_chain.advance(catalog, anchor)
    report = verify_log(catalog, anchor)
    if accept and not report.is_whole:
        audit_chain.accept(catalog, anchor, local_user(), report.problems[0].problem)
    catalog.close()
    say(as_json, {**dataclasses.asdict(report), "is_whole": report.is_whole}, _told(report))
    return 0 if report.is_whole else EXIT_NO


def _told(report: AuditReport) -> str:
    lines = [f"{report.entries} entries, {report.first} to {report.last}, anchored up to {report.anchored}."]
    lines += [f"  {one.problem}" for one in report.problems]
    if report.problem_count > len(report.problems):
        lines.append(f"  and {report.problem_count - len(report.problems)} more.")
    lines.append("Nothing was changed." if report.is_whole else "The audit log was changed.")
    return "\n".join(lines)


@audit.command()
@_filters
@click.option("--form", type=click.Choice(["json", "dicom"]), default="json", show_default=True, help="JSON lines, or PS3.15 A.5 messages.")
@click.option("--output", type=click.File("w", encoding="utf-8", lazy=True), default="-", help="File to write (default: stdout).")
@settings_options
def export(form: str, output: TextIO, config_file: str | None, data: str | None, **given: str | None) -> None:
    """Write entries, the oldest first, one a line."""
    import socket

    from pacslite.core import audit_chain
    from pacslite.core.audit_message import to_xml
    from pacslite.core.audit_segments import entries, plain

    wanted = _filter(given)
    settings = load(config_file, data)
    catalog = open_catalog(settings)
    audit_chain.advance(catalog, audit_chain.anchor_of(settings.data))
    source = settings.audit_source_id or socket.gethostname()
    for entry in entries(catalog, wanted):
        if form == "json":
            output.write(json.dumps(plain(entry), ensure_ascii=False) + "\n")
        else:
            output.write(to_xml(entry, source, settings.aet).decode() + "\n")
    catalog.close()
