"""`pacslite peer query`, `retrieve`, `send` and `commit`: what peers hold, and work with it.

Work is a job like every other; the command runs it itself and shows how far it is. When it is interrupted, or ends with
trouble that may pass, a running server's worker goes on with the job.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pacslite.cli import EXIT_NO
from pacslite.cli.jobs import line, plain
from pacslite.cli.options import json_option, load, open_pacs, say, settings_options

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.core.jobs import Job
    from pacslite.core.retrieve import Resource

F = TypeVar("F", bound=Callable[..., Any])
_SHOWN = 20
_LOOK_S = 0.2


def _resource_options(command: F) -> F:
    command = click.option("--instance", "instance", metavar="UID", help="One instance of the series.")(command)
    command = click.option("--series", "series", metavar="UID", help="One series of the study.")(command)
    return click.option("--study", "studies", multiple=True, required=True, metavar="UID", help="Study; may be repeated.")(command)


def _detach_option(command: F) -> F:
    return click.option("--detach", is_flag=True, help="Only queue the job: a running server does it.")(command)


def _resources(studies: Sequence[str], series: str | None, instance: str | None) -> list[Resource]:
    from pacslite.core.retrieve import Resource

    if series and len(studies) != 1:
        raise click.UsageError("--series belongs to one --study")
    return [Resource(study, series, instance) for study in studies]


@click.command()
@click.argument("ae_title", metavar="AET")
@click.option("--level", type=click.Choice(["patient", "study", "series", "instance"]), default="study", show_default=True)
@click.option("-k", "--key", "keys", multiple=True, metavar="KEYWORD=VALUE", help="What to match, or with no value to return.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Most matches to print.")
@settings_options
@json_option
def query(ae_title: str, level: str, keys: tuple[str, ...], limit: int, config_file: str | None, data: str | None, as_json: bool) -> None:
    """Ask the peer AET what it holds, by C-FIND or QIDO-RS."""
    from pacslite.core import remote

    pairs = [(name, value) for name, _, value in (key.partition("=") for key in keys)]
    wanted = {name: value for name, value in pairs if value}
    pacs = open_pacs(load(config_file, data))
    found = remote.query(pacs, ae_title, level, wanted, [name for name, _ in pairs], limit)
    pacs.close()
    lines = ["  ".join(f"{name}={value}" for name, value in record.items() if value) for record in found.records]
    lines.append(f"{len(found.records)} matches{', and more: --limit' if found.truncated else ''}")
    say(as_json, {"items": found.records, "total": len(found.records), "truncated": found.truncated}, "\n".join(lines))


@click.command()
@click.argument("ae_title", metavar="AET")
@_resource_options
@click.option(
    "--method", type=click.Choice(["auto", "get", "move", "wado"]), default="auto", show_default=True, help="C-GET, C-MOVE, WADO-RS."
)
@_detach_option
@settings_options
@json_option
def retrieve(
    ae_title: str,
    studies: tuple[str, ...],
    series: str | None,
    instance: str | None,
    method: str,
    detach: bool,
    config_file: str | None,
    data: str | None,
    as_json: bool,
) -> int:
    """Bring studies, a series or an instance from the peer AET. C-MOVE needs a running server that the peer knows."""
    from pacslite.core import remote_retrieve

    pacs = open_pacs(load(config_file, data))
    job = remote_retrieve.queue(pacs, ae_title, _resources(studies, series, instance), method, "local")
    return _do(pacs, job, "retrieve", detach, as_json)


@click.command()
@click.argument("ae_title", metavar="AET")
@_resource_options
@_detach_option
@settings_options
@json_option
def send(
    ae_title: str,
    studies: tuple[str, ...],
    series: str | None,
    instance: str | None,
    detach: bool,
    config_file: str | None,
    data: str | None,
    as_json: bool,
) -> int:
    """Send studies, a series or an instance to the peer AET, by C-STORE or STOW-RS."""
    from pacslite.core import remote_store

    pacs = open_pacs(load(config_file, data))
    job = remote_store.queue(pacs, ae_title, _resources(studies, series, instance), "local")
    return _do(pacs, job, "send", detach, as_json)


@click.command()
@click.argument("ae_title", metavar="AET")
@_resource_options
@click.option("--remove", is_flag=True, help="Remove the local copy of each instance that the peer has committed itself to.")
@_detach_option
@settings_options
@json_option
def commit(
    ae_title: str,
    studies: tuple[str, ...],
    series: str | None,
    instance: str | None,
    remove: bool,
    detach: bool,
    config_file: str | None,
    data: str | None,
    as_json: bool,
) -> int:
    """Ask the peer AET whether it keeps studies, a series or an instance for good (storage commitment).

    The answer comes to a running server, and may take the peer hours; the job waits for it.
    """
    from pacslite.core import remote_commit

    pacs = open_pacs(load(config_file, data))
    job = remote_commit.queue(pacs, ae_title, _resources(studies, series, instance), remove, "local")
    return _do(pacs, job, "commit", detach, as_json)


def _do(pacs: Pacs, job: Job, label: str, detach: bool, as_json: bool) -> int:
    """Run the job here, showing how far it is; the exit code."""
    if not detach:
        job = _run(pacs, job, label)
    pacs.close()
    result = job.result or {}
    lines = [line(job), *(f"  {name}: {value}" for name, value in result.items() if not isinstance(value, list))]
    failures = result.get("failures", ())
    lines += [f"  {one['sop_instance_uid']}: {one['reason']}" for one in failures[:_SHOWN]]
    if job.state == "queued":
        lines.append(f"  A running server goes on with it; `pacslite jobs show {job.uid}` tells how far it is.")
    say(as_json, plain(job), "\n".join(lines))
    return 0 if job.state == "succeeded" or (job.state == "queued" and not job.error) else EXIT_NO


def _run(pacs: Pacs, job: Job, label: str) -> Job:
    from pacslite import job_kinds
    from pacslite.cli.progress import Bar
    from pacslite.core import jobs

    stop = threading.Event()
    runner = job_kinds.runner(pacs, stop)
    taken = runner.take(job.id)
    # Unless a worker was faster.
    thread = threading.Thread(target=runner.run, args=(taken,), name="job") if taken else None
    with Bar(label) as bar:
        if thread:
            thread.start()
        try:
            while True:
                current = jobs.get(pacs.catalog, job.uid)
                bar.update(current.progress_done, current.progress_total or 0)
                if current.ended_at or (thread and not thread.is_alive()):
                    break
                if thread:
                    thread.join(_LOOK_S)
                else:
                    stop.wait(_LOOK_S)
        except BaseException:
            stop.set()
            if thread:
                thread.join()
            raise
    return jobs.get(pacs.catalog, job.uid)
