"""`pacslite files`."""

from __future__ import annotations

import threading

import click

from pacslite.cli import EXIT_NO
from pacslite.cli.jobs import line, plain
from pacslite.cli.options import json_option, load, open_pacs, say, settings_options


@click.group()
def files() -> None:
    """What is made of files: pictures, MP4s, figures."""


@files.command()
@click.option("--file", "file_id", metavar="ID", help="Only of this file; else of all.")
@settings_options
@json_option
def regenerate(file_id: str | None, config_file: str | None, data: str | None, as_json: bool) -> int:
    """Make the pictures of files anew, and what could not be made before (a video without ffmpeg).

    MP4s that are there stay as they are: their hash is that of the file. The work is a job; done here unless a running server has
    taken it up.
    """
    from pacslite import job_kinds
    from pacslite.core import jobs, rendition_jobs

    pacs = open_pacs(load(config_file, data))
    job = rendition_jobs.queue_regenerate(pacs, file_id)
    runner = job_kinds.runner(pacs, threading.Event())
    taken = runner.take(job.id)
    if taken is not None:
        runner.run(taken)
    job = jobs.get(pacs.catalog, job.uid)
    pacs.close()
    result = job.result or {}
    lines = [line(job), *(f"  {name}: {value}" for name, value in result.items())]
    if not job.ended_at:
        lines.append(f"  A running server does it; `pacslite jobs show {job.uid}` tells how far it is.")
    say(as_json, plain(job), "\n".join(lines))
    return EXIT_NO if job.state == "failed" or result.get("failed") else 0
