"""The command `pacslite`: parses options, starts a role or calls the core, says what came of it.

Exit codes: 0 done; 1 done, and the answer is no (damage found, instances refused, a peer that does not answer);
2 wrong usage or settings; 3 impossible as things are (address taken, catalog busy, storage away); 130 interrupted.
Commands are imported when they are used: `pacslite --help` loads nothing but this.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import Any

import click

from pacslite import __version__, private

# Code that is loaded leaves no garbage; to look for it every 700 objects is a fifth of the start. `roles.load` goes back to that.
_START_ALLOCATIONS = 50_000

EXIT_NO, EXIT_USAGE, EXIT_IMPOSSIBLE, EXIT_INTERRUPTED = 1, 2, 3, 130

# Command: (module in pacslite.cli, its object, one line of help, group of the overview)
_COMMANDS: dict[str, tuple[str, str, str]] = {
    "serve": ("serve", "serve", "Run the server: web, DICOM listener and background work."),
    "import": ("intake", "import_command", "Take in files and folders of DICOM instances."),
    "import-files": ("import_files", "import_files", "Take over photos, models, documents and DICOM files of another service."),
    "upload": ("upload", "upload", "Send files of a patient to a server; what broke off goes on."),
    "samples": ("intake", "samples", "Take in a small sample: drawn pictures, and test files of pydicom."),
    "peer": ("peers", "peer", "Keep the known peers; query them, retrieve from them, send to them."),
    "peers": ("peers", "peer", "The same as peer."),
    "audit": ("audit", "audit", "Look at the audit log, verify that nobody has changed it, export it."),
    "files": ("files", "files", "Make the pictures of files anew."),
    "jobs": ("jobs", "jobs", "Look at work in the background, cancel it, run it again."),
    "user": ("users", "user", "Keep the accounts of users."),
    "migrate": ("upkeep", "migrate", "Create the catalog or bring it to this release's schema."),
    "verify": ("upkeep", "verify", "Compare the catalog with the storage."),
    "orphans": ("storage", "orphans", "Look for bytes without rows and rows without bytes."),
    "archive": ("storage", "archive", "Move old bytes to an archive storage, or compress them."),
    "policies": ("storage", "policies", "Try or do the retention policies."),
    "hold": ("storage", "hold", "Put a study on legal hold, or lift that."),
    "storage": ("storage", "storage", "Tell what is stored, and whether there is room."),
    "reindex": ("upkeep", "reindex", "Rebuild the catalog from the storage alone."),
    "backup": ("backup", "backup", "Back up catalog and storage; list, verify and prune backups."),
    "restore": ("backup", "restore", "Make the server of a backup, in an empty place."),
    "cleanup": ("upkeep", "cleanup", "Remove what uploads and deletions have left behind."),
    "selftest": ("selftest", "selftest", "Store, verify, fetch and remove a synthetic instance."),
    "config": ("config", "config", "Show or check the settings."),
    "viewer": ("viewer", "viewer", "Install the OHIF viewer."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"pacslite.cli.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help) for name, (_, _, help) in _COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes and settings: docs/operations.md.",
)
@click.version_option(__version__, prog_name="pacslite")
@click.option("--config", "config_file", type=click.Path(dir_okay=False), help="TOML file of settings (else PACSLITE_CONFIG).")
@click.pass_context
def cli(context: click.Context, config_file: str | None) -> None:
    """A small PACS: DIMSE, DICOMweb and a viewer over one catalog and one storage."""
    context.obj = config_file


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits; errors raised on purpose become one line on stderr."""
    private.confine()
    gc.set_threshold(_START_ALLOCATIONS)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Runs the command line and puts on record how it ended; the exit code."""
    code = EXIT_IMPOSSIBLE
    try:
        code = _run(arguments)
    finally:
        options = sys.modules.get("pacslite.cli.options")
        if options is not None:
            options.record_end(code)
    return code


def _run(arguments: list[str]) -> int:
    from pacslite.errors import BadRequest, ConfigurationError, PacsliteError

    try:
        code: Any = cli.main(arguments, prog_name="pacslite", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except (ConfigurationError, BadRequest) as error:
        click.echo(f"pacslite: {error}", err=True)
        return EXIT_USAGE
    except PacsliteError as error:
        reason = getattr(error, "reason", "")
        click.echo(f"pacslite: {error}{': ' if reason else ''}{reason}", err=True)
        return EXIT_IMPOSSIBLE
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_NO
    return code if isinstance(code, int) else 0
